"""Time as an argument: the two clocks, so that tests control them.

Wall clock: what a token's ``exp`` is compared with.  Steady clock: what durations and
deadlines are measured with.  Both answer seconds as a float.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from proxy.frozen import frozen

Clock = Callable[[], float]


@frozen
class Clocks:
    """The pair that is handed down from `server` to whoever measures time."""

    wall: Clock = time.time  # noqa: TID251 (the one place that names the system's clock)
    steady: Clock = time.monotonic


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(wall: float) -> str:
    """Return an instant, in seconds since the epoch, as ``Date`` writes it (RFC 9110, 5.6.7).

    `email.utils` does the same, and importing it takes a twentieth of the whole start.
    """
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(wall)
    date = f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04}"
    return f"{date} {hour:02}:{minute:02}:{second:02} GMT"
