"""Spans: what they say, whose children they are, and when there are none."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy.clock import Clocks
from proxy.config.model import Upstream
from proxy.errors import DownstreamGone, ProxyError, TokenUnavailable, UpstreamReset
from proxy.ops import otel, tracing
from proxy.ops.otel import Recorder
from proxy.ops.spans import attributes_of, name_of, parent_of
from proxy.ops.tracing import Tracing, is_asked_for
from proxy.plane.exchange import Exchange
from proxy.plane.head import RequestHead
from proxy.plane.plane import Plane
from proxy.plane.stats import Stats

ROOT = Path(__file__).parents[3]
SECRET = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJhIn0.c2VjcmV0"

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"\r\ntraceparent: 00-{TRACE}-{SPAN}-01".encode()
CLOUD = f"\r\nX-Cloud-Trace-Context: {TRACE}/{int(SPAN, 16)};o=1".encode()

TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
ASKED = {"OTEL_TRACES_EXPORTER": "otlp"}


UPSTREAM = Upstream("https", "orders.example", 443, "/base")


@dataclass
class Plain:
    """A route, or a destination."""

    name: str = "orders"
    upstream: Upstream = field(default=UPSTREAM)


@dataclass
class Ended:
    """An exchange that has ended, as far as spans are concerned."""

    head: RequestHead = field(default_factory=lambda: RequestHead(b"GET", b"/a?q=1", b""))
    status: int = 200
    attempts: int = 1
    upstream_target: bytes = b"/base/a?q=1"
    route: Any = field(default_factory=Plain)
    destination: Any = field(default_factory=Plain)


def exchange(fields: bytes = b"", **more: Any) -> Ended:
    return Ended(RequestHead(b"GET", b"/a?q=1", fields), **more)


# --- when they are asked for


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_BSP_SCHEDULE_DELAY": "5"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": ""}, False),
        ({"OTEL_TRACES_EXPORTER": " None "}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_spans_are_recorded_where_a_variable_asks_for_them(
    environ: dict[str, str],
    asked: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    assert is_asked_for(environ) is asked


# --- what they say


def test_a_span_has_the_names_of_the_conventions() -> None:
    assert name_of(exchange()) == "GET"
    assert attributes_of(exchange(), None) == {
        "http.request.method": "GET",
        "url.full": "https://orders.example/base/a",
        "server.address": "orders.example",
        "server.port": 443,
        "http.response.status_code": 200,
        "auth_proxy.route": "orders",
    }


@pytest.mark.parametrize(
    ("upstream", "url", "address", "port"),
    [
        (Upstream("http", "127.0.0.1", 3001), "http://127.0.0.1:3001/x", "127.0.0.1", 3001),
        (Upstream("http", "::1", 80), "http://[::1]/x", "::1", 80),
        (Upstream("https", "a.example", 8443), "https://a.example:8443/x", "a.example", 8443),
    ],
)
def test_a_span_names_the_upstream(upstream: Upstream, url: str, address: str, port: int) -> None:
    found = attributes_of(
        exchange(destination=Plain(upstream=upstream), upstream_target=b"/x?y"), None
    )

    assert (found["url.full"], found["server.address"], found["server.port"]) == (
        url, address, port,
    )  # fmt: skip


def test_a_token_in_a_path_is_taken_out() -> None:
    found = attributes_of(exchange(upstream_target=f"/x/{SECRET}/y".encode()), None)

    assert found["url.full"] == "https://orders.example/x/[redacted]/y"


@pytest.mark.parametrize(
    ("method", "name", "known", "original"),
    [
        (b"PATCH", "PATCH", "PATCH", None),
        (b"PURGE", "HTTP", "_OTHER", "PURGE"),
        (b"get", "HTTP", "_OTHER", "get"),
    ],
)
def test_only_methods_that_the_conventions_know_are_names(
    method: bytes, name: str, known: str, original: str | None
) -> None:
    found = Ended(RequestHead(method, b"/", b""))

    attributes = attributes_of(found, None)
    assert name_of(found) == name
    assert attributes["http.request.method"] == known
    assert attributes.get("http.request.method_original") == original


@pytest.mark.parametrize(("attempts", "resent"), [(0, None), (1, None), (2, 1), (3, 2)])
def test_a_span_tells_how_often_the_request_was_sent_again(
    attempts: int, resent: int | None
) -> None:
    found = attributes_of(exchange(attempts=attempts), None)

    assert found.get("http.request.resend_count") == resent


@pytest.mark.parametrize(
    ("status", "error", "kind", "shown"),
    [
        (200, None, None, 200),
        (101, None, None, 101),
        (399, None, None, 399),
        (400, None, "400", 400),
        (503, None, "503", 503),
        (503, TokenUnavailable("x"), "token_unavailable", 503),
        (200, UpstreamReset("in the middle"), "upstream_reset", 200),
        (499, DownstreamGone("x"), "downstream_gone", None),
    ],
)
def test_a_failure_is_named_by_its_reason_or_its_status(
    status: int, error: ProxyError | None, kind: str | None, shown: int | None
) -> None:
    found = attributes_of(exchange(status=status), error)

    assert found.get("error.type") == kind
    assert found.get("http.response.status_code") == shown


# --- whose children they are


@pytest.mark.parametrize(
    ("fields", "span"),
    [
        (PARENT, SPAN),
        (CLOUD, SPAN),
        (CLOUD.replace(SPAN.encode(), b"1") + PARENT.replace(b"00f0", b"11f0"), "11f067aa0ba902b7"),
        (b"\r\ntraceparent: nonsense" + CLOUD, SPAN),
        (PARENT + PARENT, None),
        (f"\r\nX-Cloud-Trace-Context: {TRACE}".encode(), None),
        (b"\r\nAccept: */*", None),
        (b"", None),
    ],
)
def test_the_parent_is_the_span_that_the_caller_names(fields: bytes, span: str | None) -> None:
    found = parent_of(fields)

    assert (None if found is None else (found.trace_id, found.span_id)) == (
        None if span is None else (TRACE, span)
    )


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def recorder(memory: InMemorySpanExporter) -> Iterator[Recorder]:
    recorder = Recorder({}, memory)
    yield recorder
    recorder.close()


def recorded(recorder: Recorder, memory: InMemorySpanExporter) -> ReadableSpan:
    """Return the one span that was recorded."""
    recorder.flush()
    (span,) = memory.get_finished_spans()
    return span


def test_a_span_lasts_as_long_as_the_exchange(
    recorder: Recorder, memory: InMemorySpanExporter
) -> None:
    recorder.record(exchange(), 1_800_000_000.25, 1_800_000_001.5, None)

    span = recorded(recorder, memory)
    assert (span.start_time, span.end_time) == (
        1_800_000_000_250_000_000,
        1_800_000_001_500_000_000,
    )
    assert (span.name, span.kind, span.parent) == ("GET", SpanKind.CLIENT, None)
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "cloud-run-auth-proxy"


def test_a_span_continues_the_trace_of_its_caller(
    recorder: Recorder, memory: InMemorySpanExporter
) -> None:
    recorder.record(exchange(PARENT + b"\r\ntracestate: a=1, b=2"), 1.0, 2.0, None)

    span = recorded(recorder, memory)
    assert span.parent is not None
    assert span.context is not None
    assert f"{span.parent.span_id:016x}" == SPAN
    assert f"{span.context.trace_id:032x}" == TRACE
    assert dict(span.context.trace_state) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(("length", "kept"), [(512, 1), (513, 0)])
def test_a_tracestate_is_kept_up_to_a_length(
    recorder: Recorder, memory: InMemorySpanExporter, length: int, kept: int
) -> None:
    state = b"a" * 256 + b"=" + b"x" * (length - 257)
    recorder.record(exchange(PARENT + b"\r\ntracestate: " + state), 1.0, 2.0, None)

    span = recorded(recorder, memory)
    assert span.context is not None
    assert len(span.context.trace_state) == kept


@pytest.mark.parametrize("fields", [PARENT[:-1] + b"0", CLOUD[:-1] + b"0"])
def test_a_trace_that_is_not_sampled_gets_no_span(
    recorder: Recorder, memory: InMemorySpanExporter, fields: bytes
) -> None:
    recorder.record(exchange(fields), 1.0, 2.0, None)
    recorder.flush()

    assert memory.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("status", "error", "description"),
    [(503, None, None), (503, TokenUnavailable(f"no {SECRET}"), "no [redacted]")],
)
def test_a_failure_is_the_status_of_its_span(
    recorder: Recorder,
    memory: InMemorySpanExporter,
    status: int,
    error: ProxyError | None,
    description: str | None,
) -> None:
    recorder.record(exchange(status=status), 1.0, 2.0, error)

    span = recorded(recorder, memory)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, description)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "cloud-run-auth-proxy"),
        ({"OTEL_SERVICE_NAME": "orders"}, "orders"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=orders"}, "orders"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b"}, "cloud-run-auth-proxy"),
    ],
)
def test_the_service_is_named_as_the_variables_say(
    monkeypatch: pytest.MonkeyPatch,
    memory: InMemorySpanExporter,
    environ: dict[str, str],
    named: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    recorder = Recorder(environ, memory)
    recorder.record(exchange(), 1.0, 2.0, None)

    assert recorded(recorder, memory).resource.attributes["service.name"] == named
    recorder.close()


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"OTEL_TRACES_EXPORTER": "pigeon"}, "'pigeon'"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "'smoke' is not known; write http/protobuf or grpc",
        ),
        ({"OTEL_TRACES_EXPORTER": "console,", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "''"),
    ],
)
def test_an_exporter_that_is_not_there_is_named(environ: dict[str, str], says: str) -> None:
    with pytest.raises(LookupError, match=says):
        Recorder(environ)


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", TRACES_PROTOCOL])
def test_what_grpc_needs_is_named_where_it_is_missing(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "entry_points", lambda **_: ())

    with pytest.raises(LookupError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        Recorder({variable: "grpc"})


@pytest.mark.parametrize(
    ("endpoint", "direct"),
    [
        ("", True),
        ("http://collector:4317", True),
        ("https://collector:4317", False),
        ("collector:4317", False),  # Which is TLS, unless a variable says otherwise.
    ],
)
def test_over_grpc_a_collector_without_tls_is_reached_directly(
    endpoint: str, direct: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}

    class Exporter(InMemorySpanExporter):
        def __init__(self, **options: object) -> None:
            super().__init__()
            given.update(options)

    found = SimpleNamespace(load=lambda: Exporter)
    monkeypatch.setattr(otel, "entry_points", lambda **_: (found,))
    Recorder({TRACES_PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}).close()

    assert given == ({"channel_options": (("grpc.enable_http_proxy", 0),)} if direct else {})


# --- how they are recorded while the proxy runs


class Held(SpanExporter):
    """An exporter whose collector does not answer until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        self.entered.set()
        self.release.wait()
        return SpanExportResult.SUCCESS


