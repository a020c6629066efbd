from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import pytest

from proxy.deadlines import LATE
from proxy.plane.sweeper import LONGEST_TICK, SHORTEST_TICK, Sweeper, tick_for


class Item:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.told: list[float] = []

    def on_deadline(self, now: float) -> None:
        self.told.append(now)
        self.deadline = math.inf


@pytest.mark.parametrize(("deadline", "told"), [(99.9, True), (100.0, True), (100.1, False)])
async def test_a_deadline_is_met_when_its_time_has_come(deadline: float, told: bool) -> None:  # noqa: FBT001 (a parameter)
    sweeper = Sweeper(lambda: 100.0)
    item = Item(deadline)
    sweeper.add(item)

    sweeper.sweep()
    sweeper.stop()
    assert bool(item.told) is told


async def test_what_is_discarded_is_not_told() -> None:
    sweeper = Sweeper(lambda: 100.0)
    item = Item(0.0)
    sweeper.add(item)
    sweeper.discard(item)

    sweeper.sweep()
    sweeper.stop()
    assert item.told == []


class CountingLoop:
    """Stands for the loop: counts the timers that wait, and looks at no sockets."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.ready: list[Callable[[], None]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> CountingLoop:
        assert seconds == LONGEST_TICK
        self.timers.append(callback)
        return self

    def call_soon(self, callback: Callable[[], None]) -> CountingLoop:
        self.ready.append(callback)
        return self

    def cancel(self) -> None:
        self.ready.clear()
        self.timers.clear()

    def turn(self) -> None:
        """Run what is ready."""
        for callback in [self.ready.pop() for _ in range(len(self.ready))]:
            callback()

    def tick(self) -> None:
        """Run the timers that wait, and what they leave for later turns."""
        self.fire()
        self.turn()
        self.turn()

    def fire(self) -> None:
        """Run the timers that wait."""
        for callback in [self.timers.pop() for _ in range(len(self.timers))]:
            callback()


class Late:
    """A sweeper on a clock and a loop in the test's hand, with one item that is due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = CountingLoop()
        self.sweeper = Sweeper(lambda: self.now)
        self.sweeper._loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.item = Item(100.5)
        self.sweeper.add(self.item)

    def pass_tick(self, seconds: float) -> None:
        """Let the timer call after so many seconds, and the loop run until nothing is ready."""
        self.now += seconds
        self.loop.tick()


def test_deadlines_are_judged_when_the_loop_has_looked_at_its_sockets() -> None:
    late = Late()
    late.now += LONGEST_TICK
    late.loop.fire()
    late.loop.turn()
    assert late.item.told == []  # libuv has not looked yet.
    late.item.deadline = 200.0  # As an answer that is read in time does.

    late.loop.turn()
    assert late.item.told == []
    assert len(late.loop.timers) == 1


@pytest.mark.parametrize(
    ("late_by", "told"), [(LATE - 0.01, True), (LATE + 0.01, False), (60.0, False)]
)
def test_a_sweep_that_comes_late_is_put_off_once(late_by: float, told: bool) -> None:  # noqa: FBT001 (a parameter)
    late = Late()
    late.pass_tick(LONGEST_TICK + late_by)
    assert bool(late.item.told) is told

    late.pass_tick(LONGEST_TICK + 60.0)
    assert late.item.told


def test_a_sweep_that_waits_for_the_sockets_can_be_stopped() -> None:
    late = Late()
    late.now += LONGEST_TICK
    late.loop.fire()
    late.sweeper.stop()
    late.loop.turn()
    late.loop.turn()
    assert (late.item.told, late.loop.timers) == ([], [])


def test_something_added_while_sweeping_begins_no_second_timer() -> None:
    loop = CountingLoop()
    sweeper = Sweeper(lambda: 100.0)
    sweeper._loop = cast("asyncio.AbstractEventLoop", loop)

    class Adder(Item):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            sweeper.add(Item(0.0))

    sweeper.add(Adder(0.0))
    for _ in range(3):
        loop.tick()
        assert len(loop.timers) == 1


def test_the_timer_rests_while_nothing_is_watched() -> None:
    loop = CountingLoop()
    sweeper = Sweeper(lambda: 100.0)
    sweeper._loop = cast("asyncio.AbstractEventLoop", loop)
    item = Item(math.inf)
    sweeper.add(item)
    sweeper.discard(item)

    loop.tick()
    assert loop.timers == []
    sweeper.add(item)
    assert len(loop.timers) == 1


def test_an_item_that_fails_does_not_end_the_sweeping() -> None:
    loop = CountingLoop()
    sweeper = Sweeper(lambda: 100.0)
    sweeper._loop = cast("asyncio.AbstractEventLoop", loop)

    class Failing(Item):
        def on_deadline(self, now: float) -> None:
            super().on_deadline(now)
            raise RuntimeError("a bug")

    sweeper.add(Failing(0.0))
    with pytest.raises(RuntimeError):
        loop.tick()
    later = Item(0.0)
    sweeper.add(later)
    loop.tick()
    assert later.told == [100.0]


@pytest.mark.parametrize(
    ("timeouts", "tick"),
    [
        ([], LONGEST_TICK / 10),
        ([math.inf], LONGEST_TICK),
        ([300.0], LONGEST_TICK),
        ([5.0, 300.0], 0.5),
        ([0.01], SHORTEST_TICK),
    ],
)
def test_the_tick_is_a_tenth_of_the_shortest_timeout(timeouts: list[float], tick: float) -> None:
    assert tick_for(timeouts) == tick
