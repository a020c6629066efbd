"""What all callers take together of a turn of the loop.

Each connection has its share of a turn (see `connection`); but a hundred of them that all use it up
would still keep everybody else waiting for a hundred shares.  So those that cause much work, and
those that have not been answered anything yet, have one share together, and take it in turns.  Who
is answered and causes little does not even notice.

What they have is short, because a call meets two or three turns: one until it is read, one until
its answer is.  It is measured in two ways.  Work as we reckon it is the same on every machine, and
tells what a read is about to cost before it is made; the clock tells what was reckoned wrongly, and
what a connection causes elsewhere: dials, answers, ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, Protocol

from proxy.clock import Clock

TURN_WORK: Final = 500.0
"""Microseconds, about, that they may cause together before others have their turn."""

TURN_SECONDS: Final = 0.0004
"""What that may take in fact."""

CONNECTION_SECONDS: Final = 0.0002
"""What one connection, of callers or upstreams, takes of a turn, from the first look at the clock.

What is left over waits for the next turn, whoever else there is."""

MUCH_WORK: Final = 1000.0
"""Microseconds from which on what a connection has caused in a turn counts."""


class Sharer(Protocol):
    """A connection that waits for a turn."""

    work: float
    """Microseconds that its latest turn has taken, 0 before the first."""

    def take_turn(self) -> None:
        """Go on; `Share.spend` is told of the work."""


class Share:
    """What is left of the turn under way, and who waits for the next ones."""

    __slots__ = (
        "_asked", "_clock", "_ends", "_others", "_served", "_unknown", "is_strained", "left",
    )  # fmt: skip

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        """`clock` gives seconds, in steps far below `TURN_SECONDS`."""
        self.left = TURN_WORK
        """Microseconds, as we reckon."""
        self.is_strained = False
        """Whether the last turn took longer than all of theirs, and others waited for it."""
        self._clock = clock
        self._unknown: deque[Sharer] = deque()
        """Those that have had no turn so far: they shall not wait for everybody who had."""
        self._others: deque[Sharer] = deque()
        self._asked = False
        """Whether the next turn is asked for."""
        self._ends = 0.0
        """When the turn under way is over, 0 if nobody has taken anything of it."""
        self._served = 0.0
        """When those who waited had taken theirs of it, 0 if nobody waits for the next."""

    @property
    def is_over(self) -> bool:
        """Whether nobody begins any more in this turn."""
        if self._ends:
            return self.left <= 0 or self._clock() >= self._ends
        self._ask()
        self._ends = self._clock() + TURN_SECONDS
        return False

    def spend(self, work: float) -> None:
        """Count the work that a connection has caused (microseconds)."""
        self.left -= work
        self._ask()

    def wait(self, connection: Sharer) -> None:
        """Have a connection take its turn when it comes to it."""
        (self._others if connection.work else self._unknown).append(connection)
        self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn of the loop with those who wait, one of each kind at a time."""
        self._asked = False
        self.left = TURN_WORK
        self._ends = 0.0
        # Whoever waits again has had its turn in this one.
        unknown, others = len(self._unknown), len(self._others)
        if not (unknown or others):
            self._served = 0.0
            self.is_strained = False
            return
        now = self._clock()
        # What the last turn took beyond them was mostly caused by them.
        spent = now - self._served if self._served else 0.0
        self._ends = now + max(TURN_SECONDS - spent, 0.0)
        self.is_strained = spent >= TURN_SECONDS
        while unknown or others:
            if unknown:
                unknown -= 1
                self._unknown.popleft().take_turn()
            if others:
                others -= 1
                self._others.popleft().take_turn()
            if self.is_over:
                break
        self._ask()
        self._served = self._clock()
