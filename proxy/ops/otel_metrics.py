"""The numbers in OpenTelemetry's model, and OTLP exporters for them.

The extra ``otel`` installs what is imported here; `proxy.ops.exporting` imports this module where
it is there and asked for.  Names and labels are those of /metrics, by the rules for both models
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/): a counter
loses its ``_total``, a unit stays in the name and is told as well, so that a collector that makes
Prometheus' metrics of them comes to the same names.  All is cumulative since the start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from uuid import uuid4

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family

from proxy import PROGRAM, __version__
from proxy.ops.lifecycle import Reload
from proxy.ops.metrics import families
from proxy.ops.numbers import Numbers
from proxy.ops.otel import described, exporter_named
from proxy.redact import redact_foreign

_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
"""By the name's end; in UCUM's words, which are OpenTelemetry's."""

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_OURS: Final = frozenset(("", "none", "prometheus"))
"""What `OTEL_METRICS_EXPORTER` may say for which nothing is exported: /metrics is there anyway."""


def exporters(environ: Mapping[str, str]) -> list[MetricExporter]:
    """Return those that ``OTEL_METRICS_EXPORTER`` names.

    Raises:
        LookupError: one is not installed, or its protocol is unknown.
        ValueError: a variable holds what the SDK does not take.
    """
    names = environ.get("OTEL_METRICS_EXPORTER", "").lower().split(",")
    return [
        exporter_named(name.strip(), "metrics", environ)
        for name in names
        if name.strip() not in _OURS
    ]


class Sender:
    """Sends the numbers; every method blocks."""

    def __init__(self, environ: Mapping[str, str], started_at: float) -> None:
        """Count from `started_at` (wall clock).  Raises what `exporters` does."""
        self._exporters = exporters(environ)
        self._started = round(started_at * 1e9)
        # Without it the series of two instances could not be told apart.
        instance = {SERVICE_INSTANCE_ID: str(uuid4())}
        named = SERVICE_INSTANCE_ID in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._resource = Resource.create({**described(environ), **({} if named else instance)})
        # An exporter over gRPC says it in the module of what it derives from.
        classes = [of for each in self._exporters for of in type(each).__mro__]
        self._hearing = _Hearing({of.__module__ for of in classes})

    def send(self, numbers: Numbers, reload: Reload, at: float) -> str:
        """Send what was counted at `at` (wall clock); return why it could not be, else nothing."""
        metrics = list(converted(families(numbers, reload), self._started, round(at * 1e9)))
        scope = InstrumentationScope(PROGRAM, __version__)
        data = MetricsData(
            [ResourceMetrics(self._resource, [ScopeMetrics(scope, metrics, "")], "")]
        )
        with self._hearing:
            results = [each.export(data) for each in self._exporters]
        if all(result is MetricExportResult.SUCCESS for result in results):
            return ""
        return redact_foreign(self._hearing.last) or "the exporter has failed"

    def close(self) -> None:
        """End the exporters."""
        for each in self._exporters:
            each.shutdown()


class _Hearing(logging.Filter):
    """Keeps what the exporters say of failures out of the log, where it came for each attempt."""

    def __init__(self, modules: Iterable[str]) -> None:
        super().__init__()
        self._loggers = [logging.getLogger(module) for module in modules]
        self._thread = 0
        self.last = ""
        """What was said last."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let others' records pass: spans may be exported by the same module."""
        if threading.get_ident() != self._thread:
            return True
        self.last = record.getMessage()
        return False

    def __enter__(self) -> None:
        self.last = ""
        self._thread = threading.get_ident()
        for logger in self._loggers:
            logger.addFilter(self)

    def __exit__(self, *_: object) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)


def converted(found: Iterable[Family], started: int, at: int) -> Iterator[Metric]:
    """Yield the metrics in OpenTelemetry's model; times are Unix nanoseconds."""
    for family in found:
        unit = next((u for end, u in _UNITS.items() if family.name.endswith(end)), "")
        data: Sum | Gauge | Histogram
        if family.type == "histogram":
            data = Histogram(list(_histograms(family, started, at)), _CUMULATIVE)
        else:
            is_counter = family.type == "counter"
            points = [
                NumberDataPoint(dict(s.labels), started if is_counter else 0, at, s.value)
                for s in family.samples
            ]
            data = Sum(points, _CUMULATIVE, is_monotonic=True) if is_counter else Gauge(points)
        if data.data_points:
            yield Metric(family.name, family.documentation, unit, data)


def _histograms(family: Family, started: int, at: int) -> Iterator[HistogramDataPoint]:
    """Yield a point for each set of labels; Prometheus' buckets hold those before them, too."""
    below: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            below.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    for labels, buckets in below.items():
        counts = [count for _, count in buckets]
        each = [int(b - a) for a, b in zip([0.0, *counts], counts, strict=False)]
        yield HistogramDataPoint(
            dict(labels),
            started,
            at,
            count=int(counts[-1]),
            sum=sums.get(labels, 0.0),
            bucket_counts=each,
            explicit_bounds=[bound for bound, _ in buckets[:-1]],  # The last one is +Inf.
            min=None,  # type: ignore[arg-type]  # optional in OTLP; nobody kept them
            max=None,  # type: ignore[arg-type]  # as above
        )
