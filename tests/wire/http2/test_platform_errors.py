"""Pages of Google's front end in HTTP/2: explained to gRPC and Connect, in their own framing."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator

import pytest

from tests.fakes.answers import PLATFORM, Answer
from tests.fakes.framed import Pairs, Seen
from tests.fakes.framed_world import Framed

MARK = "x-auth-proxy-platform-error"
CODES = {401: 16, 403: 7, 404: 12, 429: 14, 500: 2, 502: 14, 503: 14, 504: 14}


def request(path: str, kind: str) -> Pairs:
    return (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "orders.internal"),
        ("content-type", kind),
        ("te", "trailers"),
    )


@pytest.fixture
async def framed() -> AsyncIterator[Framed]:
    async with Framed() as world:
        yield world


async def told(framed: Framed, page: Answer, pairs: Pairs, *, pieces: bool = False) -> Seen:
    """Make a call that is answered with a page, and return what the caller sees."""
    caller = await framed.frames()
    caller.send_headers(1, pairs)
    caller.send_data(1, b"\0\0\0\0\0", end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    fields = [(name.decode(), value.decode()) for name, value in page.pairs]
    upstream.send_headers(1, [(":status", str(page.status)), *fields], end=not page.body)
    size = 50 if pieces else len(page.body)
    for at in range(0, len(page.body), size or 1):
        upstream.send_data(1, page.body[at : at + size], end=at + size >= len(page.body))
    return await caller.finished(1)


@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("page", PLATFORM, ids=str)
async def test_grpc_is_told_in_trailers_alone(
    framed: Framed, page: Answer, *, pieces: bool
) -> None:
    seen = await told(framed, page, request("/a.B/C", "application/grpc"), pieces=pieces)

    assert (seen.status, seen.head["grpc-status"]) == (200, str(CODES[page.status]))
    assert (seen.head[MARK], seen.head["content-type"]) == (str(page.status), "application/grpc")
    assert f"answered {page.status} in place of the service" in seen.head["grpc-message"]
    assert "x-auth-proxy-error" not in seen.head
    assert seen.body == b""


async def test_a_connect_stream_is_told_in_its_last_envelope(framed: Framed) -> None:
    page = next(answer for answer in PLATFORM if answer.status == 403)
    seen = await told(framed, page, request("/a.B/C", "application/connect+json"))

    assert (seen.status, seen.head[MARK]) == (200, "403")
    flags, size = struct.unpack(">BI", bytes(seen.body[:5]))
    assert (flags, size) == (2, len(seen.body) - 5)
    error = json.loads(seen.body[5:])["error"]
    assert error["code"] == "permission_denied"
    assert "answered 403 in place of the service" in error["message"]


async def test_a_stream_that_has_begun_is_never_replaced(framed: Framed) -> None:
    """Trailers after a message say how the application's stream ended."""
    caller = await framed.frames()
    caller.send_headers(1, request("/a.B/C", "application/grpc"), end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    upstream.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    upstream.send_data(1, b"\0\0\0\0\0")
    upstream.send_headers(1, [("grpc-status", "7")], end=True)

    seen = await caller.finished(1)
    assert (seen.status, bytes(seen.body)) == (200, b"\0\0\0\0\0")
    assert MARK not in seen.head
