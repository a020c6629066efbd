"""The admin listener's server: what nobody who connects to it may take away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from proxy.clock import Clocks
from proxy.config.model import Address
from proxy.ops.httpd import (
    ANSWER_SECONDS,
    BODY_BYTES,
    CONNECTIONS,
    HEAD_SECONDS,
    IDLE_SECONDS,
    LINGER_SECONDS,
    REQUEST_BYTES,
    HttpServer,
    Request,
    Response,
)
from proxy.ops.loglimit import RepeatLimiter

GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
SECOND = 0.001
"""What is too little for any deadline."""


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    while not holds():  # noqa: ASYNC110 (what is waited for tells nobody)
        await asyncio.sleep(0)


class World:
    """A server whose clock stands still, and what it was asked."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[Request] = []
        self.response = Response(body=b"yes\n")
        self.held: asyncio.Event | None = None
        self.server = HttpServer(
            self._answer, {"Server": "us"}, Clocks(wall=lambda: 0.0, steady=lambda: self.now)
        )
        self.address = Address()
        self.callers: list[Caller] = []

    async def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        if self.held is not None:
            await self.held.wait()
        return self.response

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.server.sweeper.sweep()

    async def caller(self) -> Caller:
        """Connect, and return once the server has taken the connection."""
        before = self.server.accepted
        caller = Caller(*await asyncio.open_connection(self.address.host, self.address.port))
        self.callers.append(caller)
        await until(lambda: self.server.accepted > before)
        return caller


class Caller:
    """One connection to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send without waiting."""
        self.writer.write(data)

    async def answer(self) -> bytes:
        """Return the next response of the handler, head and body."""
        return await self.reader.readuntil(b"yes\n")

    async def rest(self) -> bytes:
        """Return all that comes until the end, empty where the connection was reset."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""
        finally:
            self.writer.close()

    def is_open(self) -> bool:
        """Whether no end has been seen."""
        return not self.reader.at_eof() and self.reader.exception() is None


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.address = await world.server.start(Address("127.0.0.1", 0))
    async with asyncio.timeout(20):
        yield world
        for caller in world.callers:
            caller.writer.close()
        await world.server.stop()


Prepare = Callable[[World], Awaitable[Caller]]


async def _silent(world: World) -> Caller:
    return await world.caller()


async def _within_a_head(world: World) -> Caller:
    caller = await world.caller()
    caller.send(b"GET /x HTTP/1.1\r\nHost: loc")
    await _read_by(world, 25)
    return caller


async def _after_an_answer(world: World) -> Caller:
    caller = await world.caller()
    caller.send(GET)
    await caller.answer()
    return caller


async def _does_not_read(world: World) -> Caller:
    world.response = Response(body=b"x" * (32 << 20))
    caller = await world.caller()
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed: a WriteTransport
    caller.send(GET)
    connections = world.server.connections
    await until(lambda: any(each.may_go and each.is_answering for each in connections))
    return caller


async def _read_by(world: World, count: int) -> None:
    """Wait until the server has read so many bytes of a request."""
    await until(lambda: any(each.read_bytes >= count for each in world.server.connections))


@pytest.mark.parametrize(
    ("prepare", "seconds"),
    [
        (_silent, HEAD_SECONDS),
        (_within_a_head, HEAD_SECONDS),
        (_after_an_answer, IDLE_SECONDS),
        (_does_not_read, ANSWER_SECONDS),
    ],
)
async def test_whoever_is_waited_for_has_a_deadline(
    world: World, prepare: Prepare, seconds: float
) -> None:
    await prepare(world)
    (connection,) = world.server.connections

    world.later(seconds - SECOND)
    before = connection._transport.is_closing()
    world.later(SECOND)

    assert (before, connection._transport.is_closing()) == (False, True)
    await connection.ended


async def test_bytes_that_drip_do_not_move_the_deadline_of_a_head(world: World) -> None:
    caller = await _within_a_head(world)
    world.later(HEAD_SECONDS - SECOND)
    caller.send(b"alhost\r\n")
    await _read_by(world, 33)

    world.later(SECOND)

    assert await caller.rest() == b""
    assert world.asked == []


async def test_each_request_of_a_connection_has_its_time(world: World) -> None:
    caller = await _after_an_answer(world)
    world.later(IDLE_SECONDS - SECOND)
    caller.send(GET[:10])
    await _read_by(world, 10)
    world.later(HEAD_SECONDS - SECOND)
    caller.send(GET[10:])

    assert (await caller.answer()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_as_many_connections_as_it_takes_stay(world: World) -> None:
    callers = [await world.caller() for _ in range(CONNECTIONS)]

    callers[0].send(GET)

    assert await callers[0].answer()
    assert not any(each._transport.is_closing() for each in world.server.connections)


async def test_one_more_takes_the_place_of_whoever_was_silent_for_longest(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    callers = [await world.caller() for _ in range(CONNECTIONS)]
    callers[0].send(GET)
    await callers[0].answer()

    for _ in range(2):
        late = await world.caller()
        late.send(GET)
        assert await late.answer()
        callers.append(late)

    assert await callers[1].rest() == b""
    assert await callers[2].rest() == b""
    assert len(world.server.connections) == CONNECTIONS
    callers[0].send(GET)
    assert await callers[0].answer()
    assert _written(caplog) == ["the admin listener has 32 connections, as many as it takes"]


async def test_whoever_is_being_answered_does_not_make_room(world: World) -> None:
    world.held = asyncio.Event()
    callers = [await world.caller() for _ in range(CONNECTIONS)]
    for caller in callers:
        caller.send(GET)
    await until(lambda: len(world.asked) == CONNECTIONS)

    late = await world.caller()

    assert await late.rest() == b""
    world.held.set()
    for caller in callers:
        assert await caller.answer()


async def test_whoever_does_not_read_an_answer_makes_room(world: World) -> None:
    await _does_not_read(world)
    world.response = Response(body=b"yes\n")
    others = [await world.caller() for _ in range(CONNECTIONS - 1)]
    for other in others:
        other.send(GET)
        await other.answer()

    late = await world.caller()
    late.send(GET)

    assert await late.answer()


MALFORMED = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
)


@pytest.mark.parametrize("data", MALFORMED)
async def test_what_is_no_request_is_answered_400(world: World, data: bytes) -> None:
    caller = await world.caller()
    caller.send(data)

    assert (await caller.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert world.asked == []


async def test_many_malformed_requests_are_one_line_without_a_stack_trace(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for data in MALFORMED * 20:
        caller = await world.caller()
        caller.send(data)
        await caller.rest()

    assert len(caplog.records) == len(MALFORMED) * 20
    assert not any(record.exc_info for record in caplog.records)
    assert len(_written(caplog)) == 1


def _written(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines that the log's limiter lets through."""
    limiter = RepeatLimiter(lambda: 0.0)
    records = [each for each in caplog.records if each.name == "proxy.admin"]
    return [each.getMessage().partition(":")[0] for each in records if limiter.filter(each)]


