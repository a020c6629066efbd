"""Connections to the upstream: reused while they are good, and never trusted beyond that."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import NoReturn

import pytest

from proxy.config.model import Limits
from proxy.plane.dial import Dialler
from proxy.plane.head import NOBODY, RequestHead
from proxy.plane.http1.pool import Pool
from proxy.plane.http1.upstream import Http1Upstream
from proxy.plane.stats import Connections
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.steering import settle
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def warm(wired: Wired) -> tuple[RawCaller, UpstreamEnd]:
    """Serve one request; return its caller and the connection that is idle then."""
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.serve(OK)
    await caller.take(OK)
    await wired.until(lambda: wired.connections.idle >= 1, "the return of the connection")
    return caller, upstream


async def test_a_connection_that_nobody_waits_for_any_more_is_not_counted(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller may go away between the end of the handshake and its task's next turn."""
    dialled: list[tuple[asyncio.Transport, Http1Upstream]] = []
    dial = Dialler.dial

    async def too_late(
        self: Dialler, factory: Callable[[], Http1Upstream], timeout: float
    ) -> NoReturn:
        dialled.append(await dial(self, factory, timeout))
        dialled[0][0].close()
        raise asyncio.CancelledError

    monkeypatch.setattr(Dialler, "dial", too_late)
    caller = await wired.caller()
    caller.send(GET)
    await wired.until(lambda: bool(dialled), "the dial")
    caller.close()
    await wired.until(lambda: dialled[0][1].is_closed, "the end of the connection")

    assert wired.connections == Connections()


def at_once(end: UpstreamEnd) -> socket.socket:
    """Return the socket of an end, to act on without a turn of the loop."""
    return socket.socket(fileno=os.dup(end._transport.get_extra_info("socket").fileno()))


