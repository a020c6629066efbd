"""A front that judges each request and relays the admitted ones byte for byte.

Heads and bodies are passed on as they came, chunk sizes, trailers and the connection's own
headers included, so that what reaches the app is exactly what was sent to the front; only
the lines that the gate rewrites differ.  Each request gets a connection of its own to the
app.  The caller's connection is kept between requests as RFC 9112, 9.3 allows.  An upgrade
(101) becomes a tunnel of bytes.

A caller that closes its side counts as gone: what was done for it is stopped.  An app that
breaks off cuts the caller off with a reset, so that half a response is never taken for a
whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections.abc import Callable
from pathlib import Path

from proxy.emulator.pages import Page
from proxy.emulator.peer import READ_SIZE, App, GoneError, Peer, connect
from proxy.emulator.wire import SWITCHING, Body, MalformedError, Request, Response, UntilClose

log = logging.getLogger("proxy.emulator")

DISCARD_LIMIT = 1024 * 1024
"""Bytes of a refused request's body that are read so that its connection can be kept."""

BAD_REQUEST = Page(400)
UNAVAILABLE = Page(503)


class _After(enum.Enum):
    """What becomes of the caller's connection after a request."""

    KEEP = enum.auto()
    CLOSE = enum.auto()
    CUT = enum.auto()
    TUNNEL = enum.auto()


