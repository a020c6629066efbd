"""Ways in which a metadata server can misbehave, one response at a time.

Inject them with `MetadataServer.inject`; they are used up in the order given::

    metadata.inject(Answer(status=503), times=2)           # two failures, then all is well
    metadata.inject(Minted(lifetime=-60))                  # a token that has expired
    metadata.inject(Minted(claims={"aud": "https://another.example"}))
    metadata.inject(Answer(status=200, body="<html>no token</html>"))
    held = asyncio.Event()
    metadata.inject(Held(held))                            # slow, exactly as long as you like
    metadata.inject(Reset())                               # the connection is torn down
    metadata.inject(NoFlavor())                            # the right answer without the header

A fault of your own is an object with `respond`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Protocol

from aiohttp import web

from proxy.emulator.answers import FLAVOR, HTML, SERVER
from proxy.emulator.claims import Claims
from proxy.frozen import frozen
from proxy.system import RESET


@frozen
class Exchange:
    """One request to the metadata server, and the means to answer it."""

    request: web.Request
    answer: Callable[[], web.Response]
    """Gives the response that the server makes when nothing is wrong."""
    mint: Callable[[float | None, Claims], web.Response]
    """The same with ID tokens of another lifetime in seconds, or with other claims."""


class Fault(Protocol):
    """A way to answer that is not the regular one."""

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Return the response to send."""
        ...


@frozen(kw_only=True)
class Answer:
    """A fixed response: an error page, a body that is no token."""

    status: int = 503
    body: str | bytes = "<html><title>Error</title><body>Try again later.</body></html>\n"
    content_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)

    async def respond(self, exchange: Exchange) -> web.StreamResponse:  # noqa: ARG002 (the same whatever was asked)
        """Return the response, with the metadata server's own headers."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        headers = {
            FLAVOR: "Google",
            "Server": SERVER,
            "Content-Type": self.content_type,
            **self.headers,
        }
        return web.Response(status=self.status, body=body, headers=headers)


@frozen(kw_only=True)
class Minted:
    """An ID token that is properly signed but not what was asked for.

    `lifetime` is the time to expiry in seconds, below zero for an expired token; `claims`
    replace those of the regular token, None removes one.  Requests for anything but an
    ID token are answered as ever.
    """

    lifetime: float | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Return the regular response with this token in it."""
        return exchange.mint(self.lifetime, dict(self.claims))


@frozen
class Held:
    """A response that waits until `until` is set, then goes on with `then`, by default well."""

    until: asyncio.Event
    then: Fault | None = None

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Wait, then answer."""
        await self.until.wait()
        return exchange.answer() if self.then is None else await self.then.respond(exchange)


@frozen
class Reset:
    """No response: the connection is reset, after `sent` has been written to it."""

    sent: bytes = b""

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Tear the connection down; the response is never seen."""
        transport = exchange.request.transport
        if transport is not None:
            reset(transport, self.sent)
        return web.Response()


@frozen
class NoFlavor:
    """The regular response without ``Metadata-Flavor``, as GKE's server has answered tokens."""

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Return the regular response without the header."""
        response = exchange.answer()
        del response.headers[FLAVOR]
        return response


def reset(transport: asyncio.Transport | asyncio.WriteTransport, last: bytes = b"") -> None:
    """Write `last` if the socket takes it at once, then make the peer see a reset (RST)."""
    if last:
        transport.write(last)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # Without lingering, close() discards what is unsent and sends RST (POSIX, SO_LINGER).
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()
