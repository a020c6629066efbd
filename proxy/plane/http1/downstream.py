"""HTTP/1.x towards the caller: one connection, one exchange after the other."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import socket
import struct
from typing import ClassVar, cast

from proxy.errors import HeadersTooLarge, ProxyError, RequestMalformed
from proxy.plane.codec import RequestSink
from proxy.plane.head import RequestHead, ResponseHead
from proxy.plane.host import Host
from proxy.plane.http1.chunked import ChunkedBody, ChunkedError, chunk, last_chunk
from proxy.plane.http1.heads import parse_request
from proxy.plane.http1.phrases import status_line

log = logging.getLogger("proxy.plane")

HEAD_TIMEOUT = 30.0  # Seconds from the first byte of a head to its last: CONTRACT, data path.
IDLE_TIMEOUT = 600.0  # Seconds that a caller may keep a connection without a request.
LINGER_TIMEOUT = 2.0  # Seconds to read on after an early response, so that no RST destroys it.
CLOSE_TIMEOUT = 5.0  # Seconds that what is written may take to leave a closed connection.
LINGER_BYTES = 256 * 1024  # And how much: closing is cheaper for both sides beyond that.
PIPELINE_BYTES = 64 * 1024  # Bytes of further requests that are read before reading pauses.

_HEAD_END = b"\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST.


class Phase(enum.IntEnum):
    """What the next bytes from the caller are."""

    HEAD = 0
    LENGTH = 1
    CHUNKED = 2
    NEXT = 3
    """The request is whole; what comes belongs to later ones and waits."""
    TUNNEL = 4
    DISCARD = 5
    """The last response was sent; what still comes is read only to be thrown away."""
    CLOSED = 6


# Plain names for the hot path: see `proxy.plane.state`.
HEAD, LENGTH, CHUNKED, NEXT, TUNNEL, DISCARD, CLOSED = Phase


class Http1Downstream(asyncio.Protocol):
    """The downstream codec for HTTP/1.0 and HTTP/1.1 (see `proxy.plane.codec`)."""

    protocol = "h1"

    __slots__ = (
        "_body", "_chunk", "_delimited", "_exchange", "_host", "_keep_alive", "_linger", "_out",
        "_partial", "_paused", "_phase", "_remaining", "_request_ended", "_searched", "_taking",
        "_transport", "_version", "deadline",
    )  # fmt: skip

    def __init__(self, host: Host) -> None:
        # For the life of the connection
        self._host = host
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._partial = b""
        self._searched = 0
        """Bytes of an incomplete head that hold no end; not 0 while a head is under way."""
        self._out: list[bytes] = []
        self._taking = False
        self._paused = False
        self.deadline = math.inf
        # For one exchange
        self._phase = HEAD
        self._exchange: RequestSink | None = None
        self._version = b"1.1"
        self._keep_alive = True
        self._remaining = 0
        self._body: ChunkedBody | None = None
        self._request_ended = True
        self._chunk = False
        self._delimited = False
        self._linger = LINGER_BYTES

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        sweeper = self._host.sweeper
        self.deadline = sweeper.clock() + IDLE_TIMEOUT
        sweeper.add(self)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Take one segment."""
        if self._partial:
            data = self._partial + data
            self._partial = b""
        self._take(data)

    def eof_received(self) -> bool:
        """Take the caller's FIN: it has gone, but in a tunnel it may still listen."""
        if self._exchange is not None and self._phase is TUNNEL:
            self._exchange.request_end(b"")
            return True
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the interface)
        """Take the end of the connection."""
        self._gone()
        self._phase = CLOSED
        self._host.sweeper.discard(self)
        self._host.closed(self)

    def pause_writing(self) -> None:
        """Pass on that the caller reads slowly."""
        if self._exchange is not None:
            self._exchange.pause_response()

    def resume_writing(self) -> None:
        """Pass on that it has caught up."""
        if self._exchange is not None:
            self._exchange.resume_response()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002 (the interface)
        """Act on a head that does not end, an idle caller, or one that reads no answer."""
        if self._phase is HEAD and self._searched:
            detail = f"The request head was not complete within {HEAD_TIMEOUT:g} s."
            self._refuse(RequestMalformed(detail))
            return
        self._close()
        self._transport.abort()

    # --- the exchange's side -------------------------------------------------------------

    def write_informational(self, head: ResponseHead) -> None:
        """Send a 1xx; RFC 9110, 15.2: not to an HTTP/1.0 caller."""
        if self._version == b"1.1":
            self._out.append(b"%b%b\r\n\r\n" % (status_line(head.status, head.phrase), head.fields))
            self.flush()

    def write_head(self, head: ResponseHead) -> None:
        """Send the final head; see `DownstreamCodec`."""
        if self._host.draining:
            self._keep_alive = False
        extra = b""
        if head.status == 101:  # noqa: PLR2004 (RFC 9110, 15.2.2)
            self._phase = TUNNEL
            self._keep_alive = False
            extra = b"\r\nConnection: Upgrade\r\nUpgrade: " + head.switching
        else:
            if head.length is None and not head.bodyless:
                if self._version == b"1.1":
                    self._chunk = True
                    extra = b"\r\nTransfer-Encoding: chunked"
                else:
                    self._delimited = True
                    self._keep_alive = False
            if not self._keep_alive:
                extra += b"\r\nConnection: close"
            elif self._version == b"1.0":
                extra += b"\r\nConnection: keep-alive"
        self._out.append(
            b"%b%b%b\r\n\r\n" % (status_line(head.status, head.phrase), head.fields, extra)
        )

    def write_data(self, data: bytes) -> None:
        """Send a part of the body; see `DownstreamCodec`."""
        self._out.append(chunk(data) if self._chunk else data)

    def write_end(self, trailers: bytes) -> None:
        """End the response; see `DownstreamCodec`.  May begin the next exchange."""
        if self._phase is TUNNEL:
            self.flush()
            self._transport.write_eof()
            return
        if self._chunk:
            self._out.append(last_chunk(trailers))
        self.flush()
        self._exchange = None
        if self._request_ended:
            self._next()
        else:
            self._begin_linger()

    def flush(self) -> None:
        """Write what was collected, as one piece."""
        out = self._out
        if not out or self._phase is CLOSED:
            return
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def abort(self) -> None:
        """Cut the response so that the caller sees it."""
        if self._phase is CLOSED:
            return
        self.flush()
        self._exchange = None
        if self._delimited or self._phase is TUNNEL or self._version == b"1.0":
            # A FIN would be the neat end of a body that only the close delimits.
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._close()
            self._transport.abort()
        else:
            self._close()

    def pause_request(self) -> None:
        """Stop reading."""
        if not self._paused and self._phase is not CLOSED:
            self._paused = True
            self._transport.pause_reading()

    def resume_request(self) -> None:
        """Go on reading."""
        if self._paused and self._phase is not CLOSED:
            self._paused = False
            self._transport.resume_reading()

    def shut(self) -> None:
        """End the connection because the process ends."""
        self._close()

    def close(self) -> None:
        """End a tunnel both of whose halves have ended."""
        self._exchange = None
        self._close()

    # --- reading -------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Consume one segment; every phase takes what is its own and leaves the rest."""
        self._taking = True
        try:
            while data:
                data = self._STEPS[self._phase](self, data)
        except ProxyError as error:
            self._refuse(error)
        except Exception:
            log.exception("A bug in the HTTP/1.1 codec; the connection is closed.")
            self._gone()
            self._close()
        finally:
            self._taking = False
        if self._exchange is not None:
            self._exchange.request_flush()

    def _take_head(self, data: bytes) -> bytes:
        if not self._searched and data.startswith(b"\r\n"):
            # RFC 9112, 2.2: an empty line before the request line is ignored.
            data = data[2:]
        end = data.find(_HEAD_END, self._searched)
        if end < 0:
            self._await_head(data)
            return b""
        end += len(_HEAD_END)
        self._searched = 0
        self._check_size(end)
        head = parse_request(data[:end])
        self._begin(head)
        exchange = self._exchange = self._host.admit(self, head)
        # May answer at once: afterwards this connection can be at its next request.
        exchange.start(ended=self._request_ended)
        return data[end:]

    def _await_head(self, data: bytes) -> None:
        """Keep an incomplete head; it has to be complete within `HEAD_TIMEOUT` of its begin."""
        self._check_size(len(data))
        if not self._searched:
            self.deadline = self._host.sweeper.clock() + HEAD_TIMEOUT
        self._partial = data
        # A lone CR may be half of the empty line that is ignored: nothing is searched yet.
        self._searched = 0 if data in (b"", b"\r") else max(len(data) - 3, 1)

    def _check_size(self, size: int) -> None:
        limit = self._host.head_limit
        if size > limit:
            raise HeadersTooLarge(f"The request head is larger than {limit} bytes.")

    def _begin(self, head: RequestHead) -> None:
        """Enter the phase of what follows the head."""
        self.deadline = math.inf
        self._version = head.version
        self._keep_alive = head.keep_alive
        self._chunk = self._delimited = self._request_ended = False
        if head.chunked:
            self._phase = CHUNKED
            self._body = ChunkedBody(self._host.head_limit)
        elif head.length:
            self._phase = LENGTH
            self._remaining = head.length
        else:
            self._phase = NEXT
            self._request_ended = True

    def _take_length(self, data: bytes) -> bytes:
        size = len(data)
        rest = b""
        if size > self._remaining:
            data, rest = data[: self._remaining], data[self._remaining :]
            size = self._remaining
        self._remaining -= size
        self._deliver(data)
        if self._remaining == 0:
            self._end_request(b"")
        return rest

    def _take_chunked(self, data: bytes) -> bytes:
        body = cast("ChunkedBody", self._body)
        try:
            part = body.feed(data)
        except ChunkedError as error:
            raise RequestMalformed(f"The chunked body is malformed: {error}.") from None
        if part:
            self._deliver(part)
        if body.done:
            self._body = None
            self._end_request(body.trailers)
        return body.rest

    def _deliver(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.request_data(data)
        else:
            self._discard(len(data))

    def _end_request(self, trailers: bytes) -> None:
        if self._phase in (DISCARD, CLOSED):
            return
        self._request_ended = True
        self._phase = NEXT
        if self._exchange is not None:
            self._exchange.request_end(trailers)
        else:
            self._next()

    # --- ends ----------------------------------------------------------------------------

    def _next(self) -> None:
        """Go on to the next request on this connection, or end it."""
        if not self._keep_alive:
            self._close()
            return
        self._phase = HEAD
        self._linger = LINGER_BYTES
        self.deadline = self._host.sweeper.clock() + IDLE_TIMEOUT
        self.resume_request()
        if self._partial and not self._taking:
            data, self._partial = self._partial, b""
            self._take(data)

    def _begin_linger(self) -> None:
        """The response ended before its request did: read on a little, then close."""
        self.deadline = self._host.sweeper.clock() + LINGER_TIMEOUT
        self.resume_request()
        if not self._keep_alive:
            self._phase = DISCARD
            if self._transport.can_write_eof():
                self._transport.write_eof()

    def _keep(self, data: bytes) -> bytes:
        """Let further requests wait until this one is answered."""
        self._partial = data
        if len(data) > PIPELINE_BYTES:
            self.pause_request()
        return b""

    def _tunnel(self, data: bytes) -> bytes:
        if self._exchange is not None:
            self._exchange.request_data(data)
        return b""

    def _drop(self, data: bytes) -> bytes:
        if self._phase is DISCARD:
            self._discard(len(data))
        return b""

    # What takes a segment, by phase.
    _STEPS: ClassVar = (_take_head, _take_length, _take_chunked, _keep, _tunnel, _drop, _drop)

    def _discard(self, size: int) -> None:
        self._linger -= size
        if self._linger < 0:
            self._close()

    def _refuse(self, error: ProxyError) -> None:
        """Answer bytes that are no request, or whose rest is none, and close."""
        self._keep_alive = False
        if self._exchange is not None:
            self._exchange.broken(error)
        elif self._phase is HEAD:
            self._version = b"1.1"
            self._chunk = self._delimited = self._request_ended = False
            self._host.reject(self, error)
        else:
            self._close()

    def _gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()

    def _close(self) -> None:
        if self._phase is not CLOSED:
            self._phase = CLOSED
            self.deadline = self._host.sweeper.clock() + CLOSE_TIMEOUT
            self._transport.close()
