"""The numbers in Prometheus' formats.

`render` builds everything from `Numbers` when somebody asks: the data path only adds to plain
numbers, and no registry of the library, global or not, is involved.  Importing this module
costs some tens of milliseconds (prometheus_client), so `admin` does so when somebody first asks.

Labels are bounded: route names, protocols, status codes, reasons, states and outcomes.  A
series of a counter appears with its first event, so ask for increases over a range that
tolerates an absent start (``deploy/prometheus`` does); gauges of a known route are always there.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import proxy
from proxy.ops.lifecycle import Reload
from proxy.ops.numbers import Numbers
from proxy.plane.stats import Connections, Histogram, RouteStats

Labels = tuple[str, ...]
"""Values of labels, those of a metric's own first: one more is the destination."""

Sample = tuple[Labels, float]
Samples = Iterator[Sample]


def render(numbers: Numbers, reload: Reload, accept: str = "") -> tuple[bytes, str]:
    """Return the metrics and their content type, in the format that `accept` asks for.

    OpenMetrics where the ``Accept`` header names it, else the text format 0.0.4 (or 1.0.0 where
    it is named).
    """
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):
        # prometheus_client 0.26 compares a version that is no number with one that is.
        encode, content_type = choose_encoder("")
    return encode(_Scrape(numbers, reload)), content_type


def families(numbers: Numbers, reload: Reload) -> Iterator[Metric]:
    """Yield what a scrape shows, in the library's model."""
    return _Scrape(numbers, reload).collect()


