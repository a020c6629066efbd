"""Builds every object from a `Config`; starts, reloads, drains and stops them, in that order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Final

from proxy.administration import Administration
from proxy.clock import Clocks
from proxy.complaints import PLATFORMS
from proxy.config.addresses import is_on_loopback
from proxy.config.model import Address, Config
from proxy.errors import TokenUnavailable
from proxy.identity.caches import TokenCaches
from proxy.identity.source import TokenSourceError
from proxy.ops.lifecycle import Lifecycle, State
from proxy.ops.logs import PROJECT_VARIABLE, name_project
from proxy.ops.numbers import Numbers, TokenMetrics, TokenView, token_view, worst_tokens
from proxy.ops.tracing import Tracing
from proxy.plane.build import Builder
from proxy.plane.listen import Listener, address_of, open_listener
from proxy.plane.plane import ListenerHost, Plane
from proxy.plane.pools import Pools
from proxy.plane.stats import Stats
from proxy.plane.trust import load_roots, read_anew
from proxy.resolver import Resolver
from proxy.services import Services
from proxy.sockets import OwnSockets, SocketSource
from proxy.tasks import in_turns

log = logging.getLogger("proxy.server")


SAY_AFTER: Final = 5.0
"""Seconds without the first tokens after which a start that waits for them says so."""

SAY_NAMES: Final = 5
"""Routes that are named then."""

_Hosts = dict[Address, ListenerHost]
_Listeners = dict[Address, Listener]

_NO_HOSTS: Mapping[Address, ListenerHost] = {}


class Server:
    """One running proxy in this process."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        sockets: SocketSource | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        """Open nothing yet.

        `environ` tells where credentials are (``GCE_METADATA_HOST`` and the like); `sockets` is
        where listeners come from, where that is not simply their address.
        """
        self.config = config
        clocks = clocks or Clocks()
        self.lifecycle = Lifecycle(clocks)
        self.fetches = TokenMetrics()
        resolver = Resolver(clocks.steady)
        self.token_caches = TokenCaches(
            clocks=clocks,
            environ=environ,
            resolver=resolver,
            jitter=Random(),  # noqa: S311 (spreads fetches over time)
            on_fetch=self.fetches.on_fetch,
        )
        self.plane = Plane(clocks, Stats())
        self._tracing = Tracing(environ, clocks.wall, self.plane)
        self.admin = Administration(
            self.lifecycle,
            numbers=self._numbers,
            config=lambda: self.config,
            addresses=lambda: self.addresses,
            clocks=clocks,
        )
        self._sockets = sockets or OwnSockets()
        self._builder = Builder(self.plane, self.token_caches, resolver, self._resolve_again)
        self._services = Services(self.token_caches.names, clocks.steady, self._resolve_again)
        self._switching = asyncio.Lock()
        """Held by whoever changes the routes: that takes many turns of the loop."""
        self._hosts: _Hosts = {}
        self._listeners: _Listeners = {}
        # On a developer's machine there is neither a metadata server nor Cloud Logging.
        self._asks_for_project = not environ.get(PROJECT_VARIABLE) and any(
            environ.get(name) for name in PLATFORMS
        )

    @property
    def addresses(self) -> list[Address]:
        """Where requests are accepted, with real ports."""
        return [real for each in self._listeners.values() for real in each.addresses]

    @property
    def admin_address(self) -> Address | None:
        """Where the admin listener is, with its real port."""
        return self.admin.address

    @property
    def quit_asked(self) -> asyncio.Event:
        """Set when a caller asks the process to end through the admin listener."""
        return self.admin.quit_asked

    async def start(self) -> None:
        """Open the listeners, then the admin listener; serve once the first fetches have ended.

        Raises:
            ListenFailed: an address cannot be had; what was opened is closed again.
        """
        try:
            await self._switch(self.config)
            # Beside it, since both may wait for the metadata server: whoever probes has an
            # answer meanwhile.
            ready = self.plane.spawn(self._get_ready(), "get ready for the first calls")
            await self.admin.start(self._sockets.admin)
            self._tracing.start()
            await ready
        except BaseException:
            await self.stop()
            raise
        if self.lifecycle.state is State.STARTING:
            self.lifecycle.move_to(State.SERVING)
        if self._asks_for_project:
            _ = self.plane.spawn(self._name_project(), "ask for the project")

    async def reload(self, config: Config) -> None:
        """Serve by another configuration; exchanges, connections and tokens go on.

        `workers` and `admin` stay as they are.

        Raises:
            ListenFailed: an address of it cannot be had; nothing has changed then.
        """
        config = replace(config, admin=self.config.admin, workers=self.config.workers)
        # Before the switch: a service whose URL is known must not be unknown for a moment.
        config = await self._services.resolve(config)
        await self._switch(config)
        _ = self.plane.spawn(self._prefetch(), "fetch tokens after a reload")

    def drain(self) -> None:
        """Go on serving, but let each connection end with its next response."""
        if self.lifecycle.state in (State.STARTING, State.SERVING):
            self.lifecycle.move_to(State.DRAINING)
        self.plane.drain()

    def refuse_more(self) -> None:
        """Stop accepting connections; open ones go on."""
        self._close(self._listeners)

    async def drained(self, seconds: float | None = None, delay: float = 0.0) -> int:
        """Wait until nothing is in flight, after `delay` seconds at the soonest; serve no more.

        What is left after `seconds`, by default the configuration's `drain`, is cut; returns
        how many exchanges that were.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self.config.drain if seconds is None else seconds)
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(delay)
                await self.plane.until(self.plane.is_idle)
        except TimeoutError:
            return self._end_traffic()
        cut = self._end_traffic()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                # The last bytes of a response may be under way.
                await self.plane.until(self.plane.is_deserted)
                await self._tracing.flush()
        return cut

    def _end_traffic(self) -> int:
        """Stop serving; return how many exchanges were cut.

        One step, so that no exchange begins unseen between the look and the end.
        """
        self.refuse_more()
        cut = self.plane.cut()
        for connection in list(self.plane.connections):
            connection.shut()
        return cut

    async def stop(self) -> None:
        """Close everything, whatever is in flight."""
        self.drain()
        self.refuse_more()
        await self.plane.stop()
        await self._tracing.close()
        self._builder.close()
        await self.token_caches.close()
        await self.admin.stop()
        if self.lifecycle.state is State.DRAINING:
            self.lifecycle.move_to(State.STOPPED)

    def abandon(self) -> None:
        """Remove what would outlive the process, which ends at once."""
        for address in self._listeners:
            self._sockets.leave(address)
        self.admin.abandon()

    def numbers(self) -> Numbers:
        """Return what is counted, for metrics and the status."""
        tokens: dict[str, TokenView] = {}
        of_destinations: dict[str, dict[str, TokenView]] = {}
        for name, route in self._builder.routes.items():
            views = {
                each.name: token_view(each.token_cache)
                for each in route.destinations
                if each.token_cache is not None
            }
            if views:
                tokens.update(worst_tokens({name: view} for view in views.values()))
            if views and route.several is not None:
                of_destinations[name] = views
        return Numbers(
            stats=self.plane.stats,
            tokens=tokens,
            destination_tokens=of_destinations,
            fetches=self.fetches,
        )

    async def _switch(self, config: Config) -> None:
        """Open the listeners that are missing, route by `config`, and close those no longer used.

        Nothing has changed where this raises.
        """
        async with self._switching:
            await self._switch_alone(config)

    async def _switch_alone(self, config: Config) -> None:
        self._sockets.plan(config)
        hosts, listeners = await self._open_missing(config)
        try:
            # New connections shall see what the files hold that are named like before, and
            # connections that other roots have verified must not be used any more.
            files = {
                route.ca_file
                for route in config.routes
                for each in route.destinations
                if each.upstream is None or each.upstream.tls
            }
            await asyncio.to_thread(read_anew, files)
            unused = await self._route(config, hosts)
        except BaseException:
            self._close(listeners)
            _retire(hosts)
            raise
        self._listeners.update(listeners)
        for listener in listeners.values():
            await listener.start()
        for address in [address for address in self._listeners if address not in self._hosts]:
            # The file first: once the socket is closed, it might be a successor's.
            self._sockets.leave(address)
            await self._listeners.pop(address).retire()
        for pools in unused:
            pools.close()
            await asyncio.sleep(0)

    async def _open_missing(self, config: Config) -> tuple[_Hosts, _Listeners]:
        """Open the listeners that are not open yet, all or none; callers wait in their queues."""
        hosts: _Hosts = {}
        listeners: _Listeners = {}
        try:
            for address in config.listeners:
                if address not in self._listeners:
                    host = hosts[address] = ListenerHost(self.plane)
                    sockets = await self._sockets.take(address)
                    if all(is_on_loopback(address_of(sock)) for sock in sockets):
                        host.loopback_name = address.host.encode()
                    host.on_path = any(address_of(sock).path for sock in sockets)
                    listeners[address] = await open_listener(address, sockets, host.connection)
        except BaseException:
            self._close(listeners)
            _retire(hosts)
            for address in hosts:
                self._sockets.leave(address)
            raise
        return hosts, listeners

    def _close(self, listeners: _Listeners) -> None:
        while listeners:
            address, listener = listeners.popitem()
            self._sockets.leave(address)
            listener.close()

    async def _route(
        self, config: Config, added: Mapping[Address, ListenerHost] = _NO_HOSTS
    ) -> list[Pools]:
        """Route by `config`, also on the listeners that are `added`; return the pools to close.

        Exchanges go on between the pieces of work; what they see changes in one step.
        """
        built = await in_turns(self._builder.build(config, self._services.unresolved(config)))
        self._builder.adopt(built)
        self.config = config
        self._hosts.update(added)
        for address, host in list(self._hosts.items()):
            if address in built.tables:
                host.table = built.tables[address]
                host.head_limit = built.head_limits[address]
                host.limit_resets(built.reset_limits[address])
            else:
                # Its connections go on with what they know until their next response.
                host.retire()
                del self._hosts[address]
        return built.unused

    async def _get_ready(self) -> None:
        """Look up services and fetch the first tokens."""
        await self._resolve()
        await self._prefetch()

    async def _resolve(self) -> None:
        """Look up what services' URLs are, and route by what was found."""
        asked = self.config
        resolved = await self._services.resolve(asked)
        async with self._switching:
            # Meanwhile a reload may have come, which has resolved its own.
            if resolved is not asked and self.config is asked:
                for pools in await self._route(resolved):
                    pools.close()

    async def _name_project(self) -> None:
        """Learn the project's id, without which Cloud Logging does not join a line to its request.

        After the start, because nobody waits for it.
        """
        try:
            name_project(await self.token_caches.names.project())
        except TokenSourceError as error:
            log.debug("log lines name traces without their project: %s", error.detail)

    def _resolve_again(self) -> None:
        """Try again because a request asks for it; one attempt at a time, with pauses between."""
        if self._services.may_try():
            _ = self.plane.spawn(self._resolve(), "resolve services")

    async def _prefetch(self) -> None:
        """Have ready what first exchanges need: every route's token, and the roots to trust.

        A failure is logged and stops nothing.
        """
        # 30 ms of work that would keep all exchanges waiting when the first one dials.
        secure = {
            route.config.ca_file
            for route in self._builder.routes.values()
            if any(destination.upstream.tls for destination in route.destinations)
        }
        roots = asyncio.get_running_loop().run_in_executor(None, load_roots, secure)
        waits: dict[asyncio.Future[None], str] = {}
        for route in list(self._builder.routes.values()):
            name = route.config.name
            for each in route.destinations:
                if each.token_cache is not None:
                    fetched = _first_token(each.token_cache.prefetch(each.cause), name)
                    waits[asyncio.ensure_future(fetched)] = name
            await asyncio.sleep(0)
        late = asyncio.get_running_loop().call_later(SAY_AFTER, _say_what_is_missing, waits)
        try:
            await asyncio.gather(*waits)
        finally:
            late.cancel()
        await roots

    async def _numbers(self) -> Numbers:
        return self.numbers()


async def _first_token(prefetch: Awaitable[TokenUnavailable | None], route: str) -> None:
    """Wait for a route's token, and say at once why there is none."""
    error = await prefetch
    if error is not None:
        extra = {"route": route, "reason": error.reason, "hint": error.hint}
        log.warning("no token yet: %s", error.detail, extra=extra)


def _say_what_is_missing(waits: Mapping[asyncio.Future[None], str]) -> None:
    """Say who is waited for: a source that never answers is given up after many seconds."""
    names = list(dict.fromkeys(name for wait, name in waits.items() if not wait.done()))
    rest = len(names) - SAY_NAMES
    listed = ", ".join(names[:SAY_NAMES]) + (f" and {rest} more" if rest > 0 else "")
    log.warning("no token yet: for %g s nothing has answered for %s", SAY_AFTER, listed)


def _retire(hosts: _Hosts) -> None:
    """Close listeners again because not all could be opened."""
    for host in hosts.values():
        host.retire()
