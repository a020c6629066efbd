"""Streams to the upstream: how many connections, which one, and what becomes of those refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from proxy.config.model import Limits, Retries, Timeouts
from proxy.errors import ProxyError, UpstreamRefused
from proxy.plane.codec import ResponseSink
from proxy.plane.head import NOBODY
from proxy.plane.http2.standard import LAST_STREAM
from tests.fakes.framed import (
    GET,
    GRPC,
    POST,
    FramedCaller,
    FramedUpstream,
    FramedUpstreamEnd,
    Seen,
)
from tests.fakes.framed_world import Framed
from tests.fakes.raw import RawCaller
from tests.fakes.steering import settle

MOST = 3
MESSAGE = b"\0\0\0\0\x03abc"


@pytest.fixture
async def limited() -> AsyncIterator[Framed]:
    """A proxy whose upstream allows three streams on a connection."""
    async with Framed(FramedUpstream((3, MOST))) as world:
        yield world


def ask_all(caller: FramedCaller, count: int, first: int = 1) -> list[int]:
    """Begin so many requests and return their streams."""
    streams = [first + 2 * number for number in range(count)]
    for stream in streams:
        caller.send_headers(stream, GET, end=True)
    return streams


async def arrived(upstream: FramedUpstreamEnd, count: int) -> list[int]:
    """Wait until so many requests are open on a connection, and return their streams."""
    await upstream.until(lambda: len(open_on(upstream)) == count, f"{count} requests")
    return open_on(upstream)


def open_on(upstream: FramedUpstreamEnd) -> list[int]:
    return [number for number, seen in upstream.streams.items() if seen.ended and not seen.reset]


async def call(caller: FramedCaller, stream: int) -> Seen:
    """Make a gRPC call with one message."""
    caller.send_headers(stream, GRPC)
    caller.send_data(stream, MESSAGE, end=True)
    return caller.seen(stream)


# --- how many connections


async def test_calls_share_one_connection_as_far_as_the_upstream_allows(limited: Framed) -> None:
    caller = await limited.frames()

    streams = ask_all(caller, MOST)
    upstream = await limited.framed.accept()
    for stream in await arrived(upstream, MOST):
        upstream.answer(stream)

    assert [(await caller.finished(stream)).status for stream in streams] == [200] * MOST
    assert len(limited.framed.connections) == 1


async def test_one_call_more_takes_another_connection(limited: Framed) -> None:
    caller = await limited.frames()
    streams = ask_all(caller, MOST + 1)
    first = await limited.framed.accept()
    second = await limited.framed.accept()

    open_streams = [(first, await arrived(first, MOST)), (second, await arrived(second, 1))]
    for upstream, numbers in open_streams:
        for number in numbers:
            upstream.answer(number)

    assert [(await caller.finished(stream)).status for stream in streams] == [200] * (MOST + 1)


async def test_a_place_that_is_free_again_is_taken_before_another_connection(
    limited: Framed,
) -> None:
    caller = await limited.frames()
    ask_all(caller, MOST)
    upstream = await limited.framed.accept()
    streams = await arrived(upstream, MOST)
    upstream.answer(streams[0])
    await caller.finished(1)

    caller.send_headers(101, GET, end=True)
    await upstream.until(lambda: len(upstream.streams) == MOST + 1, "the fourth request")
    for stream in open_on(upstream)[1:]:
        upstream.answer(stream)

    assert (await caller.finished(101)).status == 200
    assert len(limited.framed.connections) == 1
    for stream in (3, 5):
        await caller.finished(stream)


async def test_a_hundred_streams_a_connection_are_enough_for_250_calls_at_once() -> None:
    async with Framed(FramedUpstream((3, 100), automatic=b"ok")) as world:
        caller = await world.frames()

        streams = ask_all(caller, 250)

        assert {(await caller.finished(stream)).status for stream in streams} == {200}
        assert len(world.framed.connections) <= 3
        assert world.route_stats.retries == {}


async def test_an_upstream_that_names_no_limit_gets_a_hundred_streams_a_connection() -> None:
    async with Framed() as world:
        caller = await world.frames()
        streams = ask_all(caller, 101)
        first, second = await world.framed.accept(), await world.framed.accept()

        await arrived(second, 1)
        for upstream, count in ((first, 100), (second, 1)):
            for stream in await arrived(upstream, count):
                upstream.answer(stream)
        for stream in streams:
            await caller.finished(stream)


async def test_a_limit_that_is_lowered_counts_for_further_calls(limited: Framed) -> None:
    caller = await limited.frames()
    ask_all(caller, 1)
    first = await limited.framed.accept()
    await arrived(first, 1)

    first.send_frame("SETTINGS", 0, 0, bytes.fromhex("000300000001"))
    await first.until(lambda: first.acknowledged == 2, "an acknowledgement")
    caller.send_headers(3, GET, end=True)
    second = await limited.framed.accept()

    await arrived(second, 1)
    for upstream in (first, second):
        upstream.answer(1)
    assert (await caller.finished(1)).status == (await caller.finished(3)).status == 200


async def test_a_limit_that_is_raised_lets_those_who_wait_begin() -> None:
    async with Framed(FramedUpstream((3, 1)), limits=Limits(connections=1)) as world:
        caller = await world.frames()
        streams = ask_all(caller, 3)
        upstream = await world.framed.accept()
        await arrived(upstream, 1)
        await world.until(lambda: world.connections.waiting == 2, "two who wait")

        upstream.send_frame("SETTINGS", 0, 0, bytes.fromhex("000300000003"))
        for stream in await arrived(upstream, 3):
            upstream.answer(stream)

        assert {(await caller.finished(stream)).status for stream in streams} == {200}


async def test_beyond_the_limit_of_connections_calls_wait_their_turn() -> None:
    async with Framed(FramedUpstream((3, 1)), limits=Limits(connections=1)) as world:
        caller = await world.frames()
        streams = ask_all(caller, 3)
        upstream = await world.framed.accept()

        for number in (1, 3, 5):
            await upstream.until(lambda n=number: upstream.seen(n).ended, "the next request")  # type: ignore[misc]  # a lambda's default
            assert open_on(upstream)[-1] == number
            upstream.answer(number)

        assert {(await caller.finished(stream)).status for stream in streams} == {200}
        assert len(world.framed.connections) == 1


async def test_who_waits_in_vain_is_told_that_the_proxy_is_at_its_limit() -> None:
    one, soon = Limits(connections=1), Timeouts(connect=0.05)
    async with Framed(FramedUpstream((3, 1)), limits=one, timeouts=soon) as world:
        caller = await world.frames()
        ask_all(caller, 1)
        upstream = await world.framed.accept()
        await arrived(upstream, 1)

        seen = await caller.ask(3)

        assert (seen.status, seen.reason, seen.head["retry-after"]) == (503, "overloaded", "1")
        upstream.answer(1)
        await caller.finished(1)


async def test_both_protocols_share_the_limit_of_connections() -> None:
    async with Framed(FramedUpstream(automatic=b"ok"), limits=Limits(connections=1)) as world:
        caller = await world.frames()
        assert (await caller.ask(1)).status == 200
        (http2,) = world.framed.connections

        lines = await world.caller()
        lines.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

        # The idle HTTP/2 connection gives its place to one that speaks HTTP/1.1.
        await http2.until(lambda: http2.ended, "the end of the idle connection")
        await world.until(lambda: len(world.framed.connections) == 2, "another connection")
        (_, other) = world.framed.connections
        await other.until(lambda: other.received.endswith(b"\r\n\r\n"), "a request")
        other.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert (await lines.answer()).status == 200


LINES = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def ask_in_lines(world: Framed, connection: int) -> tuple[RawCaller, FramedUpstreamEnd]:
    """Ask in HTTP/1.1; return the caller and the upstream's connection of that number."""
    caller = await world.caller()
    caller.send(LINES)
    return caller, await lines_arrived(world, connection)


