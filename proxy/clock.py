"""Time as an argument: the two clocks, so that tests can hold them in their hand.

Wall clock: what a token's ``exp`` is compared with.  Steady clock: what durations and
deadlines are measured with.  Both answer seconds as a float.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Clocks:
    """The pair that is handed down from `server` to whoever measures time."""

    wall: Clock = time.time  # noqa: TID251 (the one place that names the system's clock)
    steady: Clock = time.monotonic
