"""Opening connections to an upstream: DNS, TCP and TLS within one deadline."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from aiohappyeyeballs import start_connection

from proxy.config.model import Upstream
from proxy.deadlines import Within
from proxy.errors import (
    CHECK_NAME,
    ProxyError,
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamTlsFailed,
)
from proxy.plane import descriptors
from proxy.plane.tls import TlsTransport
from proxy.plane.trust import HTTP1, Roots, hint_for, ready
from proxy.resolver import AddressInfo, Resolver

P = TypeVar("P", bound=asyncio.BufferedProtocol)

# RFC 8305, 5: the recommended delay before the next address is tried beside the first.
_ATTEMPT_DELAY = 0.25

# Seconds of silence before the kernel probes, between probes, and probes until it gives up.
# Cloud Run leaves TCP keep-alive off and cuts idle flows to the internet after 20 minutes.
# macOS calls the first one TCP_KEEPALIVE; a system that knows none of a line keeps its own value.
_KEEP_ALIVE = (
    (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 60),
    (("TCP_KEEPINTVL",), 15),
    (("TCP_KEEPCNT",), 4),
)

# How OpenSSL names the alert of a server that speaks none of what ALPN offers (RFC 7301, 3.2). Up
# to 3.0 the error has no `reason`.
_NO_PROTOCOL = "no application protocol"

Dialled = tuple[asyncio.Transport, P]


class Dialler:
    """Opens connections to one upstream."""

    __slots__ = ("_ca_file", "_protocols", "_resolver", "upstream")

    def __init__(
        self,
        upstream: Upstream,
        ca_file: Path | None,
        resolver: Resolver,
        protocols: tuple[str, ...] = HTTP1,
    ) -> None:
        """`protocols` is what ALPN offers, best first (RFC 7301)."""
        self.upstream = upstream
        self._resolver = resolver
        self._ca_file = ca_file
        self._protocols = protocols

    async def dial(self, factory: Callable[[], P], timeout: float) -> Dialled[P]:
        """Return a connected transport and its protocol.

        The name's addresses (see `Resolver`) are tried as RFC 8305 ("happy eyeballs") describes.

        Raises:
            UpstreamConnectFailed: no address, or none that accepts.
            UpstreamConnectTimedOut: not done within `timeout` seconds.
            UpstreamTlsFailed: the handshake or the certificate.
            Overloaded: no descriptor is left for it.
        """
        stage = "resolving its name"
        try:
            async with Within(timeout):
                roots = await ready(self._ca_file) if self.upstream.tls else None
                addresses = await self._resolver.resolve(self.upstream.host, self.upstream.port)
                while True:
                    stage = "connecting"
                    sock = await self._connect(addresses)
                    stage = "the TLS handshake"
                    was_whole = roots is not None and roots.is_whole
                    try:
                        return await self._wrap(sock, factory, roots)
                    except ssl.SSLCertVerificationError:
                        if roots is None or was_whole:
                            raise
                    await asyncio.to_thread(roots.complete)
        except TimeoutError:
            raise UpstreamConnectTimedOut(
                f"{self.upstream.origin} was not connected within {timeout:g} s ({stage})."
            ) from None
        except OSError as error:
            raise self._translate(error) from error

    async def _connect(self, addresses: Sequence[AddressInfo]) -> socket.socket:
        try:
            sock = await start_connection(
                addresses,
                happy_eyeballs_delay=_ATTEMPT_DELAY,
                interleave=1,
            )
        except BaseException:
            # The name may have moved: a container that was made anew, say. The next dial asks.
            self._resolver.doubt(self.upstream.host)
            raise
        refuse_itself(sock)
        leave_reserve(sock)
        keep_alive(sock)
        return sock

    async def _wrap(
        self, sock: socket.socket, factory: Callable[[], P], roots: Roots | None
    ) -> Dialled[P]:
        loop = asyncio.get_running_loop()
        try:
            codec = factory()
            secured = None if roots is None else self._secured(codec, roots.context)
        except BaseException:
            sock.close()  # Nobody else has it yet.
            raise
        try:
            tcp, _ = await loop.create_connection(lambda: secured or codec, sock=sock)
        finally:
            if not isinstance(loop, asyncio.BaseEventLoop):
                # uvloop's transport closes the descriptor itself, and only then takes it from
                # the socket object. Up to 0.23 it does not where the connection breaks in
                # `connection_made` (a reset before the TLS handshake is written): the object,
                # when collected, would close whatever connection has got the number since.
                sock.detach()
        if secured is None:
            return tcp, codec
        try:
            await secured.ready()
        except asyncio.CancelledError:
            secured.abort()
            raise
        return secured, codec

    def _secured(self, codec: P, context: ssl.SSLContext) -> TlsTransport:
        # SSL_new(3) copies it: one context serves whatever is offered, for the roots in it are
        # large and slow to read.
        context.set_alpn_protocols(list(self._protocols))
        return TlsTransport(context, self.upstream.host, codec)

    def _translate(self, error: OSError) -> ProxyError:
        """Say what an operating system's or OpenSSL's error means for the upstream."""
        origin, host = self.upstream.origin, self.upstream.host
        if error.errno in descriptors.NONE_LEFT:
            return descriptors.overloaded()
        # Order matters: the special precede the general.
        if isinstance(error, ssl.SSLCertVerificationError):
            return UpstreamTlsFailed(
                f"The certificate of {origin} is not accepted: {error.verify_message}.",
                hint=hint_for(self._ca_file),
            )
        if isinstance(error, ssl.SSLError) and _NO_PROTOCOL in f"{error}".lower():
            return UpstreamTlsFailed(
                f"{origin} does not speak {' or '.join(self._protocols)}.",
                hint="It seems to speak only HTTP/2: set `protocol: h2` on the route.",
            )
        if isinstance(error, ssl.SSLError | ConnectionAbortedError):
            return UpstreamTlsFailed(
                f"The TLS handshake with {origin} failed: {error.reason or error}."
                if isinstance(error, ssl.SSLError)
                else f"The TLS handshake with {origin} was broken off."
            )
        if isinstance(error, socket.gaierror):
            return UpstreamConnectFailed(
                f"The name {host} cannot be resolved: {error.strerror}.",
                hint=CHECK_NAME,
            )
        return UpstreamConnectFailed(f"{origin} cannot be connected: {error.strerror or error}.")


def refuse_itself(sock: socket.socket) -> None:
    """Raise ConnectionRefusedError for a socket that is connected to itself, and close it.

    TCP allows it (RFC 9293, 3.5, simultaneous open), and on loopback it happens: nobody listens
    on the port, and the kernel chooses that very one for the caller.
    """
    try:
        is_itself = sock.getsockname() == sock.getpeername()
    except OSError:
        return  # It is reset already, which the first write will tell.
    if is_itself:
        sock.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def leave_reserve(sock: socket.socket) -> None:
    """Raise OSError for a socket whose descriptor is kept for others, and close it."""
    if descriptors.beyond(sock.fileno()):
        sock.close()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel find out when the far end is gone (SO_KEEPALIVE, tcp(7)).

    macOS takes no option for a connection that the far end has reset (EINVAL, setsockopt(2)); the
    first write will tell.
    """
    with suppress(OSError):
        _set_options(sock)


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in _KEEP_ALIVE:
        for name in names:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
                break
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
