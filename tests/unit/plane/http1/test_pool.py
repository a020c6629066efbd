"""Who gets a connection: places for requests that are not whole, and how long one is idle."""

from __future__ import annotations

import asyncio
import math

import pytest

from proxy.errors import Overloaded
from proxy.plane.head import NOBODY, RequestHead
from proxy.plane.http1.pool import UNKNOWN, KeepAlive, Uploads, timeout_of
from tests.fakes.steering import settle

OURS = 90.0


# --- requests that are not whole


class Request:
    """Something that asks for a connection."""

    def __init__(self, *, whole: bool = False) -> None:
        self.head: RequestHead = NOBODY
        self.is_whole = whole


async def enter(uploads: Uploads, count: int) -> None:
    """Take so many places."""
    for _ in range(count):
        assert await uploads.enter(Request(), 0)


def waiting(uploads: Uploads, request: Request, timeout: float = 60.0) -> asyncio.Task[bool]:
    return asyncio.ensure_future(uploads.enter(request, timeout))


@pytest.mark.parametrize(
    ("connections", "most"), [(1, 1), (9, 9), (10, 9), (19, 18), (20, 18), (1000, 900)]
)
async def test_nine_tenths_of_the_connections_are_theirs(connections: int, most: int) -> None:
    uploads = Uploads(connections)
    await enter(uploads, most - 1)
    full = [uploads.is_full]
    await enter(uploads, 1)
    assert [*full, uploads.is_full] == [False, True]
    with pytest.raises(Overloaded, match=f"{most} of the {connections} "):
        await uploads.enter(Request(), 0)
    assert uploads.waiting == 0


async def test_no_limit_is_never_full() -> None:
    uploads = Uploads(math.inf)
    await enter(uploads, 5000)

    assert not uploads.is_full


async def test_what_is_whole_is_not_counted() -> None:
    uploads = Uploads(1)
    await enter(uploads, 1)

    assert await uploads.enter(Request(whole=True), 0) is False


async def test_a_place_goes_to_who_has_waited_longest() -> None:
    uploads = Uploads(1)
    await enter(uploads, 1)
    first, second = (waiting(uploads, Request()) for _ in range(2))
    await settle()
    assert uploads.waiting == 2

    uploads.end()
    await settle()
    assert (first.done(), second.done(), uploads.is_full) == (True, False, True)
    uploads.end()
    assert await second
    uploads.end()
    assert not uploads.is_full


async def test_one_that_becomes_whole_waits_no_more_and_takes_no_place() -> None:
    uploads = Uploads(1)
    await enter(uploads, 1)
    request = Request()
    task = waiting(uploads, request)
    await settle()
    uploads.completed(request)
    uploads.completed(Request())

    assert await task is False
    uploads.end()
    assert not uploads.is_full


@pytest.mark.parametrize("before", [True, False], ids=["before the place comes", "with it"])
async def test_one_that_goes_away_leaves_its_place_to_the_next(*, before: bool) -> None:
    uploads = Uploads(1)
    await enter(uploads, 1)
    gone, late = (waiting(uploads, Request()) for _ in range(2))
    await settle()
    if before:
        gone.cancel()
        uploads.end()
    else:
        uploads.end()
        gone.cancel()

    assert await late
    assert gone.cancelled()
    uploads.end()
    assert not uploads.is_full


async def test_one_that_becomes_whole_while_it_goes_away_is_no_failure() -> None:
    uploads = Uploads(1)
    await enter(uploads, 1)
    request = Request()
    gone = waiting(uploads, request)
    await settle()
    gone.cancel()
    uploads.completed(request)
    await settle()

    assert gone.cancelled()
    uploads.end()
    assert not uploads.is_full


# --- how long an upstream keeps idle connections


def test_of_an_unknown_upstream_little_is_taken_for_granted() -> None:
    assert KeepAlive(OURS).safe == UNKNOWN / 2


def test_a_connection_that_is_open_shows_that_others_will_be() -> None:
    known = KeepAlive(OURS)
    known.seen_open(UNKNOWN / 2)
    assert known.safe == UNKNOWN / 2
    known.seen_open(40.0)
    assert known.safe == 20.0
    known.seen_open(10.0)
    assert known.safe == 20.0


@pytest.mark.parametrize(("seen", "safe"), [(89.0, 44.5), (90.0, 90.0), (600.0, 90.0)])
def test_an_upstream_that_keeps_them_as_long_as_we_do_needs_no_care(
    seen: float, safe: float
) -> None:
    known = KeepAlive(OURS)
    known.seen_open(seen)

    assert known.safe == safe


def test_a_connection_found_closed_shows_the_most_that_can_be_expected() -> None:
    known = KeepAlive(OURS)
    known.seen_open(90.0)
    known.found_closed(5.0)
    assert known.safe == 2.5
    known.found_closed(8.0)
    assert known.safe == 2.5
    known.found_closed(0.0)
    assert known.safe == 0.0


def test_after_an_early_end_what_is_seen_counts_again() -> None:
    known = KeepAlive(OURS)
    known.found_closed(0.0)
    known.seen_open(3.0)

    assert known.safe == 1.5


def test_a_promise_counts_at_once_and_is_not_exceeded() -> None:
    known = KeepAlive(OURS)
    known.promised(5.0)
    assert known.safe == 2.5
    known.seen_open(20.0)
    assert known.safe == 2.5


def test_a_promise_that_is_repeated_forgets_nothing() -> None:
    known = KeepAlive(OURS)
    known.promised(5.0)
    known.found_closed(3.0)
    known.promised(5.0)
    assert known.safe == 1.5
    known.promised(6.0)
    assert known.safe == 3.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5.0),
        (b"timeout=5, max=100", 5.0),
        (b"max=100, Timeout = 20", 20.0),
        (b'timeout="15"', 15.0),
        (b"timeout=0", 0.0),
        (b"timeout=999999999", 999_999_999.0),
        (b"timeout=1000000000", math.inf),
        (b"timeout=", math.inf),
        (b"timeout=-1", math.inf),
        (b"timeout=1.5", math.inf),
        (b"300", math.inf),
        (b"", math.inf),
    ],
)
def test_what_a_keep_alive_field_promises(value: bytes, seconds: float) -> None:
    assert timeout_of(value) == seconds
