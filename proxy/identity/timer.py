"""Calling back later, and waiting until then or until something has happened."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

from proxy.clock import Clock
from proxy.deadlines import PatientTimer


class Timer(Protocol):
    """What `asyncio.loop.call_later` returns."""

    def cancel(self) -> None:
        """Prevent the call."""
        ...


Later = Callable[[float, Callable[[], object]], Timer]
"""Calls back after so many seconds; an argument, so that tests can hold time in their hand."""


def on_the_loop(delay: float, callback: Callable[[], object]) -> Timer:
    """Call back by the running event loop's clock, once what had come by then is read."""
    return PatientTimer(delay, callback)


class Bell:
    """Wakes everybody who waits for it; one that stops waiting disturbs nobody."""

    __slots__ = ("_clock", "_later", "_waiters")

    def __init__(self, clock: Clock, later: Later) -> None:
        self._clock = clock
        self._later = later
        self._waiters: set[asyncio.Future[None]] = set()

    async def wait(self, until: float) -> None:
        """Return when the bell rings, at the time `until` of the clock at the latest."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        timer = None
        if until < math.inf:
            timer = self._later(max(0.0, until - self._clock()), partial(_resolve, waiter))
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()

    def ring(self) -> None:
        """Wake all who wait at this moment."""
        for waiter in self._waiters:
            _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
