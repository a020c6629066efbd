"""HTTP/2 towards the caller: one connection, many exchanges at once."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Final, cast

from proxy.errors import HeadersTooLarge, ProxyError, RequestMalformed
from proxy.plane import unexpected
from proxy.plane.codec import Host, RequestSink
from proxy.plane.head import ResponseHead
from proxy.plane.http2.connection import CONNECTION_WINDOW, MOST_WORK
from proxy.plane.http2.endpoint import ANY_LENGTH, Endpoint, Stream
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.frames import MAX_CONCURRENT_STREAMS
from proxy.plane.http2.heads import read_request, read_trailers, rest_of_request
from proxy.plane.http2.share import MUCH_WORK
from proxy.plane.http2.standard import LAST_STREAM, Code, ConnectionFault
from proxy.plane.http2.tolls import AT_ONCE, FAULT, REFUSED_HEAD, REFUSED_STREAM, TALK, Tolls
from proxy.plane.leaving import send_fin

MOST_STREAMS: Final = 1000
"""Exchanges that a caller may have open on one connection.

gRPC callers put all their calls on one; beyond the limit they would queue them, unseen.
"""

HEAD_TIMEOUT: Final = 30.0  # Seconds from the first byte of a head to its last.
IDLE_TIMEOUT: Final = 600.0  # Seconds that a caller may keep a connection without a request.
LATE_BYTES: Final = 2 * CONNECTION_WINDOW  # Thrown away meanwhile: the window, and what is no DATA.
CLOSE_TIMEOUT: Final = 2.0  # Seconds that what is written may take to leave a closed connection.
DRAIN_TIMEOUT: Final = 1.0  # Seconds that a caller may take to answer the ping behind a GOAWAY.
STALL_TIMEOUT: Final = 60.0  # Seconds that a finished response may wait for the caller's window.

END_TIMEOUT: Final = 2.0
"""Seconds that the END_STREAM of an answered request may take once its whole body has come.

