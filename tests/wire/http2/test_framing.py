"""Where a response ends, for a caller in HTTP/1, whatever frame ended it at the upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from proxy.config.model import Protocol
from tests.fakes.framed import GET, FramedUpstreamEnd, Pairs
from tests.fakes.framed_world import Framed
from tests.fakes.raw import RawCaller

TRAILERS = (("x-sum", "1"),)

Give = Callable[[FramedUpstreamEnd, int, Pairs], None]


def head_alone(upstream: FramedUpstreamEnd, stream: int, head: Pairs) -> None:
    upstream.send_headers(stream, head, end=True)


def empty_data(upstream: FramedUpstreamEnd, stream: int, head: Pairs) -> None:
    upstream.send_headers(stream, head)
    upstream.send_data(stream, b"", end=True)


def data(upstream: FramedUpstreamEnd, stream: int, head: Pairs) -> None:
    upstream.send_headers(stream, head)
    upstream.send_data(stream, b"body", end=True)


def data_then_end(upstream: FramedUpstreamEnd, stream: int, head: Pairs) -> None:
    upstream.send_headers(stream, head)
    upstream.send_data(stream, b"body")
    upstream.send_data(stream, b"", end=True)


def trailers_alone(upstream: FramedUpstreamEnd, stream: int, head: Pairs) -> None:
    upstream.send_headers(stream, head)
    upstream.send_headers(stream, TRAILERS, end=True)


def data_and_trailers(upstream: FramedUpstreamEnd, stream: int, head: Pairs) -> None:
    upstream.send_headers(stream, head)
    upstream.send_data(stream, b"body")
    upstream.send_headers(stream, TRAILERS, end=True)


EMPTY: list[Give] = [head_alone, empty_data, trailers_alone]
FULL: list[Give] = [data, data_then_end, data_and_trailers]
# RFC 9110, 15: a body may follow each of these.
STATUSES = ["200", "201", "205", "301", "307", "400", "401", "404", "429", "500", "503"]


@pytest.fixture
async def world() -> AsyncIterator[Framed]:
    """Callers in HTTP/1 before an upstream in HTTP/2."""
    async with Framed(protocol=Protocol.H2) as made:
        yield made


class Calls:
    """One caller's connection; the upstream's is found by the first call."""

    def __init__(self, world: Framed, caller: RawCaller) -> None:
        self._world, self._caller = world, caller
        self._upstream: FramedUpstreamEnd | None = None
        self._stream = -1

    async def call(
        self, give: Give, head: Pairs, *, method: str = "GET", version: str = "1.1"
    ) -> bytes:
        """Return the framing fields of the answer and its body, as bytes on the wire."""
        self._stream += 2
        persists = "\r\nConnection: keep-alive" if version == "1.0" else ""
        self._caller.send(f"{method} / HTTP/{version}\r\nHost: a{persists}\r\n\r\n".encode())
        if self._upstream is None:
            self._upstream = await self._world.framed.accept()
        await self._upstream.request(self._stream)
        give(self._upstream, self._stream, head)
        await self._caller.until(
            lambda: b"\r\n\r\n" in self._caller.received and not self._world.plane.exchanges,
            "the answer",
        )
        answer = await self._caller.answer(bodyless=method == "HEAD")
        lines = answer.head.split(b"\r\n")[1:]
        assert not self._caller.received
        return b"".join(line + b"\r\n" for line in lines) + answer.raw[len(answer.head) + 4 :]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_that_ends_with_its_head_has_a_length_of_nothing(
    world: Framed, status: str, version: str
) -> None:
    calls = Calls(world, await world.caller())
    lasting = b"\r\nConnection: keep-alive" if version == "1.0" else b""

    for _ in range(2):  # The connection goes on behind it.
        got = await calls.call(head_alone, ((":status", status),), version=version)
        assert got == b"Content-Length: 0" + lasting + b"\r\n"


@pytest.mark.parametrize("give", EMPTY)
@pytest.mark.parametrize("status", STATUSES)
async def test_a_length_of_nothing_that_was_told_stands_there_once(
    world: Framed, give: Give, status: str
) -> None:
    calls = Calls(world, await world.caller())

    for _ in range(2):
        got = await calls.call(give, ((":status", status), ("content-length", "0")))
        assert got == b"content-length: 0\r\n"


async def test_a_field_that_speaks_of_lengths_is_no_length(world: Framed) -> None:
    calls = Calls(world, await world.caller())
    exposed = ("access-control-expose-headers", "content-length")

    got = await calls.call(head_alone, ((":status", "200"), exposed))

    assert got == b"access-control-expose-headers: content-length\r\nContent-Length: 0\r\n"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("give", [*EMPTY[1:], *FULL])
async def test_an_answer_without_a_length_comes_in_chunks(
    world: Framed, give: Give, status: str
) -> None:
    calls = Calls(world, await world.caller())
    body = b"4\r\nbody\r\n" if give in FULL else b""
    end = b"x-sum: 1\r\n" if give in (trailers_alone, data_and_trailers) else b""

    for _ in range(2):
        got = await calls.call(give, ((":status", status),))
        assert got == b"Transfer-Encoding: chunked\r\n" + body + b"0\r\n" + end + b"\r\n"


@pytest.mark.parametrize("give", FULL)
async def test_an_answer_with_a_length_keeps_it(world: Framed, give: Give) -> None:
    calls = Calls(world, await world.caller())

    for _ in range(2):
        got = await calls.call(give, ((":status", "200"), ("content-length", "4")))
        assert got == b"content-length: 4\r\nbody"


@pytest.mark.parametrize("give", FULL)
async def test_only_the_end_of_the_connection_ends_an_answer_without_length_in_http_1_0(
    world: Framed, give: Give
) -> None:
    caller = await world.caller()
    caller.send(b"GET / HTTP/1.0\r\n\r\n")
    upstream = await world.framed.accept()
    await upstream.request(1)

    give(upstream, 1, ((":status", "200"),))

    got = await caller.take_all()
    assert got == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody"


@pytest.mark.parametrize("give", EMPTY)
@pytest.mark.parametrize("length", [None, "0", "7"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_204_has_no_length_and_no_body(
    world: Framed, give: Give, length: str | None, version: str
) -> None:
    calls = Calls(world, await world.caller())
    told = () if length is None else (("content-length", length),)
    lasting = b"Connection: keep-alive\r\n" if version == "1.0" else b""

    for _ in range(2):
        # RFC 9110, 8.6: a server must not send Content-Length with 204.
        assert await calls.call(give, ((":status", "204"), *told), version=version) == lasting


@pytest.mark.parametrize("give", EMPTY)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200", "304", "404"])
async def test_a_length_of_a_body_that_is_not_there_is_passed_on(
    world: Framed, give: Give, method: str, status: str
) -> None:
    if (method, status) in (("GET", "200"), ("GET", "404")):
        method = "HEAD"  # RFC 9112, 6.3: only 304 and HEAD have no body.
    calls = Calls(world, await world.caller())

    for _ in range(2):
        head = ((":status", status), ("content-length", "7"))
        assert await calls.call(give, head, method=method) == b"content-length: 7\r\n"
        assert await calls.call(give, head[:1], method=method) == b""


async def test_an_informational_answer_has_no_length(world: Framed) -> None:
    caller = await world.caller()
    caller.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    upstream = await world.framed.accept()
    await upstream.request(1)

    upstream.send_headers(1, ((":status", "103"), ("content-length", "0"), ("x-a", "1")))
    upstream.send_headers(1, ((":status", "200"),), end=True)

    await caller.take(
        b"HTTP/1.1 103 Early Hints\r\nx-a: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.parametrize("status", ["204", "205", "304", "200"])
async def test_the_translation_the_other_way_keeps_what_was_told(
    world: Framed, status: str
) -> None:
    """A caller in HTTP/2 gets no length that nobody named: the frame tells the end."""
    caller = await world.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await world.framed.accept()
    await upstream.request(1)

    upstream.send_headers(1, ((":status", status),), end=True)

    seen = await caller.finished(1)
    assert (seen.frames, seen.pairs) == (["HEADERS!"], [(":status", status)])
