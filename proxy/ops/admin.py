"""The admin listener: probes, metrics, status and the page, on a port of its own.

It only reads what `AdminView` offers; the one thing it can do is to ask the process to end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Final
from urllib.parse import parse_qs

from proxy import PROGRAM
from proxy.clock import Clocks
from proxy.config.model import Address, Admin
from proxy.frozen import frozen
from proxy.ops import guard
from proxy.ops.httpd import HttpServer, Request, Response
from proxy.ops.lifecycle import Lifecycle, Reload, Truth
from proxy.ops.numbers import Numbers, add_up
from proxy.ops.status import Status
from proxy.plane.listen import remove_file
from proxy.tasks import import_alone

_log = logging.getLogger("proxy.admin")

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
    "Server": PROGRAM,
}

_STATIC: Final = "/static/"
_SCRIPTS: Final = ("app.js", "dom.js", "failures.js", "format.js", "graphs.js", "routes.js")
_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(_SCRIPTS, "text/javascript; charset=utf-8"),
}
"""The files of the page, with their content types."""


@frozen(kw_only=True)
class AdminView:
    """What the listener may see of the process, and the one thing it may ask for."""

    lifecycle: Lifecycle
    numbers: Callable[[], Awaitable[Numbers]]
    """The present numbers; with workers, their sum."""
    status: Status
    quit: Callable[[], None]
    """Begin to drain; called again it changes nothing."""


class AdminServer:
    """Owns the admin listener and the task that samples the points of the graphs."""

    def __init__(self, admin: Admin, view: AdminView, clocks: Clocks | None = None) -> None:
        self._admin = admin
        self._view = view
        self._server = HttpServer(_Site(admin, view).answer, HEADERS, clocks or Clocks())
        self._sampler: asyncio.Task[None] | None = None

    async def start(self, inherited: socket.socket | None = None) -> Address:
        """Listen, on a socket that was inherited where there is one; return the real address.

        Raises `ListenFailed` where the address cannot be had.
        """
        sockets = None if inherited is None else (inherited,)
        address = await self._server.start(self._admin.listen, sockets)
        self._sampler = asyncio.get_running_loop().create_task(
            self._sample(), name="sample numbers for the status page"
        )
        return address

    async def stop(self) -> None:
        """Close the listener and its connections, within a second or so."""
        if self._sampler is not None:
            self._sampler.cancel()
            with suppress(asyncio.CancelledError):
                await self._sampler
        self.abandon()
        await self._server.stop()

    def abandon(self) -> None:
        """Remove the socket's file: the process ends at once."""
        remove_file(self._admin.listen)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(self._view.status.sample_seconds)
            try:
                self._view.status.sample(await self._view.numbers())
            except Exception:  # noqa: BLE001 (the graphs lose a point, the probes go on)
                _log.exception("cannot sample the numbers", extra={"reason": "internal_error"})


Answer = Callable[[Request], Awaitable[Response]]


class _Site:
    """One method per path; README's section on the admin listener describes them."""

    def __init__(self, admin: Admin, view: AdminView) -> None:
        self._view = view
        self._host = admin.listen.host
        self._pages: dict[str, tuple[str, Answer]] = {
            "/startup": ("GET", self._startup),
            "/readiness": ("GET", self._readiness),
            "/liveness": ("GET", self._liveness),
            "/metrics": ("GET", self._metrics),
            "/status": ("GET", self._status),
            "/": ("GET", self._file),
            **{_STATIC + name: ("GET", self._file) for name in _TYPES},
        }
        if admin.quit:
            self._pages[guard.QUIT] = ("POST", self._quit)

    async def answer(self, request: Request) -> Response:
        """Answer whatever is asked."""
        why = guard.refusal(request.path, request.headers, request.peer, self._host)
        if why is not None:
            return _text(f"refused: {why}", 403)
        found = self._pages.get(request.path)
        if found is None:
            return _text("there is no such page", 404)
        method, answer = found
        if request.method == method or (request.method, method) == ("HEAD", "GET"):
            return await answer(request)
        headers = {"Allow": "GET, HEAD" if method == "GET" else method}
        return Response(status=405, body=b"this method is not allowed\n", headers=headers)

    async def _startup(self, _: Request) -> Response:
        return _probe(self._view.lifecycle.started)

    async def _readiness(self, _: Request) -> Response:
        return _probe(self._view.lifecycle.ready)

    async def _liveness(self, _: Request) -> Response:
        return _probe(self._view.lifecycle.alive)

    async def _metrics(self, request: Request) -> Response:
        accept = request.headers.get("accept", "")
        # The sum of one is a copy that nothing changes. In a thread the loop goes on every few
        # milliseconds, where a hundred routes would keep it for thirty.
        numbers = add_up([await self._view.numbers()])
        reload = self._view.lifecycle.last_reload
        body, content_type = await asyncio.to_thread(_render, numbers, reload, accept)
        return Response(body=body, content_type=content_type)

    async def _status(self, request: Request) -> Response:
        history = parse_qs(request.query).get("history") != ["0"]
        report = self._view.status.report(await self._view.numbers(), history=history)
        body = await asyncio.to_thread(_compact, report)
        return Response(body=body, content_type="application/json; charset=utf-8")

    async def _file(self, request: Request) -> Response:
        """Answer with a file of the page, its first at ``/``."""
        found = read_page(request.path.removeprefix(_STATIC).strip("/") or "index.html")
        if found is None:
            raise AssertionError(f"{request.path} is no file of the page")
        return Response(body=found[0], content_type=found[1])

    async def _quit(self, _: Request) -> Response:
        _log.info("asked to quit by POST %s", guard.QUIT)
        self._view.quit()
        return _text("draining", 200)


def _render(numbers: Numbers, reload: Reload, accept: str) -> tuple[bytes, str]:
    # Imported by whoever asks first, in this thread: prometheus_client takes 50 ms and 5 MB.
    rendered: tuple[bytes, str] = import_alone("proxy.ops.metrics").render(numbers, reload, accept)
    return rendered


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _probe(truth: Truth) -> Response:
    return _text(truth.why, 200 if truth.holds else 503)


def _text(text: str, status: int) -> Response:
    return Response(status=status, body=text.encode() + b"\n")


def read_page(name: str) -> tuple[bytes, str] | None:
    """Return a file of the page and its content type; None where the page has no such file."""
    return (_load(name), _TYPES[name]) if name in _TYPES else None


@cache
def _load(name: str) -> bytes:
    from importlib import resources  # noqa: PLC0415 (10 ms, for whoever opens the page)

    return resources.files("proxy.ops").joinpath("static", name).read_bytes()
