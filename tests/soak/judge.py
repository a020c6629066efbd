"""What a run has used over time, and whether that is a level or a slope."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

KIB = 1024

GROWTH_KIB = 3 * KIB
"""By which memory may have grown over the half of a run that is judged, as its slope says.

glibc keeps 4 MiB of what was freed, and gives back more at moments of its own: a level moves by
that much without anything being lost.  So a short run finds what loses some 300 bytes with each
call, and one of two hours what loses five.
"""

GROWTH_DESCRIPTORS = 8.0
"""The same for descriptors, whose number follows what is under way."""

MOST_POINTS = 400
"""A slope is found from all pairs of points, so there must not be too many."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The proxy at one moment."""

    at: float
    """Seconds since the start of the load."""
    rss_kib: int
    descriptors: int
    cpu_seconds: float
    calls: int
    """That have ended so far."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the second half of a run says."""

    minutes: float
    """That were judged."""
    rss_slope: float
    """KiB per minute."""
    descriptor_slope: float
    """Descriptors per minute."""
    problems: list[str] = field(default_factory=list)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs of points (Theil and Sen).

    Unlike a least-squares fit it does not follow a few peaks.  Points are thinned evenly.
    """
    kept = points[:: -(-len(points) // MOST_POINTS) or 1]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for earlier, later in itertools.combinations(kept, 2)
        if later[0] > earlier[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


def judge(samples: Sequence[Sample]) -> Verdict:
    """Judge the second half: the first one is the time in which pools and caches fill up."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return Verdict(0.0, 0.0, 0.0, ["there are too few samples"])
    minutes = (half[-1].at - half[0].at) / 60
    rss = slope([(each.at / 60, each.rss_kib) for each in half])
    descriptors = slope([(each.at / 60, each.descriptors) for each in half])
    problems = []
    if rss * minutes > GROWTH_KIB:
        problems.append(f"memory grows by {rss:.0f} KiB a minute")
    if descriptors * minutes > GROWTH_DESCRIPTORS:
        problems.append(f"descriptors grow by {descriptors:.1f} a minute")
    return Verdict(minutes, rss, descriptors, problems)
