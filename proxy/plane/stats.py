"""What the data path counts, as plain numbers.

The path only adds to these; `ops` turns them into metrics, the status page and JSON when
somebody asks.  A counter costs one dictionary entry here, where a metrics library would
take a lock per exchange.  Labels are bounded: route names, protocols, statuses, reasons.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

# Seconds. From a hit on the same host to Cloud Run's longest request timeout (60 min).
DURATION_BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 3600.0,
)  # fmt: skip


class Histogram:
    """Counts per bucket: ``counts[i]`` holds the values in (bounds[i-1], bounds[i]]."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = DURATION_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """One more than the bounds: the last holds what lies beyond them."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add one value, in seconds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Connections:
    """A route's upstream connections at one moment."""

    idle: int = 0
    busy: int = 0
    dialling: int = 0
    waiting: int = 0
    """Exchanges that wait for a connection."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed exchange, for the status page."""

    at: float
    """Wall clock."""
    route: str
    reason: str
    status: int
    detail: str
    hint: str


class RouteStats:
    """The numbers of one route; ``name`` is empty where no route matched."""

    __slots__ = (
        "connections", "dials", "duration", "errors", "in_flight", "name", "request_bytes",
        "requests", "response_bytes", "retries", "upstream_head",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: Counter[tuple[str, int]] = Counter()
        """Finished exchanges by (protocol of the caller: h1, h2 or ws; status)."""
        self.duration = Histogram()
        self.upstream_head = Histogram()
        """Attempt sent → response head."""
        self.errors: Counter[str] = Counter()
        """By reason."""
        self.in_flight = 0
        self.retries: Counter[str] = Counter()
        """By cause."""
        self.dials: Counter[str] = Counter()
        """By outcome: ``ok`` or the reason of the failure."""
        self.request_bytes = 0
        self.response_bytes = 0
        self.connections: Callable[[], Connections] = Connections
        """Asked when somebody looks; the route's pool puts its own answer here."""


class Stats:
    """The numbers of the process: one `RouteStats` per route name, kept through reloads."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteStats] = {}
        self.failures: deque[Failure] = deque(maxlen=50)

    def route(self, name: str) -> RouteStats:
        """Return the numbers of the route, made at the first question."""
        if (stats := self.routes.get(name)) is None:
            stats = self.routes[name] = RouteStats(name)
        return stats
