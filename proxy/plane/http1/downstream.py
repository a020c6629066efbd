"""HTTP/1.x towards the caller: one connection, one exchange after the other.

Requests are read by phase: a head, a body by its length or in chunks, the bytes of a tunnel.  What
comes while an exchange is under way waits for its end (pipelining), and what comes after the last
response is thrown away.  Responses are collected and framed as this caller can read them.
"""

from __future__ import annotations

import asyncio
import enum
import math
import re
from contextlib import suppress
from typing import Final, cast, final

from proxy.errors import HeadersTooLarge, ProxyError, RequestMalformed
from proxy.plane import unexpected
from proxy.plane.codec import Host, RequestSink
from proxy.plane.head import RequestHead, ResponseHead
from proxy.plane.http1.chunked import LARGE, ChunkedBody, chunk, framed, last_chunk
from proxy.plane.http1.heads import Recall, check_request, status_line
from proxy.plane.http1.turns import SEGMENT_BYTES, STEPS, Turns
from proxy.plane.http2.share import CONNECTION_SECONDS
from proxy.plane.leaving import LINGER_TIMEOUT, Leaving, send_fin

HEAD_TIMEOUT: Final = 30.0  # Seconds from the first byte of a head to its last.
IDLE_TIMEOUT: Final = 600.0  # Seconds that a caller may keep a connection without a request.
# Of a request that was answered early: reading more than that is waste.
REST_BYTES: Final = 256 * 1024
PIPELINE_BYTES: Final = 64 * 1024  # Bytes of further requests that are read before reading pauses.

_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"

_LENGTH: Final = re.compile(rb"\r\n(?i:content-length):")


class Phase(enum.IntEnum):
    """What the next bytes from the caller are."""

    HEAD = 0
    LENGTH = 1
    """A body of as many bytes as its head says."""
    CHUNKED = 2
    NEXT = 3
    """The request is whole; what comes belongs to later ones and waits."""
    TUNNEL = 4
    DISCARD = 5
    """The last response was sent; what still comes is read only to be thrown away."""
    CLOSED = 6


# Plain names for the hot path: see `proxy.plane.state`.
HEAD: Final[Phase] = Phase.HEAD
LENGTH: Final[Phase] = Phase.LENGTH
CHUNKED: Final[Phase] = Phase.CHUNKED
NEXT: Final[Phase] = Phase.NEXT
TUNNEL: Final[Phase] = Phase.TUNNEL
DISCARD: Final[Phase] = Phase.DISCARD
CLOSED: Final[Phase] = Phase.CLOSED


# Microseconds of a turn that is used up, of one that had a full segment and no more to do, and of
# one in which something came on a connection on which nothing was answered so far.
_USED_UP: Final = 500.0
_FULL_SEGMENT: Final = 100.0
_FIRST_SEGMENT: Final = 100.0
# Bytes that are too few to be the chunks of a whole turn.
_LITTLE_BYTES: Final = 1024


