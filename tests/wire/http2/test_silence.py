"""Connections to the upstream that may be dead: who finds out, how, and when."""

from __future__ import annotations

import pytest

from proxy.config.model import Timeouts
from proxy.plane.http2.upstream import PING_TIMEOUT
from tests.fakes.framed import GET, GRPC, POST, FramedUpstreamEnd
from tests.fakes.framed_world import Framed, frame_caller


async def warm(framed: Framed) -> FramedUpstreamEnd:
    """Have one exchange, and return the connection that it leaves."""
    framed.framed.automatic = b"ok"
    async with await frame_caller(framed) as caller:
        assert (await caller.ask(1)).status == 200
    framed.framed.automatic = None
    return await framed.framed.accept()


async def test_an_upstream_that_is_silent_for_ten_seconds_is_pinged(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    caller.send_data(1, b"x", end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    framed.pass_time(9.9)
    caller.send_frame("PING", 0, 0, b"mark one")
    await caller.until(lambda: caller.pongs, "a mark")
    assert upstream.pings == []
    framed.pass_time(0.2)

    await upstream.until(lambda: upstream.pings, "a ping")
    upstream.answer(1)
    assert (await caller.finished(1)).status == 200


async def test_an_upstream_that_does_not_answer_a_ping_is_given_up(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, POST, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    upstream.answers_pings = False
    framed.pass_time(10.0)
    await upstream.until(lambda: upstream.pings, "a ping")

    framed.pass_time(PING_TIMEOUT - 0.1)
    assert not caller.seen(1).done
    framed.pass_time(0.2)

    seen = await caller.finished(1)
    assert (seen.status, seen.reason) == (502, "upstream_reset")
    assert b"does not answer any more" in seen.body


async def test_pings_to_an_upstream_that_answers_them_become_rare(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    # gRPC servers take offence at the third ping within five minutes.
    for count, gap in enumerate((10.0, 60.0, 220.0), 1):
        for _ in range(10):
            framed.pass_time(gap / 10)
        if count < 3:
            await upstream.until(lambda n=count: len(upstream.pings) == n, "a ping")  # type: ignore[misc]  # a lambda's default
            (connection,) = framed.http2_connections
            await framed.until(lambda c=connection: not c._pongs, "its answer")  # type: ignore[misc]  # a lambda's default
    assert len(upstream.pings) == 2
    upstream.answer(1)
    await caller.finished(1)


async def test_an_idle_connection_is_not_pinged(framed: Framed) -> None:
    upstream = await warm(framed)

    for _ in range(8):
        framed.pass_time(11.0)

    assert (upstream.pings, framed.connections.idle) == ([], 1)


@pytest.mark.parametrize("silence", [10.0, 60.0])
async def test_a_connection_that_was_silent_for_long_is_asked_before_it_is_used(
    framed: Framed, silence: float
) -> None:
    upstream = await warm(framed)
    upstream.answers_pings = False
    caller = await framed.frames()
    framed.pass_time(silence)

    caller.send_headers(1, POST, end=True)
    await upstream.until(lambda: upstream.pings, "a ping")
    assert len(upstream.streams) == 1
    upstream.send_frame("PING", 0, 1, upstream.pings[0])

    await upstream.request(3)
    upstream.answer(3)
    assert (await caller.finished(1)).status == 200


async def test_a_connection_that_was_silent_for_less_is_used_as_it_is(framed: Framed) -> None:
    upstream = await warm(framed)
    upstream.answers_pings = False
    caller = await framed.frames()
    framed.pass_time(9.9)

    caller.send_headers(1, POST, end=True)
    await upstream.request(3)
    upstream.answer(3)

    assert (await caller.finished(1)).status == 200
    assert upstream.pings == []


async def test_a_connection_that_died_while_nobody_ran_costs_no_call() -> None:
    async with Framed(timeouts=Timeouts(connect=0.05)) as framed:
        dead = await warm(framed)
        dead.answers_pings = False
        caller = await framed.frames()
        framed.pass_time(60.0)

        streams = (1, 3, 5)
        for stream in streams:
            caller.send_headers(stream, POST, end=True)
        alive = await framed.framed.accept()

        for number in (1, 3, 5):
            await alive.request(number)
            alive.answer(number)
        assert {(await caller.finished(stream)).status for stream in streams} == {200}
        # However many asked, the dead one was pinged once.
        assert len(dead.pings) == 1
        framed.pass_time(PING_TIMEOUT)
        await dead.until(lambda: dead.ended, "the end of the dead connection")


async def test_a_connection_that_ended_while_nobody_ran_is_seen_to_have_ended(
    framed: Framed,
) -> None:
    dead = await warm(framed)
    caller = await framed.frames()
    framed.pass_time(2.0)

    dead.close()
    await dead.until(lambda: dead.closed, "the end of the connection")
    caller.send_headers(1, POST, end=True)
    alive = await framed.framed.accept()
    await alive.request(1)
    alive.answer(1)

    assert (await caller.finished(1)).status == 200
