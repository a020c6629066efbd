"""`Numbers` as JSON text, for the way from a worker process to its parent.

Both ends are the same program of the same version, so the form carries no version and is read
without doubt; it is nobody else's interface.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from proxy.ops.numbers import Numbers, TokenMetrics, TokenView
from proxy.plane.stats import Connections, Failure, Histogram, RouteStats, Stats

_COUNTERS = ("requests", "errors", "retries", "dials")
_SUMS = ("in_flight", "request_bytes", "response_bytes")
_HISTOGRAMS = ("duration", "upstream_head")


def dump(numbers: Numbers) -> str:
    """Return the numbers as one line of JSON."""
    stats = numbers.stats
    return json.dumps(
        {
            "routes": {name: _dump_route(route) for name, route in stats.routes.items()},
            "failures": [asdict(failure) for failure in stats.failures],
            "tokens": {name: asdict(token) for name, token in numbers.tokens.items()},
            "fetches": list(numbers.fetches.fetches.items()),
            "fetch_seconds": _dump_histogram(numbers.fetches.seconds),
            "pids": numbers.pids,
        },
        separators=(",", ":"),
    )


def load(text: str) -> Numbers:
    """Return what `dump` was given."""
    values = json.loads(text)
    stats = Stats()
    for name, route in values["routes"].items():
        _load_route(stats.route(name), route)
    stats.failures.extend(Failure(**failure) for failure in values["failures"])
    fetches = TokenMetrics()
    fetches.fetches.update({tuple(key): count for key, count in values["fetches"]})
    _load_histogram(fetches.seconds, values["fetch_seconds"])
    return Numbers(
        stats=stats,
        fetches=fetches,
        tokens={name: TokenView(**token) for name, token in values["tokens"].items()},
        pids=tuple(values["pids"]),
    )


def _dump_route(route: RouteStats) -> dict[str, Any]:
    # A list of pairs, because a key may be a tuple.
    values: dict[str, Any] = {name: list(getattr(route, name).items()) for name in _COUNTERS}
    values |= {name: getattr(route, name) for name in _SUMS}
    values |= {name: _dump_histogram(getattr(route, name)) for name in _HISTOGRAMS}
    values["connections"] = asdict(route.connections())
    return values


def _load_route(route: RouteStats, values: Mapping[str, Any]) -> None:
    for name in _COUNTERS:
        counter: Counter[Any] = getattr(route, name)
        counter.update({_key(key): count for key, count in values[name]})
    for name in _SUMS:
        setattr(route, name, values[name])
    for name in _HISTOGRAMS:
        _load_histogram(getattr(route, name), values[name])
    connections = Connections(**values["connections"])
    route.connections = lambda: connections


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key


def _dump_histogram(histogram: Histogram) -> list[Any]:
    return [histogram.counts, histogram.sum]


def _load_histogram(histogram: Histogram, values: list[Any]) -> None:
    histogram.counts, histogram.sum = values
