"""What the data path counts, as plain numbers, and the log line at the end of each exchange.

The path only adds to these; `ops` turns them into metrics, the status page and JSON when
somebody asks.  A counter costs one dictionary entry here, where a metrics library would
take a lock per exchange.  Labels are bounded: route names, protocols, statuses, reasons.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, Protocol, final

from proxy.clock import Clock
from proxy.errors import DownstreamGone, Fault, PlatformError, ProxyError
from proxy.frozen import frozen
from proxy.plane.head import RequestHead, values

log: Final = logging.getLogger("proxy.access")
explanations = logging.getLogger("proxy.plane.refused")

_SERVER_ERROR: Final = 500

_REFUSALS: Final = frozenset((401, 403, 404))  # Token, permission, ingress: what a person can mend.

# Seconds. From a hit on the same host to Cloud Run's longest request timeout (60 min).
DURATION_BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 3600.0,
)  # fmt: skip


@final
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
        # Looked for from below, where most are: bisecting takes longer up to the tenth.
        bucket = 0
        for bound in self.bounds:
            if value <= bound:
                break
            bucket += 1
        self.counts[bucket] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


@frozen
class Connections:
    """A route's upstream connections at one moment."""

    idle: int = 0
    busy: int = 0
    dialling: int = 0
    waiting: int = 0
    """Exchanges that wait for a connection."""


@frozen
class Failure:
    """One failed exchange, for the status page."""

    at: float
    """Wall clock."""
    route: str
    reason: str
    status: int
    detail: str
    hint: str


@final
class DestinationStats:
    """The numbers of one destination, where a route has several."""

    __slots__ = ("available", "connections", "dials", "name", "processes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.processes = 0
        """That serve the route."""
        self.available: Callable[[], int] = int
        """Asked when somebody looks: how many of them have it available."""
        self.dials: Counter[str] = Counter()
        """As the route's, which counts none then."""
        self.connections: Callable[[], Connections] = Connections
        """As the route's, which has the sum."""


_set: Final = dict.__setitem__


@final
class RouteStats:
    """The numbers of one route; ``name`` is empty where no route matched."""

    __slots__ = (
        "connections", "destinations", "dials", "duration", "errors", "failovers", "in_flight",
        "name", "request_bytes", "requests", "response_bytes", "retries", "upstream_head",
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
        self.failovers: Counter[str] = Counter()
        """By cause: an exchange went to another destination."""
        self.dials: Counter[str] = Counter()
        """By outcome: ``ok`` or the reason of the failure.  See `all_dials`."""
        self.destinations: dict[str, DestinationStats] = {}
        """By name, where the route has several."""
        self.request_bytes = 0
        self.response_bytes = 0
        self.connections: Callable[[], Connections] = Connections
        """Asked when somebody looks; the route's pool puts its own answer here."""

    def finished(self, protocol: str, status: int, seconds: float) -> None:
        """Count an exchange that has ended, and how long it took."""
        key = (protocol, status)
        # Set as a dict does it: a Counter may be asked to delete what it has not, in Python, and
        # CPython sets where it deletes.  That would be a fiftieth of an exchange.
        _set(self.requests, key, self.requests[key] + 1)
        self.duration.observe(seconds)

    def all_dials(self) -> Counter[str]:
        """Return the dials to whichever destination, by outcome."""
        total = self.dials.copy()
        for each in self.destinations.values():
            total.update(each.dials)
        return total


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


class Ended(Protocol):
    """What of an exchange is reported besides its numbers."""

    head: RequestHead
    status: int
    platform_error: PlatformError | None
    """Set where Google's front end answered."""
    request_bytes: int
    response_bytes: int
    protocol: str
    """h1, h2 or ws."""


@final
class Reporter:
    """Logs finished exchanges, and counts and keeps those that failed."""

    __slots__ = ("_stats", "_wall")

    def __init__(self, stats: Stats, wall: Clock) -> None:
        self._stats = stats
        self._wall = wall

    def finished(
        self,
        exchange: Ended,
        stats: RouteStats,
        status: int,
        seconds: float,
        error: ProxyError | None,
    ) -> None:
        """Report an exchange that had a route, whose `stats` have counted it."""
        if error is not None:
            self._failed(stats, status, error)
        # Almost all: a call less for each exchange.
        is_plain = error is None and status < _SERVER_ERROR
        level = logging.INFO if is_plain else _level(status, error)
        if log.isEnabledFor(level):
            _write(level, stats.name, exchange.head, _http(exchange, seconds), error)
        if exchange.platform_error is not None:
            _explain(exchange.platform_error, stats.name)

    def refused(self, head: RequestHead, protocol: str, error: ProxyError, route: str = "") -> None:
        """Report a request that never became an exchange; `route` is empty where none matched."""
        stats = self._stats.route(route)
        stats.requests[protocol, error.status] += 1
        self._failed(stats, error.status, error)
        http = {
            "method": head.method.decode("latin-1"),
            "path": head.path.decode("latin-1"),
            "status": error.status,
            "protocol": protocol,
        }
        _write(_level(error.status, error), route, head, http, error)

    def _failed(self, stats: RouteStats, status: int, error: ProxyError) -> None:
        stats.errors[error.reason] += 1
        if isinstance(error, DownstreamGone):
            return  # Nobody failed: it would only displace what did.
        self._stats.failures.append(
            Failure(self._wall(), stats.name, error.reason, status, error.detail, error.hint)
        )


def _http(exchange: Ended, seconds: float) -> dict[str, Any]:
    return {
        "method": exchange.head.method.decode("latin-1"),
        "path": exchange.head.path.decode("latin-1"),
        "status": exchange.status,
        "seconds": seconds,
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "protocol": exchange.protocol,
    }


def _explain(error: PlatformError, route: str) -> None:
    """Say once a minute per route and status why Google's front end refuses its calls."""
    if error.status in _REFUSALS:
        extra = {"route": route, "reason": error.reason, "per_minute": 1, "hint": error.hint}
        explanations.warning(f"{error.title}: {error.detail}", extra=extra)


def _level(status: int, error: ProxyError | None) -> int:
    """Return how loud the log says it: what an operator must act on is an error."""
    if error is None:
        return logging.WARNING if status >= _SERVER_ERROR else logging.INFO
    if error.fault is Fault.DOWNSTREAM or isinstance(error, DownstreamGone):
        return logging.WARNING
    return logging.ERROR


def _write(
    level: int, route: str, head: RequestHead, http: dict[str, Any], error: ProxyError | None
) -> None:
    asked = f"{http['method']} {http['path']}" if http["method"] else "no request"
    line = f"{asked} → {http['status']}"
    extra: dict[str, Any] = {"route": route, "http": http}
    if error is not None:
        line = f"{line} {error.reason}: {error.detail}"
        extra["reason"] = error.reason
        extra["hint"] = error.hint
    agent = values(head.fields, b"user-agent")
    if agent:
        http["user_agent"] = agent[0].decode("latin-1")
    for name in (b"traceparent", b"x-cloud-trace-context"):
        trace = values(head.fields, name)
        if trace:
            extra["trace"] = (name.decode(), trace[0].decode("latin-1"))
            break
    log.log(level, line, extra=extra)