class Connection:
    """Serves one caller's connection.

    `admit` returns the head to send to the app at `app`, or the page that refuses the
    request; it is called once for every well-formed head.
    """

    def __init__(
        self,
        caller: Peer,
        app: App,
        admit: Callable[[Request], bytes | Page],
        clock: Callable[[], float],
    ) -> None:
        self._caller = caller
        self._app = app
        self._admit = admit
        self._clock = clock
        self._answered = False  # For this exchange: whether its response has begun

    async def serve(self) -> None:
        """Serve requests until the connection ends; it is closed then."""
        after = _After.KEEP
        try:
            while after is _After.KEEP:
                after = await self._exchange()
        except GoneError:
            after = _After.CUT
        except asyncio.CancelledError:
            # Half a response must not look whole; an idle connection may simply end.
            if self._answered:
                self._caller.abort()
            raise
        if after is _After.CUT:
            self._caller.abort()
        await self._caller.close()

    async def _exchange(self) -> _After:
        self._answered = False
        try:
            raw = await self._caller.head()
            if raw is None:
                return _After.CLOSE
            request = Request.parse(raw)
            body = request.body()
        except MalformedError:
            return await self._refuse(BAD_REQUEST, None, None)
        outcome = self._admit(request)
        if isinstance(outcome, Page):
            return await self._refuse(outcome, request, body)
        return await self._relay(request, body, outcome)

    async def _refuse(self, page: Page, request: Request | None, body: Body | None) -> _After:
        """Answer with `page`; without `body`, which may be half read, the connection ends."""
        # Whoever waits for a 100 may or may not send its body after a final status
        # (RFC 9110, 10.1.1), so such a connection cannot be used again.
        expects = request is not None and bool(request.head.values(b"expect"))
        keep = request is not None and request.keeps_alive and body is not None and not expects
        method = request.method if request else "GET"
        url = request.target.decode("latin-1") if request else ""
        await self._caller.send(page.render(url, now=self._clock(), method=method, close=not keep))
        complete = body is not None and not expects and await self._discard(body)
        return _After.KEEP if keep and complete else _After.CLOSE

    async def _discard(self, body: Body) -> bool:
        """Read the rest of a body; return whether it ended within the limit, well-formed.

        Without it the kernel would answer what still arrives with a reset, which can take
        the response with it (RFC 9112, 9.6).
        """
        discarded = 0
        while not body.done and discarded <= DISCARD_LIMIT:
            if not self._caller.pending and not await self._caller.more():
                return False
            try:
                discarded += len(self._caller.take(body.take(self._caller.pending)))
            except MalformedError:
                return False
        return body.done

    async def _relay(self, request: Request, body: Body, head: bytes) -> _After:
        try:
            app = await connect(self._app)
        except OSError as error:
            where = self._app if isinstance(self._app, Path) else "{}:{}".format(*self._app)
            log.warning("the app at %s takes no connection: %s", where, error.strerror or error)
            return await self._refuse(UNAVAILABLE, request, body)
        try:
            after = await self._both_ways(request, body, app, head)
            if after is _After.TUNNEL:
                after = await self._tunnel(app)
            if after is not _After.CUT:
                app.end()
        finally:
            app.abort()
        if isinstance(after, Page):
            return _After.CUT if self._answered else await self._refuse(after, request, None)
        if after is _After.CUT or body.done:
            return after
        return after if await self._discard(body) else _After.CLOSE

    async def _both_ways(
        self, request: Request, body: Body, app: Peer, head: bytes
    ) -> _After | Page:
        """Relay request and response at once; a `Page` says what went wrong."""
        after: _After | Page = _After.CUT
        try:
            async with asyncio.TaskGroup() as group:
                upload = group.create_task(self._upload(body, app, head), name="relay a request")
                after = await self._answer(request, app)
                upload.cancel()
        except* GoneError:
            after = _After.CUT
        except* MalformedError:
            after = BAD_REQUEST
        return after

    async def _upload(self, body: Body, app: Peer, head: bytes) -> None:
        """Relay the request, then watch for the caller's going away.

        Raises `GoneError` when it does, `MalformedError` for a body that breaks its framing.
        """
        await self._forward(app, head)
        while True:
            if self._caller.pending and not body.done:
                await self._forward(app, self._caller.take(body.take(self._caller.pending)))
            elif len(self._caller.pending) > READ_SIZE:
                await asyncio.Event().wait()  # Enough of the next requests; this one is first.
            elif not await self._caller.more():
                raise GoneError(self._caller)

    async def _forward(self, app: Peer, data: bytes) -> None:
        # An app may answer and close before it has read everything: the answer counts.
        with contextlib.suppress(GoneError):
            await app.send(data)

    async def _answer(self, request: Request, app: Peer) -> _After | Page:
        """Relay the response; a `Page` where the app breaks off.  Raises `GoneError`."""
        try:
            return await self._download(request, app)
        except MalformedError:
            return UNAVAILABLE
        except GoneError as gone:
            if gone.peer is app:
                return UNAVAILABLE
            raise

    async def _download(self, request: Request, app: Peer) -> _After:
        response = await self._head(app)
        if response.status == SWITCHING:
            return _After.TUNNEL
        body = response.body(request.method)
        while not body.done:
            if not app.pending and not await app.more():
                if isinstance(body, UntilClose):
                    return _After.CLOSE
                raise GoneError(app)
            await self._caller.send(app.take(body.take(app.pending)))
        return _After.KEEP if request.keeps_alive and response.keeps_alive else _After.CLOSE

    async def _head(self, app: Peer) -> Response:
        """Relay response heads up to the final one, and return that."""
        while True:
            raw = await app.head()
            if raw is None:
                raise GoneError(app)
            response = Response.parse(raw)
            self._answered = response.is_final
            await self._caller.send(raw)
            if response.is_final:
                return response

    async def _tunnel(self, app: Peer) -> _After:
        """Relay bytes both ways until one side ends."""
        after = _After.CLOSE
        try:
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(_pump(self._caller, app), name="tunnel to the app"),
                    group.create_task(_pump(app, self._caller), name="tunnel to the caller"),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
        except* GoneError:
            after = _After.CUT
        return after


async def _pump(source: Peer, sink: Peer) -> None:
    """Relay bytes until `source` ends.  Raises `GoneError`."""
    while source.pending or await source.more():
        await sink.send(source.take(len(source.pending)))
