"""Header fields as they come out of a block, judged once however often they are repeated.

A field that stands in the compression table comes again with every exchange, so what has to
be found out about it (is its name valid, does it concern us) is found out when it is made.
"""

from __future__ import annotations

import enum
import re
from typing import Any, Final

from proxy.plane.guard import FETCH_METADATA
from proxy.plane.head import OURS
from proxy.plane.message import FRAMING_IN_DISGUISE, MOST_FIELDS

# RFC 9110, 5.1 and 5.6.2: a token; RFC 9113, 8.2.1: in lower case. A pseudo-header has a colon.
_NAME: Final = re.compile(rb":?[!#$%&'*+.^_`|~0-9a-z-]+")

# RFC 9113, 8.2.1 forbids NUL, CR, LF and white space at the ends. The other control characters
# are no field content either (RFC 9110, 5.5), and HTTP/1.1 callers may not send them.
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")

_PER_FIELD: Final = 4  # Bytes of ": " and CRLF: sizes are counted as if the head were HTTP/1.1.


class Kind(enum.IntEnum):
    """What a field is to the codec."""

    PLAIN = 0
    """Passed on without a look."""
    PSEUDO = 1
    NOTED = 2
    """The codec has to know of it, and mostly passes it on."""


_NOTED: Final = frozenset(
    (
        b"content-length", b"content-type", b"cookie", b"expect", b"host", b"origin", b"te",
        *FRAMING_IN_DISGUISE,
    )
)  # fmt: skip

_NOTED_PREFIXES: Final[tuple[bytes, ...]] = (OURS, FETCH_METADATA)

# RFC 9113, 8.2.2: they are about an HTTP/1.1 connection, and a message with one is malformed.
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


class Field:
    """One field; `flaw` says why no message may have it, and is empty where any may."""

    __slots__ = ("flaw", "kind", "line", "name", "size", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.line = b"\r\n%b: %b" % (name, value)
        """As a field block (see `proxy.plane.head`); only to be used where there is no flaw."""
        self.size = len(name) + len(value) + _PER_FIELD
        """Bytes that it takes of the limit of a head."""
        if name[:1] == b":":
            self.kind = Kind.PSEUDO
        else:
            is_noted = name in _NOTED or name.startswith(_NOTED_PREFIXES)
            self.kind = Kind.NOTED if is_noted else Kind.PLAIN
        self.flaw = _flaw(name, value)


def _flaw(name: bytes, value: bytes) -> str:
    if not _NAME.fullmatch(name):
        return "A field name is not a token in lower case."
    if name in _CONNECTION_SPECIFIC:
        return f"The field {name.decode()} has no place in HTTP/2."
    if not _VALUE.fullmatch(value):
        return f"The value of {name.decode()} has a character that no value may have."
    if name == b"te" and value.lower() != b"trailers":
        return "The field te may only say `trailers` in HTTP/2."
    return ""


class Fields:
    """The fields of one block, in order.

    Blocks repeat: the same `Fields` object stands for the same block again, and what a codec
    read out of it is kept in `meanings`.
    """

    __slots__ = ("items", "meanings", "never_indexed", "oversize", "size", "work")

    def __init__(self) -> None:
        self.items: list[Field] = []
        self.size = 0
        """Bytes, counted as if it were HTTP/1.1."""
        self.oversize = False
        """Whether it is larger than allowed, and `items` therefore not complete."""
        self.never_indexed: frozenset[bytes] = frozenset()
        """Names of the fields that their sender forbids to compress (RFC 7541, 6.2.3)."""
        self.meanings: dict[str, Any] = {}
        self.work = 0.0
        """Microseconds that it took to read the block, about."""

    def add(self, field: Field, limit: int) -> bool:
        """Count another field, and keep it unless the fields are more than allowed with it.

        Returns whether it was kept.
        """
        self.size += field.size
        if self.size <= limit and len(self.items) < MOST_FIELDS:
            self.items.append(field)
            return True
        self.oversize = True
        return False


def is_informational(fields: Fields) -> bool:
    """Tell whether a block is a head with a 1xx; whoever takes it judges whether it is valid."""
    items = fields.items
    if not items:
        return False
    # RFC 9113, 8.3: pseudo-headers come first, and a response has no other.
    first = items[0]
    return first.name == b":status" and first.value[:1] == b"1"
