"""A bound on what goes on at once, with a fair and bounded queue behind it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import final


class GateFull(Exception):
    """No place, and none to wait in."""


@final
class Gate:
    """Counts who is inside; whoever comes when it is full waits in the order of arrival."""

    __slots__ = ("_limit", "_queue", "_waiting", "inside")

    def __init__(self, limit: int, queue: int) -> None:
        """`limit` is how many may be inside at once, `queue` how many may wait."""
        self._limit = limit
        self._queue = queue
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        """In the order of arrival; whoever leaves is not searched for."""
        self.inside = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Enter without waiting; False if full, or if others wait already."""
        if self.inside >= self._limit or self._waiting:
            return False
        self.inside += 1
        return True

    async def enter(self) -> None:
        """Enter, waiting for a place.

        Raises:
            GateFull: the queue is full too.
        """
        if self.try_enter():
            return
        if len(self._waiting) >= self._queue:
            raise GateFull
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # The place was already ours: pass it on.
            else:
                # It is not there any more if `leave` has just passed it over.
                self._waiting.pop(turn, None)
            raise

    def leave(self) -> None:
        """Give the place to whoever has waited longest."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.inside -= 1
