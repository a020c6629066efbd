"""The status as JSON values, and the points of its graphs.

Everything on it may be seen by whoever reaches the admin listener: no token, no header value,
no query string.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, Literal

import proxy
from proxy.clock import Clocks
from proxy.config import show
from proxy.config.model import Auth, Config, Route
from proxy.errors import REASONS, DownstreamGone
from proxy.frozen import frozen
from proxy.ops.history import SAMPLE_SECONDS, History, Span
from proxy.ops.lifecycle import Lifecycle
from proxy.ops.numbers import Numbers, TokenView
from proxy.plane.stats import Connections, Failure, RouteStats, Stats
from proxy.redact import redact
from proxy.system import event_loop

Json = dict[str, Any]

MAX_FAILURES: Final = 50
"""Failures in a report; there is one for each route and reason."""

Level = Literal["ok", "idle", "warning", "failing"]

FAILING_SHARE: Final = 0.05
"""Share of server errors from which a route counts as failing rather than as troubled."""


class Status:
    """Builds the report when somebody asks; `sample` is called every `sample_seconds`."""

    sample_seconds = SAMPLE_SECONDS

    def __init__(
        self,
        lifecycle: Lifecycle,
        config: Callable[[], Config],
        listeners: Callable[[], Iterable[object]],
        clocks: Clocks | None = None,
    ) -> None:
        """`config` answers the configuration in force, `listeners` the real addresses."""
        self._clocks = clocks or Clocks()
        self._lifecycle = lifecycle
        self._config = config
        self._listeners = listeners
        self._history = History(self._clocks.steady())
        self._last_failures: dict[tuple[str, str], Failure] = {}
        """The last one of each (route, reason): the path keeps few, and one trouble of many
        exchanges would hide all others."""

    def sample(self, numbers: Numbers) -> None:
        """Take one point of the graphs, and remember the failures."""
        self._remember(numbers)
        self._history.sample(numbers, self._clocks.steady(), self._clocks.wall())

    def report(self, numbers: Numbers, *, history: bool = True) -> Json:
        """Return the status; without the points of the graphs unless `history` is set."""
        config = self._config()
        report = self._process(config)
        report["routes"] = [self._route(route, numbers, history=history) for route in config.routes]
        report["totals"] = self._totals(numbers)
        report["unmatched"] = self._unmatched(numbers, history=history)
        report["failures"] = self._failures(numbers)
        if history:
            report["history"] = {
                "at": list(self._history.at),
                "seconds": [round(seconds, 3) for seconds in self._history.seconds],
            }
        return report

    def _process(self, config: Config) -> Json:
        uptime = self._lifecycle.uptime
        wall = self._clocks.wall()
        return {
            "version": proxy.__version__,
            "python": sys.version.partition(" ")[0],
            "build": proxy.build(),
            "loop": event_loop(),
            "state": self._lifecycle.state.value,
            "note": self._lifecycle.note,
            "time": wall,
            "started_at": wall - uptime,
            "uptime_seconds": round(uptime, 3),
            "configuration": config.source,
            "last_reload": self._last_reload(),
            "workers": config.workers,
            "listeners": [str(address) for address in self._listeners()],
            "sample_seconds": self.sample_seconds,
            "sampled_at": self._history.at[-1] if self._history.at else None,
        }

    def _last_reload(self) -> Json:
        last = self._lifecycle.last_reload
        return {
            "successful": not last.problem,
            "succeeded_at": last.succeeded_at,
            "problem": redact(last.problem),
        }

    def _route(self, route: Route, numbers: Numbers, *, history: bool) -> Json:
        stats = numbers.stats.routes.get(route.name) or RouteStats(route.name)
        token = numbers.tokens.get(route.name)
        recent = self._history.recent(stats, self._clocks.steady())
        connections = stats.connections()
        limit = route.limits.connections
        destinations = self._destinations(route, stats, numbers)
        aside = {each["name"]: not each["available"] for each in destinations}
        found = condition(recent, token, connections, limit, aside)
        return {
            **_settings(route),
            "condition": {"level": found.level, "why": redact(found.why)},
            "token": self._token(token),
            "destinations": destinations,
            "connections": {**asdict(connections), "limit": limit or None},
            **self._traffic(stats, recent, history=history),
        }

    def _destinations(self, route: Route, stats: RouteStats, numbers: Numbers) -> list[Json]:
        """Return each destination that is resolved, where the route has several."""
        tokens = numbers.destination_tokens.get(route.name, {})
        return [
            {
                "name": name,
                "available": each.available() == each.processes,
                "token": self._token(tokens.get(name)),
                "connections": asdict(each.connections()),
                "dials": dict(each.dials),
            }
            for name, each in stats.destinations.items()
            if each.processes
        ]

    def _remember(self, numbers: Numbers) -> None:
        for failure in numbers.stats.failures:
            # A caller that went away is nobody's failure.
            if failure.reason != DownstreamGone.reason:
                self._last_failures[failure.route, failure.reason] = failure

    def _failures(self, numbers: Numbers) -> list[Json]:
        """Return the last failure of each route and reason, the latest first."""
        self._remember(numbers)
        latest = sorted(self._last_failures.values(), key=lambda failure: failure.at, reverse=True)
        return [_failure(failure, numbers.stats) for failure in latest[:MAX_FAILURES]]

    def _totals(self, numbers: Numbers) -> Json:
        """Return the last minute over everything, unmatched requests included."""
        routes = numbers.stats.routes.values()
        recent = self._history.recent_of_all(routes, self._clocks.steady())
        return {"in_flight": sum(route.in_flight for route in routes), "recent": asdict(recent)}

    def _unmatched(self, numbers: Numbers, *, history: bool) -> Json | None:
        """Return the traffic that no route matched, if there was any."""
        stats = numbers.stats.routes.get("")
        if stats is None or not stats.requests:
            return None
        recent = self._history.recent(stats, self._clocks.steady())
        return self._traffic(stats, recent, history=history)

    def _traffic(self, stats: RouteStats, recent: Span, *, history: bool) -> Json:
        traffic: Json = {
            "in_flight": stats.in_flight,
            "requests": sum(stats.requests.values()),
            "codes": _summed(stats.requests, lambda key: str(key[1])),
            "protocols": _summed(stats.requests, lambda key: key[0]),
            "errors": dict(stats.errors),
            "retries": dict(stats.retries),
            "dials": dict(stats.all_dials()),
            "request_bytes": stats.request_bytes,
            "response_bytes": stats.response_bytes,
            "recent": asdict(recent),
        }
        if history:
            traffic["history"] = self._history.series(stats.name)
        return traffic

    def _token(self, token: TokenView | None) -> Json | None:
        if token is None:
            return None
        expires_at = token.expires_at
        left = None if expires_at is None else round(expires_at - self._clocks.wall(), 3)
        safe = {"error": redact(token.error), "hint": redact(token.hint)}
        return {**asdict(token), **safe, "expires_in_seconds": left}


def _settings(route: Route) -> Json:
    return {
        "name": route.name,
        "listen": [str(address) for address in route.listen],
        "matches": show.matches(route),
        "strip_path": route.strip_path,
        "upstream": show.upstream(route),
        "connect_to": show.connect_to(route) or None,
        "egress_proxy": show.egress_proxy(route) or None,
        "audience": show.audience(route) or None,
        "scopes": list(route.scopes) if route.auth is Auth.ACCESS_TOKEN else None,
        "auth": route.auth.value,
        "header": route.header.value,
        "credentials": show.credentials(route.credentials),
        "protocol": route.protocol.value,
    }


def _failure(failure: Failure, stats: Stats) -> Json:
    kind = REASONS.get(failure.reason)
    route = stats.routes.get(failure.route)
    return {
        **asdict(failure),
        "title": kind.title if kind is not None else failure.reason,
        "detail": redact(failure.detail),
        "hint": redact(failure.hint),
        "times": max(1, route.errors[failure.reason]) if route is not None else 1,
    }


def _summed(
    requests: Mapping[tuple[str, int], int], word: Callable[[tuple[str, int]], str]
) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key, count in sorted(requests.items(), key=lambda item: word(item[0])):
        sums[word(key)] = sums.get(word(key), 0) + count
    return sums


@frozen
class Condition:
    """A verdict on a route in one word and one sentence, for whoever looks at the page."""

    level: Level
    why: str


_NONE: Final[Mapping[str, bool]] = {}


def condition(
    recent: Span,
    token: TokenView | None,
    connections: Connections,
    limit: int,
    aside: Mapping[str, bool] = _NONE,
) -> Condition:
    """Judge a route by its last minute; the worst finding wins.

    `limit` bounds the connections, 0 for none; `aside` says of each destination, where there are
    several, whether it is set aside.
    """
    return next(_findings(recent, token, connections, limit, aside))


def _findings(
    recent: Span,
    token: TokenView | None,
    connections: Connections,
    limit: int,
    aside: Mapping[str, bool],
) -> Iterator[Condition]:
    """Yield what is to be said of a route, the worst first."""
    if token is not None and token.error and token.expires_at is None:
        yield Condition("failing", f"No token: {token.error}")
    if aside and all(aside.values()):
        yield Condition("failing", "All destinations are set aside; each is tried in its turn.")
    if recent.server_errors:
        failing = recent.server_errors >= FAILING_SHARE * recent.requests
        yield Condition("failing" if failing else "warning", _share("failed", recent))
    if any(aside.values()):
        names = ", ".join(name for name, is_aside in aside.items() if is_aside)
        yield Condition("warning", f"Set aside: {names}. Calls go to the other destinations.")
    if recent.refused:
        yield Condition("warning", _share("were refused with 401 or 403", recent))
    if token is not None and token.error:
        yield Condition("warning", f"The token cannot be refreshed: {token.error}")
    if connections.waiting:
        yield Condition("warning", _waiting(connections, limit))
    if not recent.requests:
        yield Condition("idle", "No exchange has ended in the last minute.")
    yield Condition("ok", "Exchanges are served.")


def _share(what: str, recent: Span) -> str:
    count = recent.server_errors or recent.refused
    return f"{count} of {max(count, recent.requests)} exchanges {what} in the last minute."


def _waiting(connections: Connections, limit: int) -> str:
    bound = f"; limits.connections is {limit}" if limit else ""
    return f"{connections.waiting} exchanges wait for a connection{bound}."