async def lines_arrived(world: Framed, connection: int) -> FramedUpstreamEnd:
    """Wait until a request in HTTP/1.1 is on the upstream's connection of that number."""
    await world.until(lambda: len(world.framed.connections) > connection, "a connection")
    upstream = world.framed.connections[connection]
    await upstream.until(lambda: upstream.received.endswith(b"\r\n\r\n"), "a request")
    return upstream


async def who_wait(world: Framed, count: int) -> None:
    await world.until(lambda: world.connections.waiting == count, f"{count} who wait")


async def test_a_connection_that_falls_idle_makes_room_for_http_1() -> None:
    async with Framed(limits=Limits(connections=1)) as world:
        caller = await world.frames()
        ask_all(caller, 1)
        http2 = await world.framed.accept()
        await arrived(http2, 1)
        lines = await world.caller()
        lines.send(LINES)
        await who_wait(world, 1)

        http2.answer(1)

        (await lines_arrived(world, 1)).send(OK)
        assert (await lines.answer()).status == 200
        await http2.until(lambda: http2.ended, "the end of the idle connection")


async def test_a_connection_that_falls_idle_makes_room_for_http_2() -> None:
    async with Framed(limits=Limits(connections=1)) as world:
        lines, http1 = await ask_in_lines(world, 0)
        caller = await world.frames()
        ask_all(caller, 1)
        await who_wait(world, 1)

        http1.send(OK)

        assert (await lines.answer()).status == 200
        await world.until(lambda: len(world.framed.connections) == 2, "another connection")
        http2 = world.framed.connections[1]
        await arrived(http2, 1)
        http2.answer(1)
        assert (await caller.finished(1)).status == 200


