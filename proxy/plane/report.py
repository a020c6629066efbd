"""The end of every exchange: its numbers, and its line in the log.  Each passes here once."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from proxy.clock import Clock
from proxy.errors import DownstreamGone, Fault, ProxyError
from proxy.plane.explain import explain
from proxy.plane.head import RequestHead, values
from proxy.plane.prepared import PreparedRoute
from proxy.plane.stats import Failure, RouteStats, Stats

log = logging.getLogger("proxy.access")
explanations = logging.getLogger("proxy.plane.refused")

_SERVER_ERROR = 500


class Finished(Protocol):
    """What of an exchange is reported."""

    route: PreparedRoute
    head: RequestHead
    status: int
    refused_as: int
    request_bytes: int
    response_bytes: int

    @property
    def protocol(self) -> str:
        """h1, h2 or ws."""


class Reporter:
    """Counts and logs finished exchanges."""

    __slots__ = ("_stats", "_wall")

    def __init__(self, stats: Stats, wall: Clock) -> None:
        self._stats = stats
        self._wall = wall

    def finished(self, exchange: Finished, seconds: float, error: ProxyError | None) -> None:
        """Report the end of an exchange that had a route and took `seconds`."""
        stats, status = exchange.route.stats, exchange.status
        stats.requests[exchange.protocol, status] += 1
        stats.duration.observe(seconds)
        if error is not None:
            self._failed(stats, status, error)
        # Almost all: a call less for each exchange.
        is_plain = error is None and status < _SERVER_ERROR
        level = logging.INFO if is_plain else _level(status, error)
        if log.isEnabledFor(level):
            _write(level, stats.name, exchange.head, _http(exchange, seconds), error)
        if exchange.refused_as and error is None:
            _explain(exchange.refused_as, exchange.route)

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


def _http(exchange: Finished, seconds: float) -> dict[str, Any]:
    return {
        "method": exchange.head.method.decode("latin-1"),
        "path": exchange.head.path.decode("latin-1"),
        "status": exchange.status,
        "seconds": seconds,
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "protocol": exchange.protocol,
    }


def _explain(status: int, route: PreparedRoute) -> None:
    """Say once a minute per route what a refused token usually means."""
    destination = route.destinations[0]
    if destination.token_cache is not None:
        text, hint = explain(status, route.config, destination.token)
        extra = {"route": route.name, "reason": f"upstream_{status}", "per_minute": 1}
        explanations.warning(text, extra={**extra, "hint": hint})


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
    line = f"{http['method']} {http['path']} → {http['status']}"
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