class World:
    """A plane that is observed, and what the recorder exports to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory = InMemorySpanExporter()
        self.exporter: SpanExporter = self.memory
        self.loaded = threading.Event()
        self.loaded.set()
        self.plane = Plane(Clocks(), Stats())
        self.tracing = Tracing(ASKED, lambda: 1_800_000_000.0, self.plane)
        monkeypatch.setattr(tracing, "_recorder", self._recorder)
        # A busy machine must not lose what a test counts.
        monkeypatch.setattr(tracing, "FLUSH_SECONDS", 60.0)
        monkeypatch.setattr(tracing, "CLOSE_SECONDS", 60.0)

    def _recorder(self, environ: object) -> Recorder:
        assert environ == ASKED
        self.loaded.wait()
        return Recorder({}, self.exporter)

    def ends(self, ended: object) -> None:
        """Let an exchange end that took two seconds."""
        assert self.plane.on_finished is not None
        self.plane.on_finished(cast("Exchange", ended), 2.0, None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_an_exchange_that_has_ended_becomes_a_span(world: World) -> None:
    world.tracing.start()
    world.ends(exchange())
    await world.tracing.flush()

    (span,) = world.memory.get_finished_spans()
    assert (span.start_time, span.end_time) == (
        1_799_999_998_000_000_000,
        1_800_000_000_000_000_000,
    )
    await world.tracing.close()


@pytest.mark.parametrize(("ended", "kept"), [(999, 999), (1000, 1000), (1001, 1000)])
async def test_exchanges_that_end_before_opentelemetry_is_there_are_kept(
    world: World, ended: int, kept: int
) -> None:
    world.loaded.clear()
    world.tracing.start()
    for _ in range(ended):
        world.ends(exchange())
    world.loaded.set()
    await world.tracing.close()

    assert len(world.memory.get_finished_spans()) == kept


async def test_after_the_end_nothing_is_observed(world: World) -> None:
    world.tracing.start()
    await world.tracing.close()

    assert world.plane.on_finished is None


LOST = ["spans were lost: they could not be exported in time"]


async def test_a_collector_that_does_not_answer_is_waited_for_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 60.0)
    held = world.exporter = Held()
    world.tracing.start()
    world.ends(exchange())

    await world.tracing.flush()
    assert held.entered.is_set()
    await world.tracing.close()

    assert [record.getMessage() for record in caplog.records] == LOST
    held.release.set()


async def test_a_flush_that_the_end_of_the_drain_cuts_off_is_not_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 60.0)
    held = world.exporter = Held()
    world.tracing.start()
    world.ends(exchange())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await world.tracing.flush()
    await world.tracing.close()

    assert [record.getMessage() for record in caplog.records] == LOST
    held.release.set()


async def test_what_was_cut_after_the_drain_is_waited_for_a_little(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.05)
    held = world.exporter = Held()
    world.tracing.start()
    world.ends(exchange())

    await world.tracing.close()

    assert held.entered.is_set()
    assert [record.getMessage() for record in caplog.records] == LOST
    held.release.set()


async def test_a_span_that_cannot_be_made_harms_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.tracing.start()
    await world.tracing.flush()
    world.ends(object())
    world.ends(exchange())
    await world.tracing.close()

    assert [record.getMessage() for record in caplog.records] == ["a span could not be made"]
    assert len(world.memory.get_finished_spans()) == 1


async def test_variables_that_cannot_be_followed_are_logged_and_cost_nothing_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plane = Plane(Clocks(), Stats())
    pigeons = Tracing({"OTEL_TRACES_EXPORTER": "pigeon"}, lambda: 0.0, plane)
    pigeons.start()
    await pigeons.flush()

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "'pigeon'" in record.getMessage()
    assert plane.on_finished is None
    await pigeons.close()


async def test_where_nothing_asks_for_spans_nothing_is_observed() -> None:
    plane = Plane(Clocks(), Stats())
    silent = Tracing({}, lambda: 0.0, plane)
    silent.start()
    await silent.flush()
    await silent.close()

    assert plane.on_finished is None


# --- what it costs those who do not want it

SERVE = """
import asyncio, logging, sys
from proxy.config.model import Config
from proxy.server import Server

async def main(environ):
    server = Server(Config(routes=(), admin=None), environ)
    await server.start()
    print(server.plane.on_finished is None)
    await server.stop()

logging.basicConfig(stream=sys.stdout, format="%(message)s")
"""
LOADED = 'print([name for name in sys.modules if name.startswith("opentelemetry")])\n'


def run_python(source: str) -> list[str]:
    """Return the lines that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nothing_is_imported_where_nothing_asks_for_spans() -> None:
    said = run_python(SERVE + "asyncio.run(main({}))\n" + LOADED)

    assert said == ["True", "[]"]


def test_where_the_extra_is_missing_the_log_says_so() -> None:
    without = 'sys.modules["opentelemetry"] = None\n'
    said = run_python(SERVE + without + f"asyncio.run(main({ASKED}))\n")

    assert said == ["no spans are recorded: OpenTelemetry is not installed", "True"]
