"""Field lines of responses, each judged once.

Most lines of a response stood in others before: the server's name, the content's type, what
Connection says. What a line means depends on nothing else, so it is remembered; to look a line
up costs a fraction of what an expression takes to search for the ten names that matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.errors import UpstreamLoops, UpstreamMalformed
from proxy.plane.head import LOOP, OURS, join_repeated
from proxy.plane.message import count

Special = tuple[bytes, bytes]
"""Name, in lower case, and value of a field that is not passed on as it came."""

# RFC 9110, 7.6.1, and what older specifications and Go's and nginx' practice add to it.
_HOP_BY_HOP = frozenset(
    (
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade",
        b"proxy-authenticate", b"proxy-authentication-info",
    )
)  # fmt: skip
_LENGTH = b"content-length"

# Lines are remembered up to this length and number; then all are forgotten, so that lines which
# no other response has (a date, a trace) cannot fill memory.
_LONGEST = 128
_MOST = 1024

# So many lines are taken out of the list one by one, which is quickest for what is usual.
_FEW = 8

_known: dict[bytes, Special | int | None] = {}
_NEW: Final[Special] = (b"", b"")
_NONE: Final[Mapping[bytes, bytes]] = {}


def take_specials(lines: list[bytes]) -> tuple[int | None, Mapping[bytes, bytes]]:
    """Return the length of the body, and the fields that are not passed on.

    Those are about the connection, or in the proxy's own name.  `lines` are those of a head that
    llhttp has accepted: a name, a colon, a value, and one length at most.  Afterwards they are
    without those fields.  Of such a field that is repeated the values are joined (RFC 9110, 5.3).

    Raises:
        UpstreamMalformed: a length that not everybody reads alike.
        UpstreamLoops: the upstream is a proxy, and the request went round in a circle.
    """
    length: int | None = None
    hops: list[tuple[bytes, Special]] = []
    look_up = _known.get
    for line in lines:
        special = look_up(line, _NEW)
        if special is _NEW:
            special = _learn(line)
        if special is None:
            continue
        if isinstance(special, int):
            length = special
        else:
            hops.append((line, special))
    if not hops:
        return length, _NONE
    if len(hops) > _FEW:
        return length, _take_many(lines, hops)
    found: dict[bytes, bytes] = {}
    for line, (name, value) in hops:
        lines.remove(line)
        found[name] = found[name] + b", " + value if name in found else value
    return length, found


def _take_many(lines: list[bytes], hops: list[tuple[bytes, Special]]) -> Mapping[bytes, bytes]:
    """As the end of `take_specials`, in time that is linear in the lines."""
    gone = {line for line, _ in hops}
    lines[:] = [line for line in lines if line not in gone]
    return join_repeated(special for _, special in hops)


def _learn(line: bytes) -> Special | int | None:
    name, _, value = line.partition(b":")
    key = name.lower()
    special: Special | int | None = None
    if key == LOOP:
        raise UpstreamLoops("A loop, says the upstream, which is a proxy like this one.")
    if key in _HOP_BY_HOP or key.startswith(OURS):
        special = (key, value.strip(b" \t"))
    elif key == _LENGTH:
        special = count(value.strip(b" \t"))
        if special is None:
            raise UpstreamMalformed("Content-Length is beyond counting, or has leading zeros.")
    if len(line) <= _LONGEST:
        if len(_known) >= _MOST:
            _known.clear()
        _known[line] = special
    return special
