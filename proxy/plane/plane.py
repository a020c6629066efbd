"""The data path as a whole: what its listeners, exchanges and pools share."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final

from proxy.clock import Clocks
from proxy.config.model import ErrorFormat
from proxy.errors import ProxyError, RouteNotFound
from proxy.plane.answer import Refusal
from proxy.plane.codec import Connection, DownstreamCodec, Host, RequestSink
from proxy.plane.descriptors import overloaded
from proxy.plane.detect import Detector
from proxy.plane.exchange import Exchange, Owner
from proxy.plane.guard import CAME_THROUGH, HOST, METHOD, refused_method
from proxy.plane.head import NOBODY, RequestHead
from proxy.plane.http1.downstream import Http1Downstream
from proxy.plane.http2.share import Share
from proxy.plane.http2.tolls import Allowance, reset_allowance, work_allowance
from proxy.plane.prepared import PreparedRoute, Unresolved
from proxy.plane.stats import Reporter, Stats
from proxy.plane.sweeper import Sweeper
from proxy.routing import RoutingTable, bare_host
from proxy.tasks import Tasks

# Seconds that the last bytes of responses may take to leave when the process ends.
_FLUSH_TIMEOUT: Final = 1.0

_LEAST_HEAD_LIMIT: Final = 64 * 1024

Observer = Callable[[Exchange, float, ProxyError | None], None]
"""Takes an exchange that has ended, how long it took (seconds), and the proxy's own failure."""


