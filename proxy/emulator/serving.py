"""One aiohttp handler on a port of its own, which keeps what the handler raised."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

LOOPBACK = "127.0.0.1"


class Startable(ABC):
    """What is started by `start` and ended by `stop`, or by the context in which it stands."""

    @abstractmethod
    async def start(self) -> Self:
        """Serve from now on."""

    @abstractmethod
    async def stop(self) -> None:
        """Serve no longer; raise what went wrong meanwhile."""

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# How long `stop` waits for requests that are still being answered, in seconds.
STOP_WITHIN = 0.1

# Far above Google's limits and aiohttp's own, so that the limit that a test meets is another's.
HEAD_BYTES = 1024 * 1024
HEAD_FIELDS = 10_000


class Serving:
    """A handler for every method and path.  After `stop`, `start` opens the same port again."""

    def __init__(self, handler: Handler) -> None:
        self.port = 0
        self.failures: list[Exception] = []
        self._handler = handler
        self._runner: web.AppRunner | None = None

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Serve on `sockets`, which it owns from now on; without any, on `port` of the loopback."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            # A stream to a caller who went away ends at its next pause.
            handler_cancellation=True,
            shutdown_timeout=STOP_WITHIN,
            max_line_size=HEAD_BYTES,
            max_field_size=HEAD_BYTES,
            max_headers=HEAD_FIELDS,
        )
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock).start()
        if not sockets:
            await web.TCPSite(self._runner, LOOPBACK, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port; raise what the handler raised, so that a broken one is noticed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        failures, self.failures = self.failures, []
        if failures:
            raise ExceptionGroup("an emulated server failed", failures)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._handler(request)
        except ConnectionError:
            raise  # The caller went away in the middle of a stream.
        except Exception as error:
            self.failures.append(error)
            raise
