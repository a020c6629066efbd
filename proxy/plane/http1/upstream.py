"""HTTP/1.1 towards the upstream: one connection, one attempt at a time.

An exchange writes its request here and is told of the response; between two of them the connection
is its pool's.  What has come is read by phase: a head, a body by its length or in chunks or to the
end of the connection, the bytes of a tunnel.  What belongs to none of these ends the connection.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Final, Protocol, cast, final

from proxy.errors import ProxyError, UpstreamMalformed, UpstreamReset
from proxy.plane import unexpected
from proxy.plane.codec import ResponseSink
from proxy.plane.head import RequestHead, ResponseHead, tokens
from proxy.plane.http1.chunked import LARGE, ChunkedBody, chunk, framed, last_chunk
from proxy.plane.http1.heads import ParsedResponse, check_response, parse_response
from proxy.plane.http1.turns import SEGMENT_BYTES, STEPS, Turns
from proxy.plane.leaving import send_fin
from proxy.plane.tls import TlsTransport
from proxy.plane.unread import unread, watched

_HEAD_END: Final = b"\r\n\r\n"


class Phase(enum.IntEnum):
    """What the next bytes from the upstream are."""

    IDLE = 0
    """Nobody's: no request is under way."""
    HEAD = 1
    LENGTH = 2
    """A body of as many bytes as its head says."""
    CHUNKED = 3
    UNTIL_CLOSE = 4
    """A body that the end of the connection ends (RFC 9112, 6.3)."""
    TUNNEL = 5
    CLOSED = 6


# Plain names for the hot path: see `proxy.plane.state`.
IDLE: Final[Phase] = Phase.IDLE
HEAD: Final[Phase] = Phase.HEAD
LENGTH: Final[Phase] = Phase.LENGTH
CHUNKED: Final[Phase] = Phase.CHUNKED
UNTIL_CLOSE: Final[Phase] = Phase.UNTIL_CLOSE
TUNNEL: Final[Phase] = Phase.TUNNEL
CLOSED: Final[Phase] = Phase.CLOSED


class Pool(Protocol):
    """What a connection needs of the pool that it belongs to."""

    def release(self, connection: Http1Upstream) -> None:
        """Take back a connection that can serve another exchange."""

    def upload_began(self, connection: Http1Upstream) -> None:
        """Note that it is held by a request that is not whole."""

    def upload_ended(self, connection: Http1Upstream) -> None:
        """Note that the request is whole."""

    def stalled(self, connection: Http1Upstream) -> None:
        """Note that the caller of its response does not read on."""

    def resumed(self, connection: Http1Upstream) -> None:
        """Note that it reads on."""

    def tunnelled(self, connection: Http1Upstream) -> None:
        """Note that it becomes a tunnel.

        Raises:
            Overloaded: it may not.
        """

    def promised(self, keep_alive: bytes) -> None:
        """Take what the upstream's Keep-Alive field says of its connections."""

    def lost(self, connection: Http1Upstream, *, ended: bool = False) -> None:
        """Forget a connection that is closed or will serve nobody any more.

        `ended` tells that it was the upstream who ended it.
        """


