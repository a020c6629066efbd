"""Request heads whose fields were read before on the same connection.

A client sends most of its requests with the same fields, down to the byte, and another target.
What a field block means depends on nothing else in the head but the method and the version, so
the meaning of a connection's last one is kept, and only the new request line is looked at: a
seventh of an exchange's work in Python. llhttp has accepted that very block behind that method.
"""

from __future__ import annotations

import re

from proxy.plane.head import RequestHead
from proxy.plane.http1.heads import parse_request

# A target in origin form, every byte of which llhttp takes for a part of it (tests/unit holds
# them equal); a fragment is left to `parse_request`, which refuses it.
_LINE = re.compile(rb"([A-Z]+) (/[!\"$-~]*) HTTP/(1\.[01])")

# Longer ones are rare, and an idle connection keeps its last block, and the head it was in.
_LONGEST = 4096


class Recall:
    """Reads the request heads of one connection."""

    __slots__ = ("_block", "_head", "_known")

    def __init__(self) -> None:
        self._head = b""
        """The last head that was parsed, if it was short."""
        self._block = b""
        """The last head's lines behind its request line."""
        self._known: RequestHead | None = None
        """What it said."""

    def read(self, head: bytes) -> RequestHead:
        """Return what `parse_request` returns, and raise what it raises."""
        known = self._known
        if known is None:
            return self._learn(head)
        if head == self._head:
            return known  # Nobody changes what a head says.
        if head.endswith(self._block):
            line = _LINE.fullmatch(head, 0, len(head) - len(self._block))
            if line is not None:
                method, target, version = line.groups()
                if method == known.method and version == known.version:
                    return known.again(target, len(head))
        return self._learn(head)

    def _learn(self, head: bytes) -> RequestHead:
        result = parse_request(head)
        end = head.index(b"\r\n")
        # What an absolute target says comes before the fields; CONNECT has no target to vary.
        if len(head) - end <= _LONGEST and _LINE.fullmatch(head, 0, end):
            self._head = head if len(head) <= _LONGEST else b""
            self._block = head[end:]
            self._known = result
        return result