class _Scrape(Collector):
    """One reading of the numbers, as the library's encoders want it."""

    def __init__(self, numbers: Numbers, reload: Reload) -> None:
        self._numbers = numbers
        self._reload = reload

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the program, then those of its processes."""
        routes = list(self._numbers.stats.routes.values())
        yield from _traffic(routes)
        yield from _bodies(routes)
        yield from _upstream(routes)
        yield from _destinations(routes)
        yield from _tokens(self._numbers)
        yield from _reloads(self._reload)
        yield _build_info()
        yield from _processes(self._numbers.pids)


def _traffic(routes: Sequence[RouteStats]) -> Iterator[Metric]:
    yield _counter(
        "auth_proxy_requests_total",
        "Finished exchanges; a tunnel counts when it ends, with code 101.",
        ("route", "protocol", "code"),
        (
            ((route.name, protocol, str(code)), count)
            for route in routes
            for (protocol, code), count in route.requests.items()
        ),
    )
    yield _histogram(
        "auth_proxy_request_duration_seconds",
        "From the head of a request to the end of its exchange.",
        ("route",),
        (((route.name,), route.duration) for route in routes),
    )
    yield _counter(
        "auth_proxy_errors_total",
        "Exchanges that failed, by reason; docs/failures.md explains each reason.",
        ("route", "reason"),
        _counts(routes, lambda route: route.errors),
    )
    yield _gauge(
        "auth_proxy_in_flight",
        "Exchanges in progress.",
        ("route",),
        (((route.name,), route.in_flight) for route in routes),
    )


def _bodies(routes: Sequence[RouteStats]) -> Iterator[Metric]:
    yield _counter(
        "auth_proxy_request_bytes_total",
        "Bytes of request bodies.",
        ("route",),
        (((route.name,), route.request_bytes) for route in routes),
    )
    yield _counter(
        "auth_proxy_response_bytes_total",
        "Bytes of response bodies.",
        ("route",),
        (((route.name,), route.response_bytes) for route in routes),
    )


def _upstream(routes: Sequence[RouteStats]) -> Iterator[Metric]:
    yield _histogram(
        "auth_proxy_upstream_head_seconds",
        "From the sending of an attempt to the head of its response.",
        ("route",),
        (((route.name,), route.upstream_head) for route in routes),
    )
    yield _counter(
        "auth_proxy_retries_total",
        "Attempts that were repeated, by what caused it.",
        ("route", "cause"),
        _counts(routes, lambda route: route.retries),
    )
    yield _gauge(
        "auth_proxy_upstream_connections",
        "Connections to the upstream.",
        ("route", "state"),
        _connections(routes),
    )
    yield _counter(
        "auth_proxy_upstream_dials_total",
        "Connections that were dialled: ok, or the reason of the failure.",
        ("route", "outcome"),
        chain(
            _counts(routes, lambda route: route.dials),
            (
                ((route.name, outcome, each.name), count)
                for route in routes
                for each in route.destinations.values()
                for outcome, count in each.dials.items()
            ),
        ),
    )


def _destinations(routes: Sequence[RouteStats]) -> Iterator[Metric]:
    yield _counter(
        "auth_proxy_failovers_total",
        "Exchanges that went to another destination, by what caused it.",
        ("route", "cause"),
        _counts(routes, lambda route: route.failovers),
    )
    yield _gauge(
        "auth_proxy_destination_available",
        "1 while the destination is available, 0 while it is set aside; the mean of all workers.",
        ("route", "destination"),
        (
            ((route.name, each.name), each.available() / each.processes)
            for route in routes
            for each in route.destinations.values()
            if each.processes
        ),
    )


def _tokens(numbers: Numbers) -> Iterator[Metric]:
    yield _counter(
        "auth_proxy_token_fetches_total",
        "Fetches of tokens that ended, by the route that caused them.",
        ("route", "outcome"),
        numbers.fetches.fetches.items(),
    )
    yield _histogram(
        "auth_proxy_token_fetch_seconds",
        "How long fetches of tokens took.",
        (),
        [((), numbers.fetches.seconds)],
    )
    yield _gauge(
        "auth_proxy_token_expiry_timestamp_seconds",
        "When the token in use expires; absent where there is none.",
        ("route",),
        _expiries(numbers),
    )


def _expiries(numbers: Numbers) -> Samples:
    for name, token in numbers.tokens.items():
        several = numbers.destination_tokens.get(name, {})
        for destination, each in several.items():
            if each.expires_at is not None:
                yield (name, destination), each.expires_at
        if not several and token.expires_at is not None:
            yield (name,), token.expires_at


def _reloads(last: Reload) -> Iterator[Metric]:
    yield _gauge(
        "auth_proxy_config_last_reload_successful",
        "1 where the last reload succeeded or none was asked for, 0 where it changed nothing.",
        (),
        [((), 0 if last.problem else 1)],
    )
    yield _gauge(
        "auth_proxy_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was taken.",
        (),
        [((), last.succeeded_at)],
    )


def _build_info() -> Metric:
    built = (proxy.__version__, platform.python_version(), proxy.build())
    return _gauge(
        "auth_proxy_build_info",
        "Always 1; the labels say what runs.",
        ("version", "python", "build"),
        [(built, 1)],
    )


def _processes(pids: Iterable[int]) -> Iterator[Metric]:
    """Yield the standard ``process_…`` metrics, added up over several processes.

    The sum is what an operator budgets for: memory, CPU time and descriptors of the container.
    The start is that of the first process.  What one of them does not tell is left out, for a sum
    without it would be wrong: without privileges nobody sees the descriptors of a worker
    (`system.forbid_dumps`).
    """
    found = [ProcessCollector(pid=partial(str, pid), registry=None).collect() for pid in pids]
    together: dict[str, list[Metric]] = {}
    for metric in chain.from_iterable(found):
        together.setdefault(metric.name, []).append(metric)
    for name, metrics in together.items():
        if len(metrics) < len(found):
            continue
        values = [sample.value for metric in metrics for sample in metric.samples]
        value = min(values) if name == "process_start_time_seconds" else sum(values)
        first = metrics[0]
        first.samples = [first.samples[0]._replace(value=value)]
        yield first


def _counts(
    routes: Iterable[RouteStats], counter: Callable[[RouteStats], Mapping[str, int]]
) -> Samples:
    for route in routes:
        for word, count in counter(route).items():
            yield (route.name, word), count


def _connections(routes: Iterable[RouteStats]) -> Samples:
    for route in routes:
        found_at: dict[Labels, Connections] = {
            (name,): each.connections() for name, each in route.destinations.items()
        }
        for more, found in (found_at or {(): route.connections()}).items():
            yield (route.name, "idle", *more), found.idle
            yield (route.name, "busy", *more), found.busy
            yield (route.name, "dialling", *more), found.dialling


def _counter(name: str, help_: str, labels: Labels, samples: Iterable[Sample]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=labels)
    for values, count in samples:
        family.add_sample(name, _named(labels, values), count)
    return family


def _gauge(name: str, help_: str, labels: Labels, samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=labels)
    for values, value in samples:
        family.add_sample(name, _named(labels, values), value)
    return family


def _named(labels: Labels, values: Labels) -> dict[str, str]:
    return dict(zip((*labels, "destination"), values, strict=False))


def _histogram(
    name: str, help_: str, labels: Labels, samples: Iterable[tuple[Labels, Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, help_, labels=labels)
    for values, histogram in samples:
        bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
        # Prometheus counts what is at most the bound, so each bucket holds those before it.
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric(values, buckets, histogram.sum)
    return family