@final
class Http1Upstream(Turns, asyncio.Protocol):
    """The upstream codec for HTTP/1.1 (see `proxy.plane.codec`)."""

    __slots__ = (
        "_choked", "_chunked_body", "_chunked_request", "_has_large", "_keep_alive", "_limit",
        "_method", "_offers", "_out", "_phase", "_poll", "_pool", "_remaining", "_request_ended",
        "_sink", "_tls", "answered", "idle_since", "is_counted", "is_idle", "is_tunnel",
        "is_uploading", "reused", "wrote",
    )  # fmt: skip

    def __init__(self, pool: Pool, head_limit: int) -> None:
        """`head_limit` is the bytes of the largest response head."""
        super().__init__()
        # For the life of the connection
        self._pool = pool
        self._limit = head_limit
        self._tls: TlsTransport | None = None
        """The transport, if it may have what the kernel does not have any more."""
        self.reused = False
        self.is_counted = False
        """Whether the pool has taken it in."""
        self.is_idle = False
        """Whether it is among the pool's idle ones."""
        self.is_tunnel = False
        """Whether the pool counts it as a tunnel."""
        self.is_uploading = False
        """Whether the pool counts it as held by a request that is not whole."""
        self.idle_since = 0.0
        self._choked = False
        """Whether the upstream does not read what was written."""
        # For one attempt
        self._phase = IDLE
        self._sink: ResponseSink | None = None
        self._out: list[bytes] = []
        """What of the request is not written yet."""
        self._has_large = False
        """Whether a large chunk is in it."""
        self._method = b""
        self._remaining = 0
        self._chunked_body: ChunkedBody | None = None
        self._chunked_request = False
        self._request_ended = False
        self._keep_alive = True
        self._offers: bytes = b""
        """The protocols that the request offers to switch to."""
        self.answered = False
        """Whether any byte of an answer to the current attempt came."""
        self.wrote = False
        """Whether any byte of the current attempt left."""

    # --- the exchange's side -------------------------------------------------------------

    def send_head(
        self,
        sink: ResponseSink,
        head: RequestHead,
        *,
        target: bytes,
        authority: bytes,
        fields: bytes,
    ) -> None:
        """Begin an attempt; see `UpstreamCodec`."""
        self._sink = sink
        self._phase = HEAD
        self._method = head.method
        self._request_ended = self.answered = self.wrote = False
        self._chunked_request = head.length is None
        self._offers = head.upgrade
        self._out.append(
            b"%b %b HTTP/1.1\r\nHost: %b%b%b\r\n\r\n"
            % (
                head.method,
                target,
                authority,
                fields,
                _connection_fields(head)
                if self._chunked_request or head.upgrade or head.has_trailers_te
                else b"",
            )
        )

    def send_data(self, data: bytes) -> None:
        """Send a part of the body; see `UpstreamCodec`."""
        if not self._chunked_request:
            self._out.append(data)
        elif len(data) < LARGE:
            self._out.append(chunk(data))
        else:
            self._out += framed(data)
            self._has_large = True

    def send_end(self, trailers: bytes) -> None:
        """End the request, or half-close the tunnel; see `UpstreamCodec`."""
        if self._phase is TUNNEL:
            self._half_close()
            return
        if self.is_uploading:
            self._pool.upload_ended(self)
        if self._chunked_request:
            self._out.append(last_chunk(trailers))
        self._request_ended = True
        self.flush()

    def begin_upload(self) -> None:
        """Note that the request is not whole yet; see `UpstreamCodec`."""
        self._pool.upload_began(self)

    def flush(self) -> None:
        """Write what was collected, as one piece: over TLS, one record."""
        out = self._out
        if not out or self._phase is CLOSED:
            return
        self.wrote = True
        if self._has_large:
            # Joined, it would be copied once more, into memory that is new each time.
            self._has_large = False
            self._transport.writelines(out)
        else:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def pause_response(self) -> None:
        """Read no more, and tell the pool, which may cut what stalls where others wait."""
        self._pause()
        if not (self.is_tunnel or self.is_closed):
            self._pool.stalled(self)

    def resume_response(self) -> None:
        """Read on, what came meanwhile first."""
        self._resume()
        self._pool.resumed(self)

    def cancel(self) -> None:
        """Close at once: HTTP/1.1 has no other way to end an attempt."""
        self._sink = None
        self.close(abort=True)

    # --- the pool's side -----------------------------------------------------------------

    def close(self, *, abort: bool = False, ended: bool = False) -> None:
        """Close the connection; `abort` drops what is not written yet.

        `ended` tells that the upstream has ended it already.
        """
        if self._phase is CLOSED:
            return
        self._phase = CLOSED
        self._out.clear()
        try:
            if abort:
                self._transport.abort()
            else:
                self._transport.close()
        finally:
            self._pool.lost(self, ended=ended)

    def give_up(self, error: ProxyError) -> None:
        """End the attempt for the sake of others."""
        self._fail(error)

    @property
    def is_closed(self) -> bool:
        """Whether it can serve nobody any more."""
        return self._phase is CLOSED

    def is_quiet(self) -> bool:
        """Ask the kernel whether the far end has sent nothing meanwhile, a FIN included."""
        return not (self._poll(0) or (self._tls is not None and self._tls.has_unread))

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; the pool gives the connection its first exchange."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll = watched(transport)
        if isinstance(transport, TlsTransport):
            self._tls = transport

    def data_received(self, data: bytes) -> None:
        """Take a segment."""
        self._take(data)
        if len(data) >= SEGMENT_BYTES and self._tls is None:  # Else TLS sees to that.
            self._end_turn()

    def eof_received(self) -> bool:
        """Take the upstream's FIN; return whether the transport stays open."""
        if self._phase is TUNNEL and self._sink is not None:
            self._sink.response_end(b"")
            return True
        if self._phase is UNTIL_CLOSE and self._sink is not None:
            self._complete(self._sink, b"")
        elif self._sink is not None:
            self._fail(self._reset())
        else:
            # At once: until the transport says so itself, somebody could still be given this.
            self.close(abort=True, ended=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection, expected or not."""
        if unexpected.is_ours(exc):
            # What was read last has not been taken: what lies behind that hole is no answer.
            self._collapse(self._sink, exc)
        elif self._sink is not None:
            self._take_unread()
        if self._phase is CLOSED:
            return
        self._phase = CLOSED
        self._pool.lost(self, ended=True)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(self._reset())

    def _take_unread(self) -> None:
        """Read what came before the end: an answer may be in it, although writing has failed."""
        self._take_rested()
        if self._tls is None:  # Else TLS has done so.
            for data in unread(self._transport):
                if self._phase is not CLOSED:
                    self._take(data)
                    self._take_rested()

    def _take_rested(self) -> None:
        """Take what was left for the next turn: there is none."""
        while self._partial and self._resting and self._phase is not CLOSED:
            self._resting = False
            data, self._partial = self._partial, b""
            self._take(data)

    def pause_writing(self) -> None:
        """Pass on that the upstream reads slowly."""
        self._choked = True
        if self._sink is not None:
            self._sink.pause_request()

    def resume_writing(self) -> None:
        """Pass on that it has caught up."""
        self._choked = False
        if self._sink is not None:
            self._sink.resume_request()

    # --- reading -------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Consume one segment; every phase takes what is its own and leaves the rest."""
        if self._resting:
            self._partial += data
            return
        sink = self._sink
        if sink is None:
            # Unsolicited: whatever it is, it must not be read as the next exchange's answer.
            self.close(abort=True)
            return
        self.answered = True
        self._share = STEPS
        try:
            while data and self._share and self._sink is sink:
                self._share -= 1
                if self._phase is HEAD:
                    data = self._take_head(sink, data)
                else:
                    data = self._take_body(sink, data)
        except ProxyError as error:
            self._fail(error)
            return
        except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
            self._collapse(sink, bug)
            return
        if self._sink is sink:
            if data:
                self._partial = data
                self._end_turn()
            sink.response_flush()

    def _take_head(self, sink: ResponseSink, data: bytes) -> bytes:
        start = 0
        if self._partial:
            start = max(0, len(self._partial) - 3)
            data = self._partial + data
            self._partial = b""
        end = data.find(_HEAD_END, start)
        if end < 0:
            self._check_size(len(data))
            check_response(data, start)
            self._partial = data
            return b""
        end += len(_HEAD_END)
        if end > self._limit:
            self._check_size(end)
        return self._on_head(sink, parse_response(data[:end], self._method), data[end:])

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise UpstreamMalformed(
                f"The response head is larger than {self._limit} bytes.",
                hint="Raise the route's limits.header_bytes if the upstream needs that much.",
            )

    def _on_head(self, sink: ResponseSink, parsed: ParsedResponse, rest: bytes) -> bytes:
        """Deliver a head and enter the phase of what follows it; return what is left of `rest`."""
        head, keep_alive, chunked, promise = parsed
        if head.status == 101:  # noqa: PLR2004 (RFC 9110, 15.2.2)
            if not (self._request_ended and _are_offered(head.switching, self._offers)):
                raise UpstreamMalformed("The upstream switched protocols although nobody asked.")
            self._pool.tunnelled(self)
            self._phase = TUNNEL
            sink.response_head(head)
            return rest
        if head.status < 200:  # noqa: PLR2004 (RFC 9110, 15.2)
            sink.informational(head)
            return rest
        self._keep_alive = keep_alive
        if promise:
            self._pool.promised(promise)
        if chunked:
            return self._begin_chunks(sink, head, rest)
        length = 0 if head.bodyless else head.length
        if length == len(rest) and self._may_be_whole(head):
            self._let_go(clean=True)
            sink.response_whole(head, rest)
            return b""
        # The phase is set before the exchange hears of the head: it may cancel us at once.
        if length is None:
            self._phase = UNTIL_CLOSE
            self._keep_alive = False
        else:
            self._phase = LENGTH
            self._remaining = length
        sink.response_head(head)
        if length == 0 and self._sink is sink:
            self._complete(sink, rest)
            return b""
        return rest

    def _may_be_whole(self, head: ResponseHead) -> bool:
        """Tell whether `ResponseSink.response_whole` takes an answer of which all has come."""
        return head.status < 400 and self._request_ended  # noqa: PLR2004 (errors begin there)

    def _begin_chunks(self, sink: ResponseSink, head: ResponseHead, rest: bytes) -> bytes:
        body = ChunkedBody(self._limit)
        parts = body.feed(rest) if rest else []
        odd = body.fault or body.rest or body.trailers
        if body.done and not odd and len(parts) <= 1 and self._may_be_whole(head):
            self._let_go(clean=True)
            sink.response_whole(head, parts[0] if parts else b"")
            return b""
        self._phase = CHUNKED
        self._chunked_body = body
        sink.response_head(head)
        if self._sink is sink:
            return self._pass_on_chunks(sink, body, parts)
        return b""

    def _take_body(self, sink: ResponseSink, data: bytes) -> bytes:
        """Take what follows a head; return what is left for the next phase."""
        phase = self._phase
        if phase is LENGTH:
            return self._take_length(sink, data)
        if phase is CHUNKED:
            body = cast("ChunkedBody", self._chunked_body)
            return self._pass_on_chunks(sink, body, body.feed(data))
        if phase is UNTIL_CLOSE or phase is TUNNEL:
            sink.response_data(data)
            return b""
        raise UpstreamMalformed("The upstream sent bytes that belong to no response.")

    def _take_length(self, sink: ResponseSink, data: bytes) -> bytes:
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            sink.response_data(data)
            return b""
        body, rest = (
            (data, b"")
            if size == self._remaining
            else (data[: self._remaining], data[self._remaining :])
        )
        sink.response_data(body)
        if self._sink is sink:
            self._complete(sink, rest)
        return b""

    def _pass_on_chunks(self, sink: ResponseSink, body: ChunkedBody, parts: list[bytes]) -> bytes:
        """Deliver what was read of the body, and act on its end; return what was not read."""
        for part in parts:
            if self._sink is not sink:
                return b""
            sink.response_data(part)
        if body.fault and self._sink is sink:
            raise UpstreamMalformed(f"The chunked body was not accepted: {body.fault}.")
        if not body.done:
            if body.rest:
                self._share = 0
            return body.rest
        if self._sink is sink:
            self._complete(sink, body.rest, body.trailers)
        return b""

    # --- ends ----------------------------------------------------------------------------

    def _complete(self, sink: ResponseSink, surplus: bytes, trailers: bytes = b"") -> None:
        """End the attempt.

        The connection before the exchange, so that the caller's next request finds it idle.
        """
        self._let_go(clean=not surplus)
        sink.response_end(trailers)

    def _let_go(self, *, clean: bool) -> None:
        """Serve nobody any more: back to the pool where nothing can be left over, else close."""
        self._sink = self._chunked_body = None
        # What is choked still has a part of the request to write.
        if clean and self._keep_alive and self._request_ended and not self._choked:
            self._phase = IDLE
            self.reused = True
            if self._paused:
                self.resume_response()
            self._pool.release(self)
        else:
            self.close(abort=not self._request_ended)

    def _fail(self, error: ProxyError) -> None:
        sink, self._sink = self._sink, None
        self.close(abort=True)
        if sink is not None:
            sink.failed(error)

    def _collapse(self, sink: ResponseSink | None, error: BaseException | None) -> None:
        """Close because of an exception of ours, and end the exchange that it came in."""
        self._sink = None
        try:
            self.close(abort=True)
        finally:
            if sink is not None and error is not None:
                unexpected.end(sink, error)

    def _half_close(self) -> None:
        if not send_fin(self._transport):
            # A TLS transport cannot leave one half open: the end of one is the end of both.
            sink, self._sink = cast("ResponseSink", self._sink), None
            self.close()
            sink.response_end(b"")

    def _reset(self) -> ProxyError:
        if self.answered:
            return UpstreamReset("The response was not complete.")
        return UpstreamReset("Nothing of a response had come.")


def _are_offered(protocols: bytes, offers: bytes) -> bool:
    """Tell whether a 101 may switch to `protocols` (RFC 9110, 7.8: only to what was named)."""
    switched = tokens(protocols)
    return bool(switched) and set(switched) <= set(tokens(offers))


def _connection_fields(head: RequestHead) -> bytes:
    """Return the fields that are about this connection: framing, upgrade, trailers."""
    options = []
    lines = b""
    if head.length is None:
        lines += b"\r\nTransfer-Encoding: chunked"
    if head.has_trailers_te:
        # RFC 9110, 10.1.4: a sender of TE must name it in Connection.
        options.append(b"TE")
        lines += b"\r\nTE: trailers"
    if head.upgrade:
        options.append(b"Upgrade")
        lines += b"\r\nUpgrade: " + head.upgrade
    if options:
        lines += b"\r\nConnection: " + b", ".join(options)
    return lines
