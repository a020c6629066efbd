"""HTTP/2 towards the caller: one connection, many exchanges at once."""

from __future__ import annotations

import asyncio
import math
from typing import cast

from h2.settings import SettingCodes

from proxy.plane.host import Host
from proxy.plane.http2.answering import AnsweringStream
from proxy.plane.http2.endpoint import Endpoint
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.standard import LAST_STREAM, Code, ConnectionFault
from proxy.plane.http2.tolls import GIVEN_UP, GIVEN_UP_AT_ONCE, REFUSED_STREAM, TALK, Tolls

MOST_STREAMS = 1000
"""Exchanges that a caller may have open on one connection.

gRPC callers put all their calls on one; beyond the limit they would queue them, unseen.
"""

HEAD_TIMEOUT = 30.0  # Seconds from the first byte of a head to its last: CONTRACT, data path.
IDLE_TIMEOUT = 600.0  # Seconds that a caller may keep a connection without a request.
CLOSE_TIMEOUT = 2.0  # Seconds that what is written may take to leave a closed connection.
DRAIN_TIMEOUT = 1.0  # Seconds that a caller may take to answer the ping behind a GOAWAY.

# Microseconds that it takes to begin an exchange, about.
_REQUEST_WORK = 250.0

_DRAIN_PING = b"draining"


