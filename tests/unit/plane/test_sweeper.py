from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

import pytest

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
    """Stands for the loop: counts the timers that wait."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> CountingLoop:
        assert seconds == LONGEST_TICK
        self.timers.append(callback)
        return self

    def tick(self) -> None:
        for callback in [self.timers.pop() for _ in range(len(self.timers))]:
            callback()


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