async def test_who_has_waited_longest_is_next_whatever_it_speaks() -> None:
    async with Framed(limits=Limits(connections=1)) as world:
        first, http1 = await ask_in_lines(world, 0)
        caller = await world.frames()
        ask_all(caller, 1)
        await who_wait(world, 1)
        last = await world.caller()
        last.send(LINES)
        await who_wait(world, 2)

        http1.send(OK)

        assert (await first.answer()).status == 200
        await world.until(lambda: len(world.framed.connections) == 2, "another connection")
        http2 = world.framed.connections[1]
        await arrived(http2, 1)
        assert world.connections.waiting == 1
        http2.answer(1)
        (await lines_arrived(world, 2)).send(OK)
        assert (await last.answer()).status == 200


async def test_the_place_of_an_idle_connection_goes_to_one_only() -> None:
    """And a place that becomes free beside it to one more."""
    async with Framed(limits=Limits(connections=2)) as world:
        first, http1 = await ask_in_lines(world, 0)
        caller = await world.frames()
        ask_all(caller, 1)
        await world.until(lambda: len(world.framed.connections) == 2, "another connection")
        http2 = world.framed.connections[1]
        await arrived(http2, 1)
        waiting = [await world.caller() for _ in range(3)]
        for each in waiting:
            each.send(LINES)
        await who_wait(world, 3)

        http2.answer(1)
        http1.reset()

        assert (await first.answer()).status == 502
        assert await world.standstill(lambda: len(world.framed.connections), unlike=2) == 4
        assert world.connections.waiting == 1
        one, two = await lines_arrived(world, 2), await lines_arrived(world, 3)
        one.send(OK)
        await one.until(lambda: one.received.count(b"\r\n\r\n") == 2, "the last request")
        for end in (one, two):
            end.send(OK)
        assert [(await each.answer()).status for each in waiting] == [200, 200, 200]


async def test_an_idle_connection_is_closed_after_a_while(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    (upstream,) = framed.framed.connections
    assert framed.connections.idle == 1

    framed.pass_time(89.9)
    assert framed.connections.idle == 1
    framed.pass_time(0.2)

    assert framed.connections.idle == 0
    await upstream.until(lambda: upstream.ended, "the end of the idle connection")
    assert upstream.goaways == [(0, "NO_ERROR", "")]


# --- what the upstream refuses


@pytest.mark.parametrize("pairs", [GET, POST])
async def test_a_refused_stream_is_repeated_whatever_its_method(
    framed: Framed, pairs: object
) -> None:
    caller = await framed.frames()
    body = None if pairs is GET else b"body"
    caller.send_headers(1, pairs, end=body is None)  # type: ignore[arg-type]  # the two above
    if body:
        caller.send_data(1, body, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.send_reset(1, "REFUSED_STREAM")
    again = await upstream.request(3)
    upstream.answer(3)

    assert (await caller.finished(1)).status == 200
    assert bytes(again.body) == (body or b"")
    assert framed.route_stats.retries == {"refused": 1}


async def test_an_upstream_that_goes_on_refusing_is_asked_six_times(framed: Framed) -> None:
    await framed.serve(retries=Retries(backoff=0.001))
    caller = await framed.frames()
    seen = await call(caller, 1)
    upstream = await framed.framed.accept()

    for stream in (1, 3, 5, 7, 9, 11):
        await upstream.request(stream)
        upstream.send_reset(stream, "REFUSED_STREAM")

    await caller.finished(1)
    assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_reset")
    assert len(upstream.streams) == 6


async def test_a_refused_stream_whose_body_is_not_kept_is_not_repeated(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, POST)
    caller.send_data(1, bytes(65 * 1024 - 1025))
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.seen(1).body) > 60_000, "the body so far")
    caller.send_data(1, bytes(2000))
    await upstream.until(lambda: len(upstream.seen(1).body) > 65 * 1024, "more of it")

    upstream.send_reset(1, "REFUSED_STREAM")

    seen = await caller.finished(1)
    assert (seen.status, seen.reason) == (502, "upstream_reset")


