"""Deadlines for others that are fair even when this process itself stood still.

Cloud Run withdraws the CPU between requests, a container can be frozen, a laptop sleeps. After
that, and whenever the loop is late, the timers that have passed come first in its turn, before it
looks at its sockets: what came in time would be judged as missing.  So sockets are read first; and
where the turn was late by more than `LATE`, there is a `GRACE` in which what was under way, a
handshake say, can go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

LATE = 0.1
"""Seconds by which a busy loop's turn may be late."""

GRACE = 1.0
"""Seconds by which a deadline is put off, once, if it had passed in a late turn."""


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Prevent the call."""


class AfterReading:
    """Calls back once the loop has looked at its sockets."""

    __slots__ = ("_callback", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._loop = loop
        # libuv runs what is called soon in the same turn, but before it looks at the sockets.
        self._handle = loop.call_soon(self._on_turn)

    def cancel(self) -> None:
        """Prevent the call."""
        self._handle.cancel()

    def _on_turn(self) -> None:
        self._handle = self._loop.call_soon(self._callback)


class PatientTimer:
    """Calls back when some time has passed and all has been read that had come by then."""

    __slots__ = ("_callback", "_due_at", "_handle", "_is_put_off", "_loop")

    def __init__(self, seconds: float, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._loop = loop = asyncio.get_running_loop()
        self._due_at = loop.time() + seconds
        self._is_put_off = False
        self._handle: Timer = loop.call_at(self._due_at, self._on_due)

    def cancel(self) -> None:
        """Prevent the call."""
        self._handle.cancel()

    def _on_due(self) -> None:
        now = self._loop.time()
        if now - self._due_at > LATE and not self._is_put_off:
            self._is_put_off = True
            self._due_at = now + GRACE
            self._handle = self._loop.call_at(self._due_at, self._on_due)
        else:
            self._handle = AfterReading(self._loop, self._callback)


class Within:
    """Raises TimeoutError in the body of `async with` after some seconds; see `PatientTimer`."""

    __slots__ = ("_loop", "_seconds", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        """Begin."""
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._timer = PatientTimer(self._seconds, self._expire)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; turn the cancellation that was the deadline's into TimeoutError."""
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _expire(self) -> None:
        self._timeout.reschedule(self._loop.time())
