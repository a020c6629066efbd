"""Where an attempt goes: one address of a route's upstream, with its connections and its tokens.

A route decides whether and how a request is served; a destination is where it is sent.  It owns
what depends on the address alone: what ``Host`` says, the pools, the token cache of its audience,
and the identity header that carries the current token.
"""

from __future__ import annotations

from typing import Final, final

from proxy.config.model import IdentityHeader, Protocol, Upstream
from proxy.identity.cache import TokenCache
from proxy.identity.fetch import Cause
from proxy.identity.header import QUOTA_PROJECT, identity_line, quota_project
from proxy.identity.token import Token
from proxy.plane.availability import Availability
from proxy.plane.head import RequestHead, block, values
from proxy.plane.pools import Connector, Pools

DESTINATION_FIELD: Final = b"x-auth-proxy-destination"
"""On every answer of a route with several destinations: the one that made it, or was tried."""


@final
class Destination:
    """One upstream address of a route."""

    __slots__ = (
        "_counts", "_header", "_line", "_protocol", "authority", "availability", "base", "cause",
        "connectors", "name", "pools", "quota_project", "said", "token", "token_cache", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        cause: Cause,
        upstream: Upstream,
        *,
        pools: Pools,
        token_cache: TokenCache | None,
        header: IdentityHeader,
        protocol: Protocol,
        availability: Availability,
        name: str = "",
        counts: bool = True,
    ) -> None:
        """`cause` is what fetches of its tokens are counted for.

        `token_cache` is None where the route's `auth` is none.  `name` is what it is called among
        several, by default its authority.  `counts` tells whether calls name the quota project of
        their credentials.
        """
        self._counts = counts
        self.cause = cause
        """What fetches of its tokens are counted for."""
        self.upstream = upstream
        self.pools = pools
        self._protocol = protocol
        self._header = header
        self.token_cache = token_cache
        self.connectors = pools.connectors(protocol)
        """Where an exchange gets its connection from, by what its caller speaks (h1, h2)."""
        self.authority = upstream.authority.encode()
        """What ``Host`` or ``:authority`` says."""
        self.base = upstream.base.encode()
        """The path that stands before every target, mostly empty."""
        self.availability = availability
        """Asked where the route has several destinations."""
        self.name = name or upstream.authority
        """In logs, metrics and answers."""
        self.said = block([(DESTINATION_FIELD, self.name.encode())])
        """What is added to an answer, so that it says where it came from."""
        self.token: Token | None = None
        """The one that the last identity header carried."""
        self.quota_project = b""
        """The project on which calls with it count, mostly empty."""
        self._line = b""

    def connector(self, head: RequestHead, spoken: str) -> Connector:
        """Return where an exchange whose caller speaks `spoken` (h1, h2) gets its connection."""
        if head.upgrade or head.grpc:
            return self.pools.special(head, self._protocol)
        return self.connectors[spoken]

    def target(self, target: bytes) -> bytes:
        """Return `target` as this upstream sees it."""
        return self.base + target if self.base and target != b"*" else target

    def identity_line(self) -> bytes | None:
        """Return the identity header to send now, empty for no auth, None if it must be awaited."""
        if self.token_cache is None:
            return b""
        token = self.token_cache.current(self.cause)
        if token is None:
            return None
        return self._line if token is self.token else self.line_of(token)

    def line_of(self, token: Token | None) -> bytes:
        """Return the identity header that carries `token` as a field block, empty without one."""
        if token is None:
            return b""
        if token is not self.token:
            self.token = token
            self._line = b"\r\n" + identity_line(self._header, token).removesuffix(b"\r\n")
            self.quota_project = quota_project(token) if self._counts else b""
        return self._line

    def counted(self, fields: bytes) -> bytes:
        """Return `fields` with the quota project, unless the caller or the route names one."""
        if values(fields, QUOTA_PROJECT.lower()):
            return fields
        return b"%b\r\n%b: %b" % (fields, QUOTA_PROJECT, self.quota_project)