class Http2Downstream(Endpoint, asyncio.Protocol):
    """A caller's connection; its streams are the downstream codecs."""

    __slots__ = (
        "_accepted", "_block_until", "_final", "_highest", "_leaving", "_older", "deadline",
        "host",
    )  # fmt: skip

    def __init__(self, host: Host) -> None:
        ours = {SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS}
        tolls = Tolls(host.sweeper.clock, host.allowance)
        super().__init__(ours, host.head_limit, host.sweeper, tolls, client=False)
        self.host = host
        self.deadline = math.inf
        self._block_until = math.inf
        """When the header block under way has to be complete."""
        self._highest = 0
        """The caller's latest stream."""
        self._accepted = LAST_STREAM
        """The last stream that a GOAWAY lets in."""
        self._leaving = False
        self._final = math.inf
        """When the GOAWAY comes that lets nobody in any more."""
        self._older = 0
        """The caller's latest stream before the segment that came last."""

    # --- the transport's side ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the caller."""
        self._transport = cast("asyncio.Transport", transport)
        self.deadline = self.sweeper.clock() + IDLE_TIMEOUT
        self.sweeper.add(self)
        self.host.opened(self)
        self.begin()

    def data_received(self, data: bytes) -> None:
        """Take one segment."""
        if self.is_closed:
            return
        self._older = self._highest
        self.take_segment(data)
        self._watch_head()

    def _take_turn(self) -> None:
        super()._take_turn()
        self._watch_head()

    def _watch_head(self) -> None:
        """Set, or lift, the deadline of a head that has begun to come."""
        if self._waits_for_turn:
            return  # It may have come, and waits for us.
        if self.in_head:
            if self._block_until == math.inf:
                self._block_until = self.sweeper.clock() + HEAD_TIMEOUT
                self._set_deadline()
        elif self._block_until != math.inf:
            self._block_until = math.inf
            self._set_deadline()

    def eof_received(self) -> bool:
        """Take the caller's FIN: it has gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of the connection."""
        self.is_closed = True
        self._lose_streams()
        self.sweeper.discard(self)
        self.host.closed(self)

    def on_deadline(self, now: float) -> None:
        """Act on a connection that is closed, leaving, idle, or in the middle of a head."""
        if self.is_closed:
            self._transport.abort()
        elif now >= self._block_until:
            text = f"A request head was not complete within {HEAD_TIMEOUT:g} s."
            self.fail(ConnectionFault(Code.ENHANCE_YOUR_CALM, text))
        elif now >= self._final:
            self._leave_finally()
        elif not self.streams:
            self._close(Code.NO_ERROR)
        else:
            self._reset_stalled(now)
        if not self.is_closed:
            self._set_deadline()

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
        self.connection.close_connection(Code.NO_ERROR, last_stream_id=LAST_STREAM)
        self.connection.ping(_DRAIN_PING)
        self._final = self.sweeper.clock() + DRAIN_TIMEOUT
        self._set_deadline()
        self.flush()

    def shut(self) -> None:
        """End the connection because the process ends; finished responses may still leave."""
        if not self.is_closed:
            self._leave_finally()
            for stream in list(self.streams.values()):
                if not stream.is_stalled:
                    stream.reset(Code.NO_ERROR if stream.is_answered else Code.CANCEL)
                    stream.lost(None)
        if self.is_closed:
            self._transport.close()

    def fail(self, fault: ConnectionFault) -> None:
        """Tell the caller what it did, and close."""
        self._close(fault.code, f"{fault}")

    def drop(self) -> None:
        """Close at once."""
        self.is_closed = True
        self._transport.abort()

    # --- streams -------------------------------------------------------------------------

    def stalled(self, until: float) -> None:
        """Note a stream that waits for nothing but the caller, and is given up then."""
        self.deadline = min(self.deadline, until)

    def _on_fields(self, stream: int, fields: Fields, *, ended: bool) -> None:
        found = self.streams.get(stream)
        if found is not None:
            cast("AnsweringStream", found).take_trailers(fields)
        else:
            self._open(stream, fields, ended=ended)

    def _open(self, number: int, fields: Fields, *, ended: bool) -> None:
        self._highest = number
        if number > self._accepted or len(self.streams) >= MOST_STREAMS:
            self.tolls.charge(REFUSED_STREAM)
            self.connection.reset_stream(number, Code.REFUSED_STREAM)
            self.remember(number, reset=True)
            return
        self.work += _REQUEST_WORK
        stream = AnsweringStream(self, number)
        if not self.streams:
            self.deadline = min(self._block_until, self._final)
        self.adopt(stream)
        stream.open(fields, ended=ended)
        if self.host.draining:
            self.drain()

    def _on_reset(self, stream: int, code: int) -> None:  # noqa: ARG002 (a caller needs no reason)
        found = self.streams[stream]
        if not found.is_answered:
            self.tolls.charge(GIVEN_UP if stream <= self._older else GIVEN_UP_AT_ONCE)
        self.forget(found)
        found.lost(None)

    def _on_goaway(self, last: int) -> None:
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
            self._set_deadline()

    def _on_stream_limit(self, limit: int) -> None:
        """Ignore it: nothing is pushed."""

    def is_idle(self, stream: int) -> bool:
        """Tell whether a stream of this number was never opened."""
        return stream > self._highest or not stream & 1

    def _reset_stalled(self, now: float) -> None:
        """Give up finished responses that the caller does not take."""
        for stream in list(self.streams.values()):
            cast("AnsweringStream", stream).check_stall(now)

    def _set_deadline(self) -> None:
        deadline = min(self._block_until, self._final)
        if not self.streams:
            deadline = min(deadline, self.sweeper.clock() + IDLE_TIMEOUT)
        else:
            stalls = [cast("AnsweringStream", s).stalls_until for s in self.streams.values()]
            deadline = min(deadline, *stalls)
        self.deadline = deadline

    # --- ends ----------------------------------------------------------------------------

    def _leave_finally(self) -> None:
        """Let no more streams in; close once there are none."""
        self._final = math.inf
        self._accepted = self._highest
        if self.streams:
            self.connection.close_connection(Code.NO_ERROR)
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
        self.is_closed = True
        self._lose_streams()
        self._let_come()
        if code is not None:
            self.connection.close_connection(code, text.encode())
        self.write_out()
        self.deadline = self.sweeper.clock() + CLOSE_TIMEOUT
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _lose_streams(self) -> None:
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            stream.is_closed = True
            stream.lost(None)
