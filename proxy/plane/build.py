"""Makes the data path's routes of a configuration, and keeps through a reload what can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.config.model import Address, Auth, Config, Route, Upstream
from proxy.identity.tokens import Tokens
from proxy.plane.dial import Dialler
from proxy.plane.host import head_limit
from proxy.plane.http2.pool import StreamPool
from proxy.plane.plane import Plane, Table
from proxy.plane.pool import Pool
from proxy.plane.pools import Pools
from proxy.plane.prepared import PreparedRoute
from proxy.plane.sweeper import tick_for
from proxy.plane.trust import fingerprint
from proxy.plane.unresolved import Unresolved
from proxy.resolver import Resolver
from proxy.routing import build_tables


@dataclass(frozen=True, slots=True)
class _PoolKey:
    """What two configurations must agree in for connections to survive from one to the other."""

    route: str
    upstream: Upstream
    ca_file: Path | None
    roots: bytes
    """The fingerprint of those that verified it, empty where nothing is verified."""
    connections: int
    tunnels: int
    head_limit: int


class Builder:
    """Owns the pools; called once at start and once per reload."""

    def __init__(self, plane: Plane, tokens: Tokens, resolver: Resolver) -> None:
        """`resolver` finds the addresses of upstreams."""
        self._plane = plane
        self._tokens = tokens
        self._resolver = resolver
        self._pools: dict[_PoolKey, Pools] = {}
        self.routes: dict[str, PreparedRoute] = {}

    def build(self, config: Config, unresolved: Mapping[str, Unresolved]) -> dict[Address, Table]:
        """Return a routing table per listener; `unresolved` holds the routes without upstream."""
        old, self._pools = self._pools, {}
        self.routes = {
            route.name: self._prepare(route, old)
            for route in config.routes
            if route.name not in unresolved
        }
        for key, pool in old.items():
            if key not in self._pools:
                pool.close()
        self._plane.sweeper.tick = tick_for(
            seconds
            for route in config.routes
            for seconds in (route.timeouts.response, route.timeouts.idle, route.timeouts.total)
        )
        return build_tables(
            config, lambda route: unresolved.get(route.name) or self.routes[route.name]
        )

    def close(self) -> None:
        """Close every pool."""
        for pool in self._pools.values():
            pool.close()

    def _prepare(self, route: Route, old: dict[_PoolKey, Pools]) -> PreparedRoute:
        upstream = route.upstream
        if upstream is None:
            raise AssertionError(f"the upstream of route {route.name} is not resolved")
        tokens = None
        if route.auth is Auth.ID_TOKEN:
            tokens = self._tokens.cache(route.credentials, route.audience or upstream.origin)
        return PreparedRoute(
            route,
            upstream=upstream,
            pools=self._pools_of(route, upstream, old),
            tokens=tokens,
            stats=self._plane.stats.route(route.name),
        )

    def _pools_of(self, route: Route, upstream: Upstream, old: dict[_PoolKey, Pools]) -> Pools:
        limits = route.limits
        roots = fingerprint(route.ca_file) if upstream.tls else b""
        key = _PoolKey(
            route.name,
            upstream,
            route.ca_file,
            roots,
            limits.connections,
            limits.tunnels,
            head_limit(limits),
        )
        pools = self._pools[key] = old.get(key) or self._new_pools(key)
        self._plane.stats.route(route.name).connections = pools.connections
        return pools

    def _new_pools(self, key: _PoolKey) -> Pools:
        sweeper, stats = self._plane.sweeper, self._plane.stats.route(key.route)
        http1 = Pool(
            Dialler(key.upstream, key.ca_file, self._resolver),
            limit=key.connections,
            tunnels=key.tunnels,
            head_limit=key.head_limit,
            sweeper=sweeper,
            stats=stats,
        )
        streams = http1.beside = StreamPool(
            Dialler(key.upstream, key.ca_file, self._resolver, ("h2", "http/1.1")),
            http1,
            limit=key.connections,
            head_limit=key.head_limit,
            sweeper=sweeper,
            stats=stats,
        )
        return Pools(http1, streams)
