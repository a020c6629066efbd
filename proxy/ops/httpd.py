"""A small HTTP/1.1 server for the admin listener; llhttp reads the requests.

It knows nothing of what is asked: a handler takes a `Request` and returns a `Response`.  aiohttp
did this before, and importing it took longer than everything else before the first answer.

Nobody who connects can take much: a connection has a deadline for whatever it does, heads and
bodies are small, one request is answered at a time, and there are `CONNECTIONS` at most.  Beyond
that the one that has been silent for longest makes room, so that a probe is always answered.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url

from proxy.clock import Clocks, http_date
from proxy.config.model import Address
from proxy.frozen import frozen
from proxy.plane import listen
from proxy.plane.leaving import send_fin
from proxy.plane.listen import Listener, Sockets
from proxy.plane.sweeper import Sweeper
from proxy.tasks import Tasks
from proxy.unreached import is_tls

_log = logging.getLogger("proxy.admin")

CONNECTIONS: Final = 32
"""More than a page, a scraper and probes need; few enough for a process with 256 descriptors."""

REQUEST_BYTES: Final = 16 * 1024
BODY_BYTES: Final = 1024
"""No request that is answered has a body; one that comes anyway is discarded."""

HEAD_SECONDS: Final = (
    10.0  # To the first byte of the first request; from the first of each to its last.
)
IDLE_SECONDS: Final = 75.0  # Without a request; longer than a scraper's usual interval.
ANSWER_SECONDS: Final = 30.0  # To make an answer, and again for it to leave.
LINGER_SECONDS: Final = 2.0
STOP_SECONDS: Final = 1.0  # For answers that are being made when the listener closes.

# RFC 9112, 2.1: what follows a refused head cannot be told from the next request.
_BAD, _TOO_LARGE, _FIELDS_TOO_LARGE, _BUG = 400, 413, 431, 500


@dataclass(slots=True)
class Request:
    """One whole request, without its body."""

    method: str
    path: str
    """As it was sent, without the query."""
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case; fields that repeat are joined by commas (RFC 9110, 5.3)."""
    peer: str | None
    """The caller's IP address; None on a Unix socket, whose peers have none."""


