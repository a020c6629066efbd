"""Waiting to be woken, for a time, or until one has had enough."""

from __future__ import annotations

import asyncio
import math

import pytest

from proxy.deadlines import PatientTimer
from proxy.identity.cache import Waiters
from tests.fakes.steering import Time, settle


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def waiters(time: Time) -> Waiters:
    return Waiters(time.clocks.steady, time.later)


async def waiting(waiters: Waiters, until: float) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(waiters.wait(until))
    await settle()
    return task


async def test_waking_wakes_all_who_wait_and_nobody_else(waiters: Waiters) -> None:
    waiters.wake()
    tasks = [await waiting(waiters, math.inf) for _ in range(3)]
    assert not any(task.done() for task in tasks)
    waiters.wake()
    late = await waiting(waiters, math.inf)

    assert all(task.done() for task in tasks)
    assert not late.done()
    waiters.wake()
    await late


async def test_waiting_ends_at_the_time_that_was_given(waiters: Waiters, time: Time) -> None:
    task = await waiting(waiters, time.steady + 5)
    await time.advance(4.99)
    assert not task.done()
    await time.advance(0.01)

    assert task.done()


async def test_a_time_that_has_passed_ends_the_waiting_at_once(
    waiters: Waiters, time: Time
) -> None:
    task = await waiting(waiters, time.steady - 5)
    await time.advance(0)

    assert task.done()


async def test_nothing_is_left_of_those_who_have_waited_or_gone(
    waiters: Waiters, time: Time
) -> None:
    woken, gone = await waiting(waiters, time.steady + 5), await waiting(waiters, time.steady + 5)
    gone.cancel()
    await settle()
    waiters.wake()
    await woken

    assert waiters._waiting == set()
    assert time.pending == []


async def test_one_who_goes_as_all_are_woken_keeps_it_from_nobody(waiters: Waiters) -> None:
    gone, stays = await waiting(waiters, math.inf), await waiting(waiters, math.inf)
    gone.cancel()
    waiters.wake()
    waiters.wake()
    await settle()

    assert (gone.cancelled(), stays.done()) == (True, True)


async def test_the_loops_timer_calls_back_and_can_be_cancelled() -> None:
    called = asyncio.Event()
    PatientTimer(0, pytest.fail).cancel()
    PatientTimer(0, called.set)

    await called.wait()
    assert called.is_set()