Many clients send it as an empty DATA frame of its own, and take a reset that meets it for a
failure, whatever its code.
"""

# Microseconds that it takes to begin an exchange, about.
_REQUEST_WORK: Final = 250.0
# And to end one that waits for its answer, with what it was about to dial.
_CANCEL_WORK: Final = 250.0

# What a connection may cause in a turn while dials and answers of such take longer than that: one
# exchange.
_STRAINED_WORK: Final = 200.0

_DRAIN_PING: Final = b"draining"


class AnsweringStream(Stream):
    """The downstream codec (see `proxy.plane.codec`)."""

    protocol = "h2"

    __slots__ = (
        "_connection", "_early_code", "_is_answered", "_left", "_sink", "stalls_until",
    )  # fmt: skip

    def __init__(self, connection: Http2Downstream, number: int) -> None:
        super().__init__(connection)
        self.id = number
        self._connection = connection
        self._sink: RequestSink | None = None
        self._early_code = Code.NO_ERROR
        """What ends a request whose response is complete before it is."""
        self._is_answered = False
        """Whether the final head of an answer has come."""
        self.stalls_until = math.inf
        """When a finished response is given up if the caller still takes nothing of it, or a
        request is reset that was answered and does not end."""
        self._left = 0
        """Bytes of it when that was set."""

    # --- the connection's side -----------------------------------------------------------

    def take_head(self, fields: Fields, *, ended: bool) -> None:
        """Begin with the request's head."""
        host = self._connection.host
        self.remote_ended = ended
        try:
            head = read_request(fields, ended=ended, on_path=host.on_path)
        except ProxyError as error:
            self.endpoint.tolls.charge(REFUSED_HEAD + fields.work)
            if not isinstance(error, HeadersTooLarge):
                self._early_code = Code.PROTOCOL_ERROR
                self.remote_ended = False  # A malformed request gets a reset, ended or not.
            host.reject(self, error, rest_of_request(fields))
            return
        self._expected = ANY_LENGTH if head.length is None else head.length
        try:
            sink = self._sink = host.admit(self, head)
            # May answer at once, and end the stream with that.
            sink.start(ended=ended)
        except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
            self._collapse(bug)
        if not ended and not self.is_closed:
            self.endpoint.touch(self)

    def check_stall(self, now: float) -> None:
        """Give up a finished response of which nothing was taken for a while."""
        if self.stalls_until > now:
            return
        if self.local_ended:
            self.reset(self._early_code)
        elif self._queued < self._left:
            self._left = self._queued
            self.stalls_until = now + STALL_TIMEOUT
        else:
            self.reset(Code.CANCEL)

    def take_trailers(self, fields: Fields) -> None:
        """Take the block that ends the request (RFC 9113, 8.1)."""
        try:
            trailers = read_trailers(fields)
        except ValueError as error:
            self.endpoint.tolls.charge(fields.work)
            self.fault(Code.PROTOCOL_ERROR, str(error))
        else:
            self.take_end(trailers)

    def take_reset(self, code: int) -> None:  # noqa: ARG002 (a caller needs no reason)
        """Take a cancelled request: the caller wants no answer any more."""
        allowance = self._connection.host.resets
        if not self._is_answered and allowance is not None:
            at_once = self.id > self._connection.older
            self.endpoint.tolls.charge_reset(allowance, AT_ONCE if at_once else 1.0)
        if not self._is_answered:
            self.endpoint.work += _CANCEL_WORK
        self.drop_unsent()
        self.endpoint.forget(self)
        self.lost(None)

    def fault(self, code: Code, text: str) -> None:
        """End the request because the caller broke the protocol on it."""
        self.endpoint.tolls.charge(FAULT)
        self.endpoint.work += _CANCEL_WORK
        self._early_code = code
        self.remote_ended = False
        if self._sink is not None:
            self._sink.broken(RequestMalformed(text))
        self.reset(code)

    def lost(self, error: ProxyError | None) -> None:  # noqa: ARG002 (a caller's end says all)
        """Take the end of the caller's connection."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.gone()

    def flush_sink(self) -> None:
        """Let what was delivered leave towards the upstream."""
        if self._sink is not None:
            try:
                self._sink.request_flush()
            except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
                self._collapse(bug)

    def _deliver(self, data: bytes) -> None:
        if self._sink is not None:
            try:
                self._sink.request_data(data)
            except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
                self._collapse(bug)

    def _deliver_end(self, trailers: bytes) -> None:
        if self._sink is not None:
            try:
                self._sink.request_end(trailers)
            except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
                self._collapse(bug)
        elif self.local_ended:
            self.endpoint.forget(self)

    def _collapse(self, bug: Exception) -> None:
        """End the exchange after an exception beyond this connection, which goes on."""
        sink = self._sink
        try:
            if sink is not None:
                sink.broken(unexpected.failure(bug, "A bug in the data path."))
        finally:
            # It may be gone, or have been answering already.
            if not self.local_ended and self._sink is sink:
                self.lost(None)
                self.abort()

    def _on_half_closed(self) -> None:
        if self._expected == 0 and not self._early_code:
            # All that was announced has come, and only its end is on the way.
            self._stall(END_TIMEOUT)
        else:
            # RFC 9113, 8.1: the response does not depend on the rest of the request.
            self.reset(self._early_code)

    def _stall(self, timeout: float) -> None:
        """Wait for the caller, so many seconds."""
        self.stalls_until = self.endpoint.sweeper.clock() + timeout
        self._connection.look_at(self.stalls_until)

    def _on_slow(self) -> None:
        if self._sink is not None:
            self._sink.pause_response()

    def _on_caught_up(self) -> None:
        if self._sink is not None:
            self._sink.resume_response()

    # --- the exchange's side -------------------------------------------------------------

    def write_informational(self, head: ResponseHead) -> None:
        """Send a 1xx at once: the caller may wait for it with its body."""
        if not self.is_closed:
            lines = b"\r\n:status: %d%b" % (head.status, head.fields)
            self.endpoint.send_head(self, lines)
            self.endpoint.flush()

    def write_head(self, head: ResponseHead) -> None:
        """Send the final head; see `DownstreamCodec`."""
        self._is_answered = True
        self._head = b"\r\n:status: %d%b" % (head.status, head.fields)
        self.never_indexed = head.never_indexed

    def write_whole(self, head: ResponseHead, body: bytes) -> None:
        """Send a whole answer; see `DownstreamCodec`."""
        self.write_head(head)
        if body:
            self.send_data(body)
        self.write_end(b"")

    def write_data(self, data: bytes) -> None:
        """Send a part of the body; see `DownstreamCodec`."""
        self.send_data(data)

    def write_end(self, trailers: bytes) -> None:
        """End the response; see `DownstreamCodec`."""
        self._sink = None
        self._ended = True
        self._trailers = trailers
        self.flush()
        if self.is_stalled:
            self._left = self._queued
            self._stall(STALL_TIMEOUT)

    def abort(self) -> None:
        """Cut the response so that the caller sees it."""
        self._sink = None
        with suppress(MemoryError):  # Then a part more is cut.
            self.flush()
        self.reset(self._early_code or Code.INTERNAL_ERROR)

    def close(self) -> None:
        """End both directions: only tunnels do, and HTTP/2 callers have none."""
        self.abort()

    def pause_request(self) -> None:
        """Stop the caller on this stream, once its window is used up."""
        self.pause_receiving()

    def resume_request(self) -> None:
        """Let the caller send again."""
        self.resume_receiving()


class Http2Downstream(Endpoint[AnsweringStream], asyncio.Protocol):
    """A caller's connection; its streams are the downstream codecs."""

    __slots__ = (
        "_accepted", "_block_until", "_final", "_idle_until", "_is_gone", "_late", "_leaving",
        "_share", "deadline", "host", "older",
    )  # fmt: skip

    def __init__(self, host: Host) -> None:
        super().__init__(host.head_limit, host.sweeper, Tolls(host.allowance), client=False)
        self.host = host
        self._share = host.share
        self._is_gone = False
        """Whether the transport has ended."""
        self._late = 0
        """Bytes that came after the end."""
        self.deadline = math.inf
        self._block_until = math.inf
        """When the header block under way has to be complete."""
        self._idle_until = math.inf
        """When a connection without requests is closed."""
        self._accepted = LAST_STREAM
        """The last stream that a GOAWAY lets in."""
        self._leaving = False
        self._final = math.inf
        """When the GOAWAY comes that lets nobody in any more."""
        self.older = 0
        """The caller's latest stream before the segment that came last."""

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings first of all (RFC 9113, 3.4)."""
        self._transport = cast("asyncio.Transport", transport)
        self.deadline = self._idle_until = self.sweeper.clock() + IDLE_TIMEOUT
        self.sweeper.add(self)
        self.host.opened(self)
        self.begin({MAX_CONCURRENT_STREAMS: MOST_STREAMS})

    def data_received(self, data: bytes) -> None:
        """Take a segment, now or in the next turn where this one's share is used up."""
        if self.is_closed:
            self._drop_late(len(data))
            return
        self.older = self.highest
        if not (self._waits_for_turn or self._is_modest) and self._share.is_over:
            self.hold(data)
            self._wait_for_turn(full=True)
        else:
            self.take_segment(data)

    def eof_received(self) -> bool:
        """Take the caller's FIN: it has gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of the connection."""
        self.is_closed = self._is_gone = True
        self._lose_streams()
        self.sweeper.discard(self)

    def on_deadline(self, now: float) -> None:
        """Act on a connection that is closed, leaving, idle, or in the middle of a head."""
        if self.is_closed:
            self._transport.abort()
        elif now >= self._block_until:
            text = f"A request head was not complete within {HEAD_TIMEOUT:g} s."
            self.fail(ConnectionFault(Code.ENHANCE_YOUR_CALM, text))
        elif now >= self._final:
            self._leave_finally()
        elif now >= self._idle_until:
            self._close(Code.NO_ERROR)
        else:
            for stream in list(self.streams.values()):
                stream.check_stall(now)
        if not self.is_closed:
            self._set_deadline()

    # --- turns ---------------------------------------------------------------------------

    @property
    def _is_modest(self) -> bool:
        """Whether it was answered something, and caused little work in its latest turn."""
        return self.tolls.sent > 0 and self.work <= MUCH_WORK

    def take_turn(self) -> None:
        """Take what waits; little of it where what was begun before keeps others waiting."""
        self.most_work = _STRAINED_WORK if self._share.is_strained else MOST_WORK
        super().take_turn()
        self.most_work = MOST_WORK

    def _ask_for_turn(self) -> None:
        if self._is_modest and self.most_work == MOST_WORK:
            super()._ask_for_turn()
        else:
            self._share.wait(self)

    def _count_work(self) -> None:
        # Of many that come at once, not all in one turn, before those who are known.
        if self.work > MUCH_WORK or not self.tolls.sent:
            self._share.spend(self.work)

    # --- the plane's side ----------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether a stream is open: its response may wait for the caller's window."""
        return bool(self.streams)

    def drain(self) -> None:
        """Ask the caller to go elsewhere, and let what it began end (RFC 9113, 6.8).

        In two steps: what it sends before it knows of the first is still served.
        """
        if self._leaving or self.is_closed:
            return
        self._leaving = True
        self.send_goaway(LAST_STREAM, Code.NO_ERROR)
        self.send_ping(_DRAIN_PING)
        self._final = self.sweeper.clock() + DRAIN_TIMEOUT
        self.look_at(self._final)
        self.flush()

    def shut(self) -> None:
        """End the connection because the process ends; finished responses may still leave."""
        if not self.is_closed:
            self._leave_finally()
            for stream in list(self.streams.values()):
                if not stream.is_stalled:
                    stream.reset(Code.NO_ERROR if stream.local_ended else Code.CANCEL)
                    stream.lost(None)
        if self.is_closed:
            self._transport.close()

    def fail(self, fault: ConnectionFault) -> None:
        """Tell the caller what it did, and close."""
        self._close(fault.code, f"{fault}")

    def _collapse(self, failure: ProxyError) -> None:
        self.fail(ConnectionFault(Code.INTERNAL_ERROR, failure.detail))

    def drop(self) -> None:
        """Close without a word: the caller reads nothing any more."""
        self.is_closed = True
        self._transport.abort()

    # --- streams -------------------------------------------------------------------------

    def look_at(self, deadline: float) -> None:
        """See to it that `on_deadline` is called then, if not before."""
        self.deadline = min(self.deadline, deadline)

    def _accept(self, number: int) -> AnsweringStream | None:
        if number > self._accepted or len(self.streams) >= MOST_STREAMS:
            self.tolls.charge(REFUSED_STREAM)
            return None
        self.work += _REQUEST_WORK
        if self.host.draining:
            self.drain()
        stream = AnsweringStream(self, number)
        self._idle_until = math.inf
        self.adopt(stream)
        return stream

    def _on_segment(self) -> None:
        """Begin or end the time that a head may take."""
        self._count_work()
        if self._waits_for_turn:
            return  # It may have come, and waits for us.
        if self.in_head:
            if self._block_until == math.inf:
                self._block_until = self.sweeper.clock() + HEAD_TIMEOUT
                self.look_at(self._block_until)
        else:
            self._block_until = math.inf

    def _on_goaway(self, last: int, code: int) -> None:
        """Ignore it: the caller opens no more streams, and closes when it is done."""

    def _on_pong(self, data: bytes) -> None:
        if data == _DRAIN_PING and self._final != math.inf:
            self._leave_finally()
        else:
            self.tolls.charge(TALK)

    def _on_stream_gone(self) -> None:
        if self.streams or self.is_closed:
            return
        if self._leaving:
            self.host.emptied()
        if self._accepted != LAST_STREAM:
            self._close(None)
        else:
            self._idle_until = self.sweeper.clock() + IDLE_TIMEOUT
            self.look_at(self._idle_until)

    def _on_stream_limit(self, limit: int) -> None:
        """Ignore it: nothing is pushed."""

    def _on_settings(self) -> None:
        """Do nothing more: whoever obeys them has."""

    def _set_deadline(self) -> None:
        stalls = [stream.stalls_until for stream in self.streams.values()]
        self.deadline = min(self._block_until, self._final, self._idle_until, *stalls)

    # --- ends ----------------------------------------------------------------------------

    def _leave_finally(self) -> None:
        """Let no more streams in; close once there are none."""
        self._final = math.inf
        self._accepted = self.highest
        if self.streams:
            self.send_goaway(self.highest, Code.NO_ERROR)
            self.flush()
        else:
            self._close(Code.NO_ERROR)

    def _close(self, code: Code | None, text: str = "") -> None:
        """Say farewell, unless it was said (no `code`), and close once that has left.

        What still comes is read and dropped for a moment: to close with something unread would
        make the kernel send RST, which destroys the farewell on its way.
        """
        if self.is_closed:
            return
        self._count_work()
        self.is_closed = True
        self._lose_streams()
        self._let_come()
        if code is not None:
            self.send_goaway(self.highest, code, text)
        self.write_out()
        self.deadline = self.sweeper.clock() + CLOSE_TIMEOUT
        if not send_fin(self._transport):
            self._transport.close()

    def _drop_late(self, size: int) -> None:
        """Throw away `size` bytes that came after the end; no honest caller has so much to say."""
        self._late += size
        if self._late > LATE_BYTES:
            self._transport.abort()

    def _lose_streams(self) -> None:
        # What is left of them waits for its turn with those that cause much.
        self.work = MUCH_WORK + 1
        self.lose(list(self.streams.values()), None)

    def _tell_lost(self) -> None:
        super()._tell_lost()
        if self._is_gone and not self._lost:
            self.host.closed(self)
