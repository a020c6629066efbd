"""The admin listener: probes, metrics, status and the page, on a port of its own.

It only reads what `AdminView` offers; the one thing it can change is to ask for the end.
Importing this module costs some hundred milliseconds (aiohttp, prometheus_client): `server`
does so after the data listeners are open, in a thread, so that exchanges do not wait for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.config.model import Address, Admin
from proxy.ops import guard, metrics, page
from proxy.ops.lifecycle import Lifecycle, Truth
from proxy.ops.numbers import Numbers, add_up
from proxy.ops.status import Status
from proxy.plane import listen

_log = logging.getLogger("proxy.admin")

# Seconds that a handler may go on after `stop`; none waits for anything but numbers.
_STOP_TIMEOUT: Final = 1.0

HEADERS: Final = {
    # The page has no inline script or style and asks nobody else.
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """What the listener may see of the process, and the one thing it may ask for."""

    lifecycle: Lifecycle
    numbers: Callable[[], Awaitable[Numbers]]
    """The present numbers; with workers, their sum."""
    status: Status
    quit: Callable[[], None]
    """Begin to drain; called again it changes nothing."""


class AdminServer:
    """Owns the admin listener and the timer that takes the points of the graphs."""

    def __init__(self, admin: Admin, view: AdminView) -> None:
        self._admin = admin
        self._view = view
        self._runner = web.AppRunner(
            _application(admin, view),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_STOP_TIMEOUT,
        )
        self._sampler: asyncio.Task[None] | None = None

    async def start(self, inherited: socket.socket | None = None) -> Address:
        """Listen, on a socket that was inherited where there is one; return the real address.

        Raises:
            ListenFailed: the address cannot be had.
        """
        address = self._admin.listen
        # Bound here, because the event loop would take a path from a proxy that uses it, and
        # give each address of localhost a port of its own.
        sockets = (inherited,) if inherited is not None else await listen.bind(address)
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock).start()
        self._sampler = asyncio.get_running_loop().create_task(
            self._sample(), name="sample numbers for the status page"
        )
        return listen.real_addresses(address, sockets)[0]

    async def stop(self) -> None:
        """Close the listener and its connections, within a second or so."""
        if self._sampler is not None:
            self._sampler.cancel()
            with suppress(asyncio.CancelledError):
                await self._sampler
        await self._runner.cleanup()
        listen.remove_file(self._admin.listen)

    def abandon(self) -> None:
        """Leave no socket file behind: the process ends at once."""
        listen.remove_file(self._admin.listen)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(self._view.status.sample_seconds)
            try:
                self._view.status.sample(await self._view.numbers())
            except Exception:  # noqa: BLE001 (the graphs lose a point, the probes go on)
                _log.exception("cannot sample the numbers", extra={"reason": "internal_error"})


def _application(admin: Admin, view: AdminView) -> web.Application:
    handlers = _Handlers(view)
    app = web.Application(middlewares=[_guarded(admin.listen.host)], client_max_size=1024)
    app.on_response_prepare.append(_finish)
    app.add_routes(
        [
            web.get("/startup", handlers.startup),
            web.get("/readiness", handlers.readiness),
            web.get("/liveness", handlers.liveness),
            web.get("/metrics", handlers.metrics),
            web.get("/status", handlers.status),
            web.get("/", handlers.page),
            web.get("/static/{name}", handlers.static),
        ]
    )
    if admin.quit:
        app.add_routes([web.post(guard.QUIT, handlers.quit)])
    return app


def _guarded(listen_host: str) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = guard.refusal(request.path, request.headers, _peer(request), listen_host)
        if why is not None:
            return _text(f"refused: {why}", 403)
        return await handler(request)

    return check


def _peer(request: web.Request) -> str | None:
    """Return the caller's IP address; None on a Unix socket, whose peers have none."""
    name = request.transport.get_extra_info("peername") if request.transport else None
    return str(name[0]) if isinstance(name, tuple) else None


async def _finish(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    # aiohttp would say its own version and Python's.
    response.headers["Server"] = "cloud-run-auth-proxy"


class _Handlers:
    """One method per path; README's section on the admin listener describes them."""

    def __init__(self, view: AdminView) -> None:
        self._view = view

    async def startup(self, _: web.Request) -> web.Response:
        return _probe(self._view.lifecycle.started)

    async def readiness(self, _: web.Request) -> web.Response:
        return _probe(self._view.lifecycle.ready)

    async def liveness(self, _: web.Request) -> web.Response:
        return _probe(self._view.lifecycle.alive)

    async def metrics(self, request: web.Request) -> web.Response:
        accept = ",".join(request.headers.getall("Accept", []))
        # The sum of one is a copy that nobody changes. In a thread the loop goes on every few
        # milliseconds, where a hundred routes would keep it for thirty.
        numbers = add_up([await self._view.numbers()])
        body, content_type = await asyncio.to_thread(metrics.render, numbers, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, request: web.Request) -> web.Response:
        history = request.query.get("history") != "0"
        report = self._view.status.report(await self._view.numbers(), history=history)
        text = await asyncio.to_thread(_compact, report)
        return web.json_response(text=text)

    async def page(self, _: web.Request) -> web.Response:
        return _file("index.html")

    async def static(self, request: web.Request) -> web.Response:
        return _file(request.match_info["name"])

    async def quit(self, _: web.Request) -> web.Response:
        _log.info("asked to quit by POST %s", guard.QUIT)
        self._view.quit()
        return _text("draining", 200)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _probe(truth: Truth) -> web.Response:
    return _text(truth.why, 200 if truth.holds else 503)


def _text(text: str, status: int) -> web.Response:
    return web.Response(text=text + "\n", status=status)


def _file(name: str) -> web.Response:
    found = page.read(name)
    if found is None:
        raise web.HTTPNotFound
    body, content_type = found
    return web.Response(body=body, headers={"Content-Type": content_type})
