"""Spans of a running proxy, as a collector of OpenTelemetry receives them over OTLP/HTTP."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.emulator.faults import Answer
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import sessions
from tests.fakes.collector import NOWHERE, Collector, values_of
from tests.fakes.proxies import Proxies

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


async def call(url: str, **headers: str) -> int:
    """Make one call; return the status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with sessions.session() as session, session.get(url, headers=named) as response:
        await response.read()
        return response.status


async def test_a_call_is_one_span_below_the_callers(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env=collector.of_spans())

    await call(f"{proxy.url}/a/b?secret=1", traceparent=TRACEPARENT, tracestate="x=1")

    span = await collector.span()
    host, _, port = service.url.removeprefix("https://").rpartition(":")
    assert (span.name, span.kind) == ("GET", Span.SPAN_KIND_CLIENT)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    assert span.trace_state == "x=1"
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 10e9
    assert values_of(span.attributes) == {
        "http.request.method": "GET",
        "url.full": f"{service.url}/a/b",
        "server.address": host,
        "server.port": int(port),
        "http.response.status_code": 200,
        "auth_proxy.route": "default",
    }
    assert collector.resources[0]["service.name"] == "cloud-run-auth-proxy"


async def test_trace_headers_pass_untouched(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env=collector.of_spans())
    cloud = f"{TRACE}/1;o=1"

    await call(proxy.url, traceparent=TRACEPARENT, tracestate="x=1", x_cloud_trace_context=cloud)

    (seen,) = service.admitted
    assert seen.header("traceparent") == [TRACEPARENT]
    assert seen.header("tracestate") == ["x=1"]
    assert seen.header("x-cloud-trace-context") == [cloud]


async def test_a_call_without_a_trace_begins_one_and_the_service_hears_nothing_of_it(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env=collector.of_spans())

    await call(proxy.url)

    assert (await collector.span()).parent_span_id == b""
    (seen,) = service.admitted
    assert seen.header("traceparent") == []


async def test_a_failure_of_the_proxys_own_is_named_by_its_reason(
    collector: Collector, metadata: MetadataServer, proxies: Proxies, service: ProtectedService
) -> None:
    metadata.inject(Answer(status=500), times=math.inf)
    route = {"timeouts": {"connect": "300ms"}}
    proxy = await proxies.to(service, route=route, env=collector.of_spans())

    assert await call(proxy.url) == 503

    span = await collector.span()
    attributes = values_of(span.attributes)
    assert attributes["error.type"] == "token_unavailable"
    assert attributes["http.response.status_code"] == 503
    assert span.status.code == 2
    assert span.status.message != ""


async def test_a_request_that_was_sent_again_says_so(
    collector: Collector, metadata: MetadataServer, proxies: Proxies
) -> None:
    statuses = [503, 503, 200]

    async def recover(_: web.Request) -> web.Response:
        return web.Response(status=statuses.pop(0))

    route = {"retries": {"attempts": 3, "backoff": "1ms", "budget": "100%"}}
    async with serving(recover) as address, ProtectedService(metadata.keys, app=address) as front:
        proxy = await proxies.to(front, route=route, env=collector.of_spans())
        assert await call(proxy.url) == 200

        attributes = values_of((await collector.span()).attributes)

    assert attributes["http.request.resend_count"] == 2
    assert attributes["http.response.status_code"] == 200
    assert "error.type" not in attributes


async def test_what_the_variables_say_is_followed(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_spans(
        OTEL_SERVICE_NAME="orders-proxy",
        OTEL_RESOURCE_ATTRIBUTES="team=a",
        OTEL_EXPORTER_OTLP_HEADERS="x-api-key=k",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )
    proxy = await proxies.to(service, env=env)

    await call(proxy.url)
    await collector.span()

    assert collector.keys == ["k"]
    assert collector.resources[0]["service.name"] == "orders-proxy"
    assert collector.resources[0]["team"] == "a"


async def test_over_grpc_spans_arrive_directly(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_spans(
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.grpc_url,
        http_proxy=NOWHERE,
        no_proxy="",
    )
    proxy = await proxies.to(service, env=env)

    await call(proxy.url)

    assert (await collector.span()).name == "GET"


async def test_a_sampler_decides_which_calls_are_spans(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_spans(OTEL_TRACES_SAMPLER="parentbased_always_off")
    proxy = await proxies.to(service, env=env)

    await call(proxy.url)
    await call(proxy.url, traceparent=TRACEPARENT)

    assert (await collector.span()).trace_id.hex() == TRACE


async def test_what_is_left_is_exported_when_the_proxy_ends(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    # Long enough that nothing is exported before the end.
    env = collector.of_spans(OTEL_BSP_SCHEDULE_DELAY="600000")
    proxy = await proxies.to(service, env=env)
    for _ in range(3):
        await call(proxy.url)

    await proxy.stop()

    assert len(collector.spans) == 3


async def test_an_exchange_that_is_cut_at_the_end_of_the_drain_is_exported_too(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_spans(OTEL_BSP_SCHEDULE_DELAY="600000")
    proxy = await proxies.to(service, env=env, drain="200ms")
    stream = f"{proxy.url}/stream?lines=1000"
    async with sessions.session() as session, session.get(stream) as response:
        await response.content.readline()

        await proxy.stop()

    assert values_of((await collector.span()).attributes)["error.type"] == "draining"


async def test_every_worker_exports_its_own(
    collector: Collector, proxies: Proxies, service: ProtectedService
) -> None:
    env = collector.of_spans(OTEL_BSP_SCHEDULE_DELAY="600000")
    proxy = await proxies.to(service, env=env, workers=2)
    for _ in range(8):
        await call(proxy.url)

    await proxy.stop()

    assert len(collector.spans) == 8


@pytest.mark.parametrize("drain", ["200ms", "8s"])
async def test_a_collector_that_does_not_answer_delays_the_end_a_little(
    collector: Collector, proxies: Proxies, service: ProtectedService, drain: str
) -> None:
    collector.hold()
    proxy = await proxies.to(service, env=collector.of_spans(), drain=drain)
    assert await call(proxy.url) == 200
    await collector.span()
    begun = asyncio.get_running_loop().time()

    await proxy.stop()

    assert asyncio.get_running_loop().time() - begun < 5.0
    assert "spans were lost" in proxy.output


async def test_without_a_collector_calls_are_served_and_the_end_comes(
    proxies: Proxies, service: ProtectedService
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "20"}
    proxy = await proxies.to(service, env=env, drain="300ms")

    for _ in range(3):
        assert await call(proxy.url) == 200

    await proxy.stop()


async def test_an_exporter_that_is_not_installed_is_named_in_the_log(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env={"OTEL_TRACES_EXPORTER": "pigeon"})

    record = await proxy.record(severity="ERROR")

    assert "'pigeon'" in record["message"]
    assert await call(proxy.url) == 200


async def test_a_tunnel_is_one_span_when_it_ends(
    collector: Collector, proxies: Proxies, metadata: MetadataServer
) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async with serving(echo) as address, ProtectedService(metadata.keys, app=address) as service:
        proxy = await proxies.to(service, env=collector.of_spans())
        async with sessions.session() as session, session.ws_connect(proxy.url) as socket:
            await socket.send_str("x")
            assert (await socket.receive_str()) == "x"
            assert collector.spans == []

        attributes = values_of((await collector.span()).attributes)

    assert attributes["http.response.status_code"] == 101


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Any]) -> AsyncIterator[tuple[str, int]]:
    """Serve one handler on a free port."""
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0]
    finally:
        await runner.cleanup()
