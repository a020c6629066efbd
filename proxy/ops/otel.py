"""Spans made and exported by OpenTelemetry's SDK, which is imported with this module.

The extra ``otel`` installs it; `proxy.ops.tracing` imports this module where it is there and
asked for.  Whatever the standard variables can say of exporters, samplers, batches, limits and
resources is read by the SDK itself, from the environment of the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import requests
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from requests.adapters import HTTPAdapter

from proxy import PROGRAM, __version__
from proxy.config.egress import of_environment, proxy_for
from proxy.config.proxies import Egress
from proxy.errors import ProxyError
from proxy.ops.spans import TracedExchange, attributes_of, name_of, parent_of, state_of
from proxy.redact import redact

# The first whose names for HTTP are stable.
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.23.1"

Signal = Literal["traces", "metrics"]

_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}

_NEEDS_GRPC: Final = (
    "OTLP over gRPC needs one more package: pip install opentelemetry-exporter-otlp-proto-grpc, "
    "or say OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
)


class Recorder:
    """Makes a span of each finished exchange and has it exported in the background."""

    def __init__(self, environ: Mapping[str, str], *exporters: SpanExporter) -> None:
        """Export to `exporters`, or to those that `environ` names.

        Raises:
            LookupError: an exporter is not installed, or its protocol is unknown.
            ValueError: a variable holds what the SDK does not take.
        """
        self._provider = TracerProvider(
            resource=Resource.create(described(environ)),
            # The server ends it; at the interpreter's exit it would be too late.
            shutdown_on_exit=False,
        )
        for exporter in exporters or _exporters(environ):
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(PROGRAM, __version__, schema_url=_SCHEMA)

    def record(
        self, exchange: TracedExchange, begun: float, ended: float, error: ProxyError | None
    ) -> None:
        """Make the span of an exchange that lasted from `begun` to `ended` (wall clock)."""
        attributes = attributes_of(exchange, error)
        span = self._tracer.start_span(
            name_of(exchange),
            context=_parent(exchange.head.fields),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(begun),
        )
        if span.is_recording() and "error.type" in attributes:
            # The conventions want no description where the status code says it all.
            detail = redact(error.detail) if error is not None else None
            span.set_status(Status(StatusCode.ERROR, detail))
        span.end(_nanoseconds(ended))

    def flush(self) -> None:
        """Export what has been recorded; blocks for as long as the exporter takes."""
        self._provider.force_flush()

    def close(self) -> None:
        """Export what is left and end; blocks as `flush` does."""
        self._provider.shutdown()


def described(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the resource says unless the variables name the service."""
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return {} if named else {SERVICE_NAME: PROGRAM, SERVICE_VERSION: __version__}


def _exporters(environ: Mapping[str, str]) -> list[SpanExporter]:
    names = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return [exporter_named(name.strip(), "traces", environ) for name in names.split(",")]


def exporter_named(name: str, signal: Signal, environ: Mapping[str, str]) -> Any:
    """Return the exporter that is registered under a name, as ``otlp`` or ``console``.

    Raises LookupError where there is none, or its protocol is unknown.
    """
    wanted = _otlp(signal, environ) if name == "otlp" else name
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=wanted))
    if not found:
        missing = f"no package is installed that exports to {wanted!r}"
        raise LookupError(_NEEDS_GRPC if wanted == _OTLP["grpc"] else missing)
    return found[0].load()(**_options(wanted, signal, environ))


def _otlp(signal: Signal, environ: Mapping[str, str]) -> str:
    """Return the exporter of the protocol that the variables say.  Raises LookupError."""
    protocol = _said("PROTOCOL", signal, environ) or "http/protobuf"
    if protocol not in _OTLP:
        known = " or ".join(_OTLP)
        raise LookupError(f"the OTLP protocol {protocol!r} is not known; write {known}")
    return _OTLP[protocol]


def _said(name: str, signal: Signal, environ: Mapping[str, str]) -> str:
    """Return a variable of OTLP's: that of the signal, else that of all."""
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}")
    return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")


def _options(exporter: str, signal: Signal, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return how an exporter finds its way: by itself both take HTTP_PROXY.

    That may well lead the programs of this machine to this very proxy.  A collector without TLS is
    reached directly; for others curl's rules hold, as for routes, and over gRPC gRPC's own.
    """
    if exporter == _OTLP["http/protobuf"]:
        return {"session": _session(environ)}
    endpoint = _said("ENDPOINT", signal, environ) or "http://localhost:4317"
    if exporter == _OTLP["grpc"] and endpoint.startswith("http://"):
        return {"channel_options": (("grpc.enable_http_proxy", 0),)}
    return {}


def _session(environ: Mapping[str, str]) -> requests.Session:
    """Return what sends over HTTP: through the egress proxy of the environment, or directly."""
    session = requests.Session()
    session.mount("https://", _Through(of_environment(environ)))
    session.mount("http://", _Through(Egress()))
    return session


class _Through(HTTPAdapter):
    """Decides alone through which proxy a request goes."""

    def __init__(self, egress: Egress) -> None:
        super().__init__()
        self._egress = egress

    def send(self, request: requests.PreparedRequest, *more: Any, **named: Any) -> Any:
        """Send, whatever proxies the library has found."""
        host = (urlsplit(request.url or "").hostname or "").removesuffix(".")
        proxy = proxy_for(self._egress, "https", host)
        named["proxies"] = {} if proxy is None else {"https": str(proxy)}
        return super().send(request, *more, **named)

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return what is said to `proxy` alone: credentials, which stand in no URL."""
        found = self._egress.https
        is_it = found is not None and str(found) == proxy and found.authorization
        return {"Proxy-Authorization": found.authorization} if found and is_it else {}


def _parent(fields: bytes) -> Context:
    """Return a context whose span is the caller's, or one without a span."""
    trace = parent_of(fields)
    if trace is None:
        return Context()
    span = SpanContext(
        trace_id=int(trace.trace_id, 16),
        span_id=int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header(state_of(fields)),
    )
    return set_span_in_context(NonRecordingSpan(span), Context())


def _nanoseconds(seconds: float) -> int:
    # A double holds microseconds since 1970 exactly, nanoseconds not.
    return round(seconds * 1e6) * 1000
