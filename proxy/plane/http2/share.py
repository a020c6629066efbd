"""What the callers of one listener take together of a turn of the loop.

Each connection has its share of a turn (see `connection`); but a hundred of them that all use it up
would still keep everybody else waiting for a hundred shares.  So those that cause much work, and
those that have not been answered anything yet, have one share together, and take it in turns.  Who
is answered and causes little does not even notice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

TURN_WORK: Final = 4000.0
"""Microseconds of work, about, that one connection may cause before others have their turn."""

MUCH_WORK: Final = TURN_WORK / 4
"""Microseconds from which on what a connection has caused in a turn counts."""


class Sharer(Protocol):
    """A connection that waits for a turn."""

    work: float
    """Microseconds that its latest turn has taken, 0 before the first."""

    def take_turn(self) -> None:
        """Go on; `Share.spend` is told of the work."""


class Share:
    """What is left of the turn under way, and who waits for the next ones."""

    __slots__ = ("_begins", "_others", "_unknown", "left")

    def __init__(self) -> None:
        self.left = TURN_WORK
        """Microseconds; nobody begins when there is nothing left."""
        self._unknown: deque[Sharer] = deque()
        """Those that have had no turn so far: they shall not wait for everybody who had."""
        self._others: deque[Sharer] = deque()
        self._begins = False
        """Whether the next turn is asked for."""

    def spend(self, work: float) -> None:
        """Count the work that a connection has caused (microseconds)."""
        self.left -= work
        self._ask()

    def wait(self, connection: Sharer) -> None:
        """Have a connection take its turn when it comes to it."""
        (self._others if connection.work else self._unknown).append(connection)
        self._ask()

    def _ask(self) -> None:
        if not self._begins:
            self._begins = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn of the loop with those who wait, one of each kind at a time."""
        self._begins = False
        self.left = TURN_WORK
        # Whoever waits again has had its turn in this one.
        unknown, others = len(self._unknown), len(self._others)
        while self.left > 0 and (unknown or others):
            if unknown:
                unknown -= 1
                self._unknown.popleft().take_turn()
            if others:
                others -= 1
                self._others.popleft().take_turn()
        if self._unknown or self._others:
            self._ask()