class Plane(Owner):
    """The state of the data path; listeners hand it requests."""

    def __init__(
        self, clocks: Clocks, stats: Stats, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self.clock = clocks.steady
        self.wall = clocks.wall
        self.jitter = jitter
        self.stats = stats
        self.exchanges: set[Exchange] = set()
        """Those in flight; the sweeper watches their deadlines."""
        self.connections: set[Connection] = set()
        """Callers' connections."""
        self.sweeper = Sweeper(clocks.steady)
        self.share = Share()
        self.sweeper.watch_all(self.exchanges)
        self._listeners: set[ListenerHost] = set()
        """Those that are told when the plane drains."""
        self.draining = False
        self.on_finished: Observer | None = None
        """Is told of every exchange that has ended."""
        self._reporter = Reporter(stats, clocks.wall)
        self._tasks = Tasks()
        self._change: asyncio.Future[None] | None = None

    def opened(self, listener: ListenerHost) -> None:
        """Have `listener` drain with the plane."""
        self._listeners.add(listener)

    def retired(self, listener: ListenerHost) -> None:
        """Forget a listener that drains already."""
        self._listeners.discard(listener)

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run `work` as a task of the plane's own."""
        return self._tasks.spawn(work, name)

    def finished(self, exchange: Exchange, error: ProxyError | None) -> None:
        """Report the end of an exchange."""
        now = self.clock()
        seconds = now - exchange.started_at
        stats = exchange.route.stats
        stats.finished(exchange.protocol, exchange.status, seconds)
        if exchange.came_whole:
            stats.upstream_head.observe(now - exchange.sent_at)
        self._reporter.finished(exchange, stats, exchange.status, seconds, error)
        if self.on_finished is not None:
            self.on_finished(exchange, seconds, error)
        if self._change is not None:
            self._changed()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done`, which is asked whenever an exchange or a connection has ended."""
        while not done():
            if self._change is None:
                self._change = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._change)

    def is_idle(self) -> bool:
        """Tell whether no exchange is in flight and no response waits for its caller's window."""
        return not self.exchanges and not any(each.is_busy for each in self.connections)

    def is_deserted(self) -> bool:
        """Tell whether every connection of callers has ended."""
        return not self.connections

    def refuse(
        self,
        codec: DownstreamCodec,
        head: RequestHead,
        error: ProxyError,
        route: str = "",
        language: ErrorFormat = ErrorFormat.AUTO,
    ) -> Refusal:
        """Return what answers a request that has no route, or one that leads nowhere yet."""
        self._reporter.refused(head, codec.protocol, error, route)
        return Refusal(codec, head, error, now=self.wall(), route=route, language=language)

    def drain(self) -> None:
        """Go on serving, but ask callers to go elsewhere; HTTP/1.1 ones with their next response.

        (HTTP/2 ones are told at once: RFC 9113, 6.8.)
        """
        self.draining = True
        for listener in self._listeners:
            listener.draining = True
        for connection in list(self.connections):
            connection.drain()

    def cut(self) -> int:
        """End all exchanges; return how many there were."""
        left = list(self.exchanges)
        for exchange in left:
            exchange.cut()
        return len(left)

    def emptied(self) -> None:
        """Note that a connection has nothing under way any more."""
        self._changed()

    def left(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self.connections.discard(connection)
        self._changed()

    async def stop(self) -> None:
        """Close every connection of callers, letting what is written leave, and end every task."""
        self.sweeper.stop()
        for connection in list(self.connections):
            connection.shut()
        await self._tasks.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_TIMEOUT):
                await self.until(self.is_deserted)

    def _changed(self) -> None:
        if self._change is not None:
            self._change.set_result(None)
            self._change = None


Table = RoutingTable[PreparedRoute | Unresolved]


class ListenerHost:
    """One listener as its connections see it: they outlive its table, which a reload swaps."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.sweeper = plane.sweeper
        self.allowance = work_allowance(plane.clock)
        self.resets: Allowance | None = None
        self.share = plane.share
        self.draining = plane.draining
        """Whether connections shall end with their next response."""
        self.table: Table = RoutingTable()
        self.head_limit = _LEAST_HEAD_LIMIT
        """The largest request head that any route takes (bytes)."""
        self.loopback_name: bytes | None = None
        """The host that it is configured with where only this machine can connect, its browsers
        included; else None."""
        self.on_path = False
        """Whether it is a Unix socket, whose callers may name its path in place of a host."""
        plane.opened(self)

    def limit_resets(self, limit: float) -> None:
        """Let callers give up so many exchanges unanswered; infinity for any number."""
        before = self.resets.burst if self.resets else math.inf
        if limit != before:
            self.resets = None if limit == math.inf else reset_allowance(limit, self._plane.clock)

    def connection(self) -> Detector:
        """Return what serves a connection that is accepted."""
        return Detector(self, Http1Downstream)

    def crowded(self) -> Host:
        """Return what a connection is served by for which no descriptor is left."""
        return _Crowded(self, self._plane)

    def retire(self) -> None:
        """Go on with what is known until each connection's next response: a reload took it away."""
        self.draining = True
        self._plane.retired(self)

    def opened(self, connection: Connection) -> None:
        """Count a connection that began."""
        self._plane.connections.add(connection)

    def emptied(self) -> None:
        """Note that a connection has nothing under way any more."""
        self._plane.emptied()

    def closed(self, connection: Connection) -> None:
        """Count a connection that ended."""
        self._plane.left(connection)

    def admit(self, codec: DownstreamCodec, head: RequestHead) -> RequestSink:
        """Return the exchange of a request, or what answers one that no route takes."""
        if head.notable & METHOD:
            return self._plane.refuse(codec, head, refused_method(head.method))
        route = self.table.match(head.authority, head.path)
        if route is None:
            host = head.authority.decode("latin-1") or "no host"
            detail = f"No route matches {host} and the path {head.path.decode('latin-1')[:200]}."
            return self._plane.refuse(codec, head, RouteNotFound(detail))
        if isinstance(route, Unresolved):
            failure = route.failure()
            return self._plane.refuse(codec, head, failure, route.name, route.language)
        if head.notable and (why := self._refusal(head, route)) is not None:
            return self._plane.refuse(codec, head, why, route.name, route.config.errors)
        return Exchange(self._plane, codec, head, route)

    def _refusal(self, head: RequestHead, route: PreparedRoute) -> ProxyError | None:
        """Return why the route does not serve a request that is notable, None if it does."""
        if head.notable & CAME_THROUGH and (loop := route.loops.refusal(head)) is not None:
            return loop
        hosts, own = route.hosts, self.loopback_name
        if not head.notable & HOST or hosts is None or own is None:
            return None
        return None if bare_host(head.authority) == own else hosts.refusal(head.authority)

    def reject(self, codec: DownstreamCodec, error: ProxyError, head: RequestHead = NOBODY) -> None:
        """Answer bytes that are no request; `head` is what can be known of it."""
        self._plane.refuse(codec, head, error).start(ended=True)


class _Crowded:
    """A listener as connections see it for which no descriptor is left: requests are refused."""

    draining = True
    """So that a connection ends with its first response."""

    def __init__(self, host: ListenerHost, plane: Plane) -> None:
        self._plane = plane
        self.head_limit = host.head_limit
        self.on_path = host.on_path
        self.sweeper = host.sweeper
        self.allowance = host.allowance
        self.resets = host.resets
        self.share = host.share
        self.opened = host.opened
        self.emptied = host.emptied
        self.closed = host.closed
        self.reject = host.reject

    def crowded(self) -> Host:
        """Return itself."""
        return self

    def admit(self, codec: DownstreamCodec, head: RequestHead) -> RequestSink:
        """Refuse a request."""
        return self._plane.refuse(codec, head, overloaded())
