"""How many connections one upstream has, and who gets the next: of both protocols together.

Each connection takes a place, from before it is dialled until it is lost.  Where no place is free
an idle connection is closed for it, and where there is none the asker waits.
"""

from __future__ import annotations

import math
from typing import Protocol, final

from proxy.plane.head import RequestHead


class Applicant(Protocol):
    """What asks for a connection: an exchange."""

    head: RequestHead

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""


class SharingPool(Protocol):
    """What a limit asks of the pools that share it."""

    def waits_since(self) -> float:
        """Return the number of whoever has waited longest for a place, infinity if nobody does."""

    def use_place(self) -> bool:
        """Use a place that was taken for whoever has waited longest; return whether it is used."""

    def close_idle(self) -> bool:
        """Close a connection that is idle, at once; return whether there was one."""


@final
class ConnectionLimit:
    """The places for connections to one upstream."""

    __slots__ = ("_arrivals", "_pools", "_taken", "is_full", "most")

    def __init__(self, most: int) -> None:
        """`most` is 0 for no limit."""
        self.most = most or math.inf
        self.is_full = False
        """Whether no place is free; an attribute, for each exchange asks."""
        self._taken = 0
        self._pools: list[SharingPool] = []
        self._arrivals = 0

    def share(self, pool: SharingPool) -> None:
        """Have `pool` take its places here."""
        self._pools.append(pool)

    def arrive(self) -> int:
        """Return the number of somebody who begins to wait; numbers rise."""
        self._arrivals += 1
        return self._arrivals

    def first(self) -> SharingPool | None:
        """Return the pool of whoever has waited longest for a place."""
        found: SharingPool | None = None
        longest = math.inf
        for pool in self._pools:
            since = pool.waits_since()
            if since < longest:
                found, longest = pool, since
        return found

    def take(self) -> bool:
        """Take a place, or that of an idle connection, which is closed; return whether."""
        self._count(1)
        if self._taken <= self.most:
            return True
        # It is counted by now, so that what is closed for it is nobody else's to take.
        if any(pool.close_idle() for pool in self._pools):
            return True
        self._count(-1)
        return False

    def give_back(self) -> None:
        """Give back a place; it goes to whoever has waited longest."""
        self._count(-1)
        if not self.is_full:
            self.offer()

    def offer(self) -> None:
        """Let those who wait have the places that are free, and those of idle connections."""
        while (pool := self.first()) is not None and self.take():
            if not pool.use_place():
                self._count(-1)

    def _count(self, change: int) -> None:
        self._taken += change
        self.is_full = self._taken >= self.most
