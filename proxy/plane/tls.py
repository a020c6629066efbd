"""TLS towards an upstream, between its codec and a TCP transport.

OpenSSL en- and decrypts in memory; the loop's own transport reads, writes and buffers.  The
loop's TLS does the same, but raises and catches for each response that nothing is left to read,
and has a read buffer of 256 KiB for each connection: a twelfth of what an exchange costs.

What comes is read into a buffer that all connections lend, for bodies: the loop would make bytes of
it first, and OpenSSL copies it anyway.  To the codec it goes as `bytes`, which cost an answer less
than a buffer that is lent, filled and sliced.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, cast, final

from proxy.plane.codec import UNCONNECTED
from proxy.plane.http1.turns import SEGMENT_BYTES
from proxy.plane.unexpected import is_ours
from proxy.plane.unread import unread

_RECORD_BYTES: Final = 16 * 1024
"""The largest record's text (RFC 8446, 5.1): nothing of one is left over."""

_PIECE_BYTES: Final = 256 * 1024
"""How much text is delivered at once, the last record apart."""


# What the kernel gives at once.  One for the process: OpenSSL has copied it before the callback
# returns.
_SEALED: Final = memoryview(bytearray(256 * 1024))

# Takes the codec's place at the end: codec and transport refer to each other, and what OpenSSL
# keeps for a connection is too much to wait for the garbage collector.
_NOBODY: Final = asyncio.Protocol()


# A class that mypyc compiles never gives back what its base keeps in a slot of its own: left to
# itself, asyncio's would keep a dictionary there for each connection that ever was.
_NOTHING: Final[dict[str, Any]] = {}


