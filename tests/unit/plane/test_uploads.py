"""Places for requests that are not whole: counted, waited for in order, and never lost."""

from __future__ import annotations

import asyncio

import pytest

from proxy.errors import Overloaded
from proxy.plane.head import NOBODY, RequestHead
from proxy.plane.uploads import Uploads
from tests.fakes.steering import settle


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
    uploads = Uploads(0)
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
