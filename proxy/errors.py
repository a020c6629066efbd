"""The closed family of failures that the proxy itself can cause or meet.

A class answers four questions, so that nothing has to parse a message: whose fault
it is (``fault``), what it is called (``reason``: header value, metric label, log key and
row of docs/failures.md), what downstream is told (``status``), and whether the upstream may
have seen any of the request (``sent_upstream``).  An instance adds ``detail``, what
happened this time, and ``hint``, what a person can do about it.

`dialects` renders these, `retry` judges them; neither is known here.  No text in here may
carry a token or a query string.
"""

from __future__ import annotations

import enum
from itertools import count
from typing import ClassVar

from proxy.frozen import frozen

ASK_DOCTOR = (
    "`cloud-run-auth-proxy doctor` shows where the credentials come from; on Cloud Run, where"
    " nobody has a shell, as a job: deploy/cloudrun/doctor-job.yaml."
)
"""The hint where nothing better is known of a token."""

_EVENTS = count(1)


def new_event() -> int:
    """Return the number of something that has just happened: see `ProxyError.event`."""
    return next(_EVENTS)


class Fault(enum.Enum):
    """The party that has to act to make a failure go away."""

    DOWNSTREAM = "downstream"
    CONFIGURATION = "configuration"
    PROXY = "proxy"
    TOKEN = "token"  # noqa: S105 (the name of a party)
    UPSTREAM = "upstream"


class ProxyError(Exception):
    """A failure of one exchange; every subclass is one row of the table in docs/failures.md."""

    fault: ClassVar[Fault]
    reason: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    sent_upstream: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        retry_after: int | None = None,
        event: int | None = None,
    ) -> None:
        """`detail` says what happened; `retry_after` is in whole seconds (RFC 9110, 10.2.3).

        `event` is the number of what happened where several exchanges are told of it, each by an
        error of its own.
        """
        super().__init__(detail)
        self.detail = detail
        self.event = new_event() if event is None else event
        """The same for all who were told of one thing: one dial is one failure, however many
        exchanges waited for it."""
        self.hint = self.default_hint if hint is None else hint
        self.retry_after = retry_after

    def __init_subclass__(cls) -> None:
        """Refuse a class that leaves a question open."""
        for name in ("fault", "reason", "status", "title"):
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} must define {name}")


class RequestMalformed(ProxyError):
    """The request breaks the protocol, or two parsers could read it in two ways."""

    fault, reason, status = Fault.DOWNSTREAM, "request_malformed", 400
    title = "The request is malformed"
    default_hint = "The caller sent something that is not one unambiguous HTTP request."


class OriginForbidden(ProxyError):
    """A web page of another origin tried to call through the proxy."""

    fault, reason, status = Fault.DOWNSTREAM, "origin_forbidden", 403
    title = "This origin or host may not call the route"
    default_hint = "If this page may call the service, add its origin to the route's allow_origins."


class RouteNotFound(ProxyError):
    """No route matches the listener, host and path."""

    fault, reason, status = Fault.CONFIGURATION, "route_not_found", 404
    title = "No route matches"
    default_hint = "`cloud-run-auth-proxy check` prints the routes and what each one matches."


class MethodNotAllowed(ProxyError):
    """CONNECT or TRACE: the proxy opens no blind tunnels, and shows nobody its tokens."""

    fault, reason, status = Fault.DOWNSTREAM, "method_not_allowed", 405
    title = "The method is not supported"
    default_hint = (
        "Call the service with http:// through the proxy, so that it can add the token; "
        "it then speaks TLS to the upstream."
    )


class BodyTooLarge(ProxyError):
    """The request body exceeds ``limits.body_bytes``."""

    fault, reason, status = Fault.DOWNSTREAM, "body_too_large", 413
    title = "The request body is too large"
    default_hint = "Raise the route's limits.body_bytes, or send less."


class HeadersTooLarge(ProxyError):
    """The request line and fields exceed ``limits.header_bytes``."""

    fault, reason, status = Fault.DOWNSTREAM, "headers_too_large", 431
    title = "The request head is too large"
    default_hint = "Raise limits.header_bytes, or send a shorter URL and fewer headers."


class Overloaded(ProxyError):
    """A configured limit of concurrency is reached; the exchange is shed."""

    fault, reason, status = Fault.PROXY, "overloaded", 503
    title = "The proxy is at its limit"
    default_hint = (
        "Raise limits.in_flight, limits.queue, limits.connections or limits.tunnels of the route."
    )


class Draining(ProxyError):
    """The proxy is shutting down and this exchange can no longer be served."""

    fault, reason, status = Fault.PROXY, "draining", 503
    title = "The proxy is shutting down"
    default_hint = "Repeat the call; the instance is being replaced."


