"""The downstream codec of HTTP/2: one stream of a caller's connection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from proxy.errors import HeadersTooLarge, ProxyError, RequestMalformed
from proxy.plane.codec import RequestSink
from proxy.plane.head import ResponseHead
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.heads import read_request, read_trailers, rest_of_request
from proxy.plane.http2.standard import Code
from proxy.plane.http2.stream import ANY_LENGTH, Stream
from proxy.plane.http2.tolls import FAULT, REFUSED_HEAD

if TYPE_CHECKING:
    from proxy.plane.http2.downstream import Http2Downstream


STALL_TIMEOUT = 60.0  # Seconds that a finished response may wait for the caller's window.

END_TIMEOUT = 2.0
"""Seconds that the END_STREAM of an answered request may take once its whole body has come.

Many clients send it as an empty DATA frame of its own, and take a reset that meets it for a
failure, whatever its code.
"""


class AnsweringStream(Stream):
    """The downstream codec (see `proxy.plane.codec`)."""

    protocol = "h2"

    __slots__ = ("_connection", "_early_code", "_left", "_sink", "stalls_until")

    def __init__(self, connection: Http2Downstream, number: int) -> None:
        super().__init__(connection)
        self.id = number
        self._windows = connection.connection.streams[number]
        self._connection = connection
        self._sink: RequestSink | None = None
        self._early_code = Code.NO_ERROR
        """What ends a request whose response is complete before it is."""
        self.stalls_until = math.inf
        """When a finished response is given up if the caller still takes nothing of it, or a
        request is reset that was answered and does not end."""
        self._left = 0
        """Bytes of it when that was set."""

    # --- the connection's side -----------------------------------------------------------

    def open(self, fields: Fields, *, ended: bool) -> None:
        """Begin with the request's head."""
        host = self._connection.host
        self.remote_ended = ended
        try:
            head = read_request(fields, ended=ended)
        except ProxyError as error:
            self.endpoint.tolls.charge(REFUSED_HEAD + fields.work)
            if not isinstance(error, HeadersTooLarge):
                self._early_code = Code.PROTOCOL_ERROR
                self.remote_ended = False  # A malformed request gets a reset, ended or not.
            host.reject(self, error, rest_of_request(fields))
            return
        self._expected = ANY_LENGTH if head.length is None else head.length
        sink = self._sink = host.admit(self, head)
        # May answer at once, and end the stream with that.
        sink.start(ended=ended)
        if not ended and not self.is_closed:
            self.endpoint.touch(self)

    def check_stall(self, now: float) -> None:
        """Give up a finished response of which nothing was taken for a while."""
        if self.stalls_until > now:
            return
        if self._sent_end:
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
            self.fault(Code.PROTOCOL_ERROR, str(error))
        else:
            self.take_end(trailers)

    def fault(self, code: Code, text: str) -> None:
        """End the request because the caller broke the protocol on it."""
        self.endpoint.tolls.charge(FAULT)
        self._early_code = code
        self.remote_ended = False
        if self._windows.closed:
            self.reset(code)  # h2 sends no more on it: the reset is all that the caller gets.
        if self._sink is not None:
            self._sink.broken(RequestMalformed(text))
        self.reset(code)

    def lost(self, error: ProxyError | None) -> None:  # noqa: ARG002 (a caller's end says all)
        """Take the caller's leave."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.gone()

    def flush_sink(self) -> None:
        """Let what was delivered leave towards the upstream."""
        if self._sink is not None:
            self._sink.request_flush()

    def _deliver(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.request_data(data)

    def _deliver_end(self, trailers: bytes) -> None:
        if self._sink is not None:
            self._sink.request_end(trailers)
        elif self._sent_end:
            self.endpoint.forget(self)

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
        self._connection.stalled(self.stalls_until)

    def _on_slow(self) -> None:
        if self._sink is not None:
            self._sink.pause_response()

    def _on_caught_up(self) -> None:
        if self._sink is not None:
            self._sink.resume_response()

    # --- the exchange's side -------------------------------------------------------------

    def write_informational(self, head: ResponseHead) -> None:
        """Send a 1xx."""
        if self.is_closed:
            return
        endpoint = self.endpoint
        lines = b"\r\n:status: %d%b" % (head.status, head.fields)
        endpoint.connection.send_head(self.id, lines, informational=True)
        endpoint.flush()

    def write_head(self, head: ResponseHead) -> None:
        """Send the final head; see `DownstreamCodec`."""
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
        self.flush()
        self.reset(self._early_code or Code.INTERNAL_ERROR)

    def close(self) -> None:
        """End both directions: only tunnels do, and HTTP/2 callers have none."""
        self.abort()

    def pause_request(self) -> None:
        """Grant no more window."""
        self.pause_receiving()

    def resume_request(self) -> None:
        """Grant it again."""
        self.resume_receiving()
