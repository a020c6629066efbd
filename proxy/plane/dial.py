"""Opening connections to an upstream: DNS, TCP, a proxy's tunnel and TLS within one deadline."""

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

from proxy.config.misplaced import shown_file
from proxy.config.model import Address, Upstream
from proxy.config.proxies import HttpProxy
from proxy.deadlines import Within
from proxy.errors import (
    ProxyError,
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamTlsFailed,
)
from proxy.plane import descriptors
from proxy.plane.connect import Connect, Tunnel
from proxy.plane.tls import TlsTransport
from proxy.plane.trust import HTTP1, Roots, hint_for, ready
from proxy.resolver import AddressInfo, Resolver
from proxy.system import UNIX
from proxy.unreached import (
    CHECK_DNS,
    CHECK_PROXY,
    MORE_FILES,
    NO_TLS,
    Hop,
    Why,
    check,
    no_tls,
    speaks_no_tls,
    unanswered,
    why,
)

P = TypeVar("P", bound=asyncio.Protocol)

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

_PUT_BACK = "Put it back as it was; what it holds is read anew by a reload."
_INSPECTED = "Where the egress proxy inspects TLS, put its certificate into the route's ca_file."

Dialled = tuple[asyncio.Transport, P]


_ROOTS = "reading the roots"
_RESOLVING = "resolving its name"


class _Stage:
    """How far a dial has come."""

    __slots__ = ("at_proxy", "what")

    def __init__(self) -> None:
        self.enter(_ROOTS)

    def enter(self, what: str, *, at_proxy: bool = False) -> None:
        """Note what is waited for; `at_proxy` tells that it is the egress proxy's to do."""
        self.what = what
        self.at_proxy = at_proxy

    def __str__(self) -> str:
        return f"at the egress proxy: {self.what}" if self.at_proxy else self.what


