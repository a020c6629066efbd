"""The small HTTP client of the metadata server, byte by byte."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.identity.plain_http import BODY_BYTES, HEAD_BYTES, Broken, Response, get
from proxy.resolver import Resolver
from tests.fakes.raw_server import raw_server

OK = b"HTTP/1.1 200 OK\r\n"


async def ask(*pieces: bytes, hold: bool = False) -> Response:
    """Return what the client makes of these bytes."""
    async with raw_server(*pieces, hold=hold) as server, asyncio.timeout(5):
        return await get(
            "127.0.0.1",
            server.port,
            "/a?b=%2F",
            {"X-One": "1"},
            connect_within=3,
            resolver=Resolver(),
        )


async def test_the_request_is_what_was_asked_and_nothing_more() -> None:
    async with raw_server(OK + b"Content-Length: 0\r\n\r\n") as server:
        await get(
            "127.0.0.1",
            server.port,
            "/a?b=%2F",
            {"X-One": "1"},
            connect_within=3,
            resolver=Resolver(),
        )

    assert server.requests == [
        b"GET /a?b=%%2F HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-One: 1\r\nConnection: close\r\n\r\n"
        % server.port
    ]


async def test_a_body_ends_where_its_length_says_although_the_connection_stays() -> None:
    answer = await ask(OK + b"content-LENGTH: 5 \r\nX-A: b\r\n\r\nhello", hold=True)

    assert answer == Response(200, {"content-length": "5", "x-a": "b"}, b"hello")


async def test_a_body_may_come_in_chunks() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    answer = await ask(head, b"3\r\nabc\r\n", b"2;x=y\r\nde\r\n", b"0\r\n\r\n", hold=True)

    assert answer.body == b"abcde"


async def test_a_body_without_length_ends_with_the_connection() -> None:
    answer = await ask(OK + b"\r\nhel", b"lo")

    assert answer.body == b"hello"


async def test_an_answer_may_come_in_any_pieces() -> None:
    whole = OK + b"Metadata-Flavor: Google\r\nContent-Length: 5\r\n\r\nhello"
    answer = await ask(*(bytes([byte]) for byte in whole))

    assert answer.body == b"hello"
    assert answer.headers["metadata-flavor"] == "Google"


async def test_interim_responses_are_skipped() -> None:
    answer = await ask(b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n", OK + b"Content-Length: 0\r\n\r\n")

    assert (answer.status, answer.headers) == (200, {"content-length": "0"})


@pytest.mark.parametrize("size", [BODY_BYTES - 1, BODY_BYTES])
async def test_bodies_up_to_the_limit_are_read(size: int) -> None:
    body = b"x" * size

    assert (await ask(OK + b"Content-Length: %d\r\n\r\n" % size + body)).body == body
    assert (await ask(OK + b"\r\n" + body)).body == body
    chunks = b"%x\r\n" % (size - 1) + body[1:] + b"\r\n1\r\nx\r\n0\r\n\r\n"
    assert (await ask(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)).body == body


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "ended before"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "ended before"),
        (OK + b"Content-Length: 5\r\n\r\nhell", "ended before"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "ended before"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "no valid HTTP"),
        (OK + b"no colon\r\n\r\n", "no valid HTTP"),
        (OK + b"Name : a\r\n\r\n", "no valid HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "no valid HTTP"),
        (OK + b"Content-Length: 1_0\r\n\r\n", "no valid HTTP"),
        (OK + b"Content-Length: -1\r\n\r\n", "no valid HTTP"),
        (OK + b"Content-Length: %d\r\n\r\n" % (BODY_BYTES + 1) + b"x" * (BODY_BYTES + 1), "longer"),
        (OK + b"\r\n" + b"x" * (BODY_BYTES + 1), "longer than"),
        (OK + b"X: " + b"y" * 2 * HEAD_BYTES + b"\r\n\r\n", "beside its body"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_whole_response_is_refused_with_the_reason(
    answer: bytes, why: str
) -> None:
    with pytest.raises(Broken, match=why):
        await ask(answer)


async def test_a_connection_that_is_refused_is_an_os_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))

        with pytest.raises(ConnectionRefusedError):
            await get(
                "127.0.0.1", free.getsockname()[1], "/", {}, connect_within=3, resolver=Resolver()
            )


async def test_a_caller_that_gives_up_leaves_no_connection() -> None:
    async with raw_server(OK, hold=True) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await get("127.0.0.1", server.port, "/", {}, connect_within=3, resolver=Resolver())

    assert len(server.requests) == 1
