"""Bounds on what costs us work and its sender nothing."""

from __future__ import annotations

from proxy.clock import Clock


class Budget:
    """So many at once, and so many a second in the long run."""

    __slots__ = ("_at", "_balance", "_burst", "_clock", "_rate")

    def __init__(self, burst: float, rate: float, clock: Clock) -> None:
        """`rate` is per second."""
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._balance = burst
        self._at = clock()

    def spend(self) -> bool:
        """Take one; False where none is left."""
        self._balance -= 1
        if self._balance >= 0:
            return True
        now = self._clock()
        self._balance = min(self._burst, self._balance + (now - self._at) * self._rate)
        self._at = now
        return self._balance >= 0
