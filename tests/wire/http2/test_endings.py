"""Ends: of streams in both directions, of connections, and of the proxy itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy.config.model import Limits, Protocol, Timeouts
from proxy.plane.http2.downstream import DRAIN_TIMEOUT, END_TIMEOUT
from tests.fakes.framed import (
    GET,
    GRPC,
    POST,
    PREFACE,
    FramedCaller,
    FramedUpstream,
    FramedUpstreamEnd,
    Pairs,
    Seen,
)
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.wired import Wired

LAST = 2**31 - 1


# --- streams


async def test_a_call_that_is_given_up_ends_at_the_upstream_at_once(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).pairs, "the head")

    caller.send_reset(1, "CANCEL")

    assert (await upstream.finished(1)).reset == "CANCEL"
    assert framed.refusals == {"downstream_gone": 1}
    assert framed.route_stats.requests == {("h2", 499): 1}
    # The connection is in order.
    caller.send_headers(3, GET, end=True)
    await upstream.request(3)
    upstream.answer(3)
    assert (await caller.finished(3)).status == 200


async def test_a_call_that_is_given_up_within_its_response_ends_too(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    upstream.send_headers(1, ((":status", "200"),))
    upstream.send_data(1, b"some")
    await caller.until(lambda: caller.seen(1).body, "a part of the body")

    caller.send_reset(1, "CANCEL")

    await upstream.until(lambda: upstream.seen(1).reset, "a reset")
    assert upstream.seen(1).reset == "CANCEL"


async def test_a_caller_that_hangs_up_gives_up_all_its_calls(framed: Framed) -> None:
    caller = await framed.frames()
    for number in (1, 3):
        caller.send_headers(number, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.streams) == 2, "two heads")

    caller.finish()

    for number in (1, 3):
        assert (await upstream.finished(number)).reset == "CANCEL"
    await caller.until(lambda: caller.ended, "the end of the connection")


@pytest.mark.parametrize("code", ["CANCEL", "INTERNAL_ERROR", "ENHANCE_YOUR_CALM"])
async def test_a_response_that_the_upstream_cuts_is_cut(framed: Framed, code: str) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    upstream.send_headers(1, ((":status", "200"),))
    upstream.send_data(1, b"half")

    upstream.send_reset(1, code)

    seen = await caller.finished(1)
    assert (bytes(seen.body), seen.ended, seen.reset) == (b"half", False, "INTERNAL_ERROR")
    assert framed.refusals == {"upstream_reset": 1}


async def test_a_response_that_an_upstream_in_http1_cuts_is_cut(wired: Wired) -> None:
    wired.upstream.automatic = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
    async with await frame_caller(wired) as caller:
        caller.send_headers(1, GET, end=True)
        await caller.until(lambda: caller.seen(1).body == b"half", "half of the body")
        wired.upstream.connections[0].close()

        assert (await caller.finished(1)).reset == "INTERNAL_ERROR"


async def test_a_response_that_ends_early_ends_the_rest_of_the_request(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, POST)
    caller.send_data(1, b"some")
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).body, "a part of the body")

    upstream.answer(1, b"enough", ((":status", "413"),))

    seen = await caller.finished(1)
    await caller.until(lambda: seen.reset, "a reset")
    # RFC 9113, 8.1: NO_ERROR, so that the response is not thrown away.
    assert (seen.status, bytes(seen.body), seen.reset) == (413, b"enough", "NO_ERROR")
    await upstream.until(lambda: upstream.seen(1).reset, "a reset")
    assert upstream.seen(1).reset == "CANCEL"
    # What was on its way when the reset came is ignored.
    caller.send_data(1, b"more", end=True)
    caller.send_headers(3, GET, end=True)
    await upstream.request(3)
    upstream.answer(3)
    assert (await caller.finished(3)).status == 200


ANNOUNCED = (*POST, ("content-length", "4"))


async def answered_before_the_end(wired: Wired, caller: FramedCaller) -> Seen:
    """Send all of a body but END_STREAM, and return the whole answer."""
    caller.send_headers(1, ANNOUNCED)
    caller.send_data(1, b"body")
    seen = caller.seen(1)
    await caller.until(lambda: seen.ended, "the answer")
    assert (seen.status, bytes(seen.body), seen.reset) == (200, b"ok", "")
    assert not wired.plane.exchanges
    return seen


async def test_the_end_of_a_request_whose_announced_body_has_come_is_waited_for(
    wired: Wired,
) -> None:
    async with await frame_caller(wired) as caller:
        seen = await answered_before_the_end(wired, caller)
        wired.pass_time(END_TIMEOUT - 0.1)
        caller.send_data(1, b"", end=True)
        # The connection is in order, and nothing is left of the stream.
        assert (await caller.ask(3)).status == 200
        wired.pass_time(0.2)
        assert (await caller.ask(5)).status == 200

        assert seen.reset == ""
        (connection,) = wired.plane.connections
        assert connection.streams == {}  # type: ignore[attr-defined]  # an HTTP/2 connection


async def test_trailers_may_be_the_end_that_is_waited_for(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        seen = await answered_before_the_end(wired, caller)
        caller.send_headers(1, (("x-sum", "1"),), end=True)
        assert (await caller.ask(3)).status == 200

        assert seen.reset == ""


async def test_an_end_that_does_not_come_is_not_waited_for_longer(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        seen = await answered_before_the_end(wired, caller)
        wired.pass_time(END_TIMEOUT - 0.1)
        assert (await caller.ask(3)).status == 200
        assert seen.reset == ""
        wired.pass_time(0.2)

        await caller.until(lambda: seen.reset, "a reset")
        assert seen.reset == "NO_ERROR"
        caller.send_data(1, b"", end=True)
        assert (await caller.ask(5)).status == 200


@pytest.mark.parametrize("head", [POST, (*POST, ("content-length", "5"))])
async def test_where_more_of_the_body_may_come_its_end_is_not_waited_for(
    wired: Wired, head: Pairs
) -> None:
    await wired.serve(protocol=Protocol.H1, limits=Limits(body_bytes=3))
    async with await frame_caller(wired) as caller:
        caller.send_headers(1, head)
        caller.send_data(1, b"body")

        seen = await caller.finished(1)
        await caller.until(lambda: seen.reset, "a reset")
        assert (seen.status, seen.reset) == (413, "NO_ERROR")


async def test_a_body_that_goes_on_behind_its_length_is_the_callers_fault(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        seen = await answered_before_the_end(wired, caller)
        caller.send_data(1, b"more", end=True)

        await caller.until(lambda: seen.reset, "a reset")
        assert seen.reset == "PROTOCOL_ERROR"
        assert (await caller.ask(3)).status == 200


async def test_the_end_of_the_process_resets_what_only_waits_for_its_end(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        seen = await answered_before_the_end(wired, caller)
        (connection,) = wired.plane.connections
        connection.shut()

        await caller.until(lambda: seen.reset and caller.ended, "the end of the connection")
        assert seen.reset == "NO_ERROR"


async def test_a_reset_behind_a_whole_response_changes_nothing(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, POST)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).pairs, "the head")

    upstream.answer(1, b"done")
    upstream.send_reset(1, "NO_ERROR")

    seen = await caller.finished(1)
    assert (seen.status, bytes(seen.body)) == (200, b"done")


async def test_a_response_that_does_not_come_in_time_is_cancelled() -> None:
    async with Framed(timeouts=Timeouts(response=5.0)) as framed:
        caller = await framed.frames()
        caller.send_headers(1, GRPC)
        caller.send_data(1, b"x", end=True)
        upstream = await framed.framed.accept()
        await upstream.request(1)

        framed.pass_time(5.1)

        seen = await caller.finished(1)
        assert (seen.head["grpc-status"], seen.reason) == ("4", "upstream_timed_out")
        await upstream.until(lambda: upstream.seen(1).reset, "a reset")
        assert upstream.seen(1).reset == "CANCEL"


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with Framed(limits=Limits(body_bytes=10)) as framed:
        caller = await framed.frames()

        caller.send_headers(1, GRPC)
        caller.send_data(1, bytes(11))

        seen = await caller.finished(1)
        await caller.until(lambda: seen.reset, "a reset")
        assert (seen.head["grpc-status"], seen.reason) == ("8", "body_too_large")


async def test_a_call_without_a_route_is_told_so(framed: Framed) -> None:
    await framed.serve(path="/orders.Orders")
    caller = await framed.frames()

    seen = await caller.ask(1, GRPC, b"")

    assert (seen.status, seen.head["grpc-status"], seen.reason) == (200, "12", "route_not_found")
    assert seen.head["content-type"] == "application/grpc"


# --- draining


async def test_a_caller_is_asked_to_go_and_what_it_began_ends(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    caller.answers_pings = False

    framed.plane.drain()
    await caller.until(lambda: caller.pings, "a ping")
    assert caller.goaways == [(LAST, "NO_ERROR", "")]
    # It could not know: this one is still served.
    caller.send_headers(3, GET, end=True)
    await upstream.request(3)
    caller.send_frame("PING", 0, 1, caller.pings[0])
    await caller.until(lambda: len(caller.goaways) == 2, "the second GOAWAY")
    assert caller.goaways[1] == (3, "NO_ERROR", "")
    # It knows: this one is for somebody else.
    caller.send_headers(5, GET, end=True)
    assert (await caller.finished(5)).reset == "REFUSED_STREAM"

    upstream.answer(1)
    upstream.answer(3)
    assert (await caller.finished(1)).status == (await caller.finished(3)).status == 200
    await caller.until(lambda: caller.ended, "the end of the connection")


async def test_a_caller_that_does_not_answer_is_given_a_second(framed: Framed) -> None:
    caller = await framed.frames()
    await caller.until(lambda: caller.settings, "settings")
    caller.answers_pings = False

    framed.plane.drain()
    await caller.until(lambda: caller.pings, "a ping")
    framed.pass_time(DRAIN_TIMEOUT - 0.1)
    assert not caller.ended
    framed.pass_time(0.2)

    await caller.until(lambda: caller.ended, "the end of the connection")
    assert caller.goaways[-1] == (0, "NO_ERROR", "")


async def test_a_caller_that_comes_while_draining_is_served_and_asked_to_go(
    framed: Framed,
) -> None:
    framed.framed.automatic = b"ok"
    framed.plane.drain()
    caller = await framed.frames()
    assert caller.goaways == []

    seen = await caller.ask(1)

    assert seen.status == 200
    await caller.until(lambda: caller.ended, "the end of the connection")
    assert [code for _, code, _ in caller.goaways] == ["NO_ERROR"] * 2


async def test_a_drain_waits_for_what_a_caller_has_not_taken_yet(framed: Framed) -> None:
    framed.framed.automatic = b"x" * 1000
    caller = await framed.frames(window=0)
    caller.send_headers(1, GET, end=True)
    await caller.headed(1)
    framed.plane.drain()
    await framed.until(lambda: not framed.plane.exchanges, "the end of the exchange")
    drained = framed.plane.until(framed.plane.is_idle)
    idle = framed.plane.spawn(drained, "wait for the end of the drain")
    await caller.until(lambda: len(caller.goaways) == 2, "both GOAWAYs")
    assert not idle.done()

    caller.grant(1, 1000)

    assert len((await caller.finished(1)).body) == 1000
    await idle


async def test_the_end_of_the_process_cuts_what_is_open_and_keeps_what_is_done(
    framed: Framed,
) -> None:
    framed.framed.automatic = b"x" * 1000
    caller = await framed.frames(window=0)
    caller.send_headers(1, GET, end=True)
    await caller.headed(1)
    framed.framed.automatic = None
    caller.send_headers(3, GET, end=True)
    (upstream,) = framed.framed.connections
    await upstream.request(3)

    (connection,) = framed.plane.connections
    connection.shut()
    assert (await caller.finished(3)).reset == "CANCEL"
    caller.grant(1, 1000)

    assert len((await caller.finished(1)).body) == 1000
    await caller.until(lambda: caller.ended, "the end of the connection")
    assert caller.goaways == [(3, "NO_ERROR", "")]


async def test_a_cut_at_the_end_of_the_drain_is_told_to_the_caller(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).pairs, "the head")

    assert framed.plane.cut() == 1

    seen = await caller.finished(1)
    assert (seen.head["grpc-status"], seen.reason) == ("14", "draining")
    assert (await upstream.finished(1)).reset == "CANCEL"


# --- the preface


@pytest.mark.parametrize("size", [1, 3, 4, 10, 23])
async def test_the_preface_may_come_in_pieces(framed: Framed, size: int) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.caller()
    caller.send(PREFACE[:size])
    await framed.until(lambda: framed.plane.connections, "a connection")

    caller.send(PREFACE[size:] + bytes.fromhex("000000040000000000"))

    await caller.until(lambda: len(caller.received) >= 9, "settings")
    assert caller.received[3] == 4


@pytest.mark.parametrize("data", [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI / HTTP/1.1\r\n\r\n"])
async def test_what_only_resembles_the_preface_is_a_malformed_request(
    framed: Framed, data: bytes
) -> None:
    caller = await framed.caller()

    caller.send(data)

    await caller.refusal(400, "request_malformed")


async def test_a_preface_that_does_not_go_on_is_given_up(framed: Framed) -> None:
    caller = await framed.caller()
    caller.send(PREFACE[:10])
    await framed.until(
        lambda: [item for item in framed.plane.connections if item._begun],  # type: ignore[attr-defined]  # a detector
        "a part of the preface",
    )

    framed.pass_time(29.9)
    assert not caller.ended
    framed.pass_time(0.2)

    await caller.until(lambda: caller.ended, "the end of the connection")


async def test_a_caller_that_says_nothing_is_let_go_after_ten_minutes(framed: Framed) -> None:
    caller = await framed.caller()
    await framed.until(lambda: framed.plane.connections, "a connection")

    framed.pass_time(599.9)
    assert not caller.ended
    framed.pass_time(0.2)

    await caller.until(lambda: caller.ended, "the end of the connection")


async def test_a_connection_that_said_nothing_ends_with_the_process(framed: Framed) -> None:
    caller = await framed.caller()
    await framed.until(lambda: framed.plane.connections, "a connection")

    await framed.plane.stop()

    assert await caller.take_all() == b""


async def test_a_connection_whose_first_frame_is_no_settings_is_refused(framed: Framed) -> None:
    caller = await framed.caller()

    caller.send(PREFACE + bytes.fromhex("0000080600000000000000000000000000"))

    data = await caller.take_all()
    assert data.endswith(b"A frame comes where none of its kind may.")


async def test_an_upstream_that_falls_silent_in_its_greeting_is_not_waited_for() -> None:
    upstream = FramedUpstream()
    upstream.greets = False
    async with Framed(upstream, timeouts=Timeouts(connect=0.05)) as framed:
        caller = await framed.frames()

        seen = await caller.ask(1)

        assert (seen.status, seen.reason) == (504, "upstream_connect_timed_out")


# --- connections with many streams


HUNDRED = range(1, 200, 2)


async def hundred(framed: Framed) -> tuple[FramedCaller, FramedUpstreamEnd]:
    """Return a caller with a hundred calls under way, and the upstream that has them all."""
    caller = await framed.frames()
    for number in HUNDRED:
        caller.send_headers(number, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.streams) == 100, "a hundred heads")
    return caller, upstream


async def by_turn(left: Callable[[], int]) -> list[int]:
    """Return by how many less there are `left` after each turn of the loop, until there are 0."""
    steps = []
    before = left()
    while before:
        await asyncio.sleep(0)
        now = left()
        steps.append(before - now)
        before = now
    return steps


async def test_many_calls_of_a_caller_that_hangs_up_end_in_turns(framed: Framed) -> None:
    caller, upstream = await hundred(framed)

    caller.finish()
    steps = await by_turn(lambda: len(framed.plane.exchanges))

    assert (sum(steps), max(steps)) == (100, 4)
    assert framed.refusals == {"downstream_gone": 100}
    for number in HUNDRED:
        assert (await upstream.finished(number)).reset == "CANCEL"
    await framed.until(framed.plane.is_deserted, "the end of the connection")


async def test_nothing_leaves_behind_the_farewell_while_calls_end(framed: Framed) -> None:
    caller, upstream = await hundred(framed)
    answered: list[int] = []

    caller.send_frame("DATA", 0, 0, b"")
    await framed.until(lambda: len(framed.plane.exchanges) < 100, "the first ends")
    for number in HUNDRED:
        if not upstream.seen(number).reset:
            upstream.answer(number, b"late")
            answered.append(number)
    steps = await by_turn(lambda: len(framed.plane.exchanges))

    assert await caller.told_to_go() == "PROTOCOL_ERROR"
    assert len(answered) >= sum(steps) > 50
    await caller.until(lambda: caller.ended, "the end of the connection")
    assert not any(caller.seen(number).pairs for number in HUNDRED)


async def test_many_calls_end_in_turns_when_their_upstream_has_gone(framed: Framed) -> None:
    caller, upstream = await hundred(framed)

    upstream.reset()
    steps = await by_turn(lambda: len(framed.plane.exchanges))

    assert (sum(steps), max(steps)) == (100, 4)
    for number in HUNDRED:
        assert (await caller.finished(number)).reason == "upstream_reset"
    assert framed.connections.busy == 0


async def test_many_calls_that_an_upstream_has_not_begun_begin_elsewhere_in_turns(
    framed: Framed,
) -> None:
    caller, upstream = await hundred(framed)
    (connection,) = framed.http2_connections
    framed.framed.automatic = b"ok"

    upstream.send_goaway(0)
    for number in HUNDRED:
        upstream.answer(number, b"against its own word")
    steps = await by_turn(lambda: connection.active)

    assert (sum(steps), max(steps)) == (100, 4)
    for number in HUNDRED:
        caller.send_data(number, end=True)
        seen = await caller.finished(number)
        assert (seen.status, bytes(seen.body)) == (200, b"ok")


async def test_the_end_of_the_process_waits_for_calls_that_end_in_turns(framed: Framed) -> None:
    caller, _ = await hundred(framed)
    (connection,) = framed.plane.connections

    caller.finish()
    await framed.until(lambda: connection.is_closed, "its end")  # type: ignore[attr-defined]  # an HTTP/2 connection
    assert len(framed.plane.exchanges) > 50
    await framed.plane.stop()

    assert (len(framed.plane.exchanges), framed.plane.is_deserted()) == (0, True)
