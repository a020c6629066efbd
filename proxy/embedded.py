"""A proxy inside a program of yours: in a test, or brought along by an application.

In four lines, from code that blocks::

    from cloud_run_auth_proxy import AuthProxy

    with AuthProxy("https://orders-abc123-uc.a.run.app") as proxy:
        requests.get(f"{proxy.url}/orders/1")

and with ``async with`` on the loop that runs.  `Background` does the first for anything that starts
and stops, such as the servers of `proxy.emulator`.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from proxy.config.loading import ConfigSource
from proxy.server import Server

DRAIN = 1.0
"""Seconds that exchanges in flight are given at the end."""


class Service(Protocol):
    """What starts and stops on an event loop."""

    async def start(self) -> Any:
        """Serve from now on."""

    async def stop(self) -> None:
        """Serve no longer."""


S = TypeVar("S", bound=Service)


class Background(Generic[S]):
    """Runs a service on an event loop in a thread of its own, as long as the context lasts.

    The context's value is the service.  What it raises at the start or the end is raised here.
    """

    def __init__(self, service: S) -> None:
        self._service = service
        self._loop = asyncio.new_event_loop()
        # A daemon: a test that is killed must not leave a process that waits for it.
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> S:
        self._thread.start()
        try:
            self._run(self._service.start())
        except BaseException:
            self._close()
            raise
        return self._service

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._run(self._service.stop())
        finally:
            self._close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class AuthProxy:
    """A proxy with one route, on a free port of the loopback, without admin listener.

    `upstream` is the URL of the service; `route` has further keys of the route, as the
    configuration names them (``ca_file``, ``auth``, ``timeouts``).  `environ` says where
    credentials are; None for the environment of this process.  Raises `ConfigError` for what a
    configuration could not have.
    """

    def __init__(
        self, upstream: str, *, environ: Mapping[str, str] | None = None, **route: Any
    ) -> None:
        self._environ = os.environ if environ is None else environ
        document = {
            "listen": "127.0.0.1:0",
            "admin": "off",
            "routes": {"default": {"upstream": upstream, **route}},
        }
        # JSON is YAML. A dollar in a value is one: nothing is expanded here.
        text = json.dumps(document).replace("$", "$$")
        self._config = ConfigSource(text=text).read(self._environ, {})
        self._server: Server | None = None
        self._background: Background[Self] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it listens; it must have been started."""
        if not self._url:
            raise RuntimeError("the proxy has not been started")
        return self._url

    async def start(self) -> Self:
        """Serve on the running loop, once the first token has been asked for.

        Raises `ListenFailed`.
        """
        server = Server(self._config, self._environ)
        await server.start()
        self._server = server
        self._url = f"http://{server.addresses[0]}"
        return self

    async def stop(self) -> None:
        """Let exchanges end, for a second at most, and close everything."""
        server, self._server = self._server, None
        self._url = ""
        if server is not None:
            server.drain()
            try:
                await server.drained(DRAIN)
            finally:
                await server.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        self._background = Background(self)
        return self._background.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        background, self._background = self._background, None
        if background is not None:
            background.__exit__(kind, error, traceback)