@final
class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """A client's TLS connection: the codec's transport, and the TCP transport's protocol."""

    __slots__ = (
        "_closed", "_codec", "_decrypt", "_drain", "_encrypt", "_error", "_feed", "_incoming",
        "_loop", "_outgoing", "_paused", "_resting", "_serving", "_shaken", "_tcp",
        "_tls", "has_unread",
    )  # fmt: skip

    def __init__(self, context: ssl.SSLContext, host: str, codec: asyncio.Protocol) -> None:
        """`host` is the name that the certificate must be for, and what SNI says (RFC 6066, 3)."""
        super().__init__(_NOTHING)
        self._codec = codec
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # Looked up once: each runs for every exchange.
        self._feed = self._incoming.write
        self._drain = self._outgoing.read
        self._encrypt = self._tls.write
        self._decrypt = self._tls.read
        self._loop = asyncio.get_running_loop()
        self._shaken: asyncio.Future[Exception | None] = self._loop.create_future()
        """Done when the handshake is; or why it failed."""
        self._tcp: asyncio.Transport = UNCONNECTED
        self._serving = False
        """Whether the codec is connected."""
        self._closed = False
        """Whether nothing is delivered and nothing written any more."""
        self._paused = False
        self._resting = False
        """Whether it reads on in the next turn of the loop."""
        self.has_unread = False
        """Whether something has come that the codec has not got: it was paused, say."""
        self._error: ssl.SSLError | None = None

    async def ready(self) -> None:
        """Wait until the handshake is done and the codec connected.

        Raises:
            OSError: it failed (`ssl.SSLError` among them), or the connection broke.
        """
        error = await self._shaken
        if error is not None:
            raise error

    # --- the codec's side ----------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it: as one record, up to 16 KiB."""
        if self._closed:
            return
        try:
            self._encrypt(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._tcp.write(self._drain())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send them; large ones are not copied, each is a record or more of its own."""
        if self._closed:
            return
        try:
            for data in list_of_data:
                self._encrypt(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._tcp.write(self._drain())

    def can_write_eof(self) -> bool:
        """Tell that one direction cannot be ended alone: few servers expect it (RFC 8446, 6.1)."""
        return False

    def close(self) -> None:
        """Say close_notify behind what was written, and close."""
        if self._closed:
            return
        self._closed = True
        # Its exception says that the far end's close_notify has not come; nobody needs to wait
        # for that (RFC 8446, 6.1).
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._tcp.close()

    def abort(self) -> None:
        """Close without close_notify, so that the far end sees a cut."""
        self._closed = True
        self._tcp.abort()

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._closed or self._tcp.is_closing()

    def pause_reading(self) -> None:
        """Deliver nothing, and read nothing."""
        self._paused = True
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        """Go on, not within this call: first with what has come already."""
        self._paused = False
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.has_unread:
            self._deliver()
        self._read_on()

    def _read_on(self) -> None:
        if not (self._paused or self._resting or self._closed):
            self._tcp.resume_reading()

    def _end_turn(self) -> None:
        """Read nothing more in this turn of the loop; see `proxy.plane.http1.turns`."""
        if not (self._resting or self._closed):
            self._resting = True
            self._tcp.pause_reading()
            self._loop.call_soon(self._end_rest)

    def _end_rest(self) -> None:
        self._resting = False
        self._read_on()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait for the far end to read."""
        return self._tcp.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio calls `ssl_object`; anything else is the TCP transport's."""
        return self._tls if name == "ssl_object" else self._tcp.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the codec."""
        return self._codec

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another codec take over."""
        self._codec = cast("asyncio.Protocol", protocol)

    # --- the TCP transport's side --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the TCP transport and send the first handshake message."""
        self._tcp = cast("asyncio.Transport", transport)
        self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (asyncio's signature)
        """Lend the process's read buffer."""
        return _SEALED

    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` from the buffer."""
        self.take(_SEALED[:nbytes])
        if nbytes >= SEGMENT_BYTES:
            self._end_turn()

    def take(self, sealed: bytes | memoryview) -> None:
        """Take what has come, wherever it was read."""
        self._feed(sealed)
        if self._serving:
            self._deliver()
        else:
            self._shake_hands()

    def eof_received(self) -> bool:
        """Take the FIN: after close_notify nothing is left, else the connection is broken.

        RFC 9112, 9.8: without close_notify somebody on the way may have sent it.
        """
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection, and first what came before it."""
        # Where it was lost by an exception of ours, what was read last is missing.
        if self._serving and not (self._closed or is_ours(exc)):
            for sealed in unread(self._tcp):
                self._feed(sealed)
                self._paused = False  # Now or never.
                self._deliver()
        self._closed = True
        self._lose(exc)

    def pause_writing(self) -> None:
        """Pass on that the far end reads slowly."""
        self._codec.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it has caught up."""
        self._codec.resume_writing()

    # --- OpenSSL -------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        if self._closed:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        self._serving = True
        self._codec.connection_made(self)
        if not self._shaken.done():
            self._shaken.set_result(None)
        self._deliver()

    def _deliver(self) -> None:
        """Decrypt what has come, and hand it over."""
        while not (self._paused or self._closed):
            try:
                text = self._decrypt(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                # Nothing, a part of a record, or one that is OpenSSL's own business.
                self.has_unread = False
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not text:
                self._end()
                return
            # Asked, for OpenSSL's answer to one read too many is an exception: 2 us.
            if self._incoming.pending:
                text = self._gather(text)
            else:
                self.has_unread = False
            self._codec.data_received(text)
            if not self.has_unread:
                break
            if self._error is not None and not self._closed:
                self._fail(self._error)
                return
        if self._outgoing.pending and not self._closed:
            self._flush()  # The answer to a key update, say.

    def _gather(self, text: bytes) -> bytes:
        """Decrypt further records behind the first one's `text`; return all that there is then.

        What stops it, close_notify or an error, waits until what came before is delivered.
        """
        texts, size = [text], len(text)
        self.has_unread = True
        try:
            while size < _PIECE_BYTES and self._incoming.pending:
                text = self._decrypt(_RECORD_BYTES)
                if not text:
                    break
                texts.append(text)
                size += len(text)
            else:
                self.has_unread = self._incoming.pending > 0
        except ssl.SSLWantReadError:
            self.has_unread = False
        except ssl.SSLError as error:
            self._error = error
        return b"".join(texts)

    def _end(self) -> None:
        """Take close_notify: TLS ends both directions at once, as far as we go."""
        self._codec.eof_received()
        self.close()

    def _flush(self) -> None:
        sealed = self._drain()
        if sealed:
            self._tcp.write(sealed)

    def _fail(self, error: ssl.SSLError) -> None:
        """Give up, with OpenSSL's alert if nothing is in its way."""
        if self._tcp.get_write_buffer_size():
            self.abort()
        else:
            self._closed = True
            self._flush()
            self._tcp.close()
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        """Tell whoever is there that it is over, once."""
        if self._serving:
            self._serving = False
            codec, self._codec = self._codec, _NOBODY
            codec.connection_lost(error)
        if not self._shaken.done():
            self._shaken.set_result(error or ConnectionAbortedError())