class TokenUnavailable(ProxyError):
    """No usable token could be obtained; nothing was sent."""

    fault, reason, status = Fault.TOKEN, "token_unavailable", 503
    title = "No token could be obtained"
    default_hint = ASK_DOCTOR


class TokenTimedOut(ProxyError):
    """The token did not come within ``timeouts.connect``; nothing was sent."""

    fault, reason, status = Fault.TOKEN, "token_timed_out", 504
    title = "The token did not come in time"
    default_hint = ASK_DOCTOR


class UpstreamConnectFailed(ProxyError):
    """The upstream could not be reached; nothing was sent."""

    fault, reason, status = Fault.UPSTREAM, "upstream_connect_failed", 502
    title = "The upstream could not be reached"
    default_hint = (
        "Check the route's upstream and its port, that the service runs, and egress where the "
        "proxy runs."
    )


class UpstreamLoops(UpstreamConnectFailed):
    """The request came back to where it had been: no service has seen it, only proxies have."""

    sent_upstream = True
    default_hint = (
        "Name the service itself in the route's upstream: as it stands, it leads back to this "
        "proxy, maybe through others."
    )


class UpstreamLacksHttp2(UpstreamConnectFailed):
    """A gRPC call goes to an upstream that is not spoken to in HTTP/2; nothing was sent."""


class UpstreamConnectTimedOut(ProxyError):
    """DNS, TCP and TLS together took longer than ``timeouts.connect``; nothing was sent."""

    fault, reason, status = Fault.UPSTREAM, "upstream_connect_timed_out", 504
    title = "Connecting to the upstream took too long"
    default_hint = (
        "Check egress where the proxy runs (firewall, VPC connector, Cloud NAT), or raise "
        "timeouts.connect."
    )


class UpstreamTlsFailed(ProxyError):
    """The TLS handshake or the verification of the certificate failed; nothing was sent."""

    fault, reason, status = Fault.UPSTREAM, "upstream_tls_failed", 502
    title = "The upstream's TLS could not be verified"
    default_hint = (
        "The upstream needs TLS 1.2 or newer and a certificate for this name; for a private "
        "authority set the route's ca_file."
    )


class UpstreamReset(ProxyError):
    """The upstream closed the connection before its response was complete."""

    fault, reason, status = Fault.UPSTREAM, "upstream_reset", 502
    title = "The upstream closed the connection"
    sent_upstream = True
    default_hint = "Look at the upstream's own log: it ended the connection without an answer."


class UpstreamRefused(UpstreamReset):
    """The upstream said that it has not begun the exchange and will not (RFC 9113, 8.7)."""

    sent_upstream = False


class UpstreamTimedOut(ProxyError):
    """No response head within ``timeouts.response``, or silence beyond ``idle`` or ``total``."""

    fault, reason, status = Fault.UPSTREAM, "upstream_timed_out", 504
    title = "The upstream did not answer in time"
    sent_upstream = True
    default_hint = "Look at the upstream's own log, or raise the route's timeouts."


class UpstreamMalformed(ProxyError):
    """The response breaks the protocol, or two parsers could read it in two ways."""

    fault, reason, status = Fault.UPSTREAM, "upstream_malformed", 502
    title = "The upstream's response is malformed"
    sent_upstream = True
    default_hint = "The upstream sent something that is not one unambiguous HTTP response."


class DownstreamGone(ProxyError):
    """The caller went away before its response was complete; seen in logs and metrics only."""

    fault, reason, status = Fault.DOWNSTREAM, "downstream_gone", 499
    title = "The caller went away"
    sent_upstream = True


class InternalError(ProxyError):
    """A bug of the proxy."""

    fault, reason, status = Fault.PROXY, "internal_error", 500
    title = "The proxy has a bug"
    sent_upstream = True
    default_hint = "Please report it with the traceback from the proxy's log."


class OutOfMemory(InternalError):
    """Memory could not be had, wherever the exchange was: nobody knows what was sent."""

    title = "The process has no memory left"
    default_hint = (
        "Raise the memory limit of the container or process, or lower limits.connections."
    )


@frozen
class PlatformError:
    """A page that Google's front end made in a service's place, and what it means.

    No failure of the proxy's: it has no class of its own and counts for no reason.  It is told to
    callers in the same languages, and to the log in the same words.
    """

    status: int
    detail: str
    hint: str
    retry_after: int | None = None
    """None: what the page itself says of it is passed on."""

    @property
    def reason(self) -> str:
        """What it is called in logs and messages."""
        return f"upstream_{self.status}"

    @property
    def title(self) -> str:
        """What has happened."""
        return f"Google's front end answered {self.status} in place of the service"


Explained = ProxyError | PlatformError
"""What can be told to a caller in its language."""


REASONS: dict[str, type[ProxyError]] = {kind.reason: kind for kind in ProxyError.__subclasses__()}
