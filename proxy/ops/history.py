"""The last minutes as graphs need them: one point per route every few seconds.

Memory is bounded and small: six short arrays per route, and a minute of histograms.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.errors import REASONS
from proxy.frozen import frozen
from proxy.ops.numbers import Numbers
from proxy.plane.stats import DURATION_BOUNDS, RouteStats

SAMPLE_SECONDS: Final = 5.0
POINTS: Final = 180
"""Fifteen minutes."""
RECENT_POINTS: Final = 12
"""What counts as recent: a minute."""

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
COUNTS: Final = ("requests", "client_errors", "server_errors", "refused")
DRAWN: Final = ("requests", "client_errors", "server_errors")

# The caller went away: nobody's error, and usual where streams are read.
_GONE: Final = 499
_REFUSALS: Final = frozenset({401, 403})


@frozen
class Mark:
    """A route's totals at one moment."""

    at: float
    """Steady clock."""
    counts: tuple[int, ...]
    """In the order of `COUNTS`."""
    buckets: tuple[int, ...]
    """Durations, as in `Histogram.counts`."""


@frozen
class Span:
    """What happened between two marks."""

    seconds: float
    requests: int
    client_errors: int
    """Answered 4xx, but for callers that went away."""
    server_errors: int
    """Answered 5xx, or cut after the head."""
    refused: int
    """Answered 401 or 403; they are among the client errors."""
    percentiles: dict[str, float | None]
    """Seconds, by the names of `PERCENTILES`."""


def mark(route: RouteStats, now: float) -> Mark:
    """Read a route's totals at `now` (steady clock)."""
    requests = client = server = refused = 0
    for (_, code), count in route.requests.items():
        requests += count
        refused += count * (code in _REFUSALS)
        client += count * (400 <= code < 500 and code != _GONE)  # noqa: PLR2004 (classes)
        server += count * (code >= 500)  # noqa: PLR2004 (a class of RFC 9110, 15)
    # A response that breaks after its head is counted with the status that it began with.
    broken = sum(count for reason, count in route.errors.items() if _is_server_error(reason))
    counts = (requests, client, max(server, broken), refused)
    return Mark(now, counts, tuple(route.duration.counts))


def _is_server_error(reason: str) -> bool:
    kind = REASONS.get(reason)
    return kind is None or kind.status >= 500  # noqa: PLR2004 (a class of RFC 9110, 15)


def span(start: Mark, end: Mark) -> Span:
    """Return what happened from `start` to `end`."""
    # A sum over workers can fall when one of them ends; nothing negative has happened.
    requests, client, server, refused = (
        max(0, b - a) for a, b in zip(start.counts, end.counts, strict=True)
    )
    buckets = [max(0, b - a) for a, b in zip(start.buckets, end.buckets, strict=True)]
    percentiles = {
        name: quantile(share, DURATION_BOUNDS, buckets) for name, share in PERCENTILES.items()
    }
    return Span(end.at - start.at, requests, client, server, refused, percentiles)


def add_up(marks: Iterable[Mark], at: float) -> Mark:
    """Return the totals of several routes, as of `at`."""
    total = _nothing_yet(at)
    for one in marks:
        counts = tuple(a + b for a, b in zip(total.counts, one.counts, strict=True))
        buckets = tuple(a + b for a, b in zip(total.buckets, one.buckets, strict=True))
        total = Mark(at, counts, buckets)
    return total


def _nothing_yet(at: float) -> Mark:
    return Mark(at, (0,) * len(COUNTS), (0,) * (len(DURATION_BOUNDS) + 1))


class _Track:
    """One route's points, as many as the history has."""

    __slots__ = ("counts", "marks", "percentiles")

    def __init__(self, start: Mark, points: int) -> None:
        """Begin with `points` points at which nothing happened."""
        self.marks = deque([start], maxlen=RECENT_POINTS + 1)
        self.counts = {name: array("Q", [0] * points) for name in DRAWN}
        self.percentiles = {name: array("d", [math.nan] * points) for name in PERCENTILES}

    def add(self, end: Mark) -> None:
        found = span(self.marks[-1], end)
        for name, counts in self.counts.items():
            counts.append(getattr(found, name))
            del counts[:-POINTS]
        for name, seconds in self.percentiles.items():
            value = found.percentiles[name]
            seconds.append(math.nan if value is None else round(value, 6))
            del seconds[:-POINTS]
        self.marks.append(end)


class History:
    """The points of all routes; `sample` adds one to each."""

    __slots__ = ("_last", "_tracks", "at", "seconds")

    def __init__(self, now: float) -> None:
        """`now` is on the steady clock; only `at` is not."""
        self._last = now
        self._tracks: dict[str, _Track] = {}
        self.at: deque[float] = deque(maxlen=POINTS)
        """Wall-clock times at which the points were taken."""
        self.seconds: deque[float] = deque(maxlen=POINTS)
        """How much time each point covers: more than planned where the CPU was withdrawn."""

    def sample(self, numbers: Numbers, now: float, wall: float) -> None:
        """Take a point of every route."""
        seconds = now - self._last
        if seconds <= 0:
            return
        for name, route in numbers.stats.routes.items():
            if (track := self._tracks.get(name)) is None:
                track = self._tracks[name] = _Track(_nothing_yet(self._last), len(self.at))
            track.add(mark(route, now))
        self._last = now
        self.at.append(wall)
        self.seconds.append(seconds)

    def recent(self, route: RouteStats, now: float) -> Span:
        """Return what happened to a route within the last minute or so, up to `now`."""
        return span(self._minute_ago(route), mark(route, now))

    def recent_of_all(self, routes: Iterable[RouteStats], now: float) -> Span:
        """Return what happened to all of them together."""
        routes = list(routes)
        starts = [self._minute_ago(route) for route in routes]
        began = min((start.at for start in starts), default=self._last)
        return span(add_up(starts, began), add_up((mark(route, now) for route in routes), now))

    def _minute_ago(self, route: RouteStats) -> Mark:
        track = self._tracks.get(route.name)
        return track.marks[0] if track is not None else _nothing_yet(self._last)

    def series(self, name: str) -> dict[str, list[int] | list[float | None]]:
        """Return a route's points, as many as `at` has; a percentile of nothing is None."""
        track = self._tracks.get(name) or _Track(_nothing_yet(self._last), len(self.at))
        series: dict[str, list[int] | list[float | None]] = {}
        for word, counts in track.counts.items():
            series[word] = counts.tolist()
        for word, seconds in track.percentiles.items():
            # Only NaN differs from itself; this runs for every point of every route.
            series[word] = [value if value == value else None for value in seconds]  # noqa: PLR0124 (NaN)
        return series


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return the value below which `share` (0 to 1) of the observations lie; None without any.

    `counts` has one more entry than `bounds`, for what lies beyond them.  Observations are
    taken as spread evenly over their bucket, as Prometheus' ``histogram_quantile`` does; beyond
    the bounds nothing is known but the last bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    seen = 0
    for index, (bound, count) in enumerate(zip(bounds, counts, strict=False)):
        if count and seen + count >= rank:
            low = bounds[index - 1] if index else 0.0
            return low + (bound - low) * (rank - seen) / count
        seen += count
    return bounds[-1]
