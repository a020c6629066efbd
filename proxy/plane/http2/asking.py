"""The upstream codec of HTTP/2: one stream of a connection to the upstream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.errors import ProxyError, UpstreamMalformed, UpstreamRefused, UpstreamReset
from proxy.plane.codec import ResponseSink
from proxy.plane.head import RequestHead
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.heads import read_response, read_trailers, request_lines
from proxy.plane.http2.standard import Code, name_of
from proxy.plane.http2.stream import ANY_LENGTH, Stream

if TYPE_CHECKING:
    from proxy.plane.http2.upstream import Http2Upstream


_UNUSED = "The upstream closed the connection before the request was sent."


class AskingStream(Stream):
    """The upstream codec (see `proxy.plane.codec`); has a number once its head has left."""

    __slots__ = ("_answering", "_connection", "_method", "_sink", "answered", "reused")

    def __init__(self, connection: Http2Upstream) -> None:
        super().__init__(connection)
        self._connection = connection
        self._sink: ResponseSink | None = None
        self._method = b""
        self._answering = False
        """Whether the final head has come: what follows are body and trailers."""
        self.answered = False
        """Whether anything of an answer came."""
        self.reused = connection.is_reused
        """Whether the connection had served others: then it may have died unnoticed."""

    @property
    def wrote(self) -> bool:
        """Whether any byte left."""
        return self.id != 0

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
        self._method = head.method
        self._head = request_lines(
            head, self._connection.scheme, target=target, authority=authority, fields=fields
        )
        self.never_indexed = head.never_indexed

    def flush(self) -> None:
        """Let what was sent leave as far as the upstream's windows allow."""
        if self.id == 0 and not self._connection.takes_streams:
            # The connection ended between the promise of this stream and its use.
            if not self.is_closed:
                self.endpoint.forget(self)
                asyncio.get_running_loop().call_soon(self._fail, UpstreamRefused(_UNUSED))
            return
        super().flush()

    def send_end(self, trailers: bytes) -> None:
        """End the request."""
        self._ended = True
        self._trailers = trailers
        self.flush()

    def begin_upload(self) -> None:
        """Nobody else waits for this stream's end."""

    def cancel(self) -> None:
        """End the attempt at once; nothing more is delivered."""
        self._sink = None
        self.reset(Code.CANCEL)

    def close(self) -> None:
        """End both directions: only tunnels do, and HTTP/2 has none."""
        self.cancel()

    def pause_response(self) -> None:
        """Grant no more window."""
        self.pause_receiving()

    def resume_response(self) -> None:
        """Grant it again."""
        self.resume_receiving()

    # --- the connection's side -----------------------------------------------------------

    def take_fields(self, fields: Fields, *, ended: bool) -> None:
        """Take a head, or the trailers."""
        self.answered = True
        if self._answering:
            self._take_trailers(fields)
        else:
            self._take_head(fields, ended=ended)

    def fault(self, code: Code, text: str) -> None:
        """End the attempt because the upstream broke the protocol on it."""
        self.reset(code)
        self._fail(UpstreamMalformed(text))

    def refused(self) -> None:
        """Take the upstream's word that it has done nothing and will do nothing."""
        self._end(UpstreamRefused("The upstream did not take the request."))

    def take_reset(self, code: int) -> None:
        """Take the upstream's end of the stream."""
        if code == Code.REFUSED_STREAM and not self.answered:
            self.refused()
            return
        self.reused = False  # The connection lives: it is not what has failed.
        when = "within its response" if self.answered else "without a response"
        self._end(UpstreamReset(f"The upstream reset the stream {when} ({name_of(code)})."))

    def lost(self, error: ProxyError | None) -> None:
        """Take the end of the connection."""
        when = "within its response" if self.answered else "without a response"
        self._end(error or UpstreamReset(f"The upstream closed the connection {when}."))

    def flush_sink(self) -> None:
        """Let what was delivered leave towards the caller."""
        if self._sink is not None:
            self._sink.response_flush()

    def _take_head(self, fields: Fields, *, ended: bool) -> None:
        try:
            head = read_response(fields, self._method, ended=ended)
            if head.status < 200 and ended:  # noqa: PLR2004 (RFC 9113, 8.1)
                raise UpstreamMalformed("An informational response ends the stream.")
        except ProxyError as error:
            self.reset(Code.PROTOCOL_ERROR)
            self._fail(error)
            return
        sink = self._sink
        if sink is None:
            return
        if head.status < 200:  # noqa: PLR2004 (RFC 9110, 15.2)
            sink.informational(head)
            return
        self._answering = True
        self._expected = 0 if head.bodyless else ANY_LENGTH if head.length is None else head.length
        # The exchange may cancel us within this call.
        sink.response_head(head)
        if ended:
            self.take_end(b"")
        elif not self.is_closed:
            self.endpoint.touch(self)

    def _take_trailers(self, fields: Fields) -> None:
        try:
            trailers = read_trailers(fields)
        except ValueError as error:
            self.fault(Code.PROTOCOL_ERROR, str(error))
        else:
            self.take_end(trailers)

    def _number(self) -> None:
        self._connection.number(self)

    def _deliver(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.response_data(data)

    def _deliver_end(self, trailers: bytes) -> None:
        # The place is free before the exchange hears of it, so that the caller's next request
        # finds it.
        sink, self._sink = self._sink, None
        self._connection.served()
        if self._sent_end:
            self.endpoint.forget(self)
        else:
            self.reset(Code.CANCEL)
        if sink is not None:
            sink.response_end(trailers)

    def _on_half_closed(self) -> None:
        """Wait for the response."""

    def _on_slow(self) -> None:
        if self._sink is not None:
            self._sink.pause_request()

    def _on_caught_up(self) -> None:
        if self._sink is not None:
            self._sink.resume_request()

    def _end(self, error: ProxyError) -> None:
        self.endpoint.forget(self)
        self._fail(error)

    def _fail(self, error: ProxyError) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.failed(error)