async def test_a_connection_is_used_again(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    for _ in range(3):
        caller.send(GET)
        await upstream.serve(OK)
        await caller.take(OK)
    assert len(wired.upstream.connections) == 1


async def three_idle(wired: Wired) -> tuple[list[RawCaller], list[UpstreamEnd]]:
    """Return three callers, and the connections that served them, in the order of their use."""
    callers = [await wired.caller() for _ in range(3)]
    ends = []
    for caller in callers:
        caller.send(GET)
        ends.append(await wired.upstream.accept())
    for caller, end in zip(callers, ends, strict=True):
        await end.serve(OK)
        await caller.take(OK)
    return callers, ends


async def test_the_connection_used_last_is_used_next(wired: Wired) -> None:
    callers, ends = await three_idle(wired)

    callers[0].send(GET)
    await ends[2].serve(OK)
    await callers[0].take(OK)


async def test_an_idle_connection_is_closed_after_90_seconds(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    wired.pass_time(89)
    assert wired.connections.idle == 1
    wired.pass_time(1)
    await upstream.take_all()
    assert wired.connections.idle == 0
    caller.send(GET)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)


async def test_use_prolongs_the_life_of_a_connection(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    for _ in range(3):
        wired.pass_time(60)
        caller.send(GET)
        await upstream.serve(OK)
        await caller.take(OK)
    assert len(wired.upstream.connections) == 1


async def test_a_connection_that_expired_while_nobody_ran_is_not_used(wired: Wired) -> None:
    caller, _ = await warm(wired)

    wired.time.steady += 100  # The processor was withdrawn: no sweep has happened.
    caller.send(GET)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)
    assert wired.connections.busy == 0


async def test_an_upstream_that_closes_an_idle_connection_costs_nothing(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    upstream.close()
    await wired.until(lambda: wired.connections.idle == 0, "the end of the connection")
    caller.send(POST)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)
    assert wired.route_stats.retries == {}


async def test_a_fin_that_nobody_has_read_yet_is_noticed_before_use(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    # In one go, without a turn of the loop: the proxy's side gets both at once.
    caller.send(POST)
    with at_once(upstream) as sock:
        sock.shutdown(socket.SHUT_WR)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)
    assert wired.route_stats.retries == {}
    assert wired.connections.busy == 0


async def test_bytes_that_nobody_asked_for_close_the_connection(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await upstream.until(lambda: upstream.ended, "the end of the connection")
    assert wired.connections.idle == 0
    caller.send(GET)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)


async def test_bytes_that_nobody_has_read_yet_never_answer_the_next_request(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    caller.send(GET)
    with at_once(upstream) as sock:
        sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)


async def test_surplus_of_one_answer_never_answers_a_pipelined_request(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(GET + GET)
    upstream = await wired.upstream.accept()
    await upstream.head()

    upstream.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK + OK)


# --- connections that die when they are used again


@pytest.mark.parametrize("end", ["finish", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_an_idempotent_request_on_a_stale_connection_is_repeated(
    wired: Wired, method: str, end: str
) -> None:
    caller, stale = await warm(wired)
    caller.send(b"%b /x HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
    await stale.head()

    getattr(stale, end)()
    fresh = await wired.upstream.accept()
    assert (await fresh.request()).start == b"%b /x HTTP/1.1" % method.encode()
    fresh.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    await caller.take(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert wired.route_stats.retries == {"stale": 1}


async def test_the_body_is_repeated_too(wired: Wired) -> None:
    caller, stale = await warm(wired)
    caller.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    await stale.head()
    await stale.take(b"hello")

    stale.reset()
    fresh = await wired.upstream.accept()
    await fresh.head()
    await fresh.take(b"hello")
    caller.send(b"world")
    await fresh.take(b"world")
    fresh.send(OK)
    await caller.take(OK)


async def test_a_body_that_was_not_kept_is_not_repeated(wired: Wired) -> None:
    caller, stale = await warm(wired)
    size = 64 * 1024 + 1
    caller.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    await stale.request()

    stale.reset()
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_reset")


@pytest.mark.parametrize("method", ["POST", "PATCH", "FROB"])
async def test_a_request_that_may_have_been_executed_is_not_repeated(
    wired: Wired, method: str
) -> None:
    caller, stale = await warm(wired)
    caller.send(POST.replace(b"POST", method.encode()))
    await stale.request()

    stale.reset()
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_reset")
    assert len(wired.upstream.connections) == 1


async def test_nothing_is_repeated_once_an_answer_has_begun(wired: Wired) -> None:
    caller, stale = await warm(wired)
    caller.send(GET)
    await stale.head()

    stale.send(b"HTTP/1.1 200")
    await wired.until(lambda: True, "a turn")
    stale.finish()
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_reset")
    assert len(wired.upstream.connections) == 1


async def test_a_fresh_connection_that_dies_is_no_stale_one(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()

    upstream.reset()
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_reset")
    assert len(wired.upstream.connections) == 1


async def test_several_stale_connections_cost_one_repeat(wired: Wired) -> None:
    callers, ends = await three_idle(wired)
    callers[0].send(GET)
    await ends[2].head()

    # The first repeat goes over a connection that is certainly fresh.
    ends[2].reset()
    await (await wired.upstream.accept()).serve(OK)
    await callers[0].take(OK)
    assert wired.route_stats.retries == {"stale": 1}


async def test_an_upstream_that_answers_before_it_has_read_all_is_not_used_again(
    wired: Wired,
) -> None:
    caller = await wired.caller()
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    upstream = await wired.upstream.accept()
    await upstream.head()
    upstream.send(OK)

    await caller.take(OK)
    await upstream.until(lambda: upstream.ended, "the end of the connection")
    assert wired.connections.idle == 0


async def test_keep_alive_probes_are_on(wired: Wired) -> None:
    await warm(wired)

    (pool,) = wired.builder._pools.values()
    (connection,) = pool._http1._idle
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_a_reload_keeps_idle_connections(wired: Wired) -> None:
    caller, upstream = await warm(wired)

    await wired.serve(strip_path=False, set_headers=(("X-Set", "1"),))
    caller.send(GET)
    assert (await upstream.serve(OK)).value("x-set") == "1"
    await caller.take(OK)


async def test_a_reload_to_another_upstream_lets_running_exchanges_end(wired: Wired) -> None:
    caller, upstream = await warm(wired)
    caller.send(GET)
    await upstream.head()

    await wired.serve(limits=Limits(connections=7))
    upstream.send(OK)
    await caller.take(OK)
    await upstream.until(lambda: upstream.ended, "the end of the old connection")


# --- connections for what must not be repeated

PUT = POST.replace(b"POST", b"PUT")
DELETE = b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"
PROMISE = OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n")


async def served_anew(wired: Wired, caller: RawCaller, request: bytes, answer: bytes = OK) -> bool:
    """Serve one request; return whether a new connection was opened for it."""
    before = len(wired.upstream.connections)
    caller.send(request)
    ends = wired.upstream.connections
    await wired.until(lambda: any(end.received for end in ends), "the request")
    [end] = [end for end in ends if end.received]
    await end.serve(answer)
    assert (await caller.answer()).status == 200
    return len(ends) > before


@pytest.mark.parametrize(("idle", "anew"), [(0.49, False), (0.5, True), (60.0, True)])
@pytest.mark.parametrize("request_", [POST, PUT])
async def test_what_must_not_be_repeated_avoids_connections_that_may_be_ending(
    wired: Wired, idle: float, request_: bytes, *, anew: bool
) -> None:
    """Of this upstream nothing is known yet."""
    caller, _ = await warm(wired)
    wired.time.steady += idle

    assert await served_anew(wired, caller, request_) is anew


@pytest.mark.parametrize("request_", [GET, DELETE])
async def test_what_may_be_repeated_takes_any_connection(wired: Wired, request_: bytes) -> None:
    caller, _ = await warm(wired)
    wired.time.steady += 60.0

    assert not await served_anew(wired, caller, request_)


@pytest.mark.parametrize(("idle", "anew"), [(2.49, False), (2.5, True)])
async def test_what_the_upstream_promises_is_heeded(
    wired: Wired, idle: float, *, anew: bool
) -> None:
    """As Node's servers do it. The field itself is about the connection, and not passed on."""
    caller = await wired.caller()
    assert await served_anew(wired, caller, GET, PROMISE)
    wired.time.steady += idle

    assert await served_anew(wired, caller, POST) is anew


@pytest.mark.parametrize("noticed", ["at once", "when it is taken"])
@pytest.mark.parametrize(("idle", "anew"), [(0.19, False), (0.2, True)])
async def test_a_connection_that_was_found_closed_teaches_how_long_they_are_kept(
    wired: Wired, noticed: str, idle: float, *, anew: bool
) -> None:
    caller, end = await warm(wired)
    wired.time.steady += 0.4
    if noticed == "at once":
        end.close()
        await wired.until(lambda: wired.connections.idle == 0, "the end of the idle connection")
    else:
        with at_once(end) as sock:
            sock.shutdown(socket.SHUT_WR)
    assert await served_anew(wired, caller, GET)
    wired.time.steady += idle

    assert await served_anew(wired, caller, POST) is anew


async def test_a_connection_that_stays_open_teaches_that_others_will(wired: Wired) -> None:
    caller, _ = await warm(wired)
    wired.time.steady += 40.0
    assert await served_anew(wired, caller, POST)
    wired.time.steady += 19.9

    assert not await served_anew(wired, caller, POST)


async def test_an_upstream_that_outlasts_our_own_time_needs_no_care(wired: Wired) -> None:
    caller, end = await warm(wired)
    wired.pass_time(90)
    await end.take_all()
    assert await served_anew(wired, caller, POST)
    wired.time.steady += 89.9

    assert not await served_anew(wired, caller, POST)


async def test_a_connection_that_will_not_do_makes_room_for_another(wired: Wired) -> None:
    await wired.serve(limits=Limits(connections=1))
    caller, end = await warm(wired)
    wired.time.steady += 60.0

    assert await served_anew(wired, caller, POST)
    await end.take_all()
    assert wired.connections == Connections(idle=1)


# --- what it costs when many leave at once


def counted(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[object]:
    """Note each time that an object of `kind` is compared with another: in a search, say."""
    compared: list[object] = []

    def compare(self: object, other: object) -> bool:
        compared.append(other)
        return self is other

    monkeypatch.setattr(kind, "__eq__", compare, raising=False)
    return compared


@pytest.mark.pure
async def test_idle_connections_that_end_are_not_searched_for(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ends = await three_idle(wired)
    compared = counted(monkeypatch, Http1Upstream)

    for left, end in enumerate(reversed(ends)):
        end.finish()
        await wired.until(lambda n=left: wired.connections.idle == 2 - n, "its end")  # type: ignore[misc]  # a lambda's default

    assert compared == []


class Waiter(asyncio.Future[object]):
    """What the loop makes where somebody waits."""


async def test_who_leaves_before_its_turn_is_not_searched_for(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wired.serve(limits=Limits(connections=1))
    first = await wired.caller()
    first.send(GET)
    upstream = await wired.upstream.accept()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_future", lambda: Waiter(loop=loop))
    others = [await wired.caller() for _ in range(5)]
    for number, other in enumerate(others, 1):
        other.send(GET)
        await wired.until(lambda n=number: wired.connections.waiting == n, "who waits")  # type: ignore[misc]  # a lambda's default
    compared = counted(monkeypatch, Waiter)

    for other in reversed(others):
        other.close()
    await wired.until(lambda: wired.connections.waiting == 0, "nobody who waits")

    assert compared == []
    await upstream.serve(OK)
    await first.take(OK)


# --- whoever leaves in the turn in which something came for it


class Whole:
    """A request that has come whole and asks for a connection."""

    head: RequestHead = NOBODY
    is_whole = True


async def one_waits(wired: Wired) -> tuple[Pool, Http1Upstream, asyncio.Task[Http1Upstream]]:
    """Return a pool whose only connection is taken, that connection, and who waits for it."""
    await wired.serve(limits=Limits(connections=1))
    pool = wired.builder.routes["default"].destinations[0].pools._http1
    held = await pool.acquire(5.0, Whole())
    waiter = asyncio.ensure_future(pool.acquire(5.0, Whole()))
    await settle()
    assert pool.connections() == Connections(busy=1, waiting=1)
    return pool, held, waiter


@pytest.mark.parametrize("came_first", [True, False])
async def test_a_connection_that_came_for_one_who_leaves_is_kept(
    wired: Wired,
    came_first: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    pool, held, waiter = await one_waits(wired)
    if came_first:
        pool.release(held)
        waiter.cancel()
    else:
        waiter.cancel()
        pool.release(held)
    await settle()

    assert waiter.cancelled()
    assert pool.connections() == Connections(idle=1)
    assert pool.take(Whole()) is held
    pool.release(held)


@pytest.mark.parametrize("came_first", [True, False])
async def test_a_place_that_came_for_one_who_leaves_is_the_next_ones(
    wired: Wired,
    came_first: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    pool, held, waiter = await one_waits(wired)
    if came_first:
        held.close()
        waiter.cancel()
    else:
        waiter.cancel()
        held.close()
    await settle()

    assert waiter.cancelled()
    assert pool.connections() == Connections()
    pool.release(await pool.acquire(5.0, Whole()))
    assert pool.connections() == Connections(idle=1)


async def test_a_connection_that_ends_before_it_is_used_is_told_and_takes_no_place(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial = Dialler.dial

    async def dial_in_vain(
        self: Dialler, factory: Callable[[], Http1Upstream], timeout: float
    ) -> tuple[asyncio.Transport, Http1Upstream]:
        transport, connection = await dial(self, factory, timeout)
        connection.close()
        return transport, connection

    monkeypatch.setattr(Dialler, "dial", dial_in_vain)
    await wired.serve(limits=Limits(connections=1))
    caller = await wired.caller()
    for _ in range(2):
        answer = await caller.ask(GET)
        assert (answer.status, answer.value("x-auth-proxy-error")) == (
            502,
            "upstream_connect_failed",
        )
        assert b"closed the connection at once" in answer.body
        assert wired.connections == Connections()


async def test_each_idle_connection_is_closed_at_its_own_time(wired: Wired) -> None:
    callers, ends = await three_idle(wired)
    wired.pass_time(50)
    callers[0].send(GET)
    await ends[2].serve(OK)
    await callers[0].take(OK)
    await wired.until(lambda: wired.connections.idle == 3, "its return")

    left = []
    for seconds in (39, 1, 49, 1):
        wired.pass_time(seconds)
        left.append(wired.connections.idle)
    assert left == [3, 1, 1, 0]
