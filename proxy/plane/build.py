"""Makes the data path's routes of a configuration, and keeps through a reload what can be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from pathlib import Path

from proxy.config import model
from proxy.config.egress import proxy_of
from proxy.config.model import Address, Auth, Config, Route, Upstream
from proxy.config.proxies import HttpProxy
from proxy.config.values import field_key
from proxy.frozen import frozen
from proxy.identity.access_token import Scopes
from proxy.identity.caches import TokenCaches
from proxy.identity.source import QUOTA_FIELD
from proxy.plane.availability import Availability
from proxy.plane.destination import Destination
from proxy.plane.destinations import Destinations
from proxy.plane.dial import Dialler
from proxy.plane.http1.pool import Pool
from proxy.plane.http2.pool import StreamPool
from proxy.plane.limit import ConnectionLimit
from proxy.plane.plane import Plane, Table
from proxy.plane.pools import Pools
from proxy.plane.prepared import PreparedRoute, Unresolved, head_limit, reset_limit
from proxy.plane.stats import Connections, DestinationStats
from proxy.plane.sweeper import LONGEST_TICK, tick_for
from proxy.plane.trust import HTTP2, fingerprint
from proxy.resolver import Resolver
from proxy.routing import RoutingTable, add_route


def _nothing() -> None:
    """Stand for whoever would resolve services."""


def _count(route: PreparedRoute) -> None:
    """Have the connections and dials of a route counted, by destination where it has several."""
    stats, before = route.stats, route.stats.destinations
    stats.destinations = {}
    if route.several is None:
        only = route.destinations[0]
        stats.connections = only.pools.connections
        only.pools.count_dials(stats.dials)
        return
    stats.connections = partial(_connections, route.destinations)
    for each in route.destinations:
        own = stats.destinations[each.name] = before.get(each.name) or DestinationStats(each.name)
        own.processes = 1
        own.available = each.availability.count
        own.connections = each.pools.connections
        each.pools.count_dials(own.dials)


def _connections(destinations: Iterable[Destination]) -> Connections:
    """Return the counts of all `destinations` together."""
    each = [destination.pools.connections() for destination in destinations]
    return Connections(
        sum([one.idle for one in each]),
        sum([one.busy for one in each]),
        sum([one.dialling for one in each]),
        sum([one.waiting for one in each]),
    )


_LOOKS = 100  # Dictionary look-ups in one turn of the loop: half a millisecond.


@frozen
class _PoolKey:
    """What two configurations must agree in for connections to survive from one to the other."""

    route: str
    upstream: Upstream
    place: Address | None
    """What is dialled instead of the upstream's own host."""
    proxy: HttpProxy | None
    """The egress proxy, with its credentials."""
    ca_file: Path | None
    roots: bytes
    """The fingerprint of those that verified it, empty where nothing is verified."""
    connections: int
    tunnels: int
    head_limit: int


@frozen
class Built:
    """The routes of a configuration, ready to be put in force."""

    tables: dict[Address, Table]
    head_limits: dict[Address, int]
    """The largest head that any route of each listener takes (bytes)."""
    reset_limits: dict[Address, float]
    """How many exchanges any route of each listener lets a caller give up unanswered."""
    routes: dict[str, PreparedRoute]
    pools: dict[_PoolKey, Pools]
    tick: float
    unused: list[Pools]
    """Those of the configuration before that have no place in this one."""


