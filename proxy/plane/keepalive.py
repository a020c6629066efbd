"""How long an upstream keeps an idle connection, as far as it is known.

An upstream ends idle connections when it likes, most after a fixed time (RFC 9112, 9.3 and 9.5).
A request that meets such an end on its way is lost, and what must not be repeated is lost for the
caller too.  So it gets only connections that have idled for well below the time for which this
upstream has been seen, or has promised, to keep one; whatever may be repeated takes any.
"""

from __future__ import annotations

import math
from functools import lru_cache

from proxy.plane.head import tokens

UNKNOWN = 1.0
"""Seconds that are taken for granted of an upstream that nothing is known of.  The shortest time
that servers keep connections by default is 2 s (gunicorn)."""

_WELL_BELOW = 0.5
"""The share of the known time that counts: timers are coarse, and a request takes a while."""


class KeepAlive:
    """What is known of one upstream."""

    __slots__ = ("_enough", "_known", "_promised", "safe")

    def __init__(self, enough: float) -> None:
        """`enough` is how long we keep idle connections ourselves (seconds)."""
        self._enough = enough
        self._known = UNKNOWN
        self._promised = math.inf
        self.safe = UNKNOWN * _WELL_BELOW
        """Seconds of idling below which a connection may carry what must not be repeated."""

    def promised(self, seconds: float) -> None:
        """Take what ``Keep-Alive: timeout=N`` says; cheap where it says what it said before."""
        if seconds != self._promised:
            self._promised = seconds
            self._set(seconds)

    def seen_open(self, idle: float) -> None:
        """Note that a connection is open after `idle` seconds."""
        if idle > self._known:
            self._set(min(idle, self._promised))

    def found_closed(self, idle: float) -> None:
        """Note that the upstream ended a connection which had idled for at most `idle` seconds."""
        if idle < self._known:
            self._set(idle)

    def _set(self, known: float) -> None:
        self._known = known
        # Beyond our own time nothing can be seen, and nothing has to be.
        self.safe = self._enough if known >= self._enough else known * _WELL_BELOW


@lru_cache(maxsize=64)  # The upstream picks the value; the bound keeps a hostile one out of memory.
def timeout_of(value: bytes) -> float:
    """Return the seconds that a Keep-Alive field promises, infinity where it does not say.

    The field is older than its descriptions (RFC 2068, 19.7.1.1); servers send ``timeout=5`` and
    ``timeout=5, max=100``.
    """
    for member in tokens(value):
        name, _, number = member.partition(b"=")
        number = number.strip(b' \t"')
        if name.strip() == b"timeout" and number.isdigit() and len(number) <= 9:  # noqa: PLR2004 (31 years)
            return float(number)
    return math.inf
