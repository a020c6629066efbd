"""A collector of OpenTelemetry: receives spans and metrics over OTLP, in HTTP and in gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes import leaks

PATIENCE = 10.0
PROTOBUF = "application/x-protobuf"
SCOPE = "cloud-run-auth-proxy"
TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"

NOWHERE = "http://127.0.0.1:1"
"""Nothing listens there."""


def values_of(pairs: Any) -> dict[str, Any]:
    """Return attributes as plain values."""

    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, str(pair.value.WhichOneof("value")))

    return {pair.key: value(pair) for pair in pairs}


def counted(metric: Metric | None) -> float:
    """Return the sum over all series of a counter."""
    points = [] if metric is None else metric.sum.data_points
    return float(sum(point.as_double or point.as_int for point in points))


class Collector:
    """Serves on loopback while it is entered; what it cannot read fails the test at the end."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.exports: list[dict[str, Metric]] = []
        """Metrics, by their names."""
        self.resources: list[dict[str, Any]] = []
        self.keys: list[str] = []
        """What exporters said of ``x-api-key``."""
        self.status = 200
        """What is answered; with another one nothing is taken, and gRPC says INVALID_ARGUMENT."""
        self.asked = 0
        self._answering = asyncio.Event()
        self._answering.set()
        self._failures: list[Exception] = []
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._runner: web.AppRunner | None = None
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2, "collector"))
        self._grpc_port = 0

    @property
    def url(self) -> str:
        """Where it listens for HTTP."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @property
    def grpc_url(self) -> str:
        """Where it listens for gRPC."""
        return f"http://127.0.0.1:{self._grpc_port}"

    def of_spans(self, **more: str) -> dict[str, str]:
        """Return the variables that send spans here at once."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            **more,
        }

    def of_metrics(self, interval: str = "50", **more: str) -> dict[str, str]:
        """Return the variables that send metrics here, every so many milliseconds."""
        return {
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{self.url}/v1/metrics",
            "OTEL_METRIC_EXPORT_INTERVAL": interval,
            **more,
        }

    def hold(self) -> None:
        """Leave exporters over HTTP without an answer from now on; what comes is taken."""
        self._answering.clear()

    def release(self) -> None:
        """Answer again, those that wait too."""
        self._answering.set()

    def requests(self) -> float:
        """Return how many requests the last export counts."""
        return counted(self.exports[-1].get("auth_proxy_requests")) if self.exports else 0

    async def until(self, done: Callable[[], Any]) -> None:
        """Wait for exports until `done` holds."""
        async with asyncio.timeout(PATIENCE):
            while not done():
                self._news.clear()
                await self._news.wait()

    async def span(self, count: int = 1) -> Span:
        """Wait until `count` spans have come; return the last."""
        await self.until(lambda: len(self.spans) >= count)
        assert len(self.spans) == count
        return self.spans[-1]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        traces = self._handler(ExportTraceServiceRequest, ExportTraceServiceResponse)
        metrics = self._handler(ExportMetricsServiceRequest, ExportMetricsServiceResponse)
        self._grpc.add_registered_method_handlers(TRACES, {"Export": traces})
        self._grpc.add_registered_method_handlers(METRICS, {"Export": metrics})
        self._grpc.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        await asyncio.to_thread(self._grpc.stop(0).wait)
        assert self._failures == []

    async def _traces(self, request: web.Request) -> web.Response:
        answer = ExportTraceServiceResponse().SerializeToString()
        return await self._answer(request, ExportTraceServiceRequest, answer)

    async def _metrics(self, request: web.Request) -> web.Response:
        answer = ExportMetricsServiceResponse().SerializeToString()
        return await self._answer(request, ExportMetricsServiceRequest, answer)

    async def _answer(self, request: web.Request, message: Any, answer: bytes) -> web.Response:
        """Answer over HTTP; aiohttp has undone the compression."""
        body = await request.read()
        self._receive(message, body, request.headers.get("x-api-key", ""))
        await self._answering.wait()
        return web.Response(status=self.status, body=answer, content_type=PROTOBUF)

    def _handler(self, message: Any, answer: Any) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Answer over gRPC, in a thread of its own."""

        def export(body: bytes, context: grpc.ServicerContext[bytes, bytes]) -> bytes:
            key = dict(context.invocation_metadata()).get("x-api-key", "")
            self._loop.call_soon_threadsafe(self._receive, message, body, str(key))
            if self.status != 200:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            return bytes(answer().SerializeToString())

        return grpc.unary_unary_rpc_method_handler(export)

    def _receive(self, message: Any, body: bytes, key: str) -> None:
        self.asked += 1
        leaks.look("an export", body)
        try:
            if self.status == 200:
                self.keys.append(key)
                self._take(message.FromString(body))
        except Exception as error:
            self._failures.append(error)
            raise
        finally:
            self._news.set()

    def _take(self, message: Any) -> None:
        if isinstance(message, ExportMetricsServiceRequest):
            (metrics,) = message.resource_metrics
            self.resources.append(values_of(metrics.resource.attributes))
            (scope,) = metrics.scope_metrics
            assert scope.scope.name == SCOPE
            self.exports.append({metric.name: metric for metric in scope.metrics})
            return
        for spans in message.resource_spans:
            self.resources.append(values_of(spans.resource.attributes))
            for each in spans.scope_spans:
                assert each.scope.name == SCOPE
                self.spans.extend(each.spans)
