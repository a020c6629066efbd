"""The admin listener of a running proxy, whether one process serves or several.

Here it is only opened and closed; what it answers is `ops`' own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from proxy import __version__
from proxy.clock import Clocks
from proxy.config import show
from proxy.config.addresses import is_loopback
from proxy.config.model import Address, Admin, Auth, Config, Route
from proxy.ops.admin import AdminServer, AdminView
from proxy.ops.lifecycle import Lifecycle, Reload
from proxy.ops.numbers import Numbers
from proxy.ops.status import Status
from proxy.plane import listen

log = logging.getLogger("proxy.server")

_OPEN = "{} is not on loopback: whoever reaches it calls the upstreams as this service"


class Administration:
    """Owns the admin listener and what the process says of itself."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        numbers: Callable[[], Awaitable[Numbers]],
        config: Callable[[], Config],
        addresses: Callable[[], Iterable[Address]],
        clocks: Clocks,
    ) -> None:
        """`config` answers the configuration in force, `addresses` the real listeners."""
        self.quit_asked = asyncio.Event()
        """Set when a caller has asked the process to end."""
        self.address: Address | None = None
        """The real one; None where there is no admin listener."""
        self._lifecycle = lifecycle
        self._numbers = numbers
        self._config = config
        self._addresses = addresses
        self._clocks = clocks
        self._server: AdminServer | None = None
        self._warned: frozenset[str] = frozenset()

    async def start(self, inherited: socket.socket | None = None) -> None:
        """Open the admin listener, on a socket that was inherited where there is one.

        Raises:
            ListenFailed: its address cannot be had.
        """
        admin = self._config().admin
        if admin is None:
            return
        view = AdminView(
            lifecycle=self._lifecycle,
            numbers=self._numbers,
            status=Status(self._lifecycle, self._config, self._addresses, self._clocks),
            quit=self.quit_asked.set,
        )
        shown = admin if inherited is None else _elsewhere(admin, inherited)
        server = AdminServer(shown, view, self._clocks)
        self.address = await server.start(None if inherited is None else inherited.dup())
        self._server = server

    async def stop(self) -> None:
        """Close the admin listener and its connections."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    def reloaded(self, problem: str = "") -> None:
        """Show what became of a reload; `problem` is why it changed nothing, if it did."""
        self._lifecycle.reloaded(problem)

    def abandon(self) -> None:
        """Remove what would outlive the process, which ends at once."""
        if self._server is not None:
            self._server.abandon()

    async def reading(self) -> tuple[Numbers, Reload]:
        """Return what /metrics would show at this moment."""
        return await self._numbers(), self._lifecycle.last_reload

    def announce(self) -> None:
        """Say in one line what is served, from where to where, and what has no effect."""
        config = self._config()
        fields: dict[str, Any] = {
            "version": __version__,
            "configuration": config.source,
            "listeners": [str(address) for address in self._addresses()],
            "admin": str(self.address or "off"),
            "workers": config.workers,
            "routes": [_row(route) for route in config.routes],
        }
        log.info("serving", extra={"fields": fields})
        self.warn()

    def warn(self) -> None:
        """Log what has no effect, and who else may call: what was not said of before."""
        said = dict.fromkeys(f"ignored: {each}" for each in self._config().ignored)
        for address in self._addresses():
            if not (address.path or is_loopback(address.host)):
                said[_OPEN.format(address)] = None
        for line in said:
            if line not in self._warned:
                log.warning("%s", line)
        self._warned = frozenset(said)


def _elsewhere(admin: Admin, inherited: socket.socket) -> Admin:
    """Return `admin` as it is on an inherited socket, whose file is its owner's to remove."""
    address = listen.address_of(inherited)
    return replace(admin, listen=Address() if address.path else address)


def _row(route: Route) -> dict[str, str | list[str]]:
    """Return what the log says of a route at the start: of its token, what that is for."""
    row: dict[str, str | list[str]] = {
        "name": route.name,
        "matches": show.matches(route),
        "upstream": show.upstream(route),
        "auth": route.auth.value,
    }
    match route.auth:
        case Auth.ID_TOKEN:
            row["audience"] = show.audience(route)
        case Auth.ACCESS_TOKEN:
            row["scopes"] = list(route.scopes)
        case Auth.NONE:
            return row
    row["credentials"] = show.credentials(route.credentials)
    return row
