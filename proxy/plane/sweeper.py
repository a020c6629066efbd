"""One coarse timer for all deadlines of the data path.

A timer per exchange would cost more than the rest of its bookkeeping, and nearly none would
ever fire.  Instead whoever has a deadline stands in one set, and a sweep looks at all of them
a few times within the shortest configured timeout.  A deadline is met late by at most `tick`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, Protocol, cast

from proxy.clock import Clock
from proxy.deadlines import LATE, AfterReading, Timer

LONGEST_TICK: Final = 1.0
SHORTEST_TICK: Final = 0.01


class Watched(Protocol):
    """Something with a deadline on the steady clock, ``math.inf`` for none."""

    deadline: float

    def on_deadline(self, now: float) -> None:
        """Act: the deadline has passed.  Called again each tick until it is moved."""


def tick_for(timeouts: Iterable[float]) -> float:
    """Return the seconds between sweeps that keep the shortest of `timeouts` within a tenth."""
    return min(LONGEST_TICK, max(SHORTEST_TICK, min(timeouts, default=LONGEST_TICK) / 10))


class Sweeper:
    """Watches deadlines; runs only while there is something to watch."""

    __slots__ = (
        "_due_at",
        "_groups",
        "_handle",
        "_is_put_off",
        "_loop",
        "clock",
        "tick",
        "watched",
    )

    def __init__(self, clock: Clock, *, tick: float = LONGEST_TICK) -> None:
        self.clock = clock
        self.tick = tick
        self.watched: set[Watched] = set()
        self._groups: list[AbstractSet[Watched]] = [self.watched]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: Timer | None = None
        self._due_at = 0.0
        """When the next sweep is due, on `clock`."""
        self._is_put_off = False

    def watch_all(self, group: AbstractSet[Watched]) -> None:
        """Watch whatever is in `group`, a set that its owner keeps.

        Only while something has been added one by one: an exchange has a connection that is.
        """
        self._groups.append(group)

    def add(self, item: Watched) -> None:
        """Watch `item` until it is discarded."""
        self.watched.add(item)
        if self._handle is None:
            self._schedule()

    def discard(self, item: Watched) -> None:
        """Stop watching `item`."""
        self.watched.discard(item)

    def sweep(self) -> None:
        """Tell everything whose deadline has passed."""
        now = self.clock()
        due = [item for group in self._groups for item in group if item.deadline <= now]
        for item in due:
            item.on_deadline(now)

    def stop(self) -> None:
        """Sweep no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._due_at = self.clock() + self.tick
        self._handle = self._loop.call_later(self.tick, self._on_tick)

    def _on_tick(self) -> None:
        """Sweep after what has come is read, or with the next tick if this one comes late."""
        loop = cast("asyncio.AbstractEventLoop", self._loop)
        late = self.clock() - self._due_at > LATE
        self._is_put_off = late and not self._is_put_off
        if self._is_put_off:
            self._schedule()
        else:
            self._handle = AfterReading(loop, self._on_read)

    def _on_read(self) -> None:
        # The handle stays until the end: what is added meanwhile must not begin a second timer.
        try:
            self.sweep()
        finally:
            self._handle = None
            if self.watched:
                self._schedule()
