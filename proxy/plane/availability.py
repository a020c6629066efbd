"""Whether a destination of a route may be called: a state machine with its table.

Pure: it is told what happened, and asked.  What counts as a failure is decided in `destinations`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final, final

from proxy.clock import Clock

MOST_FAILURES: Final = 3
"""In a row, until a destination is set aside."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds for which a destination is set aside: doubled after each trial that failed."""

_SPREAD: Final = 0.2
"""How far a pause may be off, as a share: processes that lost a destination together must not try
it together."""


class Standing(enum.Enum):
    """What may be sent to a destination."""

    AVAILABLE = "available"
    SET_ASIDE = "set_aside"
    """Nothing until its pause is over, unless all are set aside."""
    ON_TRIAL = "on_trial"
    """One exchange finds out whether it is back."""


class Event(enum.Enum):
    """What happens to a destination."""

    CHOSEN = "chosen"
    """An exchange goes there."""
    FAILED = "failed"
    """By its own fault: in a trial, or for the third time in a row."""
    SUCCEEDED = "succeeded"
    """It has answered, whatever the status."""
    UNDECIDED = "undecided"
    """Its trial ended without a verdict: the caller went away, say."""


AVAILABLE: Final[Standing] = Standing.AVAILABLE
SET_ASIDE: Final[Standing] = Standing.SET_ASIDE
ON_TRIAL: Final[Standing] = Standing.ON_TRIAL
CHOSEN: Final[Event] = Event.CHOSEN
FAILED: Final[Event] = Event.FAILED
SUCCEEDED: Final[Event] = Event.SUCCEEDED
UNDECIDED: Final[Event] = Event.UNDECIDED

TRANSITIONS: Final[Mapping[tuple[Standing, Event], Standing]] = {
    (Standing.AVAILABLE, Event.CHOSEN): Standing.AVAILABLE,
    (Standing.AVAILABLE, Event.FAILED): Standing.SET_ASIDE,
    (Standing.AVAILABLE, Event.SUCCEEDED): Standing.AVAILABLE,
    (Standing.AVAILABLE, Event.UNDECIDED): Standing.AVAILABLE,
    (Standing.SET_ASIDE, Event.CHOSEN): Standing.ON_TRIAL,
    (Standing.SET_ASIDE, Event.FAILED): Standing.SET_ASIDE,
    (Standing.SET_ASIDE, Event.SUCCEEDED): Standing.AVAILABLE,
    (Standing.SET_ASIDE, Event.UNDECIDED): Standing.SET_ASIDE,
    (Standing.ON_TRIAL, Event.CHOSEN): Standing.ON_TRIAL,
    (Standing.ON_TRIAL, Event.FAILED): Standing.SET_ASIDE,
    (Standing.ON_TRIAL, Event.SUCCEEDED): Standing.AVAILABLE,
    (Standing.ON_TRIAL, Event.UNDECIDED): Standing.SET_ASIDE,
}


@final
class Availability:
    """The state of one destination.

    An exchange keeps the `era` in which it was sent, and its verdict counts in that alone: what
    was under way when a destination was set aside says nothing of whether it is back.
    """

    __slots__ = ("_clock", "_failures", "_jitter", "_pause", "due_at", "era", "standing")

    def __init__(self, clock: Clock, jitter: Callable[[], float]) -> None:
        """`clock` is the steady one; `jitter` answers from 0 to 1."""
        self._clock = clock
        self._jitter = jitter
        self._failures: set[int] = set()
        """The events that were failures, in a row, until there are enough of them."""
        self._pause = FIRST_PAUSE
        self.standing: Standing = AVAILABLE
        self.due_at = 0.0
        """When it may be tried again, where it is set aside; by the steady clock."""
        self.era = 0
        """Counts how often it was set aside."""

    @property
    def is_open(self) -> bool:
        """Whether an exchange may go there: it is available, or its pause is over."""
        standing = self.standing
        return standing is AVAILABLE or (standing is SET_ASIDE and self._clock() >= self.due_at)

    def count(self) -> int:
        """Return 1 while it is available, else 0: what metrics add up."""
        return int(self.standing is AVAILABLE)

    def chosen(self) -> bool:
        """Note that an exchange goes there; return whether that is the trial."""
        before = self.standing
        self.standing = TRANSITIONS[before, CHOSEN]
        return self.standing is not before

    def succeeded(self, era: int) -> None:
        """Note an answer to an exchange that was sent in `era`."""
        if era == self.era:
            self.standing = TRANSITIONS[self.standing, SUCCEEDED]
            self._failures.clear()
            self._pause = FIRST_PAUSE

    def failed(self, era: int, event: int) -> None:
        """Note a failure of an exchange that was sent in `era`.

        `event` is the number of what happened (`ProxyError.event`): a dial that many exchanges
        waited for is one failure, and so is the end of a connection with many streams.
        """
        if era != self.era:
            return
        if self.standing is AVAILABLE:
            self._failures.add(event)
            if len(self._failures) < MOST_FAILURES:
                return
            self._failures.clear()
        self.standing = TRANSITIONS[self.standing, FAILED]
        self.era += 1
        spread = 1.0 + _SPREAD * (2.0 * self._jitter() - 1.0)
        self.due_at = self._clock() + self._pause * spread
        self._pause = min(2.0 * self._pause, LONGEST_PAUSE)

    def undecided(self, era: int) -> None:
        """Note that the trial of `era` has ended without a verdict: the next exchange is one."""
        if era == self.era:
            self.standing = TRANSITIONS[self.standing, UNDECIDED]