@final
class Http1Downstream(Turns, asyncio.Protocol):
    """The downstream codec for HTTP/1.0 and HTTP/1.1 (see `proxy.plane.codec`)."""

    protocol = "h1"

    __slots__ = (
        "_body", "_choked", "_chunk", "_delimited", "_exchange", "_expects", "_has_large", "_host",
        "_is_new", "_keep_alive", "_leaving", "_out", "_phase", "_recall", "_remaining",
        "_request_ended", "_rest", "_searched", "_taking", "_version", "deadline", "work",
    )  # fmt: skip

    def __init__(self, host: Host) -> None:
        super().__init__()
        # For the life of the connection
        self._host = host
        self.work = 0.0
        """Microseconds that its latest turn has taken, about; 0 if it was not used up."""
        self._is_new = True
        """Whether nothing was answered on it so far."""
        self._recall = Recall(on_path=host.on_path)
        self._searched = 0
        """Bytes of an incomplete head that hold no end."""
        self._taking = False
        """Whether a segment is being taken: whoever else would go on with the next leaves it."""
        self._choked = False
        """Whether the caller does not read what was written."""
        self._leaving: Leaving | None = None
        self._out: list[bytes] = []
        """What of a response is not written yet."""
        self._has_large = False
        """Whether a large chunk is in it."""
        self.deadline = math.inf
        # For one exchange: the request
        self._phase = HEAD
        self._exchange: RequestSink | None = None
        self._version = b"1.1"
        self._expects = False
        """Whether the caller may be waiting for a 100 before it sends the body."""
        self._remaining = 0
        self._body: ChunkedBody | None = None
        self._request_ended = True
        self._rest = 0
        """Bytes of a request that were thrown away because it was answered."""
        # And its response
        self._keep_alive = True
        self._chunk = False
        """Whether it is framed in chunks."""
        self._delimited = False
        """Whether only the close tells the caller where it ends."""

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast("asyncio.Transport", transport)
        sweeper = self._host.sweeper
        self.deadline = sweeper.clock() + IDLE_TIMEOUT
        sweeper.add(self)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Take a segment; what ends within a request's head or framing is kept for the next."""
        size = len(data)
        if self._partial:
            data = self._partial + data
            self._partial = b""
        if self._is_new or self.work:
            if self._host.share.is_over:
                self._partial = data
                self._end_turn()
                return
            self.work = 0.0
            if self._is_new:
                # Of many that come at once, not all in one turn, before those who are known.
                self._host.share.spend(_FIRST_SEGMENT)
        self._take(data)
        if size >= SEGMENT_BYTES:
            self._end_turn()
        if self._resting:
            self._host.share.spend(self.work)

    def eof_received(self) -> bool:
        """Take the caller's FIN: it has gone, but in a tunnel it may still listen."""
        if self._exchange is not None and self._phase is TUNNEL:
            self._exchange.request_end(b"")
            return True
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of the connection."""
        self._gone()
        self._phase = CLOSED
        self._host.sweeper.discard(self)
        if self._leaving is not None:
            self._leaving.over()
        self._host.closed(self)

    def pause_writing(self) -> None:
        """Pass on that the caller reads slowly."""
        self._choked = True
        if self._exchange is not None:
            self._exchange.pause_response()

    def resume_writing(self) -> None:
        """Pass on that it has caught up; a request that waited for that begins."""
        self._choked = False
        if self._exchange is not None:
            self._exchange.resume_response()
        elif self._phase is NEXT:
            self._next()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002 (the sweeper's signature)
        """Act on a head that does not end, on a rest that does not, or on an idle caller."""
        if self._phase is HEAD and self._partial.strip(_LINE_END):
            detail = f"The request head was not complete within {HEAD_TIMEOUT:g} s."
            self._refuse(RequestMalformed(detail))
        elif self._phase is LENGTH or self._phase is CHUNKED:
            self._leave()
        else:
            self.shut()

    # --- the exchange's side -------------------------------------------------------------

    def write_informational(self, head: ResponseHead) -> None:
        """Send a 1xx; RFC 9110, 15.2: not to an HTTP/1.0 caller."""
        if self._version == b"1.1":
            if head.status == 100:  # noqa: PLR2004 (RFC 9110, 10.1.1)
                self._expects = False
            self._out.append(b"%b%b\r\n\r\n" % (status_line(head.status, head.phrase), head.fields))
            self.flush()

    def write_head(self, head: ResponseHead) -> None:
        """Send the final head; see `DownstreamCodec`."""
        if head.status == 101:  # noqa: PLR2004 (RFC 9110, 15.2.2)
            self._begin_tunnel(head)
            return
        if self._host.draining or not (self._request_ended or self._rest_is_welcome()):
            self._keep_alive = False
        self._add_head(head)

    def _add_head(self, head: ResponseHead) -> None:
        """Add the final head with the fields that are about this connection."""
        extra = b""
        if head.length is None and not head.bodyless:
            if self._version == b"1.1":
                self._chunk = True
                extra = b"\r\nTransfer-Encoding: chunked"
            else:
                self._delimited = True
                self._keep_alive = False
        elif head.length == 0 and not (head.bodyless or _LENGTH.search(head.fields)):
            # RFC 9112, 6.3: without it the body would go on until the connection is closed. Only
            # HTTP/1.1 has to be told: in HTTP/2, and in a refusal of ours, the head can be all.
            extra = b"\r\nContent-Length: 0"
        extra += self._persistence()
        self._out.append(
            b"%b%b%b\r\n\r\n" % (status_line(head.status, head.phrase), head.fields, extra)
        )

    def _persistence(self) -> bytes:
        """Return the field that tells whether the connection persists, where one must."""
        if not self._keep_alive:
            return b"\r\nConnection: close"
        return b"\r\nConnection: keep-alive" if self._version == b"1.0" else b""

    def _rest_is_welcome(self) -> bool:
        """Tell whether a request that is answered early may be read to its end.

        RFC 9110, 10.1.1: who asked for a 100 and got a final status may leave the body out; what
        it sends next could then be taken for that body.
        """
        return not self._expects and self._remaining <= REST_BYTES

    def _begin_tunnel(self, head: ResponseHead) -> None:
        """Switch protocols with a 101 (RFC 9110, 15.2.2)."""
        if self._phase is CLOSED:
            return
        self._phase = TUNNEL
        self._keep_alive = False
        self._out.append(
            b"%b%b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
            % (status_line(101, head.phrase), head.fields, head.switching)
        )
        if self._partial:
            data, self._partial = self._partial, b""
            self._take(data)
        self.resume_request()

    def write_data(self, data: bytes) -> None:
        """Send a part of the body; see `DownstreamCodec`."""
        if not self._chunk:
            self._out.append(data)
        elif len(data) < LARGE:
            self._out.append(chunk(data))
        else:
            self._out += framed(data)
            self._has_large = True

    def flush(self) -> None:
        """Write what was collected, as one piece."""
        out = self._out
        if not out or self._phase is CLOSED:
            return
        if self._has_large:
            # Joined, it would be copied once more, into memory that is new each time.
            self._has_large = False
            self._transport.writelines(out)
        else:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def write_end(self, trailers: bytes) -> None:
        """End the response; see `DownstreamCodec`.  May begin the next exchange."""
        if self._phase is TUNNEL:
            self.flush()
            send_fin(self._transport)
            return
        if self._chunk:
            self._out.append(last_chunk(trailers))
        self.flush()
        self._exchange = None
        if self._request_ended:
            self._next()
        else:
            self._await_rest()

    def write_whole(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole answer; see `DownstreamCodec`.  May begin the next exchange."""
        if self._host.draining:
            self._keep_alive = False
        if head.length is None and not head.bodyless:
            self._write_parts(head, body)
        elif self._phase is not CLOSED:
            extra = b"" if self._keep_alive and self._version == b"1.1" else self._persistence()
            line = status_line(head.status, head.phrase)
            self._transport.write(b"%b%b%b\r\n\r\n%b" % (line, head.fields, extra, body))
        self._exchange = None
        self._next()

    def _write_parts(self, head: ResponseHead, body: bytes) -> None:
        """Write a whole answer whose length was not said."""
        self._add_head(head)
        if body:
            self.write_data(body)
        if self._chunk:
            self._out.append(last_chunk(b""))
        self.flush()

    def abort(self) -> None:
        """Cut the response so that the caller sees it."""
        if self._phase is CLOSED:
            return
        with suppress(MemoryError):  # Then a part more is cut.
            self.flush()
        self._exchange = None
        # A FIN would be the neat end of a body that only the close delimits.
        visible = not (self._delimited or self._phase is TUNNEL or self._version == b"1.0")
        end = self._end()
        if visible:
            end.close()
        else:
            end.cut()

    def close(self) -> None:
        """End a tunnel both of whose halves have ended."""
        self._exchange = None
        self.shut()

    def pause_request(self) -> None:
        """Read no more of the caller, so that TCP's window stops it (RFC 9293, 3.8.6)."""
        self._pause()

    def resume_request(self) -> None:
        """Read on, what came meanwhile first."""
        self._resume()

    # --- the listener's side -------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None

    def drain(self) -> None:
        """Do nothing yet: the next response will say so (RFC 9112, 9.6)."""

    def shut(self) -> None:
        """End the connection without reading on: the process ends, or nobody is there."""
        if self._phase is not CLOSED:
            self._end().close()

    @property
    def is_closed(self) -> bool:
        """Whether nothing is read or written any more."""
        return self._phase is CLOSED

    # --- reading -------------------------------------------------------------------------

    def take_turn(self) -> None:
        """Go on with what was too much for the turn before; see `proxy.plane.http2.share`."""
        self.work = 0.0
        self._host.share.spend(_USED_UP if len(self._partial) > _LITTLE_BYTES else _FIRST_SEGMENT)
        self._go_on()

    def _ask_for_turn(self) -> None:
        self._host.share.wait(self)
        self.work = _USED_UP if self._partial else _FULL_SEGMENT

    def _take(self, data: bytes) -> None:
        """Consume one segment; every phase takes what is its own and leaves the rest."""
        if self._resting:
            self._partial = data
            return
        self._taking = True
        self._share = STEPS
        clock = self._host.sweeper.clock
        ends = 0.0
        try:
            while data and self._share:
                if self._share < STEPS:
                    now = clock()
                    ends = ends or now + CONNECTION_SECONDS
                    if now >= ends:
                        break
                self._share -= 1
                data = self._take_head(data) if self._phase is HEAD else self._take_body(data)
            if data:
                self._partial = data
                self._end_turn()
        except ProxyError as error:
            self._host.share.spend(_USED_UP)
            self._refuse(error)
        except Exception as bug:  # noqa: BLE001 (it ends this connection, whatever it is)
            self._collapse(bug)
        finally:
            self._taking = False
        # The end of a request has flushed what there was of it.
        if self._phase is not NEXT and self._exchange is not None:
            self._exchange.request_flush()

    def _take_head(self, data: bytes) -> bytes:
        # RFC 9112, 2.2: an empty line before the request line is ignored; one, not any number.
        start = 2 if data.startswith(_LINE_END) else 0
        end = data.find(_HEAD_END, self._searched or start)
        if end < 0:
            self._await_head(data)
            return b""
        end += len(_HEAD_END)
        self._searched = 0
        if end > self._host.head_limit:
            self._check_size(end)
        head = self._recall.read(data[start:end])
        self._begin(head)
        exchange = self._exchange = self._host.admit(self, head)
        # May answer at once: afterwards this connection can be at its next request.
        exchange.start(ended=self._request_ended)
        return data[end:]

    def _await_head(self, data: bytes) -> None:
        """Keep an incomplete head; it must be complete within `HEAD_TIMEOUT` of its first byte."""
        self._check_size(len(data))
        check_request(data, self._searched)
        if not self._searched:
            self.deadline = self._host.sweeper.clock() + HEAD_TIMEOUT
        self._partial = data
        self._searched = max(len(data) - 3, 1)

    def _check_size(self, size: int) -> None:
        limit = self._host.head_limit
        if size > limit:
            raise HeadersTooLarge(f"More than {limit} bytes came.")

    def _begin(self, head: RequestHead) -> None:
        """Enter the phase of what follows the head."""
        self.deadline = math.inf
        self._version = head.version
        self._keep_alive = head.keep_alive
        self._expects = head.expects_continue
        self._chunk = self._delimited = self._request_ended = False
        self._remaining = head.length or 0
        if head.chunked:
            self._phase = CHUNKED
            self._body = ChunkedBody(self._host.head_limit)
        elif self._remaining:
            self._phase = LENGTH
        else:
            self._phase = NEXT
            self._request_ended = True

    def _take_body(self, data: bytes) -> bytes:
        """Take what follows a head; return what is left for the next phase."""
        phase = self._phase
        if phase is LENGTH:
            return self._take_length(data)
        if phase is CHUNKED:
            return self._take_chunked(data)
        if phase is NEXT:
            self._keep(data)
        elif phase is TUNNEL:
            if self._exchange is not None:
                self._exchange.request_data(data)
        elif self._leaving is not None:
            self._leaving.take(len(data))
        return b""

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
        for part in body.feed(data):
            self._deliver(part)
        if body.fault:
            raise RequestMalformed(f"The chunked body was not accepted: {body.fault}.")
        if body.done:
            self._body = None
            self._end_request(body.trailers)
        elif body.rest:
            self._share = 0
        return body.rest

    def _deliver(self, data: bytes) -> None:
        self._expects = False
        if self._exchange is not None:
            self._exchange.request_data(data)
        else:
            self._rest += len(data)
            if self._rest > REST_BYTES:
                self._leave()

    def _end_request(self, trailers: bytes) -> None:
        if self._phase in (DISCARD, CLOSED):
            return
        self._request_ended = True
        self._phase = NEXT
        if self._exchange is not None:
            self._exchange.request_end(trailers)
        else:
            self._next()

    def _keep(self, data: bytes) -> None:
        """Let further requests wait until this one is answered."""
        self._partial = data
        if len(data) > PIPELINE_BYTES:
            self.pause_request()

    # --- ends ----------------------------------------------------------------------------

    def _next(self) -> None:
        """Go on to the next request on this connection, or end it."""
        if not self._keep_alive or self._phase is CLOSED:
            self._leave()
            return
        self.deadline = self._host.sweeper.clock() + IDLE_TIMEOUT
        self._is_new = False
        if self._choked:
            # Answers that nobody reads would pile up: the next one begins with `resume_writing`.
            self._phase = NEXT
            return
        self._phase = HEAD
        if self._paused:
            self.resume_request()
        if self._partial and not self._taking:
            self._end_turn()  # It has not waited to be answered: others come first.

    def _await_rest(self) -> None:
        """Go on with the next request if the rest of this one, which is answered, comes soon."""
        if not self._keep_alive:
            self._leave()
            return
        self._rest = 0
        self.deadline = self._host.sweeper.clock() + LINGER_TIMEOUT
        self.resume_request()

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
            self._leave()

    def _collapse(self, bug: Exception) -> None:
        """End the connection after an exception of ours: what was read is not known any more."""
        exchange = self._exchange
        try:
            self._refuse(unexpected.failure(bug, "A bug in the HTTP/1.1 codec."))
        except Exception:  # noqa: BLE001 (the second one: what can still be done is to cut)
            self._gone()
            self.abort()
        if exchange is not None and self._exchange is exchange:
            self.abort()  # It was answering already.

    def _gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone()

    def _leave(self) -> None:
        """End the connection behind the last response."""
        if self._phase < DISCARD:
            self._phase = DISCARD
            self._farewell().linger()
            self.resume_request()

    def _end(self) -> Leaving:
        """Write nothing any more; return what ends the connection."""
        self._phase = CLOSED
        return self._farewell()

    def _farewell(self) -> Leaving:
        """Hand the deadlines over to what ends the connection."""
        self.deadline = math.inf
        if self._leaving is None:
            self._leaving = Leaving(self._transport, self._host.sweeper)
        return self._leaving