@pytest.mark.parametrize(
    ("extra", "status"), [(-1, b"200 OK"), (0, b"200 OK"), (1, b"431 Request Header")]
)
@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_head_has_a_longest_length(
    world: World, extra: int, status: bytes, pieces: int
) -> None:
    padding = REQUEST_BYTES + extra - len(GET) - len(b"X: \r\n")
    head = GET[:-2] + b"X: " + b"x" * padding + b"\r\n\r\n"
    assert len(head) == REQUEST_BYTES + extra
    caller = await world.caller()
    size = -(-len(head) // pieces)
    for start in range(0, len(head), size):
        caller.send(head[start : start + size])
        await caller.writer.drain()
    caller.writer.write_eof()

    assert (await caller.rest()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("size", [BODY_BYTES - 1, BODY_BYTES, BODY_BYTES + 1])
async def test_a_body_is_thrown_away_up_to_a_length(world: World, size: int) -> None:
    caller = await world.caller()
    caller.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    caller.send(b"x" * size)

    status = b"200 OK" if size <= BODY_BYTES else b"413 "
    assert (await caller.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 " + status)


async def test_chunks_that_carry_nothing_end(world: World) -> None:
    caller = await world.caller()
    caller.send(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    caller.send(b"1;" + b"x" * REQUEST_BYTES)

    assert (await caller.rest()).startswith(b"HTTP/1.1 413 ")


async def test_requests_sent_ahead_are_not_answered(world: World) -> None:
    caller = await world.caller()
    caller.send(GET * 3)

    said = await caller.rest()

    assert said.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"\r\nConnection: close\r\n" in said
    assert len(world.asked) == 1


async def test_a_caller_that_never_closes_after_its_last_answer_is_closed(world: World) -> None:
    caller = await world.caller()
    caller.send(GET * 3)
    await until(lambda: bool(world.asked))
    assert await caller.rest()
    connections = list(world.server.connections)

    world.later(LINGER_SECONDS)

    assert all(each._transport.is_closing() for each in connections)


async def test_a_caller_that_has_closed_its_own_side_is_answered(world: World) -> None:
    caller = await world.caller()
    caller.send(GET)
    caller.writer.write_eof()

    assert (await caller.rest()).endswith(b"\r\n\r\nyes\n")


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET /x HTTP/1.1\r\nHost: x\r\n", True),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", False),
        (b"GET /x HTTP/1.0\r\n", False),
        (b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n", True),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", False),
    ],
)
async def test_a_connection_is_kept_as_the_caller_wants(
    world: World,
    head: bytes,
    keeps: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    caller = await world.caller()
    caller.send(head + b"\r\n")

    assert (b"\r\nConnection: keep-alive\r\n" in await caller.answer()) is keeps
    if keeps:
        caller.send(GET)
        assert await caller.answer()
    else:
        assert await caller.rest() == b""


async def test_a_caller_that_waits_for_100_is_told(world: World) -> None:
    caller = await world.caller()
    caller.send(b"POST /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    caller.send(b"{}")

    assert await caller.answer()


async def test_a_target_in_absolute_form_names_the_host(world: World) -> None:
    caller = await world.caller()
    caller.send(b"GET http://evil.example:9/a?b=c HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await caller.answer()

    (asked,) = world.asked
    assert (asked.path, asked.query, asked.headers["host"]) == ("/a", "b=c", "evil.example:9")


async def test_fields_that_repeat_are_joined(world: World) -> None:
    caller = await world.caller()
    caller.send(GET[:-2] + b"Accept: a\r\nACCEPT:  b \r\n\r\n")
    await caller.answer()

    assert world.asked[0].headers["accept"] == "a, b"


async def test_a_handler_that_fails_is_answered_500_and_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.response = None  # type: ignore[assignment]  # What no handler may return.
    caller = await world.caller()
    caller.send(GET[:-2] + b"Connection: close\r\n\r\n")

    assert (await caller.rest()).startswith(b"HTTP/1.1 500 ")
    assert "a bug in the admin listener" in caplog.text


async def test_stop_waits_for_an_answer_that_is_being_made(world: World) -> None:
    world.held = asyncio.Event()
    caller = await world.caller()
    caller.send(GET)
    await until(lambda: bool(world.asked))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.server.stop())
        await until(lambda: world.server.stopping)
        world.held.set()

        assert b"\r\nConnection: close\r\n" in await caller.rest()
