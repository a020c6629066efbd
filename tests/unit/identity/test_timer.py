"""Waiting for the bell, for a time, or until one has had enough."""

from __future__ import annotations

import asyncio
import math

import pytest

from proxy.identity.timer import Bell, on_the_loop
from tests.fakes.steering import Time, settle


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def bell(time: Time) -> Bell:
    return Bell(time.clocks.steady, time.later)


async def waiting(bell: Bell, until: float) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(bell.wait(until))
    await settle()
    return task


async def test_the_bell_wakes_all_who_wait_and_nobody_else(bell: Bell) -> None:
    bell.ring()
    tasks = [await waiting(bell, math.inf) for _ in range(3)]
    assert not any(task.done() for task in tasks)
    bell.ring()
    late = await waiting(bell, math.inf)

    assert all(task.done() for task in tasks)
    assert not late.done()
    bell.ring()
    await late


async def test_waiting_ends_at_the_time_that_was_given(bell: Bell, time: Time) -> None:
    task = await waiting(bell, time.steady + 5)
    await time.advance(4.99)
    assert not task.done()
    await time.advance(0.01)

    assert task.done()


async def test_a_time_that_has_passed_ends_the_waiting_at_once(bell: Bell, time: Time) -> None:
    task = await waiting(bell, time.steady - 5)
    await time.advance(0)

    assert task.done()


async def test_nothing_is_left_of_those_who_have_waited_or_gone(bell: Bell, time: Time) -> None:
    woken, gone = await waiting(bell, time.steady + 5), await waiting(bell, time.steady + 5)
    gone.cancel()
    await settle()
    bell.ring()
    await woken

    assert bell._waiters == set()
    assert time.pending == []


async def test_one_who_goes_as_the_bell_rings_keeps_it_from_nobody(bell: Bell) -> None:
    gone, stays = await waiting(bell, math.inf), await waiting(bell, math.inf)
    gone.cancel()
    bell.ring()
    bell.ring()
    await settle()

    assert (gone.cancelled(), stays.done()) == (True, True)


async def test_the_loops_timer_calls_back_and_can_be_cancelled() -> None:
    called = asyncio.Event()
    on_the_loop(0, pytest.fail).cancel()
    on_the_loop(0, called.set)

    await called.wait()
    assert called.is_set()