@frozen(kw_only=True)
class Response:
    """What is answered; length and date are added."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Owns the listener and its connections."""

    def __init__(self, handler: Handler, headers: Mapping[str, str], clocks: Clocks) -> None:
        """`headers` are on every response."""
        self.handler = handler
        self.headers = headers
        self.wall = clocks.wall
        self.sweeper = Sweeper(clocks.steady)
        self.tasks = Tasks()
        self.stopping = False
        """Whether answers are the last of their connections."""
        self.connections: dict[_Connection, None] = {}
        """The open ones; the first has been silent for longest."""
        self.accepted = 0
        """How many there were in all."""
        self._listener: Listener | None = None

    async def start(self, address: Address, inherited: Sockets | None = None) -> Address:
        """Listen, on `inherited` sockets where there are any; return the real address.

        Raises:
            ListenFailed: the address cannot be had.
        """
        sockets = inherited or await listen.bind(address)
        self._listener = await listen.open_listener(address, sockets, lambda: _Connection(self))
        await self._listener.start()
        return self._listener.address

    async def stop(self) -> None:
        """Close the listener and its connections, within `STOP_SECONDS` or so."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(
                    *(each.ended for each in self.connections if each.is_answering)
                )
        self.sweeper.stop()
        for connection in list(self.connections):
            connection.abort()
        await self.tasks.end()

    def opened(self, connection: _Connection) -> None:
        """Accept a connection; if there are too many, close the one silent for longest."""
        self.accepted += 1
        if len(self.connections) >= CONNECTIONS:
            extra = {"reason": "admin_connections", "per_minute": 1}
            text = "the admin listener has %d connections, as many as it takes: one is closed"
            _log.warning(text, CONNECTIONS, extra=extra)
            victim = next((each for each in self.connections if each.may_go), connection)
            victim.abort()
            self.closed(victim)
            if victim is connection:
                return
        self.connections[connection] = None
        self.sweeper.add(connection)

    def heard(self, connection: _Connection) -> None:
        """Note that a connection has asked something."""
        if connection in self.connections:
            del self.connections[connection]
            self.connections[connection] = None

    def closed(self, connection: _Connection) -> None:
        """Forget a connection that has ended."""
        self.connections.pop(connection, None)
        self.sweeper.discard(connection)

    def encode(self, response: Response, *, keep: bool, bodiless: bool) -> bytes:
        """Return a response as bytes; `bodiless` for HEAD, whose length is that of GET's."""
        fields = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Date": http_date(self.wall()),
            "Connection": "keep-alive" if keep else "close",
            **self.headers,
            **response.headers,
        }
        start = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"
        lines = [start, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        return head if bodiless else head + response.body


class _Phase(enum.Enum):
    """What a connection waits for."""

    READING = enum.auto()  # The caller: a request, or the rest of one.
    ANSWERING = enum.auto()  # The handler, then the caller to take the answer.
    LINGERING = enum.auto()  # The caller to close; what it still sends is thrown away.


class _Connection(asyncio.Protocol):
    """One caller's connection; the methods of llhttp's callbacks begin with ``on_``."""

    def __init__(self, server: HttpServer) -> None:
        self.deadline = math.inf
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._phase = _Phase.READING
        self._leaving = False  # Whether written bytes wait for the caller to read.
        self._reset()

    def _reset(self) -> None:
        """Prepare for a request."""
        self._parser = HttpRequestParser(self)
        self._target = b""
        self._fields: list[tuple[str, str]] = []
        self._head_done = self._done = False
        self._broken = False  # Whether what came is no request.
        self._is_tls = False
        self._more = False  # Whether more has come than the request that is answered.
        self._keep = False  # Whether the connection goes on after the answer.
        self.read_bytes = self._body_bytes = 0

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being made or written."""
        return self._phase is _Phase.ANSWERING

    @property
    def may_go(self) -> bool:
        """Whether the connection waits for the caller."""
        return self._leaving or self._phase is not _Phase.ANSWERING

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # --- what the event loop and the sweeper call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        # `pause_writing` is to be called as soon as anything waits to be written.
        self._transport.set_write_buffer_limits(high=0)
        self._wait(HEAD_SECONDS)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of the connection."""
        self._server.closed(self)
        self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read a request; never more of it than may be one."""
        if not self.read_bytes and self._phase is _Phase.READING:
            self._wait(HEAD_SECONDS)
        while data and self._phase is _Phase.READING:
            # No more of a head than it may have is parsed, however much comes at once.
            room = REQUEST_BYTES - self.read_bytes
            self._feed(data[:room])
            data = data[room:]
            self._judge()
        self._more = self._more or bool(data)

    def _feed(self, piece: bytes) -> None:
        self.read_bytes += len(piece)
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            self._more = True  # RFC 9110, 7.8: it may be ignored; what follows is not read.
        except HttpParserError:
            self._broken = not self._done
            self._is_tls = is_tls(piece)
            self._more = True

    def eof_received(self) -> bool:
        """Keep the connection: a caller that closed its side may still read."""
        return self.is_answering

    def pause_writing(self) -> None:
        """Wait for the caller to read."""
        self._leaving = True

    def resume_writing(self) -> None:
        """Resume once everything has been written."""
        self._leaving = False
        if self._phase is _Phase.ANSWERING:
            self._next()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002 (the sweeper's signature)
        """End a connection on which nothing happens."""
        self.abort()

    # --- what llhttp calls

    def on_message_begin(self) -> None:
        """Begin a request; a second one in the same bytes is not read."""
        self._more = self._more or self._done

    def on_url(self, part: bytes) -> None:
        """Take a part of the target."""
        if not self._done:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field."""
        if not self._done:
            self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        """Note that the head is whole; a caller may wait to hear that (RFC 9110, 10.1.1)."""
        self._head_done = True
        # Asked here: llhttp has forgotten it once the message is complete.
        self._keep = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        if not self._done and ("expect", "100-continue") in self._fields:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Count the bytes of a body, which is discarded."""
        self._body_bytes += len(part)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._done = True

    # --- one request

    def _wait(self, seconds: float) -> None:
        self.deadline = self._server.sweeper.clock() + seconds

    def _judge(self) -> None:
        """Answer or refuse what has been read, or go on reading."""
        if self._broken:
            tls = "this is TLS, and the admin listener speaks plain HTTP: call http://"
            self._refuse(_BAD, tls if self._is_tls else "this is not an HTTP request")
        elif self._body_bytes > BODY_BYTES:
            self._refuse(_TOO_LARGE, "a body is not accepted here")
        elif self._done:
            self._answer()
        elif self.read_bytes >= REQUEST_BYTES:
            # With its head done, it is a body of nothing but the lines of chunks.
            status = _TOO_LARGE if self._head_done else _FIELDS_TOO_LARGE
            self._refuse(status, "this request is too long")

    def _answer(self) -> None:
        try:
            request = self._request()
        except (HttpParserError, UnicodeDecodeError):
            self._refuse(_BAD, "this is not a request target")
            return
        self._begin_answer()
        work = self._make(request)
        _ = self._server.tasks.spawn(work, "answer on the admin listener")

    def _begin_answer(self) -> None:
        self._server.heard(self)
        self._phase = _Phase.ANSWERING
        self._transport.pause_reading()
        self._wait(ANSWER_SECONDS)

    def _request(self) -> Request:
        headers: dict[str, str] = {}
        for name, value in self._fields:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        target = parse_url(self._target)
        if target.host is not None:
            # RFC 9112, 3.2.2: the target's authority takes the place of Host.
            port = f":{target.port}" if target.port else ""
            headers["host"] = target.host.decode("ascii") + port
        method = self._parser.get_method().decode("ascii")
        path = (target.path or b"/").decode("ascii")
        peer = self._transport.get_extra_info("peername")
        host = str(peer[0]) if isinstance(peer, tuple) and peer else None
        return Request(method, path, (target.query or b"").decode("ascii"), headers, host)

    async def _make(self, request: Request) -> None:
        """Have the handler answer, and write that."""
        bodiless = request.method == "HEAD"
        try:
            self._write(await self._server.handler(request), bodiless=bodiless)
        except Exception:  # noqa: BLE001 (whatever a handler met must not end the listener)
            extra = {"reason": "internal_error", "per_minute": 1}
            _log.exception("a bug in the admin listener", extra=extra)
            response = Response(status=_BUG, body=b"the proxy met a bug; its log says more\n")
            self._write(response, bodiless=bodiless)

    def _refuse(self, status: int, why: str) -> None:
        """Answer with an error, and end the connection."""
        extra = {"reason": "request_malformed", "per_minute": 1}
        _log.info("the admin listener was sent what it does not take: %s", why, extra=extra)
        self._begin_answer()
        self._more = True
        self._write(Response(status=status, body=why.encode() + b"\n"), bodiless=False)

    def _write(self, response: Response, *, bodiless: bool) -> None:
        if self._transport.is_closing():
            return
        self._keep = self._keep and not self._more and not self._server.stopping
        self._wait(ANSWER_SECONDS)
        self._transport.write(self._server.encode(response, keep=self._keep, bodiless=bodiless))
        if not self._leaving:
            self._next()

    def _next(self) -> None:
        """Wait for the next request, or end: the answer has left."""
        if self._keep and not self._server.stopping:
            self._phase = _Phase.READING
            self._reset()
            self._wait(IDLE_SECONDS)
            self._transport.resume_reading()
        elif self._more:
            # RFC 9112, 9.6: closed with bytes unread, a connection is reset, which can take
            # the answer with it.
            self._phase = _Phase.LINGERING
            self._wait(LINGER_SECONDS)
            send_fin(self._transport)
            self._transport.resume_reading()
        else:
            self._transport.close()
