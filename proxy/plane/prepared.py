"""A route made ready for the data path: what can be computed once is computed here."""

from __future__ import annotations

import re

from proxy.config.model import IdentityHeader, Route, Upstream
from proxy.identity.cache import TokenCache
from proxy.identity.header import FORWARDED_AUTHORIZATION, identity_line, spelling
from proxy.identity.token import IdToken
from proxy.plane.gate import Gate
from proxy.plane.guard import LoopGuard, OriginGuard, host_guard
from proxy.plane.head import RequestHead, block, tokens, values
from proxy.plane.host import head_limit
from proxy.plane.http1.heads import without
from proxy.plane.pools import Pools, Source
from proxy.plane.stats import RouteStats
from proxy.retry import RetryBudget

# RFC 9110, 7.6.1, and what earlier specifications add to it: these are about the caller's own
# connection. Host is replaced by the upstream's. Proxy-Authorization is meant for a proxy, and
# the next one is us (RFC 9110, 11.7.2).
_HOP_BY_HOP = (
    rb"connection", rb"host", rb"http2-settings", rb"keep-alive", rb"proxy-authorization",
    rb"proxy-connection", rb"te", rb"transfer-encoding", rb"upgrade",
)  # fmt: skip

_FORWARDED = re.compile(rb"\r\n(?i:" + spelling(FORWARDED_AUTHORIZATION) + rb"):[^\r]*")


class PreparedRoute:
    """A `Route` with its pool, its token cache and its expressions."""

    __slots__ = (
        "_base", "_cut", "_fields", "_kept", "_line", "_moves_authorization", "_pools",
        "_rewrites", "_set", "_sources", "_strip", "authority", "body_limit", "budget", "config",
        "gate", "guard", "head_limit", "hosts", "loops", "name", "stats", "token", "tokens",
        "upstream",
    )  # fmt: skip

    def __init__(
        self,
        config: Route,
        *,
        upstream: Upstream,
        pools: Pools,
        tokens: TokenCache | None,
        stats: RouteStats,
    ) -> None:
        """`tokens` is None where the route's `auth` is none."""
        self.config = config
        self.name = config.name
        self._pools = pools
        self._sources = pools.sources(config.protocol)
        self.tokens = tokens
        self.stats = stats
        self.upstream = upstream
        self.head_limit = head_limit(config.limits)
        """Bytes of the largest head, of requests and responses."""
        self.body_limit = config.limits.body_bytes
        """Bytes of the largest request body, 0 for none."""
        limits = config.limits
        self.gate = Gate(limits.in_flight, limits.queue) if limits.in_flight else None
        """Bounds what is in flight; None where nothing does."""
        self.guard = OriginGuard(config.allow_origins)
        self.hosts = host_guard(config)
        """Judges the hosts of requests to a loopback listener; None where any will do."""
        self.budget = RetryBudget(config.retries.budget)
        self.authority = upstream.authority.encode()
        """What the upstream's ``Host`` or ``:authority`` says."""
        self._base = upstream.base.encode()
        self._strip = len(config.path) if config.strip_path and config.path != "/" else 0
        self._rewrites = bool(self._strip or self._base)
        self.loops = LoopGuard()
        ours = block((n.encode(), v.encode("latin-1")) for n, v in config.set_headers)
        self._set = ours + self.loops.line
        self._moves_authorization = config.header is IdentityHeader.AUTHORIZATION
        self._cut = re.compile(rb"\r\n(?i:" + b"|".join(self._removed()) + rb"):[^\r]*")
        self._fields = b""
        """The last field block of a caller."""
        self._kept = self._set
        """What of it is passed on, with what is added."""
        self.token: IdToken | None = None  # The one that the last identity line carried.
        self._line = b""

    def _removed(self) -> list[bytes]:
        """Return the expressions of the names that never reach the upstream as they came."""
        # Cloud Run prefers X-Serverless-Authorization to Authorization, so the caller's own
        # copies of it go even where our token travels in another header.
        identity = {IdentityHeader.SERVERLESS.value, self.config.header.value}
        ours = [name for name, _ in self.config.set_headers]
        names = [*identity, *ours, *self.config.remove_headers]
        return [*_HOP_BY_HOP, *(spelling(name.encode()) for name in names)]

    def source(self, head: RequestHead, spoken: str) -> Source:
        """Return where an exchange whose caller speaks `spoken` finds its upstream."""
        if head.upgrade or head.grpc:
            return self._pools.special(head, self.config.protocol)
        return self._sources[spoken]

    def identity_line(self) -> bytes | None:
        """Return the identity header to send now, empty for no auth, None if it must be awaited."""
        if self.tokens is None:
            return b""
        token = self.tokens.current(self.name)
        if token is None:
            return None
        return self._line if token is self.token else self.line_of(token)

    def line_of(self, token: IdToken) -> bytes:
        """Return the identity header that carries `token`, as a field block."""
        if token is not self.token:
            self.token = token
            self._line = b"\r\n" + identity_line(self.config.header, token).removesuffix(b"\r\n")
        return self._line

    def prepare(self, head: RequestHead) -> tuple[bytes, bytes]:
        """Return target and fields for the upstream.  Runs once per exchange, before any attempt.

        The identity header is added afterwards, so that nothing a caller sends, such as
        ``Connection: x-serverless-authorization``, can remove it.
        """
        fields = head.fields
        # Callers mostly repeat their fields: to compare them costs a fraction of cutting.
        if fields != self._fields:
            self._kept = self._passed_on(head)
            self._fields = fields
        return self._target(head.target) if self._rewrites else head.target, self._kept

    def _passed_on(self, head: RequestHead) -> bytes:
        fields = head.fields
        moved = b""
        if self._moves_authorization:
            fields, moved = self._move_authorization(fields)
        fields = self._cut.sub(b"", fields)
        if head.connection:
            fields = without(fields, tokens(head.connection))
        return fields + moved + self._set

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
        if self._strip and target != b"*":
            target = target[self._strip :]
            if not target.startswith(b"/"):
                target = b"/" + target
        if self._base and target != b"*":
            target = self._base + target
        return target
