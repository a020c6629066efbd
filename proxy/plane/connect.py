"""CONNECT: a tunnel through an HTTP proxy to an upstream (RFC 9110, 9.3.6).

`Connect` is the exchange without a wire, `Tunnel` the protocol that makes it and then leaves its
transport to whatever is spoken inside.  A failure here is the egress proxy's, and says so.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast, final

from proxy import PROGRAM, __version__
from proxy.config.model import Address
from proxy.config.proxies import HttpProxy
from proxy.errors import ProxyError, UpstreamConnectFailed, UpstreamMalformed
from proxy.plane.codec import UNCONNECTED
from proxy.plane.head import values
from proxy.plane.http1.heads import check_response, parse_status
from proxy.plane.tls import TlsTransport
from proxy.redact import redact_foreign

HEAD_BYTES = 16 * 1024
"""Of all heads that a proxy may answer with, interim ones included; usual is one of 40 bytes."""

_HEAD_END = b"\r\n\r\n"
_PHRASE = 60  # Characters of a reason phrase that are shown.
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9-]{0,31}(?=[ ,]|$)")
_MOST_SCHEMES = 4

_FINAL, _OK, _REDIRECT, _SERVER_ERROR = 200, range(200, 300), range(300, 400), range(500, 600)
_SWITCHING, _FORBIDDEN = 101, 403
_AUTHENTICATE = frozenset({401, 407})  # tinyproxy says 401 to credentials that are wrong.
_UNSUPPORTED = frozenset({400, 404, 405, 501, 505})


@final
class Connect:
    """One request to open a tunnel, and what the proxy answers."""

    __slots__ = ("_received", "_searched", "_taken", "authority", "proxy")

    def __init__(self, proxy: HttpProxy, host: str, port: int) -> None:
        """`host` (an IPv6 address without brackets) and `port` are where the tunnel shall end."""
        self.proxy = proxy
        self.authority = str(Address(host, port))
        self._received = bytearray()
        self._searched = 0
        self._taken = 0
        """Bytes of interim heads."""

    def request(self) -> bytes:
        """Return the head that asks for the tunnel; Host says the same (RFC 9112, 3.2.3)."""
        lines = [
            f"CONNECT {self.authority} HTTP/1.1",
            f"Host: {self.authority}",
            f"User-Agent: {PROGRAM}/{__version__}",
        ]
        if self.proxy.authorization:
            lines.append(f"Proxy-Authorization: {self.proxy.authorization}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def take(self, data: bytes) -> bytes | None:
        """Return what follows the head that opens the tunnel; None as long as that is not whole.

        What follows is the tunnel's first bytes, whatever the head says of a body
        (RFC 9110, 9.3.6).

        Raises:
            UpstreamConnectFailed: the proxy opens none.
        """
        self._received += data
        while (end := self._received.find(_HEAD_END, max(0, self._searched - 3))) >= 0:
            head = bytes(self._received[: end + len(_HEAD_END)])
            del self._received[: len(head)]
            self._searched = 0
            self._taken += len(head)
            self._check_size(0)
            if self._opens(head):
                return bytes(self._received)
        self._check_size(len(self._received))
        try:
            check_response(bytes(self._received), self._searched)
        except UpstreamMalformed as error:
            raise self._garbled() from error
        self._searched = len(self._received)
        return None

    def ended(self) -> UpstreamConnectFailed:
        """Return what it means that the connection ended before the answer was whole."""
        return UpstreamConnectFailed(
            f"The egress proxy {self.proxy} closed the connection without an answer.",
            hint=f"Look at its log, and whether {self.proxy} is an HTTP proxy.",
        )

    def _check_size(self, pending: int) -> None:
        if self._taken + pending > HEAD_BYTES:
            raise UpstreamConnectFailed(
                f"The egress proxy {self.proxy} sent more than {HEAD_BYTES} bytes of head.",
                hint=f"Check whether {self.proxy} is an HTTP proxy.",
            )

    def _opens(self, head: bytes) -> bool:
        """Tell whether `head` opens the tunnel; an interim one (RFC 9110, 15.2) does not yet."""
        try:
            status, phrase = parse_status(head)
        except UpstreamMalformed as error:
            raise self._garbled() from error
        if status in _OK:
            return True
        if status < _FINAL and status != _SWITCHING:
            return False
        # Its own words are worth showing, unless it may have been told a secret to repeat in them.
        words = b"" if self.proxy.authorization else phrase
        said = f"{status} {redact_foreign(words.decode('latin-1'), _PHRASE)}".strip()
        raise self._refused(status, said, head)

    def _garbled(self) -> UpstreamConnectFailed:
        return UpstreamConnectFailed(
            f"What the egress proxy {self.proxy} answered is not HTTP/1.1.",
            hint=f"Check the port, and whether {self.proxy} is an HTTP proxy.",
        )

    def _refused(self, status: int, said: str, head: bytes) -> UpstreamConnectFailed:
        """Return what a final status means that opens no tunnel; `said` is how it is shown."""
        proxy, where = f"The egress proxy {self.proxy}", self.authority
        if status in _AUTHENTICATE:
            return self._unauthenticated(status, head)
        if status == _FORBIDDEN:
            return UpstreamConnectFailed(
                f"{proxy} does not let connections to {where} through ({said}).",
                hint=f"Have {where} allowed there; or exempt it by NO_PROXY or egress_proxy: off.",
            )
        if status in _SERVER_ERROR and status not in _UNSUPPORTED:
            return UpstreamConnectFailed(
                f"{proxy} could not connect to {where} ({said}).",
                hint="Look at its log: it is the egress proxy that cannot reach the upstream.",
            )
        if status in _UNSUPPORTED or status in _REDIRECT:
            return UpstreamConnectFailed(
                f"{proxy} does not take CONNECT to {where} ({said}).",
                hint=f"Check whether {self.proxy} is an HTTP proxy, and its port.",
            )
        return UpstreamConnectFailed(
            f"{proxy} opened no tunnel to {where} ({said}).", hint="Look at its log."
        )

    def _unauthenticated(self, status: int, head: bytes) -> UpstreamConnectFailed:
        """Explain a 407 (RFC 9110, 15.5.8) or 401 by the schemes that it names."""
        fields = head[head.find(b"\r\n") : -len(_HEAD_END)]
        named = [_SCHEME.match(each) for each in values(fields, b"proxy-authenticate")]
        schemes = [each[0].decode("ascii") for each in named[:_MOST_SCHEMES] if each is not None]
        where = self.proxy.variable or "egress_proxy"
        if schemes and "basic" not in (scheme.lower() for scheme in schemes):
            return UpstreamConnectFailed(
                f"The egress proxy {self.proxy} asks for credentials of another kind than Basic"
                f" ({status}, {', '.join(schemes)}).",
                hint="Only Basic is supported: have it accept that, or let this host through.",
            )
        if self.proxy.authorization:
            return UpstreamConnectFailed(
                f"The egress proxy {self.proxy} does not accept the credentials ({status}).",
                hint=f"Correct user and password in {where}; reserved letters are written as %XX.",
            )
        return UpstreamConnectFailed(
            f"The egress proxy {self.proxy} asks for credentials ({status}).",
            hint=f"Write http://USER:PASSWORD@{self.proxy.authority}"
            f" as {where}; reserved letters as %XX.",
        )


@final
class Tunnel(asyncio.Protocol):
    """Opens the tunnel, and leaves the transport to the protocol that is spoken inside."""

    __slots__ = ("_connect", "_inside", "_opened", "_transport")

    def __init__(self, connect: Connect, inside: asyncio.Protocol | TlsTransport) -> None:
        self._connect = connect
        self._inside = inside
        self._transport: asyncio.Transport = UNCONNECTED
        self._opened: asyncio.Future[ProxyError | None] = asyncio.get_running_loop().create_future()

    async def opened(self) -> None:
        """Wait until the protocol inside is connected.

        Whoever is cancelled here has to abort the transport.

        Raises:
            UpstreamConnectFailed: the proxy opens no tunnel; the transport is closed.
        """
        error = await self._opened
        if error is not None:
            raise error

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the tunnel."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._connect.request())

    def data_received(self, data: bytes) -> None:
        """Take a segment of the answer."""
        try:
            rest = self._connect.take(data)
        except ProxyError as error:
            self._fail(error)
            return
        if rest is not None:
            self._hand_over(rest)

    def eof_received(self) -> bool:
        """Take the FIN: nothing more can come."""
        self._fail(self._connect.ended())
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of the connection."""
        self._fail(self._connect.ended())

    def _hand_over(self, rest: bytes) -> None:
        """Connect the protocol inside, and give it what has come behind the head."""
        transport, inside = self._transport, self._inside
        transport.set_protocol(inside)
        inside.connection_made(transport)
        if rest and not transport.is_closing():
            if isinstance(inside, TlsTransport):
                inside.take(rest)
            else:
                inside.data_received(rest)
        if not self._opened.done():
            self._opened.set_result(None)

    def _fail(self, error: ProxyError) -> None:
        if not self._opened.done():
            self._opened.set_result(error)
        self._transport.abort()