async def test_a_refusal_lowers_what_a_connection_is_asked_and_success_raises_it(
    framed: Framed,
) -> None:
    caller = await framed.frames()
    ask_all(caller, 3)
    first = await framed.framed.accept()
    await arrived(first, 3)

    first.send_reset(5, "REFUSED_STREAM")
    second = await framed.framed.accept()
    await arrived(second, 1)
    second.answer(1)
    assert (await caller.finished(5)).status == 200

    first.answer(1)
    first.answer(3)
    for stream in (1, 3):
        await caller.finished(stream)
    ask_all(caller, 4, first=101)
    for stream in (await arrived(first, 7))[3:]:
        first.answer(stream)
    for stream in (101, 103, 105, 107):
        await caller.finished(stream)


async def test_a_goaway_moves_what_was_not_begun_and_lets_the_rest_end(framed: Framed) -> None:
    caller = await framed.frames()
    for stream in (1, 3, 5):
        await call(caller, stream)
    old = await framed.framed.accept()
    await arrived(old, 3)

    old.send_goaway(1)
    new = await framed.framed.accept()
    for stream in await arrived(new, 2):
        assert bytes(new.seen(stream).body) == MESSAGE
        new.answer(stream)
    assert (await caller.finished(3)).status == (await caller.finished(5)).status == 200
    assert not old.ended
    old.answer(1)

    assert (await caller.finished(1)).status == 200
    await old.until(lambda: old.ended, "the end of the old connection")
    assert framed.route_stats.retries == {"refused": 2}


async def test_after_a_goaway_further_calls_take_another_connection(framed: Framed) -> None:
    caller = await framed.frames()
    ask_all(caller, 1)
    old = await framed.framed.accept()
    await arrived(old, 1)
    old.send_goaway(2**31 - 1)
    await framed.until(lambda: framed.connections.busy == 1, "the connection that leaves")
    old.send_frame("PING", 0, 0, b"the mark")
    await old.until(lambda: old.pongs, "the answer to a ping")

    caller.send_headers(3, GET, end=True)
    new = await framed.framed.accept()
    await arrived(new, 1)
    new.answer(1)
    assert (await caller.finished(3)).status == 200
    old.answer(1)
    assert (await caller.finished(1)).status == 200


