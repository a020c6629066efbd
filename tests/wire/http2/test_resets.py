"""`limits.resets`: exchanges that a caller gives up count where they were not answered."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.config.model import Limits
from tests.fakes.framed import GET, FramedCaller
from tests.fakes.framed_world import Framed

OK = ((":status", "200"),)


async def begin(framed: Framed, caller: FramedCaller, first: int, number: int) -> list[int]:
    """Begin so many exchanges, and wait until they are under way; return their streams."""
    streams = list(range(first, first + 2 * number, 2))
    for stream in streams:
        caller.send_headers(stream, GET, end=True)
    await framed.until(lambda: len(framed.plane.exchanges) == number, "the exchanges")
    return streams


async def give_up(framed: Framed, caller: FramedCaller, streams: list[int]) -> None:
    """Give them up, in a segment of its own, and wait for the end of all exchanges."""
    for stream in streams:
        caller.send_reset(stream, "CANCEL")
    await framed.until(lambda: not framed.plane.exchanges, "the end of the exchanges")


async def is_served(framed: Framed, caller: FramedCaller, stream: int) -> bool:
    framed.framed.automatic = b"ok"
    caller.send_headers(stream, GET, end=True)
    await caller.until(lambda: caller.ended or caller.seen(stream).done, "an answer or the end")
    framed.framed.automatic = None
    return caller.seen(stream).status == 200


@pytest.mark.parametrize(
    ("resets", "given_up", "is_cut"),
    [(4, 3, False), (4, 4, False), (4, 5, True), (0, 1000, False)],
)
async def test_so_many_may_be_given_up_unanswered(
    framed: Framed,
    resets: int,
    given_up: int,
    is_cut: bool,  # noqa: FBT001 (parametrized)
) -> None:
    await framed.serve(limits=Limits(resets=resets))
    caller = await framed.frames()

    await give_up(framed, caller, await begin(framed, caller, 1, given_up))

    assert await is_served(framed, caller, 2 * given_up + 1) is not is_cut
    assert [code for _, code, _ in caller.goaways] == ["ENHANCE_YOUR_CALM"] * is_cut


async def test_the_default_is_two_thousand(framed: Framed) -> None:
    """What one connection may have under way, twice in a row."""
    caller = await framed.frames()
    for round_ in range(2):
        await give_up(framed, caller, await begin(framed, caller, 1 + 2000 * round_, 1000))

    await give_up(framed, caller, await begin(framed, caller, 4001, 1))

    assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"


async def test_what_was_answered_may_be_given_up_as_often_as_one_likes(framed: Framed) -> None:
    """Streams that are listened to for a while: each has got its head and a message."""
    await framed.serve(limits=Limits(resets=2))
    caller = await framed.frames()
    streams = await begin(framed, caller, 1, 100)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.streams) == 100, "the requests")
    for stream in streams:
        upstream.send_headers(stream, OK)
        upstream.send_data(stream, b"m")
    await caller.until(lambda: all(caller.seen(each).body for each in streams), "the messages")

    await give_up(framed, caller, streams)

    # What they were sent pays for two that were not, and no more.
    await give_up(framed, caller, await begin(framed, caller, 201, 2))
    assert caller.goaways == []
    await give_up(framed, caller, await begin(framed, caller, 205, 1))
    assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"


async def test_an_informational_head_is_no_answer(framed: Framed) -> None:
    await framed.serve(limits=Limits(resets=1))
    caller = await framed.frames()
    streams = await begin(framed, caller, 1, 3)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: len(upstream.streams) == 3, "the requests")
    for stream in streams:
        upstream.send_headers(stream, ((":status", "103"),))
    await caller.until(lambda: all(caller.seen(each).informational for each in streams), "103")

    await give_up(framed, caller, streams)

    assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"


async def test_a_reload_changes_the_limit_of_connections_that_are_open(framed: Framed) -> None:
    await framed.serve(limits=Limits(resets=1))
    caller = await framed.frames()
    await give_up(framed, caller, await begin(framed, caller, 1, 1))
    await framed.serve(limits=Limits(resets=3))

    await give_up(framed, caller, await begin(framed, caller, 3, 3))
    assert caller.goaways == []
    # One that changes nothing gives nothing back.
    await framed.serve(limits=Limits(resets=3))
    await give_up(framed, caller, await begin(framed, caller, 9, 1))

    assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"


async def test_of_the_routes_of_a_listener_the_largest_limit_counts(framed: Framed) -> None:
    (route,) = framed.config.routes
    await framed.serve_routes(
        dataclasses.replace(route, name="other", path="/other", limits=Limits(resets=3)),
        dataclasses.replace(route, limits=Limits(resets=1)),
    )
    caller = await framed.frames()
    await give_up(framed, caller, await begin(framed, caller, 1, 3))
    assert caller.goaways == []

    await give_up(framed, caller, await begin(framed, caller, 7, 1))

    assert await caller.told_to_go() == "ENHANCE_YOUR_CALM"
