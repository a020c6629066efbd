"""A request that HTTP/1.1 may not carry is none in HTTP/2 either, and the other way round.

Each row of the corpus that can be said in frames is said in them.  What becomes of it, and what of
it reaches the upstream, has to be what the row says of HTTP/1.1.
"""

from __future__ import annotations

import re

import pytest

from proxy.errors import REASONS
from tests.fakes.framed import FramedCaller, Seen
from tests.fakes.framed_world import frame_caller
from tests.fakes.wired import Wired
from tests.wire.plane.corpus import Row, rows

_START = re.compile(rb"([^ \t]+) (/[^ \t]*|\*) HTTP/1\.1")
_FIELD = re.compile(rb"([^:]*):[ \t]*(.*?)[ \t]*", re.DOTALL)

# RFC 9113, 8.2.2: these are HTTP/1.1's own.
_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te",
     b"http2-settings")
)  # fmt: skip


class Request:
    """A row's first message, as frames can say it."""

    def __init__(self, row: Row, start: re.Match[bytes], fields: list[tuple[bytes, bytes]]) -> None:
        self.row = row
        self.start = start
        self.fields = fields
        self.rest = row.sends.partition(b"\r\n\r\n")[2]

    @property
    def is_served(self) -> bool:
        return bool(self.row.texts("sees"))

    def pairs(self) -> list[tuple[str, str]]:
        hosts = [value for name, value in self.fields if name == b"host"]
        first = [(b":method", self.start[1]), (b":scheme", b"http"), (b":path", self.start[2])]
        fields = self.fields
        if len(hosts) == 1:
            first.append((b":authority", hosts[0]))
            fields = [pair for pair in fields if pair[0] != b"host"]
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in first + fields]

    def body(self) -> bytes | None:
        lengths = [value for name, value in self.fields if name == b"content-length"]
        if self.is_served:
            return self.rest[: int(lengths[0])] if lengths else None
        return self.rest or None


def _said_in_frames(row: Row) -> Request | None:
    """Return the row's first message, None where HTTP/2 has no words for it."""
    head, end, _ = row.sends.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    start = _START.fullmatch(line)
    found = [_FIELD.fullmatch(line) for line in lines]
    if not end or start is None or start[1] == b"CONNECT" or not all(found):
        return None
    # Names are lower case in HTTP/2; a space before the colon makes none of them.
    fields = [(field[1].lower(), field[2]) for field in found if field]
    if any(name.strip() in _CONNECTION for name, _ in fields):
        return None
    if [name for name, _ in fields].count(b"cookie") > 1:
        return None  # RFC 9113, 8.2.3: they become one.
    return Request(row, start, fields)


REQUESTS = [said for row in rows("requests-*.yaml") if (said := _said_in_frames(row)) is not None]

# What HTTP/2 has another rule for, by its RFC.
_OTHERWISE = {
    # RFC 9113, 8.3.1: an authority must not be empty.
    "Host: an empty one": "request_malformed",
}


async def _ask(caller: FramedCaller, request: Request) -> Seen:
    body = request.body()
    caller.send_headers(1, request.pairs(), end=body is None)
    if body is not None:
        caller.send_data(1, body, end=True)
    return await caller.finished(1)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.row.name)
async def test_both_versions_have_one_set_of_rules(wired: Wired, request_: Request) -> None:
    row = request_.row
    async with await frame_caller(wired) as caller:
        seen = await _ask(caller, request_)

        refused = _OTHERWISE.get(row.name, None if request_.is_served else row.keys.get("refused"))
        if refused is not None:
            assert (seen.status, seen.reason) == (REASONS[refused].status, refused)
            assert wired.upstream.requests == []
            return
        assert (seen.status, seen.reason) == (200, "")
        _compare(wired, row)


def _compare(wired: Wired, row: Row) -> None:
    """Fail unless the upstream sees what it would see of a caller in HTTP/1.1."""
    (got,) = wired.upstream.requests
    expected, _, body = row.texts("sees")[0].partition(b"\r\n\r\n")
    start, *fields = expected.split(b"\r\n")
    assert (got.start, got.body) == (start, body)
    names = (b"host:", b"content-length:")
    lines = [_lower(line) for line in got.head.split(b"\r\n")[1:]]
    assert [line for line in lines if not line.startswith(names)] == [
        line for line in map(_lower, fields) if not line.startswith(names)
    ]


def _lower(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return name.lower() + b":" + value.strip(b" \t")


def test_most_of_what_is_about_heads_can_be_said_in_frames() -> None:
    assert len(REQUESTS) >= 150
    assert sum(request.is_served for request in REQUESTS) >= 60