async def test_an_idle_connection_closes_when_told_to_go(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    (old,) = framed.framed.connections

    old.send_goaway(1)

    await old.until(lambda: old.ended, "the end of the connection")
    assert (await caller.ask(3)).status == 200
    assert len(framed.framed.connections) == 2


async def test_a_connection_whose_numbers_are_used_up_gives_way_to_another(framed: Framed) -> None:
    """RFC 9113, 5.1.1: stream identifiers cannot be reused."""
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    (connection,) = framed.http2_connections
    connection.highest = LAST_STREAM - 4

    for stream in (3, 5, 7):
        assert (await caller.ask(stream)).status == 200

    old, new = framed.framed.connections
    assert list(old.streams) == [1, LAST_STREAM - 2, LAST_STREAM]
    assert list(new.streams) == [1]
    await old.until(lambda: old.ended, "the end of the connection")


class Failing:
    """Takes the failure of an attempt, and nothing else."""

    def __init__(self) -> None:
        self.errors: list[ProxyError] = []

    def failed(self, error: ProxyError) -> None:
        self.errors.append(error)


async def test_a_stream_whose_connection_was_told_to_go_before_its_head_left_is_refused(
    framed: Framed,
) -> None:
    """So that its request is repeated, whatever its method: nothing was sent."""
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    (connection,) = framed.http2_connections
    (old,) = framed.framed.connections
    stream, sink = connection.open(), Failing()
    old.send_goaway(1)
    await framed.until(lambda: connection.is_leaving, "the word to go")
    assert not connection.is_closed

    stream.send_head(cast("ResponseSink", sink), NOBODY, target=b"/", authority=b"a", fields=b"")
    stream.flush()
    assert sink.errors == []  # Whoever sends does not expect it within the call.
    stream.flush()
    await settle()

    assert [type(error) for error in sink.errors] == [UpstreamRefused]
    assert not stream.wrote
    await old.until(lambda: old.ended, "the end of the connection")
    assert list(old.streams) == [1]


# --- connections that end


async def test_a_get_is_repeated_when_a_reused_connection_has_died(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    (old,) = framed.framed.connections
    framed.framed.automatic = None
    caller.send_headers(3, GET, end=True)
    await old.request(3)
    framed.framed.automatic = b"ok"

    old.reset()

    assert (await caller.finished(3)).status == 200
    assert framed.route_stats.retries == {"stale": 1}


async def test_a_post_is_not_repeated_when_its_connection_dies(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, POST)
    caller.send_data(1, b"x", end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.close()

    seen = await caller.finished(1)
    assert (seen.status, seen.reason) == (502, "upstream_reset")


async def test_a_get_that_kills_every_connection_kills_two(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    framed.framed.automatic = None
    caller.send_headers(3, GET, end=True)

    for _ in range(2):
        upstream = await framed.framed.accept()
        number = 3 if upstream.seen(1).ended else 1
        await upstream.request(number)
        upstream.close()

    seen = await caller.finished(3)
    assert (seen.status, seen.reason) == (502, "upstream_reset")
    assert len(framed.framed.connections) == 2


async def test_a_stream_that_the_upstream_resets_is_not_repeated(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    (upstream,) = framed.framed.connections
    framed.framed.automatic = None
    caller.send_headers(3, GET, end=True)
    await upstream.request(3)

    upstream.send_reset(3, "INTERNAL_ERROR")

    seen = await caller.finished(3)
    assert (seen.status, seen.reason) == (502, "upstream_reset")
    assert b"INTERNAL_ERROR" in seen.body


async def test_a_code_that_nobody_knows_is_named_by_its_number(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.send_frame("RST_STREAM", 1, 0, bytes.fromhex("00001234"))

    seen = await caller.finished(1)
    assert (seen.status, seen.reason) == (502, "upstream_reset")
    assert b"0x1234" in seen.body


async def test_calls_under_way_fail_when_their_connection_breaks(framed: Framed) -> None:
    caller = await framed.frames()
    for stream in (1, 3):
        await call(caller, stream)
    upstream = await framed.framed.accept()
    await arrived(upstream, 2)
    upstream.send_headers(1, ((":status", "200"),))
    await caller.headed(1)

    upstream.reset()

    # One had begun and is cut, the other gets an answer.
    assert (await caller.finished(1)).reset == "INTERNAL_ERROR"
    seen = await caller.finished(3)
    assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_reset")


# --- dialling


async def test_a_failed_dial_is_told_to_everybody_who_waits_for_it() -> None:
    async with Framed() as world:
        await world.framed.stop()
        caller = await world.frames()

        for stream in (1, 3, 5):
            await call(caller, stream)

        for stream in (1, 3, 5):
            seen = await caller.finished(stream)
            assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_connect_failed")
        assert world.route_stats.dials["upstream_connect_failed"] >= 1


async def test_a_failed_dial_is_repeated_where_the_route_says_so() -> None:
    retries = Retries(attempts=2, on=("connect_failed",), backoff=0.001)
    async with Framed(retries=retries) as world:
        port = world.framed.port
        await world.framed.stop()
        caller = await world.frames()
        await call(caller, 1)
        await world.until(lambda: world.route_stats.retries["connect_failed"] == 1, "a repeat")
        await world.framed.start(port=port)

        seen = caller.seen(1)
        await world.until(lambda: seen.done or world.framed.connections, "an outcome")
        if not seen.done:
            upstream = await world.framed.accept()
            await upstream.request(1)
            upstream.answer(1)
        assert (await caller.finished(1)).reason in ("", "upstream_connect_failed")


async def test_an_upstream_that_never_sends_its_settings_is_given_up() -> None:
    async with Framed(timeouts=Timeouts(connect=0.05)) as world:
        world.framed.greets = False
        caller = await world.frames()

        seen = await call(caller, 1)

        await caller.finished(1)
        assert (seen.head["grpc-status"], seen.reason) == ("4", "upstream_connect_timed_out")


async def test_an_upstream_that_allows_no_streams_is_as_good_as_none() -> None:
    async with Framed(FramedUpstream((3, 0))) as world:
        caller = await world.frames()

        seen = await call(caller, 1)

        await caller.finished(1)
        assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_connect_failed")


async def test_who_goes_away_while_a_connection_is_dialled_leaves_no_place_behind() -> None:
    async with Framed() as world:
        world.framed.greets = False
        caller = await world.frames()
        ask_all(caller, 2)
        upstream = await world.framed.accept()
        await world.until(lambda: world.connections.waiting == 2, "two who wait")

        caller.send_reset(1, "CANCEL")
        await world.until(lambda: world.connections.waiting == 1, "one who waits")
        upstream.greet()
        await upstream.request(1)
        upstream.answer(1)

        assert (await caller.finished(3)).status == 200
        assert world.connections.idle == 1


async def test_a_dial_goes_on_when_the_first_who_waits_goes_away() -> None:
    async with Framed() as world:
        world.framed.greets = False
        caller = await world.frames()
        ask_all(caller, 1)
        upstream = await world.framed.accept()

        caller.send_reset(1, "CANCEL")
        await world.until(lambda: world.connections.waiting == 0, "nobody who waits")
        upstream.greet()

        await world.until(lambda: world.connections.idle == 1, "the connection")


@pytest.mark.parametrize("answer_first", [True, False])
async def test_a_place_that_comes_to_who_leaves_in_the_same_turn_is_not_lost(
    *, answer_first: bool
) -> None:
    async with Framed(FramedUpstream((3, 1)), limits=Limits(connections=1)) as world:
        caller = await world.frames()
        ask_all(caller, 2)
        upstream = await world.framed.accept()
        await arrived(upstream, 1)
        await world.until(lambda: world.connections.waiting == 1, "one who waits")

        if answer_first:
            upstream.answer(1)
            caller.send_reset(3, "CANCEL")
        else:
            caller.send_reset(3, "CANCEL")
            upstream.answer(1)

        assert (await caller.finished(1)).status == 200
        # The only place is free for the next, on the same connection.
        caller.send_headers(5, GET, end=True)
        upstream.answer((await arrived(upstream, 2))[-1])
        assert (await caller.finished(5)).status == 200


async def test_a_reload_lets_streams_end_on_the_old_connection(framed: Framed) -> None:
    caller = await framed.frames()
    ask_all(caller, 1)
    old = await framed.framed.accept()
    await arrived(old, 1)

    await framed.serve(limits=Limits(connections=7))
    caller.send_headers(3, GET, end=True)
    new = await framed.framed.accept()
    await arrived(new, 1)
    new.answer(1)
    assert (await caller.finished(3)).status == 200
    old.answer(1)

    assert (await caller.finished(1)).status == 200
    await old.until(lambda: old.ended, "the end of the old connection")


async def test_a_reload_that_changes_nothing_keeps_the_connection(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)

    await framed.serve()
    await caller.ask(3)

    assert len(framed.framed.connections) == 1


async def test_calls_that_come_one_by_one_need_no_task(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1)
    before = set(asyncio.all_tasks())

    caller.send_headers(3, GET, end=True)
    seen = caller.seen(3)
    spawned: set[asyncio.Task[object]] = set()
    while not seen.done:
        spawned |= asyncio.all_tasks() - before
        await asyncio.sleep(0)

    assert spawned == set()
