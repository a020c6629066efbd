"""Metrics of a running proxy, as a collector of OpenTelemetry receives them over OTLP/HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from proxy.emulator.service import ProtectedService
from tests.fakes import sessions
from tests.fakes.program import A_TOKEN, Program
from tests.fakes.proxies import Proxies

pytestmark = pytest.mark.skipif(
    os.environ.get("TESTED_BUILD") == "compiled", reason="nothing that exports is compiled"
)

PATIENCE = 10.0
NEVER = "3600000"


class Collector:
    """Receives metrics over OTLP/HTTP; fails the test where it is sent what it cannot read."""

    def __init__(self) -> None:
        self.exports: list[dict[str, Metric]] = []
        """What came, by the metrics' names."""
        self.resources: list[dict[str, str]] = []
        self.keys: set[str] = set()
        self.status = 200
        self.held = False
        self.asked = 0
        self.failures: list[Exception] = []
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def environ(self, interval: str = "50", **more: str) -> dict[str, str]:
        """Return the variables that send metrics here, every so many milliseconds."""
        return {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{self.url}/v1/metrics",
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            **more,
        }

    async def until(self, done: Any) -> None:
        """Wait for exports until `done` holds."""
        async with asyncio.timeout(PATIENCE):
            while not done():
                self._news.clear()
                await self._news.wait()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/metrics", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = await request.read()
        if self.held:
            self._news.set()
            await asyncio.Event().wait()
        try:
            if self.status == 200:
                self._take(body)
        except Exception as error:
            self.failures.append(error)
            raise
        finally:
            self._news.set()
        self.keys.add(request.headers.get("x-api-key", ""))
        answer = ExportMetricsServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=answer, content_type="application/x-protobuf")

    def _take(self, body: bytes) -> None:
        assert not A_TOKEN.search(body.decode("latin-1"))
        (resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
        named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        self.resources.append(named)
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "cloud-run-auth-proxy"
        self.exports.append({metric.name: metric for metric in scope.metrics})

    def requests(self) -> float:
        """Return how many requests the last export counts."""
        return counted(self.exports[-1].get("auth_proxy_requests")) if self.exports else 0


def counted(metric: Metric | None) -> float:
    points = [] if metric is None else metric.sum.data_points
    return float(sum(point.as_double or point.as_int for point in points))


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    await collector.start()
    yield collector
    await collector.stop()
    assert collector.failures == []


async def call(proxy: Program, times: int = 1) -> None:
    async with sessions.session() as session:
        for _ in range(times):
            async with session.get(f"{proxy.url}/a") as response:
                await response.read()
                assert response.status == 200


async def test_the_same_metrics_are_exported_that_a_scrape_shows(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    before = time.time_ns()
    proxy = await proxies.to(
        service, env=collector.environ(OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-api-key=k")
    )
    await call(proxy, 3)
    await collector.until(lambda: collector.requests() == 3)
    scraped = (await proxy.admin_answer("/metrics")).decode()

    last = collector.exports[-1]
    (point,) = last["auth_proxy_requests"].sum.data_points
    assert {pair.key: pair.value.string_value for pair in point.attributes} == {
        "route": "default", "protocol": "h1", "code": "200",
    }  # fmt: skip
    assert last["auth_proxy_requests"].sum.is_monotonic
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert last["auth_proxy_requests"].sum.aggregation_temporality == cumulative
    assert before < point.start_time_unix_nano < point.time_unix_nano < time.time_ns()

    (duration,) = last["auth_proxy_request_duration_seconds"].histogram.data_points
    assert last["auth_proxy_request_duration_seconds"].unit == "s"
    assert duration.count == 3 == sum(duration.bucket_counts)
    assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
    assert 0 < duration.sum < PATIENCE
    assert last["auth_proxy_response_bytes"].unit == "By"
    assert [p.as_int for p in last["auth_proxy_build_info"].gauge.data_points] == [1]

    # A counter has `_total` there; what has no series is not sent.
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scraped, re.MULTILINE))
    shown = {name for name in types if re.search(rf"^{name}(_bucket)?[{{ ]", scraped, re.MULTILINE)}
    named = {f"{n}_total" if m.HasField("sum") else n for n, m in last.items()}
    assert named == shown

    resource = collector.resources[-1]
    assert resource["service.name"] == "cloud-run-auth-proxy"
    assert resource["service.instance.id"]
    assert collector.keys == {"k"}


async def test_what_was_counted_last_is_exported_at_the_end(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.environ(NEVER, OTEL_SERVICE_NAME="shop")
    proxy = await proxies.to(service, env=env, workers=2)
    await call(proxy, 5)
    assert collector.exports == []
    await proxy.stop()

    assert len(collector.exports) == 1, "one for the whole process, whatever the workers"
    assert collector.requests() == 5
    assert collector.resources[0]["service.name"] == "shop"


async def test_a_collector_that_fails_is_told_of_once_and_when_it_is_back(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    collector.status = 400
    proxy = await proxies.to(service, env=collector.environ("20"))
    await collector.until(lambda: collector.asked >= 5)
    await call(proxy)
    collector.status = 200
    await collector.until(lambda: collector.requests() == 1)
    await proxy.record(message="metrics are exported again")

    told = [r for r in proxy.records() if r["message"].startswith("metrics cannot be exported: ")]
    assert [r["severity"] for r in told] == ["WARNING"]
    assert not [r for r in proxy.records() if r.get("logger", "").startswith("opentelemetry")]


async def test_a_collector_that_is_silent_holds_up_neither_calls_nor_for_long_the_end(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    collector.held = True
    proxy = await proxies.to(service, env=collector.environ("20"))
    await collector.until(lambda: collector.asked >= 1)
    await call(proxy)
    proxy.signal(signal.SIGTERM)
    await proxy.record(message="the last metrics could not be exported in time")
    assert await proxy.exit_code() == 0


async def test_nothing_goes_through_the_proxy_that_programs_here_are_told_of(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    """HTTP_PROXY may lead to this very proxy."""
    nowhere = "http://127.0.0.1:1"
    env = collector.environ(HTTP_PROXY=nowhere, http_proxy=nowhere, NO_PROXY="")
    await proxies.to(service, env=env)

    await collector.until(lambda: collector.exports)


@pytest.mark.parametrize("asked", ["", "none", "prometheus"])
async def test_nothing_is_exported_unless_it_is_asked_for(
    collector: Collector, proxies: Proxies, service: ProtectedService, asked: str
) -> None:
    env = collector.environ("20", OTEL_METRICS_EXPORTER=asked)
    proxy = await proxies.to(service, env=env)
    await call(proxy)
    await proxy.stop()

    assert collector.asked == 0


async def test_an_exporter_that_is_not_installed_is_told(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env=collector.environ(OTEL_METRICS_EXPORTER="kafka"))
    line = await proxy.record(logger="proxy.ops.exporting")

    assert (line["severity"], line["message"]) == (
        "ERROR",
        "no metrics are exported: no package is installed that exports to 'kafka'",
    )
