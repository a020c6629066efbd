"""A route made ready for the data path: what can be computed once is computed here."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from proxy.config.model import ErrorFormat, IdentityHeader, Limits, Route
from proxy.errors import BodyTooLarge, HeadersTooLarge, ProxyError, UpstreamConnectFailed
from proxy.identity.header import FORWARDED_AUTHORIZATION, spelling
from proxy.plane.destination import Destination
from proxy.plane.destinations import Destinations
from proxy.plane.gate import Gate
from proxy.plane.guard import LoopGuard, OriginGuard, allow, host_guard
from proxy.plane.head import RequestHead, ResponseHead, block, tokens, values
from proxy.plane.http1.heads import without
from proxy.plane.redirects import Redirects
from proxy.plane.stats import RouteStats
from proxy.retry import RetryBudget

# RFC 9110, 7.6.1, and what earlier specifications add to it: these are about the caller's own
# connection. Host is replaced by the upstream's. Proxy-Authorization is meant for a proxy, and
# the next one is us (RFC 9110, 11.7.2).
_HOP_BY_HOP: Final[tuple[bytes, ...]] = (
    rb"connection", rb"host", rb"http2-settings", rb"keep-alive", rb"proxy-authorization",
    rb"proxy-connection", rb"te", rb"transfer-encoding", rb"upgrade",
)  # fmt: skip

_FORWARDED: Final = re.compile(rb"\r\n(?i:" + spelling(FORWARDED_AUTHORIZATION) + rb"):[^\r]*")


def head_limit(limits: Limits) -> int:
    """Return the bytes of the largest head that `limits` lets pass."""
    return limits.header_bytes or sys.maxsize


def reset_limit(limits: Limits) -> float:
    """Return how many exchanges `limits` let a caller give up unanswered."""
    return float(limits.resets) or math.inf


def _redirects(config: Route, destinations: tuple[Destination, ...]) -> Redirects | None:
    if not config.rewrite_redirects:
        return None
    upstreams = [destination.upstream for destination in destinations]
    return Redirects(config.path, upstreams, strip=config.strip_path and config.path != "/")


@final
class PreparedRoute:
    """What a route decides: limits, origins, retries, and what of a request is passed on."""

    __slots__ = (
        "_cut", "_fields", "_kept", "_moves_authorization", "_set", "_strip", "body_limit",
        "budget", "config", "destinations", "edits", "gate", "guard", "head_limit", "hosts",
        "loops", "name", "redirects", "several", "stats",
    )  # fmt: skip

    def __init__(
        self,
        config: Route,
        destinations: tuple[Destination, ...],
        stats: RouteStats,
        several: Destinations | None = None,
    ) -> None:
        """`destinations` are the addresses of its upstream, in order of preference.

        `several` chooses between them, None where there is one.
        """
        self.config = config
        self.name = config.name
        self.destinations = destinations
        self.several = several
        self.stats = stats
        self.head_limit = head_limit(config.limits)
        """Bytes of the largest head, of requests and responses."""
        self.body_limit = config.limits.body_bytes
        """Bytes of the largest request body, 0 for none."""
        limits = config.limits
        self.gate = Gate(limits.in_flight, limits.queue) if limits.in_flight else None
        """Bounds what is in flight; None where nothing does."""
        self.guard = OriginGuard(config.allow_origins, credentials=config.allow_credentials)
        self.hosts = host_guard(config)
        """Judges the hosts of requests to a loopback listener; None where any will do."""
        self.budget = RetryBudget(config.retries.budget)
        self._strip = len(config.path) if config.strip_path and config.path != "/" else 0
        self.redirects = _redirects(config, destinations)
        """Leads redirects back through the proxy; None where they stay as they came."""
        self.edits = several is not None or self.redirects is not None
        """Whether final heads of responses are changed (`edit`), whoever asks."""
        self.loops = LoopGuard()
        ours = block((n.encode(), v.encode("latin-1")) for n, v in config.set_headers)
        self._set = ours + self.loops.line
        self._moves_authorization = config.header is IdentityHeader.AUTHORIZATION
        self._cut = re.compile(rb"\r\n(?i:" + b"|".join(self._removed()) + rb"):[^\r]*")
        self._fields = b""
        """The last field block of a caller."""
        self._kept = self._set
        """What of it is passed on, with what is added."""

    def _removed(self) -> list[bytes]:
        """Return the expressions of the names that never reach the upstream as they came."""
        # Cloud Run prefers X-Serverless-Authorization to Authorization, so the caller's own
        # copies of it go even where our token travels in another header.
        identity = {IdentityHeader.SERVERLESS.value, self.config.header.value}
        ours = [name for name, _ in self.config.set_headers]
        names = [*identity, *ours, *self.config.remove_headers]
        return [*_HOP_BY_HOP, *(spelling(name.encode()) for name in names)]

    def check(self, head: RequestHead) -> None:
        """Judge what a request announces of itself.

        Raises:
            HeadersTooLarge, BodyTooLarge: it is more than a limit allows.
        """
        if head.raw_size > self.head_limit:
            raise HeadersTooLarge(f"More than {self.head_limit} bytes came.")
        limit = self.body_limit
        if limit and (head.length or 0) > limit:
            raise BodyTooLarge(f"More than {limit} bytes came or were announced.")

    def prepare(self, head: RequestHead) -> tuple[bytes, bytes]:
        """Return target and fields for any destination.  Runs once, before the first attempt.

        The identity header is added afterwards, so that nothing a caller sends, such as
        ``Connection: x-serverless-authorization``, can remove it.
        """
        fields = head.fields
        # Callers mostly repeat their fields: to compare them costs a fraction of cutting.
        if fields != self._fields:
            self._kept = self._passed_on(head)
            self._fields = fields
        return self._target(head.target) if self._strip else head.target, self._kept

    def _passed_on(self, head: RequestHead) -> bytes:
        fields = head.fields
        moved = b""
        if self._moves_authorization:
            fields, moved = self._move_authorization(fields)
        fields = self._cut.sub(b"", fields)
        if head.connection:
            fields = without(fields, tokens(head.connection))
        return fields + moved + self._set

    def edit(
        self, head: ResponseHead, asked: RequestHead, destination: Destination, permission: bytes
    ) -> None:
        """Change what the route, or the page behind a request, needs otherwise in a final head.

        `asked` is the request's, `destination` where the response comes from, and `permission`
        what lets the page read it (`OriginGuard.permission_for`).
        """
        if self.redirects is not None:
            upstream = destination.upstream
            head.fields = self.redirects.led_back(head.fields, asked.authority, upstream)
        if self.several is not None:
            head.fields += destination.said
        if permission:
            head.fields = allow(head.fields, permission)

    def towards(self, destination: Destination) -> Route:
        """Return its configuration as if `destination` were the only one, to speak of that."""
        found = [each for each in self.config.destinations if each.upstream == destination.upstream]
        return replace(self.config, destinations=tuple(found[:1]))

    def trailers(self, fields: bytes) -> bytes:
        """Return what of the request's trailers reaches the upstream, both as field blocks."""
        return self._cut.sub(b"", fields)

    def _move_authorization(self, fields: bytes) -> tuple[bytes, bytes]:
        carried = values(fields, b"authorization")
        if not carried:
            return fields, b""
        moved = block((FORWARDED_AUTHORIZATION, value) for value in carried)
        # What the route sets or removes under this name counts as for any other.
        return _FORWARDED.sub(b"", fields), self._cut.sub(b"", moved)

    def _target(self, target: bytes) -> bytes:
        if target == b"*":
            return target
        target = target[self._strip :]
        return target if target.startswith(b"/") else b"/" + target


@final
class Unresolved:
    """Stands in a route's place in the routing table until the service's name has been resolved."""

    __slots__ = ("_ask", "_detail", "_hint", "language", "name")

    def __init__(
        self,
        name: str,
        detail: str,
        hint: str | None,
        ask: Callable[[], None],
        *,
        language: ErrorFormat = ErrorFormat.AUTO,
    ) -> None:
        """`name` is the route's; `ask` is told of every request, so that it tries again.

        `language` is what the route's ``errors`` says.
        """
        self.name = name
        self.language = language
        self._detail = detail
        self._hint = hint
        self._ask = ask

    def failure(self) -> ProxyError:
        """Return what a request gets; the next may find the service resolved."""
        self._ask()
        return UpstreamConnectFailed(self._detail, hint=self._hint)
