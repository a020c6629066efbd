"""Field lines of responses, each judged once.

Most lines of a response stood in others before: the server's name, the content's type, what
Connection says. What a line means depends on nothing else, so it is remembered; to look a line
up costs a fraction of what an expression takes to search for the ten names that matter.
"""

from __future__ import annotations

from typing import Final

Special = tuple[bytes, bytes]
"""Name, in lower case, and value of a field that is about the message or its connection."""

# RFC 9110, 7.6.1, and what older specifications and Go's and nginx' practice add to it.
_HOP_BY_HOP = frozenset(
    (
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade",
        b"proxy-authenticate", b"proxy-authentication-info",
    )
)  # fmt: skip
_LENGTH = b"content-length"
_SPECIAL = _HOP_BY_HOP | {_LENGTH}

# Lines are remembered up to this length and number; then all are forgotten, so that lines which
# no other response has (a date, a trace) cannot fill memory.
_LONGEST = 128
_MOST = 1024

_known: dict[bytes, Special | None] = {}
_NEW: Final[Special] = (b"", b"")


def take_specials(lines: list[bytes]) -> list[Special]:
    """Return the fields that are about the message or its connection, in order.

    `lines` are those of a head that llhttp has accepted: a name, a colon, a value.  Afterwards
    they are without those that are about the connection.
    """
    found: list[Special] = []
    hops: list[bytes] = []
    look_up = _known.get
    for line in lines:
        special = look_up(line, _NEW)
        if special is None:
            continue
        if special is _NEW:
            special = _learn(line)
            if special is None:
                continue
        found.append(special)
        if special[0] != _LENGTH:
            hops.append(line)
    for line in hops:
        lines.remove(line)
    return found


def _learn(line: bytes) -> Special | None:
    name, _, value = line.partition(b":")
    key = name.lower()
    special = (key, value.strip(b" \t")) if key in _SPECIAL else None
    if len(line) <= _LONGEST:
        if len(_known) >= _MOST:
            _known.clear()
        _known[line] = special
    return special
