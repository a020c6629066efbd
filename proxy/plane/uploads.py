"""A bound on the connections that requests hold which are not whole yet.

Such a request keeps its connection for as long as its caller likes: one that stops sending is
noticed after `timeouts.idle` at the soonest.  Requests that are whole depend on the upstream alone.
So the last tenth of a route's connections is theirs, whatever callers do.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from proxy.deadlines import Within
from proxy.errors import Overloaded
from proxy.plane.head import RequestHead


class Applicant(Protocol):
    """What asks for a connection: an exchange."""

    head: RequestHead

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""


class Uploads:
    """Counts the requests of one route that have, or will have, a connection and are not whole."""

    __slots__ = ("_connections", "_held", "_most", "_waiting", "is_full")

    def __init__(self, connections: int) -> None:
        """`connections` is the route's limit, 0 for none."""
        self._connections = connections
        self._most = connections - connections // 10 if connections else math.inf
        self._held = 0
        self._waiting: dict[Applicant, asyncio.Future[bool]] = {}
        """In the order of arrival."""
        self.is_full = False
        """Whether another one has to wait; an attribute, for each exchange asks."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self, applicant: Applicant, timeout: float) -> bool:
        """Wait for a place, at most `timeout` seconds, or until the request is whole.

        Returns whether it was counted, so that it has to be uncounted with `end`.

        Raises:
            Overloaded: there was no place in time.
        """
        if applicant.is_whole:
            return False
        if not self.is_full:
            self.begin()
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[applicant] = turn
        try:
            async with Within(timeout):
                return await turn
        except TimeoutError:
            self._leave(applicant, turn)
            raise Overloaded(
                f"Requests whose bodies have not come yet held {self._most} of the"
                f" {self._connections} connections for {timeout:g} s.",
                retry_after=1,
            ) from None
        except asyncio.CancelledError:
            self._leave(applicant, turn)
            raise

    def begin(self) -> None:
        """Count one that did not have to wait."""
        self._held += 1
        self.is_full = self._held >= self._most

    def end(self) -> None:
        """Uncount one: it is whole, or its connection is gone.  Its place goes to the next."""
        while self._waiting:
            turn = self._waiting.pop(next(iter(self._waiting)))
            if not turn.done():
                turn.set_result(True)
                return
        self._held -= 1
        self.is_full = self._held >= self._most

    def completed(self, applicant: Applicant) -> None:
        """Let one go on that waits no more: it is whole."""
        turn = self._waiting.pop(applicant, None)
        if turn is not None and not turn.done():
            turn.set_result(False)

    def _leave(self, applicant: Applicant, turn: asyncio.Future[bool]) -> None:
        is_given = turn.done() and not turn.cancelled() and turn.result()
        if self._waiting.pop(applicant, None) is None and is_given:
            self.end()  # The place was given to it in this very moment: pass it on.
