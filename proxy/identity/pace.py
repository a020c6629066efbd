"""When the next fetch may begin: after a failure, a refresh, or a token that was refused.

Holds numbers only; knows no token and starts nothing.
"""

from __future__ import annotations

import math
from random import Random

from proxy.clock import Clock

BACKOFF_FIRST = 0.1
BACKOFF_LAST = 30.0
"""Bounds of the pause after a failed fetch, in seconds."""

PAUSE = (10.0, 20.0)
"""Bounds of the pause after a successful fetch, in seconds.  Cloud Run's metadata server may
hand out the same token until 100 s before its ``exp``, so asking on is needed and asking at
once is useless.  The spread keeps the containers of one instance from asking in step."""

REFUSED_PAUSE = 30.0
"""Seconds for which a refused token that came back unchanged is not fetched again."""

REFUSALS = 5
"""Refused tokens that are replaced in one `REFUSED_PAUSE`.  A source that signs a different
token each time would otherwise be asked once for every call to a service that never accepts
the audience."""


class Pace:
    """The steady-clock time before which nothing is fetched of one's own accord."""

    __slots__ = ("_clock", "_failures", "_jitter", "_refusals", "_refused_at", "not_before")

    def __init__(self, clock: Clock, jitter: Random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._refusals = 0
        self._refused_at = -math.inf
        self.not_before = -math.inf

    def wait(self) -> float:
        """Return the seconds until the next fetch may begin; 0 or less: at once."""
        return self.not_before - self._clock()

    def failed(self) -> None:
        """Hold the next fetch off for longer than the last time."""
        # The exponent is bounded because 2.0 ** 1100 overflows; 30 s are reached at 8.
        most = min(BACKOFF_LAST, 2 * BACKOFF_FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.not_before = self._clock() + self._jitter.uniform(most / 2, most)

    def succeeded(self, usable: float) -> None:
        """Hold the next refresh off; `usable` is how long the token may be used, in seconds."""
        self._failures = 0
        # Half of what is left, so that a token that lives shortly is refreshed in time.
        self.not_before = self._clock() + min(self._jitter.uniform(*PAUSE), usable / 2)

    def came_back(self) -> None:
        """Hold off the next fetch because a refused token was fetched again unchanged."""
        self.not_before = self._clock() + REFUSED_PAUSE

    def may_replace(self) -> bool:
        """Count one refused token; return whether it is to be replaced."""
        now = self._clock()
        if now - self._refused_at >= REFUSED_PAUSE:
            self._refusals = 0
        if self._refusals == REFUSALS:
            return False
        self._refusals += 1
        self._refused_at = now
        return True
