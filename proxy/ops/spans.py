"""What a span says of an exchange: OpenTelemetry's conventions for HTTP clients, and its parent.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span.  Nothing of
OpenTelemetry is imported here.
"""

from __future__ import annotations

from typing import Final, Protocol

from proxy.errors import DownstreamGone, ProxyError
from proxy.ops.trace import Trace, read_trace
from proxy.plane.destination import Destination
from proxy.plane.head import RequestHead, values
from proxy.plane.prepared import PreparedRoute
from proxy.redact import redact

Attributes = dict[str, str | int]

# The methods that the conventions know: RFC 9110, 9, and RFC 5789.
_METHODS: Final = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
)

_FIRST_ERROR: Final = 400  # For a client both 4xx and 5xx are errors.

# W3C Trace Context, 3.3.1.5, asks for at least 512 characters to be kept.
_TRACESTATE_LENGTH: Final = 512


class TracedExchange(Protocol):
    """What a span is made from."""

    route: PreparedRoute
    destination: Destination
    head: RequestHead
    status: int
    attempts: int

    @property
    def upstream_target(self) -> bytes:
        """The target as the upstream sees it."""


def name_of(exchange: TracedExchange) -> str:
    """Return the span's name: the method, since no template of the path is known."""
    method = exchange.head.method.decode("latin-1")
    return method if method in _METHODS else "HTTP"


def attributes_of(exchange: TracedExchange, error: ProxyError | None) -> Attributes:
    """Return the attributes of a finished exchange; `error` is what the proxy made of it."""
    method = exchange.head.method.decode("latin-1")
    known = method in _METHODS
    found: Attributes = {
        "http.request.method": method if known else "_OTHER",
        "auth_proxy.route": exchange.route.name,
    }
    if not known:
        found["http.request.method_original"] = method
    upstream = exchange.destination.upstream
    # Queries are never repeated: they hold what callers keep from logs.
    path = exchange.upstream_target.partition(b"?")[0].decode("latin-1")
    found["url.full"] = redact(f"{upstream.scheme}://{upstream.authority}{path}")
    found["server.address"] = upstream.host
    found["server.port"] = upstream.port
    if exchange.attempts > 1:
        found["http.request.resend_count"] = exchange.attempts - 1
    if exchange.status and not isinstance(error, DownstreamGone):
        found["http.response.status_code"] = exchange.status
    if error is not None:
        found["error.type"] = error.reason
    elif exchange.status >= _FIRST_ERROR:
        found["error.type"] = str(exchange.status)
    return found


def parent_of(fields: bytes) -> Trace | None:
    """Return the caller's span, as its ``traceparent`` or ``X-Cloud-Trace-Context`` names it."""
    for name in (b"traceparent", b"x-cloud-trace-context"):
        found = values(fields, name)
        # W3C Trace Context, 4.3: more than one means that there is none.
        if len(found) == 1:
            trace = read_trace(name.decode(), found[0].decode("latin-1"))
            if trace is not None and trace.span_id:
                return trace
    return None


def state_of(fields: bytes) -> list[str]:
    """Return what ``tracestate`` says, for the span of a caller that sent a ``traceparent``."""
    found = [value.decode("latin-1") for value in values(fields, b"tracestate")]
    return found if sum(map(len, found)) <= _TRACESTATE_LENGTH else []
