"""Bounds on what costs us work and its sender nothing."""

from __future__ import annotations

from proxy.clock import Clock


class Budget:
    """So much at once, and so much a second in the long run."""

    __slots__ = ("_at", "_burst", "_clock", "_rate", "balance")

    def __init__(self, burst: float, rate: float, clock: Clock) -> None:
        """`burst` can be spent at once; `rate` is what comes back in a second."""
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self.balance = burst
        """What is left, without what time has added since it was looked at."""
        self._at = clock()

    def spend(self, amount: float = 1.0) -> bool:
        """Take an amount; False where there is not so much left, and then all that is left."""
        if self.balance < amount:
            self.refill()
        self.balance -= amount
        if self.balance >= 0:
            return True
        self.balance = 0.0
        return False

    def earn(self, amount: float) -> None:
        """Add an amount, up to what may be had at once."""
        self.balance = min(self._burst, self.balance + amount)

    def refill(self) -> None:
        """Add what time has earned."""
        now = self._clock()
        self.earn((now - self._at) * self._rate)
        self._at = now
