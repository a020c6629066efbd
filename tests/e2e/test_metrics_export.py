"""Metrics of a running proxy, as a collector of OpenTelemetry receives them over OTLP/HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from datetime import datetime

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from proxy.clock import Clocks
from proxy.emulator.service import ProtectedService
from proxy.ops.exporting import LAST_SECONDS, LATE_SECONDS, MetricExport
from proxy.ops.lifecycle import Reload
from proxy.ops.numbers import Numbers
from proxy.plane.stats import Stats
from tests.fakes import sessions
from tests.fakes.collector import NOWHERE, PATIENCE, Collector
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies

pytestmark = pytest.mark.skipif(
    os.environ.get("TESTED_BUILD") == "compiled", reason="nothing that exports is compiled"
)

NEVER = "3600000"


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
        service, env=collector.of_metrics(OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-api-key=k")
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
    assert set(collector.keys) == {"k"}


async def test_what_was_counted_last_is_exported_at_the_end(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_metrics(NEVER, OTEL_SERVICE_NAME="shop")
    proxy = await proxies.to(service, env=env, workers=2)
    await call(proxy, 5)
    assert collector.exports == []
    await proxy.stop()

    assert len(collector.exports) == 1, "one for the whole process, whatever the workers"
    assert collector.requests() == 5
    assert collector.resources[0]["service.name"] == "shop"


async def test_what_is_counted_while_an_export_is_under_way_is_in_the_last_one(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: from outside nobody sees when the end has come."""
    stats = Stats()

    async def reading() -> tuple[Numbers, Reload]:
        return Numbers(stats=stats), Reload(succeeded_at=0.0)

    for name, value in collector.of_metrics("1").items():
        monkeypatch.setenv(name, value)
    export = MetricExport(os.environ, Clocks().wall, reading)
    collector.hold()
    export.start()
    await collector.until(lambda: collector.exports)
    stats.route("a").requests["h1", 200] = 3

    closing = asyncio.ensure_future(export.close())
    await asyncio.sleep(0)
    collector.release()
    await closing

    assert collector.requests() == 3


async def test_numbers_that_cannot_be_had_once_end_no_exports(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Exception | Stats] = [LookupError("no such route"), Stats()]

    async def reading() -> tuple[Numbers, Reload]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Numbers(stats=answer), Reload(succeeded_at=0.0)

    for name, value in collector.of_metrics("1").items():
        monkeypatch.setenv(name, value)
    export = MetricExport(os.environ, Clocks().wall, reading)
    export.start()
    await collector.until(lambda: collector.exports)
    await export.close()

    assert [r.getMessage() for r in caplog.records if r.name == "proxy.ops.exporting"][:1] == [
        "metrics cannot be exported: LookupError('no such route')"
    ]


async def test_a_collector_that_fails_is_told_of_once_and_when_it_is_back(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    collector.status = 400
    proxy = await proxies.to(service, env=collector.of_metrics("20"))
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
    collector.hold()
    proxy = await proxies.to(service, env=collector.of_metrics("20"))
    await collector.until(lambda: collector.asked >= 1)
    await call(proxy)
    proxy.signal(signal.SIGTERM)
    await proxy.record(message="the last metrics could not be exported in time")
    assert await proxy.exit_code() == 0


async def test_after_a_drain_that_took_all_its_time_the_last_export_has_little(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    collector.hold()
    proxy = await proxies.to(service, env=collector.of_metrics("20"), drain="200ms")
    await collector.until(lambda: collector.asked >= 1)
    stream = f"{proxy.url}/stream?lines=1000"
    async with sessions.session() as session, session.get(stream) as response:
        await response.content.readline()
        proxy.signal(signal.SIGTERM)
        cut = await proxy.record(message="1 exchanges were cut when the drain was over")
        late = await proxy.record(message="the last metrics could not be exported in time")

    begun, ended = (datetime.fromisoformat(each["time"]) for each in (cut, late))
    assert LATE_SECONDS <= (ended - begun).total_seconds() + 0.1 < LAST_SECONDS
    assert await proxy.exit_code() == 0


async def test_nothing_goes_through_the_proxy_that_programs_here_are_told_of(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    """HTTP_PROXY may lead to this very proxy."""
    env = collector.of_metrics(HTTP_PROXY=NOWHERE, http_proxy=NOWHERE, NO_PROXY="")
    await proxies.to(service, env=env)

    await collector.until(lambda: collector.exports)


async def test_over_grpc_the_same_arrives_directly_and_a_failure_is_told_of_once(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_metrics(
        "20",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=collector.grpc_url,
        OTEL_EXPORTER_OTLP_HEADERS="x-api-key=k",
        http_proxy=NOWHERE,
        no_proxy="",
    )
    collector.status = 400
    proxy = await proxies.to(service, env=env)
    await collector.until(lambda: collector.asked >= 3)
    await call(proxy, 2)
    collector.status = 200
    await collector.until(lambda: collector.requests() == 2)
    await proxy.record(message="metrics are exported again")

    assert set(collector.keys) == {"k"}
    told = [r for r in proxy.records() if "xport" in r["message"]]
    assert [(r["severity"], r["logger"]) for r in told] == [
        ("WARNING", "proxy.ops.exporting"),
        ("INFO", "proxy.ops.exporting"),
    ]
    assert "INVALID_ARGUMENT" in told[0]["message"]


@pytest.mark.parametrize("asked", ["", "none", "prometheus"])
async def test_nothing_is_exported_unless_it_is_asked_for(
    collector: Collector, proxies: Proxies, service: ProtectedService, asked: str
) -> None:
    env = collector.of_metrics("20", OTEL_METRICS_EXPORTER=asked)
    proxy = await proxies.to(service, env=env)
    await call(proxy)
    await proxy.stop()

    assert collector.asked == 0


async def test_an_exporter_that_is_not_installed_is_told(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env=collector.of_metrics(OTEL_METRICS_EXPORTER="kafka"))
    line = await proxy.record(logger="proxy.ops.exporting")

    assert (line["severity"], line["message"]) == (
        "ERROR",
        "no metrics are exported: no package is installed that exports to 'kafka'",
    )
