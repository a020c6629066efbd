"""Builds every object from a `Config`; starts, reloads, drains and stops them, in that order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from importlib import import_module
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING

from proxy import __version__
from proxy.clock import Clocks
from proxy.config.model import Address, Config, Route
from proxy.identity.tokens import Tokens
from proxy.ops import describe
from proxy.ops.lifecycle import Lifecycle, State
from proxy.ops.numbers import Numbers, TokenMetrics, token_view
from proxy.plane.build import Builder
from proxy.plane.listen import Listener, ListenFailed, listen
from proxy.plane.plane import ListenerHost, Plane
from proxy.plane.stats import Stats
from proxy.services import Services

if TYPE_CHECKING:
    from proxy.ops.admin import AdminServer

log = logging.getLogger("proxy.server")

_FETCHES_FIRST = 0.3  # Seconds that the first token fetches get before the admin listener opens.


class Server:
    """One running proxy in this process."""

    def __init__(
        self, config: Config, environ: Mapping[str, str], *, clocks: Clocks | None = None
    ) -> None:
        """`environ` tells where credentials are (``GCE_METADATA_HOST`` and the like)."""
        self.config = config
        clocks = clocks or Clocks()
        self.lifecycle = Lifecycle(clocks)
        self.fetches = TokenMetrics()
        self.tokens = Tokens(
            clocks=clocks,
            environ=environ,
            jitter=Random(),  # noqa: S311 (spreads fetches over time)
            on_fetch=self.fetches.on_fetch,
        )
        self.plane = Plane(clocks, Stats())
        self.quit_asked = asyncio.Event()
        """Set when somebody asks the process to end over the admin listener."""
        self.admin_address: Address | None = None
        self._clocks = clocks
        self._builder = Builder(self.plane, self.tokens)
        self._services = Services(self.tokens.names, clocks.steady, self._resolve_again)
        self._hosts: dict[Address, ListenerHost] = {}
        self._listeners: dict[Address, Listener] = {}
        self._admin: AdminServer | None = None

    @property
    def addresses(self) -> list[Address]:
        """Where requests are accepted, with real ports."""
        return [listener.address for listener in self._listeners.values()]

    async def start(self) -> None:
        """Open the listeners, then the admin listener; serve once the first fetches have ended.

        Raises:
            ListenFailed: an address cannot be had; what was opened is closed again.
        """
        try:
            await self._open_missing(self.config)
            self._route(self.config)
            await self._resolve()
            prefetch = asyncio.ensure_future(self._prefetch())
            # Importing what the admin listener needs would slow the first fetches down; but
            # probes must be answered even where a fetch hangs.
            await asyncio.wait((prefetch,), timeout=_FETCHES_FIRST)
            await self._start_admin()
            await prefetch
        except BaseException:
            await self.stop()
            raise
        if self.lifecycle.state is State.STARTING:
            self.lifecycle.move_to(State.SERVING)
        self._announce()

    async def reload(self, config: Config) -> None:
        """Serve by another configuration; exchanges, connections and tokens go on.

        Raises:
            ListenFailed: an address of it cannot be had; nothing has changed then.
        """
        # The new listeners first: they are all that can fail.
        await self._open_missing(config)
        self._route(config)
        await self._resolve()
        await self._prefetch()

    def drain(self) -> None:
        """Go on serving, but have idle connections end with their next response."""
        if self.lifecycle.state in (State.STARTING, State.SERVING):
            self.lifecycle.move_to(State.DRAINING)
        self.plane.draining = True

    async def drained(self) -> None:
        """Wait until `drain` may end: nothing is in flight, or the time for it is over."""
        try:
            async with asyncio.timeout(self.config.drain):
                await asyncio.sleep(self.config.sigterm_delay)
                await self.plane.idle()
        except TimeoutError:
            if left := self.plane.cut():
                log.warning("%d exchanges were cut when the drain was over", left)

    async def stop(self) -> None:
        """Close everything, whatever is in flight."""
        self.drain()
        for listener in self._listeners.values():
            listener.close()
        await self.plane.stop()
        self._builder.close()
        await self.tokens.close()
        if self._admin is not None:
            await self._admin.stop()
        if self.lifecycle.state is State.DRAINING:
            self.lifecycle.move_to(State.STOPPED)

    def numbers(self) -> Numbers:
        """Return what is counted, for metrics and the status."""
        return Numbers(
            stats=self.plane.stats,
            tokens={
                name: token_view(route.tokens)
                for name, route in self._builder.routes.items()
                if route.tokens is not None
            },
            fetches=self.fetches,
        )

    async def _open_missing(self, config: Config) -> None:
        """Open the listeners that are not open yet, all or none; nothing is routed there yet."""
        opened: dict[Address, Listener] = {}
        hosts: dict[Address, ListenerHost] = {}
        try:
            for address in config.listeners:
                if address not in self._listeners:
                    host = hosts[address] = ListenerHost(self.plane)
                    opened[address] = await listen(address, host.connection)
        except BaseException:
            for listener in opened.values():
                listener.close()
            raise
        self._listeners.update(opened)
        self._hosts.update(hosts)

    def _route(self, config: Config) -> None:
        """Route by `config`; listeners that no route uses are closed."""
        self.config = config
        tables = self._builder.build(config, self._services.unresolved(config))
        for address in list(self._listeners):
            if address not in tables:
                self._listeners.pop(address).close()
                del self._hosts[address]
                continue
            self._hosts[address].table = tables[address]
            self._hosts[address].head_limit = self._head_limit(address)

    async def _resolve(self) -> None:
        """Look up what services' URLs are, and route by what was found."""
        resolved = await self._services.resolve(self.config)
        if resolved is not self.config:
            self._route(resolved)

    def _resolve_again(self) -> None:
        """Try once more because somebody asks; one attempt at a time, with pauses between."""
        if self._services.may_try():
            _ = self.plane.spawn(self._resolve(), "resolve services")

    def _head_limit(self, address: Address) -> int:
        """Return the largest head that a route of the listener takes."""
        return max(
            route.limits.header_bytes for route in self.config.routes if address in route.listen
        )

    async def _prefetch(self) -> None:
        """Fetch every route's token once; a failure is logged and stops nothing."""
        waits = [
            route.tokens.prefetch(name)
            for name, route in self._builder.routes.items()
            if route.tokens is not None
        ]
        for error in await asyncio.gather(*waits):
            if error is not None:
                log.warning(
                    "no ID token at start: %s",
                    error.detail,
                    extra={"reason": error.reason, "hint": error.hint},
                )

    async def _start_admin(self) -> None:
        if self.config.admin is None:
            return
        # Imported here and in a thread: aiohttp and prometheus_client take some 200 ms, which
        # the first exchanges shall not wait for.
        admin, status = await asyncio.to_thread(_import_admin)
        view = admin.AdminView(
            lifecycle=self.lifecycle,
            numbers=self._numbers,
            status=status.Status(
                self.lifecycle, lambda: self.config, lambda: self.addresses, self._clocks
            ),
            quit=self.quit_asked.set,
        )
        self._admin = admin.AdminServer(self.config.admin, view)
        try:
            self.admin_address = await self._admin.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ListenFailed(f"cannot listen on {self.config.admin.listen}: {reason}") from error

    async def _numbers(self) -> Numbers:
        return self.numbers()

    def _announce(self) -> None:
        """Say in one line what is served, from where to where."""
        log.info(
            "serving",
            extra={
                "fields": {
                    "version": __version__,
                    "configuration": self.config.source,
                    "listeners": [str(address) for address in self.addresses],
                    "admin": str(self.admin_address or "off"),
                    "routes": [_row(route) for route in self.config.routes],
                }
            },
        )


def _import_admin() -> tuple[ModuleType, ModuleType]:
    return import_module("proxy.ops.admin"), import_module("proxy.ops.status")


def _row(route: Route) -> dict[str, str]:
    """Return what the line at the start says of a route."""
    return {
        "name": route.name,
        "matches": describe.matches(route),
        "upstream": describe.upstream(route),
        "audience": route.audience or "",
        "auth": route.auth.value,
        "credentials": describe.credentials(route.credentials),
    }