class Dialler:
    """Opens connections to one upstream."""

    __slots__ = (
        "_at", "_ca_file", "_hop", "_protocols", "_proxy", "_resolver", "_shown", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        upstream: Upstream,
        ca_file: Path | None,
        resolver: Resolver,
        protocols: tuple[str, ...] = HTTP1,
        *,
        at: Address | None = None,
        proxy: HttpProxy | None = None,
    ) -> None:
        """`protocols` is what ALPN offers, best first (RFC 7301).

        `at` is dialled instead of the upstream's own host, whose name TLS still verifies.  `proxy`
        is the egress proxy through which it is reached, None for none.
        """
        self.upstream = upstream
        self._at = at or Address(upstream.host, upstream.port)
        self._hop: Hop = "upstream" if at is None else "socket" if at.path else "connect_to"
        self._proxy = proxy
        ways = [f"at {at}"] if at is not None else []
        if proxy is not None:
            ways.append(f"through the egress proxy {proxy}")
        self._shown = f"{upstream.origin} ({' '.join(ways)})" if ways else upstream.origin
        """The upstream, for messages."""
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
        stage = _Stage()
        try:
            async with Within(timeout):
                roots = await ready(self._ca_file) if self.upstream.tls else None
                addresses = [] if self._at.path else await self._resolve(stage)
                while True:
                    sock = await self._connect(addresses, stage)
                    was_whole = roots is not None and roots.is_whole
                    try:
                        return await self._open(sock, factory, roots, stage)
                    except ssl.SSLCertVerificationError:
                        if roots is None or was_whole:
                            raise
                    await asyncio.to_thread(roots.complete)
        except TimeoutError:
            raise self._too_slow(timeout, stage) from None
        except OSError as error:
            raise self._translate(error, stage) from error

    async def _resolve(self, stage: _Stage) -> list[AddressInfo]:
        stage.enter(_RESOLVING, at_proxy=self._proxy is not None)
        hop = self._proxy or self._at
        return await self._resolver.resolve(hop.host, hop.port)

    async def _connect(self, addresses: Sequence[AddressInfo], stage: _Stage) -> socket.socket:
        stage.enter("connecting", at_proxy=self._proxy is not None)
        if self._at.path:
            return await connect_unix(self._at.path)
        try:
            sock = await start_connection(
                addresses,
                happy_eyeballs_delay=_ATTEMPT_DELAY,
                interleave=1,
            )
        except BaseException:
            # The name may have moved: a container that was made anew, say. The next dial asks.
            self._resolver.doubt((self._proxy or self._at).host)
            raise
        refuse_itself(sock)
        leave_reserve(sock)
        keep_alive(sock)
        return sock

    async def _open(
        self,
        sock: socket.socket,
        factory: Callable[[], P],
        roots: Roots | None,
        stage: _Stage,
    ) -> Dialled[P]:
        """Lay tunnel and TLS over the connected socket, as far as there are any."""
        try:
            codec = factory()
            secured = None if roots is None else self._secured(codec, roots.context)
            tunnel = None if self._proxy is None else self._tunnel(self._proxy, secured or codec)
        except BaseException:
            sock.close()  # Nobody else has it yet.
            raise
        tcp = await _transport(sock, tunnel or secured or codec)
        try:
            if tunnel is not None:
                stage.enter("waiting for its answer", at_proxy=True)
                await tunnel.opened()
            if secured is None:
                return tcp, codec
            stage.enter("the TLS handshake")
            await secured.ready()
        except asyncio.CancelledError:
            (tcp if secured is None or stage.at_proxy else secured).abort()
            raise
        return secured, codec

    def _tunnel(self, proxy: HttpProxy, inside: asyncio.Protocol | TlsTransport) -> Tunnel:
        return Tunnel(Connect(proxy, self._at.host, self._at.port), inside)

    def _secured(self, codec: P, context: ssl.SSLContext) -> TlsTransport:
        # SSL_new(3) copies it: one context serves whatever is offered, for the roots in it are
        # large and slow to read.
        context.set_alpn_protocols(list(self._protocols))
        return TlsTransport(context, self.upstream.host, codec)

    def _too_slow(self, timeout: float, stage: _Stage) -> ProxyError:
        detail = f"{self._shown} was not connected within {timeout:g} s ({stage})."
        hint = CHECK_PROXY if stage.at_proxy else None
        if stage.what == _RESOLVING:
            host = (self._proxy or self._at).host
            detail, hint = unanswered(host, f"{timeout:g} s"), CHECK_DNS
        return UpstreamConnectTimedOut(detail, hint=hint)

    def _translate(self, error: OSError, stage: _Stage) -> ProxyError:
        """Say what an operating system's or OpenSSL's error means, and for whom."""
        found = why(error)
        if found.hint == MORE_FILES:
            return descriptors.overloaded()
        if stage.at_proxy:
            return self._proxy_unreached(found)
        if stage.what == _ROOTS:
            return self._without_roots(error)
        if isinstance(error, ssl.SSLError | ConnectionAbortedError):
            return self._tls_failed(error)
        if isinstance(error, socket.gaierror):
            return UpstreamConnectFailed(found.sentence(self._at.host), hint=found.hint)
        place = f"{self._at}"
        if self._hop != "upstream":
            place = f"{place}, where {self.upstream.origin} is dialled"
        return UpstreamConnectFailed(found.sentence(place), hint=check(found, self._hop))

    def _without_roots(self, error: OSError) -> ProxyError:
        """Say that the roots cannot be read, which could be when the configuration was."""
        file = "The system's file of roots"
        if self._ca_file is not None:
            file = f"The route's ca_file {shown_file(str(self._ca_file))}"
        what = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        return UpstreamTlsFailed(f"{file} cannot be read: {what or error}.", hint=_PUT_BACK)

    def _tls_failed(self, error: OSError) -> ProxyError:
        # Order matters: the special precede the general.
        if isinstance(error, ssl.SSLCertVerificationError):
            return UpstreamTlsFailed(
                f"The certificate of {self._shown} is not accepted: {error.verify_message}.",
                hint=hint_for(self._ca_file) or (_INSPECTED if self._proxy is not None else None),
            )
        if isinstance(error, ssl.SSLError) and _NO_PROTOCOL in f"{error}".lower():
            return UpstreamTlsFailed(
                f"{self._shown} does not speak {' or '.join(self._protocols)}.",
                hint="It seems to speak only HTTP/2: set `protocol: h2` on the route.",
            )
        if speaks_no_tls(error):
            return UpstreamTlsFailed(no_tls(f"{self._at}"), hint=NO_TLS)
        return UpstreamTlsFailed(
            f"The TLS handshake with {self._shown} failed: {error.reason or error}."
            if isinstance(error, ssl.SSLError)
            else f"The TLS handshake with {self._shown} was broken off."
        )

    def _proxy_unreached(self, found: Why) -> ProxyError:
        """Say why there is no connection to the egress proxy itself."""
        return UpstreamConnectFailed(
            f"The egress proxy {self._proxy} cannot be connected: {found.short}.",
            hint=check(found, "proxy"),
        )


async def connect_unix(path: str) -> socket.socket:
    """Return a Unix socket that is connected to the one at `path`.  Raises OSError."""
    sock = socket.socket(UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        await asyncio.get_running_loop().sock_connect(sock, path)
    except BaseException:
        sock.close()
        raise
    leave_reserve(sock)
    return sock


async def _transport(
    sock: socket.socket, protocol: asyncio.Protocol | TlsTransport
) -> asyncio.Transport:
    """Return a transport for a connected socket, which is the transport's from here on."""
    loop = asyncio.get_running_loop()
    try:
        if sock.family == UNIX:
            tcp, _ = await loop.create_unix_connection(lambda: protocol, sock=sock)
        else:
            tcp, _ = await loop.create_connection(lambda: protocol, sock=sock)
    finally:
        if not isinstance(loop, asyncio.BaseEventLoop):
            # uvloop's transport closes the descriptor itself, and only then takes it from
            # the socket object. Up to 0.23 it does not where the connection breaks in
            # `connection_made` (a reset before the TLS handshake is written): the object,
            # when collected, would close whatever connection has got the number since.
            sock.detach()
    return tcp


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
