"""A private Cloud Run service on this machine: TLS, and a front that checks ID tokens.

The front answers as Google's does: 403 without a token, 401 for one that cannot be
verified, 403 for an account that is no invoker, 404 where the ingress is internal, and the
service sees the token without its signature.  Behind it is an app that echoes, or any
server of yours::

    keys = Keys.shared()
    async with ProtectedService(keys, app=("127.0.0.1", 3000)) as service:
        ...  # call service.url with a token for that audience; trust service.ca_file
        assert [request.target for request in service.admitted] == ["/orders"]

What the emulation leaves out: HTTP/2, the headers that Google adds (``X-Forwarded-For``,
``traceparent``), and what it removes.  An admitted request reaches the app byte for byte
except for that signature, so that a test sees exactly what was sent.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Literal, Self

from proxy.emulator.app import EchoApp, Pause, short_pause
from proxy.emulator.certificates import Authority
from proxy.emulator.claims import Claims
from proxy.emulator.front import Connection
from proxy.emulator.gate import Admitted, judge, status_of
from proxy.emulator.keys import Keys
from proxy.emulator.pages import INVALID_TOKEN, Page
from proxy.emulator.peer import App, Peer
from proxy.emulator.records import Records
from proxy.emulator.serving import LOOPBACK, Serving, Startable
from proxy.emulator.verify import Refusal, verify
from proxy.emulator.wire import Head, Request
from proxy.frozen import frozen

log = logging.getLogger("proxy.emulator")

NAMES = (LOOPBACK, "::1", "localhost")

INTERNAL_ONLY = Page(404)
UNAUTHORIZED = 401


@frozen
class ServiceRequest:
    """One request as it arrived at the front."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """As they came, in order, repeats kept."""
    claims: Claims | None
    """What the token says; None where it was not accepted."""
    refusal: Refusal | None
    status: int | None
    """What the front answered by itself; None where the request went on to the app."""

    def header(self, name: str) -> list[str]:
        """Return every value of `name`, in any case."""
        return [value for field, value in self.headers if field.lower() == name.lower()]


class ProtectedService(Startable):
    """A private service on a free port of the loopback.

    `audience` is what tokens must be for: one or several strings; None for the service's
    own `url`.  `invokers` are the accounts' e-mail addresses that may call; None for all.
    `app` is the server to protect, None for one that echoes, whose streams wait for `pause`.
    `host` is the name or address in its `url`; the certificate has it, and all of `names`.
    `clock` answers Unix seconds.  `audiences`, `invokers` and `ingress` may be changed
    while it runs.  After `stop`, `start` opens the same port again.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        audience: str | Collection[str] | None = None,
        *,
        clock: Callable[[], float] = time.time,  # noqa: TID251 (users run the emulator alone)
        invokers: Collection[str] | None = None,
        app: App | None = None,
        tls: bool = True,
        pause: Pause = short_pause,
        host: str = LOOPBACK,
    ) -> None:
        self.keys = keys or Keys.shared()
        self.audiences = (audience,) if isinstance(audience, str) else audience
        self.invokers = invokers
        self.ingress: Literal["all", "internal"] = "all"
        self.requests: Records[ServiceRequest] = Records()
        self.names: Sequence[str] = tuple(dict.fromkeys((host, *NAMES)))
        self._host = f"[{host}]" if ":" in host else host
        self._clock = clock
        self._app = app
        self._echo = Serving(EchoApp(pause).handle)
        self._authority = Authority() if tls else None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._planned: deque[Page] = deque()
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self.port = 0
        """0 until it has been started."""

    @property
    def url(self) -> str:
        """Its origin, with the port that it got."""
        return f"{'https' if self._authority else 'http'}://{self._host}:{self.port}"

    @property
    def ca_file(self) -> Path | None:
        """The certificate to trust, in PEM, as long as the service runs; None without TLS."""
        return Path(self._directory.name) / "ca.pem" if self._directory else None

    @property
    def admitted(self) -> list[ServiceRequest]:
        """The requests that went on to the app."""
        return [request for request in self.requests if request.status is None]

    def answer_next(
        self,
        status: int,
        *,
        times: int = 1,
        headers: tuple[tuple[str, str], ...] = (),
        robot: bool = False,
    ) -> None:
        """Let the front answer the next `times` requests with a valid token by `status`.

        That is how 429 (no instance free) and 503 (the instance broke) look; `robot` is the other
        form of its 404 (see `Page`).
        """
        self._planned.extend([Page(status, headers, robot)] * times)

    async def start(self, sockets: Sequence[socket.socket] = ()) -> Self:
        """Serve on `sockets`, which it owns from now on, or else on a free port."""
        if self._app is None:
            await self._echo.start()
        context = None
        if self._authority is not None:
            context = self._authority.server_context(self.names)
            self._directory = tempfile.TemporaryDirectory(prefix="protected-service-")
            (Path(self._directory.name) / "ca.pem").write_bytes(self._authority.pem)
        serve = partial(asyncio.start_server, self._connected, ssl=context)
        if sockets:
            self._servers = [await serve(sock=sock) for sock in sockets]
        else:
            self._servers = [await serve(LOOPBACK, self.port)]
        self.port = self._servers[0].sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the port and every connection; raise what the front or its app raised."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for server in servers:
            await server.wait_closed()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None
        await self._echo.stop()
        failures, self._failures = self._failures, []
        if failures:
            raise ExceptionGroup("the protected service failed", failures)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A coroutine as the callback would be a task of asyncio's own, which Python 3.11
        # complains about in the log when it is cancelled.
        serving = asyncio.get_running_loop().create_task(
            self._serve(reader, writer), name=f"serve a caller of {self.url}"
        )
        self._connections.add(serving)
        serving.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        app = self._app or (LOOPBACK, self._echo.port)
        try:
            await Connection(Peer(reader, writer), app, self._admit, self._clock).serve()
        except Exception as error:  # noqa: BLE001 (raised again by `stop`, where a test sees it)
            self._failures.append(error)
        finally:
            writer.transport.abort()

    def _admit(self, request: Request) -> bytes | Page:
        fields = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.head.fields
        ]
        verdict = judge(fields, self._verify, self.invokers)
        outcome = self._outcome(request, verdict)
        self.requests.add(
            ServiceRequest(
                method=request.method,
                target=request.target.decode("latin-1"),
                headers=tuple(fields),
                claims=verdict.claims if isinstance(verdict, Admitted) else None,
                refusal=verdict if isinstance(verdict, Refusal) else None,
                status=outcome.status if isinstance(outcome, Page) else None,
            )
        )
        return outcome

    def _verify(self, token: str) -> Claims | Refusal:
        audiences = (self.url,) if self.audiences is None else self.audiences
        return verify(token, self.keys, audiences, self._clock())

    def _outcome(self, request: Request, verdict: Admitted | Refusal) -> bytes | Page:
        if self.ingress == "internal":
            return INTERNAL_ONLY
        if isinstance(verdict, Refusal):
            status = status_of(verdict)
            path = request.target.partition(b"?")[0].decode("latin-1")
            log.info("%s %s: %d, %s", request.method, path, status, verdict.value)
            return Page(status, (INVALID_TOKEN,) if status == UNAUTHORIZED else ())
        return self._planned.popleft() if self._planned else _stripped(request, verdict)


def _stripped(request: Request, admitted: Admitted) -> bytes:
    """Return the request's head with the token's signature removed and nothing else changed."""
    lines = list(request.head.lines)
    place = 1 + admitted.place  # the request line comes first
    token, stripped = admitted.token, admitted.without_signature
    lines[place] = lines[place].replace(token.encode("latin-1"), stripped.encode("latin-1"))
    return Head(tuple(lines)).to_bytes()
