"""Builds every object from a `Config`; starts, reloads, drains and stops them, in that order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING

from proxy import __version__
from proxy.clock import Clocks
from proxy.config.problems import ConfigError
from proxy.config.model import Address, Config, Route
from proxy.identity.tokens import Tokens
from proxy.ops import describe
from proxy.ops.lifecycle import Lifecycle, State
from proxy.ops.logs import Logs, configure
from proxy.ops.numbers import Numbers, TokenMetrics, token_view
from proxy.plane.build import Builder
from proxy.plane.listen import Listener, ListenFailed, listen
from proxy.plane.plane import ListenerHost, Plane
from proxy.plane.prepared import PreparedRoute
from proxy.plane.stats import Stats
from proxy.routing import RoutingTable

if TYPE_CHECKING:
    from proxy.ops.admin import AdminServer

log = logging.getLogger("proxy.server")

EXIT_UNAVAILABLE = 69  # sysexits.h: a service is unavailable; here, an address


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
            self._swap(self._builder.build(self.config))
            prefetch = asyncio.ensure_future(self._prefetch())
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
        self.config = config
        self._swap(self._builder.build(config))

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

    def _swap(self, tables: Mapping[Address, RoutingTable[PreparedRoute]]) -> None:
        """Route by other tables; listeners that no route uses are closed."""
        for address in list(self._listeners):
            if address not in tables:
                self._listeners.pop(address).close()
                del self._hosts[address]
                continue
            self._hosts[address].table = tables[address]
            self._hosts[address].head_limit = self._head_limit(address)

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


def serve(config: Config, reload: Callable[[], Config] | None = None) -> int:
    """Run the proxy until a signal or a request ends it; return the exit code.

    `reload` reads the configuration anew for SIGHUP; it raises what the parser raises.
    """
    import uvloop  # noqa: PLC0415 (30 ms that no other command needs)

    logs = configure(config.log)
    try:
        return uvloop.run(_Process(config, reload, logs).run())
    except ListenFailed as error:
        sys.stderr.write(f"cloud-run-auth-proxy: {error}\n")
        return EXIT_UNAVAILABLE
    finally:
        logs.close()


class _Process:
    """The process around a server: signals in, an exit code out."""

    def __init__(self, config: Config, reload: Callable[[], Config] | None, logs: Logs) -> None:
        self._server = Server(config, os.environ)
        self._reload = reload
        self._logs = logs
        self._ending = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        server = self._server
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        await server.start()
        # What is alive now stays alive: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        asked = asyncio.ensure_future(server.quit_asked.wait())
        ended = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
        for waiter in (asked, ended):
            waiter.cancel()
        server.drain()
        await server.drained()
        await server.stop()
        return 0

    def _on_end(self, number: int) -> None:
        """Drain at the first signal; at the second, end at once."""
        name = signal.Signals(number).name
        if self._ending.is_set():
            log.warning("%s again: ending at once", name)
            self._logs.close()
            os._exit(128 + number)
        log.info("%s: draining", name)
        self._ending.set()

    def _on_reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_now(), name="reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_now(self) -> None:
        """Read the configuration anew; a bad one changes nothing."""
        if self._reload is None:
            log.warning("SIGHUP: there is no configuration file to read")
            return
        try:
            await self._server.reload(self._reload())
        except (ConfigError, OSError) as error:
            # The operator needs the places in the file, not a traceback.
            log.error("SIGHUP: the configuration was not taken: %s", error)  # noqa: TRY400
        else:
            log.info("SIGHUP: the configuration was taken")
