"""What costs its sender little and us much is bounded, and other callers notice nothing."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest

from proxy.config.model import Limits, Protocol
from proxy.plane.http2.downstream import (
    HEAD_TIMEOUT,
    IDLE_TIMEOUT,
    LATE_BYTES,
    MOST_STREAMS,
    STALL_TIMEOUT,
    Http2Downstream,
)
from proxy.plane.http2.share import TURN_SECONDS, Share
from tests.fakes.framed import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GET,
    GRPC,
    POST,
    FramedCaller,
    FramedUpstream,
    frame,
    setting,
)
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.wired import Wired

KIB = 1024


async def assert_calm(world: Wired, caller: FramedCaller) -> None:
    """The caller is told to calm down; somebody else is served, and nothing is left over."""
    assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"
    async with await frame_caller(world) as other:
        assert (await other.ask(1)).status == 200
    await world.until(lambda: not world.plane.exchanges, "the end of all exchanges")


# --- floods


async def test_rapid_resets_end_the_connection(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        for number in range(1, 2203, 2):
            caller.send_headers(number, GET, end=True)
            caller.send_reset(number, "CANCEL")

        await assert_calm(wired, caller)


async def test_a_thousand_calls_that_are_given_up_together_are_in_order(framed: Framed) -> None:
    caller = await framed.frames()
    streams = range(1, 2000, 2)
    for number in streams:
        caller.send_headers(number, GET, end=True)
    await framed.until(lambda: len(framed.plane.exchanges) == 1000, "a thousand exchanges")

    for number in streams:
        caller.send_reset(number, "CANCEL")
    await framed.until(lambda: not framed.plane.exchanges, "their end")
    framed.framed.automatic = b"ok"

    assert (await caller.ask(2001)).status == 200


async def test_resets_that_the_proxy_is_made_to_send_count_too(wired: Wired) -> None:
    # Each request is well-formed, and what follows makes the proxy reset its stream.
    async with await frame_caller(wired) as caller:
        for number in range(1, 2203, 2):
            caller.send_headers(number, POST)
            caller.send_frame("WINDOW_UPDATE", number, 0, bytes(4))

        await assert_calm(wired, caller)


async def test_malformed_requests_without_end_end_the_connection(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        for number in range(1, 2203, 2):
            caller.send_headers(number, (*GET, ("connection", "close")), end=True)

        await assert_calm(wired, caller)


@pytest.mark.parametrize(
    "one",
    [
        frame("PING", 0, 0, bytes(8)),
        frame("PING", 0, ACK, bytes(8)),
        frame("SETTINGS", 0, 0, b""),
        frame("SETTINGS", 0, 0, setting(4, 65535)),
        frame("PRIORITY", 1, 0, bytes(5)),
        frame(0xBB, 0, 0, b""),
        frame("WINDOW_UPDATE", 1, 0, struct.pack(">I", 1)),
        frame("DATA", 1, 0, b""),
        frame("DATA", 1, 8, b"\x03\0\0\0"),
    ],
    ids=[
        "PING", "answers to PING", "SETTINGS", "SETTINGS of windows", "PRIORITY", "unknown frames",
        "WINDOW_UPDATE", "empty DATA", "DATA of padding",
    ],
)  # fmt: skip
async def test_frames_that_carry_nothing_end_the_connection_when_there_are_too_many(
    wired: Wired, one: bytes
) -> None:
    async with await frame_caller(wired, window=65535) as caller:
        caller.send_headers(1, POST)
        caller.send(one * 900)
        caller.send_frame("PING", 0, 0, b"the mark")
        await caller.until(lambda: b"the mark" in caller.pongs, "the answer to a ping")
        assert caller.goaways == []

        caller.send(one * 1200)

        await assert_calm(wired, caller)


async def test_frames_that_carry_nothing_are_forgiven_with_time(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        for round_ in range(5):
            caller.send(frame("PING", 0, 0, bytes(8)) * 900)
            caller.send_frame("PING", 0, 0, b"mark %3d" % round_)
            await caller.until(lambda n=round_: b"mark %3d" % n in caller.pongs, "an answer")  # type: ignore[misc]  # a lambda's default
            wired.pass_time(10.0)

        assert (await caller.ask(1)).status == 200


async def test_answers_that_nobody_reads_do_not_pile_up(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.pause()
        (connection,) = wired.plane.connections
        # So that it is not the number of pings that ends it.
        connection.tolls.work.own.balance = 1e12  # type: ignore[attr-defined]  # an HTTP/2 connection
        sent = 0
        while not connection.is_closed and sent < 64 * KIB:  # type: ignore[attr-defined]  # an HTTP/2 connection
            caller.send(frame("PING", 0, 0, bytes(8)) * 900)
            sent += 1
            await wired.until(
                lambda: caller.unsent == 0 or connection.is_closed,  # type: ignore[attr-defined]  # as above
                "the pings to be read",
            )
            if connection._transport.get_write_buffer_size() > 2048 * KIB:  # type: ignore[attr-defined]  # an HTTP/2 connection
                break

        assert connection.is_closed  # type: ignore[attr-defined]  # an HTTP/2 connection
        caller.resume()


# --- what honest peers send


async def test_each_message_that_a_caller_gets_may_be_answered_by_a_ping(framed: Framed) -> None:
    """So gRPC in Go and in Rust measure the bandwidth: one PING for each DATA, one at a time."""
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).pairs, "the head")
    upstream.send_headers(1, ((":status", "200"),))

    for number in range(1, 3001):
        upstream.send_data(1, b"m")
        await caller.until(lambda n=number: len(caller.seen(1).body) == n, "a message")  # type: ignore[misc]  # a lambda's default
        caller.send_frame("PING", 0, 0, number.to_bytes(8, "big"))
    await caller.until(lambda: len(caller.pongs) == 3000, "all answers")

    assert caller.goaways == []
    upstream.send_headers(1, (("grpc-status", "0"),), end=True)
    caller.send_data(1, end=True)
    await caller.finished(1)


async def test_an_upstream_may_ping_for_each_call_of_ours(framed: Framed) -> None:
    """So a server of gRPC does, for each DATA that it gets; and some do a little more."""
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    await caller.ask(1, GRPC, b"x")
    (upstream,) = framed.framed.connections

    upstream.send(frame("PING", 0, 0, bytes(8)) * 3000)
    for number in range(3, 2003, 2):
        upstream.send_frame("PING", 0, 0, number.to_bytes(8, "big"))
        upstream.send_frame("SETTINGS", 0, 0, setting(4, 1_000_000 + number))
        seen = await caller.ask(number, GRPC, b"x")
        assert (seen.status, seen.reset) == (200, "")

    assert (len(framed.framed.connections), upstream.goaways) == (1, [])


async def test_an_upstream_that_does_nothing_but_ping_is_left(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.send(frame("PING", 0, 0, bytes(8)) * 11_000)

    assert await upstream.told_to_go() == "ENHANCE_YOUR_CALM"
    assert (await caller.finished(1)).reason == "upstream_malformed"


async def test_who_gives_up_every_other_call_is_served(framed: Framed) -> None:
    """So a caller does that sends each call twice and takes the first answer."""
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    for number in range(1, 6001, 4):
        caller.send_headers(number, (*POST, ("content-length", "9")))
        seen = await caller.ask(number + 2)
        assert seen.status == 200
        caller.send_reset(number, "CANCEL")

    assert caller.goaways == []


# --- turns


async def test_others_have_their_turn_while_one_has_much_to_say(framed: Framed) -> None:
    caller, other = await framed.frames(), await framed.frames()
    flood = b"".join(
        frame("HEADERS", number, END_HEADERS | END_STREAM, caller.encode(GET))
        for number in range(1, 1801, 2)
    )

    caller.send(flood)
    await framed.until(lambda: framed.plane.exchanges, "the first of them")
    other.send_frame("PING", 0, 0, b"me also!")
    await other.until(lambda: other.pongs, "an answer")

    assert len(framed.plane.exchanges) < 200  # One turn's under uvloop, two or three asyncio's.
    await framed.until(lambda: len(framed.plane.exchanges) == 900, "the last of them")
    for number in range(1, 1801, 2):
        caller.send_reset(number, "CANCEL")
    await framed.until(lambda: not framed.plane.exchanges, "their end")


async def test_what_waits_for_its_turn_is_bounded_and_nothing_of_it_is_lost(
    framed: Framed,
) -> None:
    caller = await framed.frames()
    caller.send_headers(1, POST)
    body = bytes(range(256)) * 250
    served = connection(framed)
    most = 0

    caller.send(b"".join(frame("DATA", 1, 0, bytes((byte,))) for byte in body))
    caller.send_data(1, b"", end=True)
    upstream = await framed.framed.accept()
    while not upstream.seen(1).ended:
        most = max(most, served.waiting)
        await framed.plane_turn()

    assert bytes(upstream.seen(1).body) == body
    # What may wait before reading stops, and the segment with which it does.
    assert 0 < most <= (64 + 256) * KIB
    upstream.answer(1)
    assert (await caller.finished(1)).status == 200


async def test_what_waits_for_its_turn_when_the_upstream_ends_is_delivered(
    framed: Framed,
) -> None:
    caller = await framed.frames()
    streams = range(1, 199, 2)
    for number in streams:
        caller.send_headers(number, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.streams) == len(streams), "all requests")

    for number in streams:
        upstream.send_headers(number, ((":status", "200"),))
        for _ in range(10):
            upstream.send_data(number, b"x")
        upstream.send_data(number, b"", end=True)
    upstream.finish()

    for number in streams:
        seen = await caller.finished(number)
        assert (seen.status, bytes(seen.body), seen.reset) == (200, b"x" * 10, "")


async def test_many_that_have_much_to_say_have_one_turn_together() -> None:
    async with Framed(FramedUpstream((3, 1000))) as framed:
        framed.framed.automatic = b"ok"
        modest = await framed.frames()
        assert (await modest.ask(1)).status == 200
        framed.framed.automatic = None
        callers = [await framed.frames() for _ in range(20)]
        largest, before = 0, 0
        for caller in callers:
            caller.send(b"".join(
                frame("HEADERS", number, END_HEADERS | END_STREAM, caller.encode(GET))
                for number in range(1, 81, 2)
            ))  # fmt: skip
        modest.send_frame("PING", 0, 0, b"me also!")
        while len(framed.plane.exchanges) < 20 * 40:
            await framed.plane_turn()
            now = len(framed.plane.exchanges)
            largest, before = max(largest, now - before), now
            if not modest.pongs:
                assert now < 200

        # Two connections of 15 exchanges, one of each kind, and one as the turn began.
        assert largest <= 3 * 16
        assert modest.pongs


async def test_little_is_begun_in_a_turn_while_what_was_begun_keeps_others_waiting(
    framed: Framed,
) -> None:
    ticks = itertools.count()
    framed.host.share = Share(lambda: next(ticks) * 2 * TURN_SECONDS)
    caller = await framed.frames()
    served = connection(framed)

    caller.send(b"".join(
        frame("HEADERS", number, END_HEADERS | END_STREAM, caller.encode(GET))
        for number in range(1, 121, 2)
    ))  # fmt: skip
    begun: list[int] = [0]
    while served.highest < 119:
        await framed.plane_turn()
        begun.append((served.highest + 1) // 2)
    steps = [after - before for before, after in itertools.pairwise(begun) if after != before]

    # That they keep others waiting can be known when those who wait have had a turn.
    assert sum(steps[:3]) <= 45
    assert set(steps[3:]) == {1}


async def test_what_is_given_up_takes_its_part_of_a_turn(framed: Framed) -> None:
    caller = await framed.frames()
    served = connection(framed)
    largest, before = 0, 0

    caller.send(b"".join(_given_up_at_once(caller, number) for number in range(100)))
    while served.highest < 199:
        await framed.plane_turn()
        largest, before = max(largest, (served.highest - before) // 2), served.highest

    # Eight that are begun and ended; fourteen that only begin take as long.
    assert largest <= 9


async def test_many_that_come_at_once_are_served_a_few_in_each_turn(framed: Framed) -> None:
    callers = [await framed.frames() for _ in range(100)]
    largest, before = 0, 0

    for caller in callers:
        caller.send_headers(1, GET, end=True)
    while len(framed.plane.exchanges) < 100:
        await framed.plane_turn()
        now = len(framed.plane.exchanges)
        largest, before = max(largest, now - before), now

    assert largest <= 2 * 17


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_so_much_is_thrown_away_of_what_comes_after_the_end(wired: Wired, extra: int) -> None:
    async with await frame_caller(wired) as caller:
        served = connection(wired)
        caller.send_frame("PING", 0, 0, b"too short"[:4])
        assert await caller.told_to_go() == "FRAME_SIZE_ERROR"

        caller.send(bytes(LATE_BYTES + extra))

        await wired.until(lambda: served._late == LATE_BYTES + extra or caller.closed, "all of it")
        for _ in range(3):
            await wired.plane_turn()
        assert (served not in wired.plane.connections) is (extra > 0)


# --- who comes again


async def test_who_spends_its_allowance_again_and_again_has_less_each_time(wired: Wired) -> None:
    served: list[int] = []
    async with await frame_caller(wired) as honest:
        for _ in range(8):
            async with await frame_caller(wired) as caller:
                caller.send(b"".join(_given_up_at_once(caller, number) for number in range(400)))
                assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"
                served.append(caller.goaways[-1][0])

        # One that is served notices nothing, on an old connection and on a new one.
        assert (await honest.ask(1)).status == 200
        async with await frame_caller(wired) as other:
            assert (await other.ask(1)).status == 200
    # The last streams: some 250 exchanges, then some 10.
    assert max(served[:4]) <= 2 * 300
    assert max(served[-3:]) <= 2 * 15
    await wired.until(lambda: not wired.plane.exchanges, "the end of all exchanges")


def _given_up_at_once(caller: FramedCaller, number: int) -> bytes:
    stream = 2 * number + 1
    head = frame("HEADERS", stream, END_HEADERS | END_STREAM, caller.encode(GET))
    return head + frame("RST_STREAM", stream, 0, struct.pack(">I", 8))


@pytest.mark.parametrize(
    "block", [b"\x82" * 3900, b"\0\x01a\x01b" * 3900], ids=["of the table", "literal"]
)
async def test_heads_that_are_too_large_end_the_connection_when_there_are_too_many(
    wired: Wired, block: bytes
) -> None:
    async with await frame_caller(wired) as caller:
        heads = 0
        while not caller.goaways and heads < 100:
            heads += 1
            caller.send_frame("HEADERS", 2 * heads - 1, END_STREAM, block[:16_000])
            caller.send_frame("CONTINUATION", 2 * heads - 1, END_HEADERS, block[16_000:])
            if heads == 3:
                assert (await caller.finished(1)).reason == "headers_too_large"
                assert (await caller.finished(5)).reason == "headers_too_large"
            await wired.plane_turn()

        await assert_calm(wired, caller)
        assert caller.goaways[-1][0] < 2 * 40


@pytest.mark.parametrize(("number", "status"), [(996, 200), (997, 431)])
async def test_the_fields_of_a_head_are_limited(wired: Wired, number: int, status: int) -> None:
    """A thousand with the four that begin a request."""
    async with await frame_caller(wired) as caller:
        fields = [(f"x-{item}", "") for item in range(number)]

        assert (await caller.ask(1, (*GET, *fields))).status == status
        assert (await caller.ask(3)).status == 200


# --- heads


async def test_a_head_that_never_ends_ends_the_connection(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.send_frame("HEADERS", 1, END_STREAM, caller.encode(GET))
        for _ in range(40):
            caller.send_frame("CONTINUATION", 1, 0, caller.encode([("x-a", "v" * 9000)]))

        await assert_calm(wired, caller)


async def test_a_head_in_countless_pieces_ends_the_connection(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.send_frame("HEADERS", 1, END_STREAM, caller.encode(GET))
        caller.send(frame("CONTINUATION", 1) * 64)

        await assert_calm(wired, caller)


async def test_a_head_in_many_pieces_is_served(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.send_frame("HEADERS", 1, END_STREAM, caller.encode(GET))
        caller.send(frame("CONTINUATION", 1) * 62)
        caller.send_frame("CONTINUATION", 1, END_HEADERS)

        assert (await caller.finished(1)).status == 200


async def test_a_head_that_is_not_complete_in_time_ends_the_connection(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.send_frame("HEADERS", 1, END_STREAM, caller.encode(GET))
        await wired.until(lambda: connection(wired).in_head, "a part of a head")

        wired.pass_time(HEAD_TIMEOUT - 0.1)
        assert caller.goaways == []
        wired.pass_time(0.2)

        await assert_calm(wired, caller)


async def test_a_frame_of_a_head_that_is_not_complete_counts_as_well(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.send(frame("HEADERS", 1, END_STREAM | END_HEADERS, caller.encode(GET))[:-1])
        await wired.until(lambda: connection(wired).in_head, "a part of a head")

        wired.pass_time(HEAD_TIMEOUT + 0.1)

        await assert_calm(wired, caller)


async def test_a_head_that_is_complete_in_time_has_no_deadline_any_more(framed: Framed) -> None:
    caller = await framed.frames()
    whole = frame("HEADERS", 1, END_STREAM | END_HEADERS, caller.encode(GET))
    caller.send(whole[:-1])
    await framed.until(lambda: connection(framed).in_head, "a part of a head")
    framed.pass_time(HEAD_TIMEOUT - 0.1)
    caller.send(whole[-1:])
    upstream = await framed.framed.accept()
    await upstream.request(1)

    framed.pass_time(5.0)
    upstream.answer(1)

    assert (await caller.finished(1)).status == 200


async def test_a_bomb_in_a_head_ends_the_connection(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        # Once into the table, then thousands of times by one byte each.
        bomb = caller.encode([*GET, ("x-bomb", "b" * 4000)]) + b"\xbe" * 16_000
        assert len(bomb) > 16_384
        caller.send_frame("HEADERS", 1, END_STREAM, bomb[:16_384])
        caller.send_frame("CONTINUATION", 1, END_HEADERS, bomb[16_384:])

        await assert_calm(wired, caller)


async def test_a_bomb_takes_little_memory(wired: Wired) -> None:
    tracemalloc.start()
    try:
        async with await frame_caller(wired) as caller:
            bomb = caller.encode([*GET, ("x-bomb", "b" * 4000)]) + b"\xbe" * 10_000
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            caller.send_frame("HEADERS", 1, END_STREAM | END_HEADERS, bomb)

            assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"
            # Decoded it would be 40 MB.
            assert tracemalloc.get_traced_memory()[1] - before < 1024 * KIB
    finally:
        tracemalloc.stop()


async def test_answers_that_are_given_up_behind_a_shut_window_are_not_kept(framed: Framed) -> None:
    framed.framed.automatic = bytes(60_000)
    caller = await framed.frames(connection_window=65_535)
    for number in (1, 3):
        caller.send_headers(number, GET, end=True)
    await caller.until(lambda: caller.seen(3).body, "a window that is used up")
    tracemalloc.start()
    try:
        for number in range(5, 125, 2):
            caller.send_headers(number, GET, end=True)
            await caller.headed(number)
            caller.send_reset(number, "CANCEL")
        await caller.ask_for_pong()
        # Sixty of them are 3.6 MB.
        assert tracemalloc.get_traced_memory()[0] < 1024 * KIB
    finally:
        tracemalloc.stop()
    caller.grant(0, 1_000_000)
    assert len((await caller.finished(3)).body) == 60_000


async def test_streams_that_are_given_up_behind_a_shut_window_do_not_wait_on(
    framed: Framed,
) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames(connection_window=65_535)
    caller.send_headers(1, POST)
    upstream = await framed.framed.accept()
    await upstream.headed(1)
    upstream.answer(1, bytes(65_535 + 3))
    await caller.until(lambda: len(caller.seen(1).body) == 65_535, "a full window")
    (connection,) = framed.plane.connections
    assert isinstance(connection, Http2Downstream)

    for begin in range(3, 603, 100):
        for number in range(begin, begin + 100, 2):
            caller.send_headers(number, GET, end=True)
        for number in range(begin, begin + 100, 2):
            await caller.headed(number)
            caller.send_reset(number, "CANCEL")
        await caller.ask_for_pong()
        assert len(connection._waiting) <= 2 * 51 + 64

    # Those that are left are served in their turn.
    caller.send_headers(1001, GET, end=True)
    await caller.headed(1001)
    caller.grant(0, 5)
    assert (await caller.finished(1001)).body == b"ok"
    assert len(caller.seen(1).body) == 65_538


async def test_bodies_that_an_upstream_gives_up_behind_a_shut_window_are_not_kept() -> None:
    async with Framed(FramedUpstream(connection_window=65_535)) as framed:
        caller = await framed.frames()
        caller.send_headers(1, POST)
        caller.send_data(1, bytes(65_535))
        upstream = await framed.framed.accept()
        await upstream.until(lambda: len(upstream.seen(1).body) == 65_535, "a full window")
        tracemalloc.start()
        try:
            for number in range(3, 123, 2):
                caller.send_headers(number, POST)
                caller.send_data(number, bytes(60_000))
                await upstream.headed(number)
                await caller.ask_for_pong()
                upstream.send_reset(number, "INTERNAL_ERROR")
                await caller.finished(number)
            # Sixty of them are 3.6 MB.
            assert tracemalloc.get_traced_memory()[0] < 1024 * KIB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(("extra", "refused"), [(0, False), (1, True), (11_000, True)])
async def test_the_size_of_a_head_is_limited(wired: Wired, extra: int, refused: bool) -> None:  # noqa: FBT001 (a parameter)
    limit = 4096
    await wired.serve(protocol=Protocol.H1, limits=Limits(header_bytes=limit))
    fields = (*GET, ("x-a", ""))
    used = sum(len(name) + len(value) + 4 for name, value in fields) + len("GET") + len("/")
    async with await frame_caller(wired) as caller:
        seen = await caller.ask(1, (*GET, ("x-a", "v" * (limit - used + extra))))

        assert (seen.status, seen.reason) == ((431, "headers_too_large") if refused else (200, ""))
        # The table is as the caller knows it: the connection goes on.
        assert (await caller.ask(3)).status == 200
        assert (await caller.ask(5, (*GET, ("x-b", "1")))).status == 200


async def test_a_head_beyond_every_route_s_limit_is_answered_in_the_caller_s_language(
    wired: Wired,
) -> None:
    async with await frame_caller(wired) as caller:
        seen = await caller.ask(1, (*GRPC, ("x-a", "v" * 66_000)), b"")

        assert (seen.head["grpc-status"], seen.reason) == ("8", "headers_too_large")
        assert (await caller.ask(3)).status == 200


async def test_trailers_beyond_the_limit_are_refused(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        caller.send_headers(1, POST)
        caller.send_headers(1, (("x-a", "v" * 66_000),), end=True)

        seen = await caller.finished(1)

        assert (seen.status, seen.reason) == (400, "request_malformed")
        assert (await caller.ask(3)).status == 200


async def test_trailers_that_are_too_large_are_paid_for(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        number = -1
        while not caller.goaways and number < 199:
            number += 2
            caller.send_headers(number, POST)
            # In Huffman's code 62,500 bytes.
            caller.send_headers(number, (("x-a", "0" * 100_000),), end=True, never=["x-a"])
            await wired.plane_turn()

        await assert_calm(wired, caller)
        assert caller.goaways[-1][0] < 2 * 20


# --- streams


@pytest.mark.parametrize(("extra", "refused"), [(0, False), (1, True)])
async def test_the_streams_of_a_caller_are_limited(extra: int, refused: bool) -> None:  # noqa: FBT001 (a parameter)
    async with Framed() as framed:
        caller = await framed.frames()
        assert caller.settings[3] == MOST_STREAMS
        streams = [1 + 2 * number for number in range(MOST_STREAMS + extra)]
        for number in streams:
            caller.send_headers(number, GET, end=True)
        caller.send_frame("PING", 0, 0, b"the mark")
        await caller.until(lambda: caller.pongs, "the answer to a ping")

        assert caller.seen(streams[-1]).reset == ("REFUSED_STREAM" if refused else "")
        assert len(framed.plane.exchanges) == MOST_STREAMS
        framed.framed.automatic = b"ok"
        for end in framed.framed.connections:
            framed.framed.heard(end)
        assert (await caller.finished(1)).status == 200


async def test_streams_that_are_never_ended_time_out(framed: Framed) -> None:
    caller = await framed.frames()
    for number in (1, 3, 5):
        caller.send_headers(number, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.streams) == 3, "three heads")
    upstream.answers_pings = True

    for _ in range(40):
        framed.pass_time(9.0)
        await framed.until(lambda: not framed.http2_connections[0]._pongs, "an answer")
        if not framed.plane.exchanges:
            break

    for number in (1, 3, 5):
        seen = await caller.finished(number)
        assert (seen.head["grpc-status"], seen.reason) == ("4", "upstream_timed_out")
        assert (await upstream.finished(number)).reset == "CANCEL"


async def test_a_finished_response_that_nobody_takes_is_given_up(framed: Framed) -> None:
    framed.framed.automatic = bytes(1000)
    caller = await framed.frames(window=0)
    caller.send_headers(1, GET, end=True)
    await caller.headed(1)
    await framed.until(lambda: not framed.plane.exchanges, "the end of the exchange")

    framed.pass_time(STALL_TIMEOUT - 1.0)
    caller.grant(1, 10)  # It takes a little: that counts.
    await caller.until(lambda: len(caller.seen(1).body) == 10, "ten bytes")
    framed.pass_time(2.0)
    assert not caller.seen(1).done
    framed.pass_time(STALL_TIMEOUT)

    assert (await caller.finished(1)).reset == "CANCEL"
    assert connection(framed).streams == {}


async def test_a_thousand_responses_that_nobody_takes_hold_bounded_memory() -> None:
    async with Framed(FramedUpstream((3, 1000))) as framed:
        caller = await framed.frames(window=0)
        streams = [1 + 2 * number for number in range(200)]
        for number in streams:
            caller.send_headers(number, GET, end=True)
        upstream = await framed.framed.accept()
        await upstream.until(lambda: len(upstream.streams) == 200, "all requests")
        for number in streams:
            upstream.send_headers(number, ((":status", "200"),))
            upstream.send_data(number, bytes(65_535))
        await framed.until(
            lambda: sum(s._queued for s in connection(framed).streams.values()) == 200 * 65_535,
            "all that may be sent",
        )

        # Nobody may send more: what is granted is a part of what was sent.
        assert max(upstream.updates.get(number, 0) for number in streams) <= 65_535
        for number in streams:
            caller.send_reset(number, "CANCEL")
        await framed.until(lambda: not framed.plane.exchanges, "the end of all exchanges")
        assert connection(framed).streams == {}


async def test_an_idle_caller_is_let_go(wired: Wired) -> None:
    async with await frame_caller(wired) as caller:
        assert (await caller.ask(1)).status == 200

        wired.pass_time(IDLE_TIMEOUT - 0.1)
        assert not caller.ended
        wired.pass_time(0.2)

        assert await caller.told_to_go() == "NO_ERROR"


async def test_a_caller_that_waits_for_an_answer_is_not_idle(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.streams, "a head")

    for _ in range(10):
        framed.pass_time(70.0)
        caller.send_data(1, b"x")
        size = len(upstream.seen(1).body) + 1
        await upstream.until(lambda n=size: len(upstream.seen(1).body) == n, "a byte")  # type: ignore[misc]  # a lambda's default
        upstream.send_frame("PING", 0, 0, bytes(8))
        await upstream.until(lambda: upstream.pongs, "an answer")
        upstream.pongs.clear()

    caller.send_data(1, end=True)
    await upstream.request(1)
    upstream.answer(1)
    assert (await caller.finished(1)).status == 200


def connection(world: Wired):  # type: ignore[no-untyped-def]  # noqa: ANN201 (whatever serves the caller)
    """Return what serves the one caller."""
    (only,) = world.plane.connections
    return only