class Builder:
    """Owns the pools; called once at start and once per reload."""

    def __init__(
        self,
        plane: Plane,
        tokens: TokenCaches,
        resolver: Resolver,
        ask: Callable[[], None] = _nothing,
    ) -> None:
        """`resolver` finds the addresses of upstreams.

        `ask` is called for an exchange whose route has a destination that is not resolved yet,
        besides others.
        """
        self._plane = plane
        self._tokens = tokens
        self._resolver = resolver
        self._ask = ask
        self._pools: dict[_PoolKey, Pools] = {}
        self.routes: dict[str, PreparedRoute] = {}

    def build(
        self, config: Config, unresolved: Mapping[str, Unresolved]
    ) -> Generator[None, None, Built]:
        """Build what `adopt` puts in force; `unresolved` holds the routes without upstream.

        Yields after each piece of work, a route's mostly, so that thousands of routes need not
        be built in one turn of the loop.
        """
        tables: dict[Address, Table] = {each: RoutingTable() for each in config.listeners}
        head_limits = dict.fromkeys(tables, 0)
        resets = dict.fromkeys(tables, 0.0)
        routes: dict[str, PreparedRoute] = {}
        pools: dict[_PoolKey, Pools] = {}
        tick = LONGEST_TICK
        for route in config.routes:
            waiting = unresolved.get(route.name)
            if waiting is None:
                routes[route.name] = self._prepare(route, pools)
            add_route(tables, route, waiting or routes[route.name])
            for address in route.listen:
                head_limits[address] = max(head_limits[address], head_limit(route.limits))
                resets[address] = max(resets[address], reset_limit(route.limits))
            timeouts = route.timeouts
            tick = min(tick, tick_for((timeouts.response, timeouts.idle, timeouts.total)))
            yield
        unused: list[Pools] = []
        for count, (pool_key, each) in enumerate(self._pools.items()):
            if pool_key not in pools:
                unused.append(each)
            if count % _LOOKS == 0:
                yield
        return Built(tables, head_limits, resets, routes, pools, tick, unused)

    def adopt(self, built: Built) -> None:
        """Put in force what was built; closing what is `unused` is left to the caller."""
        self._pools = built.pools
        self.routes = built.routes
        for route in built.routes.values():
            _count(route)
        self._plane.sweeper.tick = built.tick

    def close(self) -> None:
        """Close every pool."""
        for pool in self._pools.values():
            pool.close()

    def _prepare(self, route: Route, pools: dict[_PoolKey, Pools]) -> PreparedRoute:
        # A service may turn out to be at an address that the route has already.
        found: dict[Upstream, model.Destination] = {}
        for each in route.destinations:
            if each.upstream is not None:
                found.setdefault(each.upstream, each)
        if not found:
            raise AssertionError(f"the upstream of route {route.name} is not resolved")
        hosts = Counter(upstream.authority for upstream in found)
        destinations = tuple(
            [
                self._destination(
                    route,
                    upstream,
                    each,
                    pools,
                    # Two with one host differ in their paths.
                    upstream.authority if hosts[upstream.authority] == 1 else str(upstream),
                )
                for upstream, each in found.items()
            ]
        )
        stats = self._plane.stats.route(route.name)
        if len(route.destinations) == 1:
            return PreparedRoute(route, destinations, stats)
        ask = None if route.is_resolved else self._ask
        return PreparedRoute(
            route, destinations, stats, Destinations(route.name, destinations, stats, ask)
        )

    def _destination(
        self,
        route: Route,
        upstream: Upstream,
        configured: model.Destination,
        pools: dict[_PoolKey, Pools],
        name: str,
    ) -> Destination:
        token_cache = None
        if route.auth is Auth.ID_TOKEN:
            audience = configured.audience or upstream.origin
            token_cache = self._tokens.cache(route.credentials, audience, route.egress_proxy)
        elif route.auth is Auth.ACCESS_TOKEN:
            token_cache = self._tokens.cache(
                route.credentials, Scopes(route.scopes), route.egress_proxy
            )
        return Destination(
            (route.name, name) if len(route.destinations) > 1 else route.name,
            upstream,
            pools=self._pools_of(route, upstream, configured, pools),
            token_cache=token_cache,
            header=route.header,
            protocol=route.protocol,
            counts=QUOTA_FIELD.lower() not in map(field_key, route.remove_headers),
            availability=self._availability(route.name, upstream),
            name=name,
        )

    def _availability(self, route: str, upstream: Upstream) -> Availability:
        """Return the state of a destination: what it was, if the route had it before."""
        before = self.routes.get(route)
        for each in before.destinations if before is not None else ():
            if each.upstream == upstream:
                return each.availability
        return Availability(self._plane.clock, self._plane.jitter)

    def _pools_of(
        self,
        route: Route,
        upstream: Upstream,
        configured: model.Destination,
        into: dict[_PoolKey, Pools],
    ) -> Pools:
        """Return the pools of a route, those that there are if it may keep them."""
        limits = route.limits
        roots = fingerprint(route.ca_file) if upstream.tls else b""
        key = _PoolKey(
            route.name,
            upstream,
            configured.dialled if configured.connect_to else None,
            proxy_of(route, configured),
            route.ca_file,
            roots,
            limits.connections,
            limits.tunnels,
            head_limit(limits),
        )
        pools = into[key] = self._pools.get(key) or self._new_pools(key)
        return pools

    def _new_pools(self, key: _PoolKey) -> Pools:
        sweeper, stats = self._plane.sweeper, self._plane.stats.route(key.route)
        limit = ConnectionLimit(key.connections)
        dialler = partial(
            Dialler, key.upstream, key.ca_file, self._resolver, at=key.place, proxy=key.proxy
        )
        http1 = Pool(
            dialler(),
            limit=limit,
            tunnels=key.tunnels,
            head_limit=key.head_limit,
            sweeper=sweeper,
            stats=stats,
        )
        streams = StreamPool(
            dialler(protocols=HTTP2),
            http1,
            limit=limit,
            head_limit=key.head_limit,
            sweeper=sweeper,
            stats=stats,
        )
        return Pools(http1, streams)
