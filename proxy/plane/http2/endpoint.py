"""What both sides of the proxy have in common: a connection on a transport, and its streams.

Of a stream, what is sent waits in a queue while the peer's windows are shut; what was received is
passed on at once, and the peer may send on when it was.  So a reader that is slow makes its queue
grow, the queue pauses the sender's exchange, and the exchange stops granting window.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import Any, Final, Generic, TypeVar

from proxy.errors import ProxyError
from proxy.plane import unexpected
from proxy.plane.codec import UNCONNECTED
from proxy.plane.http2.batch import BATCH
from proxy.plane.http2.connection import Connection, StreamState
from proxy.plane.http2.encoder import NOTHING
from proxy.plane.http2.frames import ENABLE_PUSH, MAX_HEADER_LIST_SIZE
from proxy.plane.http2.standard import FRAME_BYTES, WINDOW, Code, ConnectionFault
from proxy.plane.http2.tolls import Tolls
from proxy.plane.sweeper import Sweeper

HIGH_WATER: Final = 64 * 1024
"""Bytes that may wait for the peer's window before the sender is asked to pause."""
LOW_WATER: Final = 16 * 1024

LARGEST_GRANT: Final = 256 * 1024
"""Bytes that a sender may be ahead of its reader.

Each stream begins with the standard's 64 KiB; from the second time that it is granted more, the
grant doubles: by then it is read, so that a thousand streams that nobody reads hold a third of
what they could.
"""

ANY_LENGTH: Final = -1

# Bytes of answers that may wait for a peer that does not read, beyond paused streams.
_MOST_UNREAD: Final = 1024 * 1024

# What comes in one piece of that size has filled a read buffer: more is there, and the loop would
# read it at once, up to 32 times in a row.
_FULL_BYTES: Final = 64 * 1024

# Bytes that may wait for a turn before reading stops.
_MOST_WAITING: Final = 64 * 1024

# What a setting of 32 bits can say.
_LARGEST_SETTING: Final = 2**32 - 1

_NO_LIMIT: Final = 1_000_000

_SENT_AT_ONCE: Final = 16
"""DATA frames of streams that waited for a window which leave in one turn: 256 KiB."""

_SENT_WORK: Final = 5.0
"""Microseconds that it takes to send one of them, about."""

_LOST_AT_ONCE: Final = 4
"""Streams that are told in one turn that they have ended with their connection.

To end an exchange takes some 50 microseconds, to repeat it or to answer it three times as much.
"""

# Streams that wait in vain, beyond as many as are open, before they are sorted out.
_FEW_WAITING: Final = 64


class Stream(StreamState):
    """One stream of an `Endpoint`."""

    __slots__ = (
        "_ended", "_expected", "_grant", "_head", "_paused", "_proven", "_queue", "_queued",
        "_slow", "_trailers", "endpoint", "never_indexed", "touched", "waits",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint[Any]) -> None:
        super().__init__(endpoint.initial_window)
        self.endpoint = endpoint
        self.touched = False
        """Whether something was delivered that the other side has not flushed yet."""
        # Sending
        self.waits = False
        """Whether it stands in the queue for the connection's window."""
        self.never_indexed = NOTHING
        self._head = b""
        """The head that is still to be sent."""
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._ended = False
        """Whether nothing will be added to what is sent."""
        self._trailers = b""
        self._slow = False
        # Receiving
        self._grant = WINDOW
        self._proven = False
        """Whether the peer was granted window before."""
        self._expected = ANY_LENGTH
        """Bytes of body that Content-Length still announces."""
        self._paused = False

    # --- sending -------------------------------------------------------------------------

    def send_data(self, data: bytes) -> None:
        """Send a part of the body with the next flush."""
        if data and not self.is_closed:
            self._queue.append(data)
            self._queued += len(data)

    def wait_for_window(self) -> None:
        """Send on in turn, where anything waits for a window."""
        if self._queue:
            self.endpoint.wait(self)

    def flush(self) -> None:
        """Let what was sent leave as far as the peer's windows allow."""
        if not self.is_closed:
            self.pump(_NO_LIMIT)
            self.endpoint.flush()

    def take_window(self) -> None:
        """Send on: the peer takes more."""
        self.flush()

    def pump(self, turns: int) -> None:
        """Make frames of what waits, at most `turns` of DATA."""
        try:
            self._pump(turns)
        except Exception as bug:
            # The table of the headers or a window may say what the peer was not told.
            self.endpoint.tear(bug)
            raise

    def _pump(self, turns: int) -> None:
        if self._head:
            self._emit_head()
        if self._queue:
            self._emit_data(turns)
            if self._slow:
                if self._queued <= LOW_WATER:
                    self._slow = False
                    self._on_caught_up()
            elif self._queued > HIGH_WATER:
                self._slow = True
                self._on_slow()
        if self._ended and not self.local_ended and not self._queue:
            self._emit_end()

    @property
    def is_stalled(self) -> bool:
        """Whether only the peer's window keeps the stream from ending."""
        return self._ended and bool(self._queue)

    def _emit_head(self) -> None:
        head, self._head = self._head, b""
        ended = self._ended and not self._queue and not self._trailers
        if self.id == 0:
            self._number()
        self.endpoint.send_head(self, head, self.never_indexed, ended=ended)
        if ended:
            self._on_sent_end()

    def _emit_data(self, turns: int) -> None:
        endpoint, queue = self.endpoint, self._queue
        while queue:
            shared = endpoint.window_out
            if endpoint.choked or shared <= 0 or turns == 0:
                endpoint.wait(self)
                return
            piece = queue[0]
            size = len(piece)
            if size <= self.window_out and size <= shared and size <= FRAME_BYTES:
                queue.popleft()
            else:
                # The stream's own window can be negative (RFC 9113, 6.9.2).
                size = min(self.window_out, shared, FRAME_BYTES)
                if size <= 0:
                    return  # The update that opens it comes to us.
                view = memoryview(piece)
                piece, queue[0] = view[:size], view[size:]
            turns -= 1
            self._queued -= size
            ended = self._ended and not queue and not self._trailers
            endpoint.send_data(self, piece, size, ended=ended)
            if ended:
                self._on_sent_end()

    def _emit_end(self) -> None:
        # An empty DATA frame takes no window (RFC 9113, 6.9.1), so the end never has to wait.
        if self._trailers:
            self.endpoint.send_head(self, self._trailers, ended=True)
        else:
            self.endpoint.send_data(self, b"", 0, ended=True)
        self._on_sent_end()

    def _on_sent_end(self) -> None:
        if self.remote_ended:
            self.endpoint.forget(self)
        else:
            self._on_half_closed()

    def reset(self, code: Code) -> None:
        """End the stream at once, whatever waits to be sent on it (RFC 9113, 5.4.2)."""
        if self.is_closed:
            return
        self.drop_unsent()
        if self.id:
            self.endpoint.send_reset(self.id, code)
        self.endpoint.forget(self, reset=True)
        self.endpoint.flush()

    def drop_unsent(self) -> None:
        """Forget what waits to be sent: the peer has ended the stream, which may wait for long."""
        self._queue.clear()
        self._head = b""

    # --- receiving -----------------------------------------------------------------------

    def take_data(self, payload: bytes, *, ended: bool) -> None:
        """Take a part of the body, which may be empty."""
        if payload:
            if self._expected >= 0:
                self._expected -= len(payload)
                if self._expected < 0:
                    self.fault(Code.PROTOCOL_ERROR, "The body is longer than Content-Length.")
                    return
            self._deliver(payload)
        if ended:
            self.take_end(b"")
        elif not self.is_closed:
            self.endpoint.touch(self)
            if not self._paused and self.window_in <= self._grant >> 1:
                self._replenish()

    def take_end(self, trailers: bytes) -> None:
        """Take the end of the body; `trailers` is a field block."""
        if self.is_closed:
            return
        if self._expected > 0:
            self.fault(Code.PROTOCOL_ERROR, "The body is shorter than Content-Length.")
            return
        self.remote_ended = True
        self.touched = False  # The end lets everything leave.
        self._deliver_end(trailers)

    def pause_receiving(self) -> None:
        """Let the peer use up its window, and grant no more: the only way to stop one stream.

        Reading less would stop all streams of the connection.
        """
        self._paused = True

    def resume_receiving(self) -> None:
        """Grant window again."""
        self._paused = False
        if not self.is_closed and not self.remote_ended and self.window_in <= self._grant >> 1:
            self._replenish()

    def _replenish(self) -> None:
        """Grant window: half of it is used up.

        It doubles while the peer keeps filling it, so that a fast upload over a long way is not
        held to 64 KiB for each round trip, and a stream that sends little holds little.
        """
        if not self._proven:
            self._proven = True
        elif self._grant < LARGEST_GRANT:
            self._grant = min(self._grant * 2, LARGEST_GRANT)
        self.endpoint.grant(self, self._grant - self.window_in)
        self.endpoint.flush()

    # --- the side's own ------------------------------------------------------------------

    def _number(self) -> None:
        """Take a number: the side that opens streams does so when their head leaves."""
        raise AssertionError("a caller's stream has its number from the beginning")

    @abstractmethod
    def lost(self, error: ProxyError | None) -> None:
        """Take the end of the connection, `error` where there is more to say of it."""

    @abstractmethod
    def flush_sink(self) -> None:
        """Let what was delivered leave on the other side."""

    @abstractmethod
    def _deliver(self, data: bytes) -> None:
        """Pass on a part of the body."""

    @abstractmethod
    def _deliver_end(self, trailers: bytes) -> None:
        """Pass on the end of the message, with its trailers, a field block."""

    @abstractmethod
    def _on_half_closed(self) -> None:
        """Note that we have sent everything and the peer has not."""

    @abstractmethod
    def _on_slow(self) -> None:
        """Ask the other side to deliver no more: `HIGH_WATER` bytes wait to be sent."""

    @abstractmethod
    def _on_caught_up(self) -> None:
        """Ask the other side to go on: no more than `LOW_WATER` bytes wait."""


T = TypeVar("T", bound=Stream)


class Endpoint(Connection[T], Generic[T]):
    """A connection on a transport."""

    __slots__ = (
        "_holds_back", "_is_last", "_lost", "_sends_on", "_touched", "_transport", "_waiting",
        "_waits_for_turn", "_written", "choked", "head_limit", "sweeper",
    )  # fmt: skip

    def __init__(self, head_limit: int, sweeper: Sweeper, tolls: Tolls, *, client: bool) -> None:
        """`head_limit` bounds the heads that come, in bytes as HTTP/1.1 would write them."""
        super().__init__(head_limit, tolls, client=client)
        self.head_limit = head_limit
        self.sweeper = sweeper
        self.choked = False
        """Whether the transport has all that it can take: no more DATA is made then."""
        self._transport: asyncio.Transport = UNCONNECTED
        self._waiting: deque[T] = deque()
        """Streams that wait for the connection's window or the transport, in their turn."""
        self._sends_on = False
        """Whether the next turn is asked for to go on with them."""
        self._touched: list[T] = []
        self._written = True
        self._waits_for_turn = False
        """Whether nothing more is taken in this turn of the loop."""
        self._holds_back = False
        """Whether nothing is read until the next one."""
        self._is_last = False
        """Whether nothing more can come."""
        self._lost: deque[tuple[T, ProxyError | None]] = deque()
        """Streams that have ended with their connection and are not told yet, and why."""

    # --- the transport's side ------------------------------------------------------------

    def begin(self, settings: dict[int, int]) -> None:
        """Send what the connection begins with; `settings` are those of the side."""
        limit = min(self.head_limit, _LARGEST_SETTING)
        self.greet({ENABLE_PUSH: 0, MAX_HEADER_LIST_SIZE: limit} | settings)
        self.write_out()

    def take_segment(self, data: bytes) -> None:
        """Consume one segment, then let everything leave that it caused.

        What takes longer than a turn waits for the next, so that the connections of others have
        theirs in between; reading stops where too much waits.
        """
        if self._waits_for_turn:
            self.hold(data)
            self._hold_back(_MOST_WAITING)
            return
        BATCH.begin()
        try:
            full = len(data) >= _FULL_BYTES
            if not self.receive(data) or full:
                self._wait_for_turn(full=full)
            if self._out:
                self.flush()
            self._flush_touched()
            self._on_segment()
        except ConnectionFault as fault:
            self.fail(fault)
        except Exception as bug:  # noqa: BLE001 (it ends this connection, whatever it is)
            self.tear(bug)
        finally:
            BATCH.end()

    def pause_writing(self) -> None:
        """Make no more DATA: the peer reads slowly."""
        self.choked = True

    def resume_writing(self) -> None:
        """Make DATA again: the peer has caught up."""
        self.choked = False
        self._on_window()
        self.flush()

    def flush(self) -> None:
        """Write what was made, with all that the segment under way still adds."""
        if self._written:
            self._written = False
            try:
                BATCH.note(self)
            except Exception as bug:  # noqa: BLE001 (nothing would ever be written any more)
                self.tear(bug)

    def write_out(self) -> None:
        """Write what was made, as one piece: over TLS, one record."""
        self._written = True
        try:
            data = self.output()
            if not data or self._transport.is_closing():
                return
            self._transport.write(data)
        except Exception as bug:  # noqa: BLE001 (it ends this connection; others are to be written)
            self.tear(bug)
            return
        if self.choked and self._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.drop()

    def _wait_for_turn(self, *, full: bool) -> None:
        """Take what is left when others have had their turn; `full` if more is there to be read."""
        if self._is_last:
            while not self.receive(b""):
                pass
            return
        self._waits_for_turn = True
        self._hold_back(0 if full else _MOST_WAITING)
        self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        asyncio.get_running_loop().call_soon(self.take_turn)

    def _hold_back(self, most: int) -> None:
        """Read no more where more than that waits (bytes)."""
        if not self._holds_back and (most == 0 or self.waiting > most):
            self._holds_back = True
            self._transport.pause_reading()

    def take_turn(self) -> None:
        """Take what waits for this turn, and read on once nothing is left."""
        if self._lost or self._sends_on:
            self._go_on()
        if self._waits_for_turn and not self.is_closed:
            self._waits_for_turn = False
            waiting = self.waiting
            self.take_segment(b"")
            if self._waits_for_turn or self.is_closed:
                return
            if self.waiting != waiting and self._holds_back:
                # To read more, a full buffer of it, is work of another turn.
                self._waits_for_turn = True
                self._ask_for_turn()
            else:
                self._let_come()

    def _go_on(self) -> None:
        """Tell and send what was too much for the turns before."""
        BATCH.begin()
        try:
            if self._lost:
                self._tell_lost()
            if self._sends_on and not self.is_closed:
                self._sends_on = False
                self._on_window()
                self.flush()
        except Exception as bug:  # noqa: BLE001 (it ends this connection, whatever it is)
            self.tear(bug)
        finally:
            BATCH.end()

    def _let_come(self) -> None:
        """Read on where `_hold_back` has stopped it."""
        if self._holds_back and not self._is_last:
            self._holds_back = False
            self._transport.resume_reading()

    def take_rest(self) -> None:
        """Take all that waits for a turn at once, because nothing more will come."""
        self._is_last = True
        self.take_turn()

    # --- streams -------------------------------------------------------------------------

    def touch(self, stream: T) -> None:
        """Note that something was delivered; it is flushed when the segment is done."""
        if not stream.touched:
            stream.touched = True
            self._touched.append(stream)

    def wait(self, stream: T) -> None:
        """Give the stream a turn when the connection can send again."""
        if stream.waits:
            return
        stream.waits = True
        self._waiting.append(stream)
        if len(self._waiting) > 2 * len(self.streams) + _FEW_WAITING:
            # A peer that never lets us send can end any number of streams that wait for it.
            self._sort_out()

    def _sort_out(self) -> None:
        """Let nobody wait whose stream has ended; in place, because turns may be under way."""
        waiting = [each for each in self._waiting if not each.is_closed]
        self._waiting.clear()
        self._waiting.extend(waiting)

    def forget(self, stream: T, *, reset: bool = False) -> None:
        """Take a stream out that has ended; `reset` if it was us who ended it early."""
        self.release(stream, reset=reset)
        self._on_stream_gone()

    def lose(self, streams: list[T], error: ProxyError | None) -> None:
        """Take out streams that end without a word of theirs, `error` says why if there is more.

        Nothing comes or leaves on them from now on. They are told in this turn and the next ones,
        a few in each: there can be a thousand, and others would wait.
        """
        for stream in streams:
            self.release(stream, reset=True)
            stream.drop_unsent()
            self._lost.append((stream, error))
        self._tell_lost()

    def _tell_lost(self) -> None:
        for _ in range(min(_LOST_AT_ONCE, len(self._lost))):
            stream, error = self._lost.popleft()
            try:
                stream.lost(error)
            except Exception as bug:  # noqa: BLE001 (the others are to be told)
                _ = unexpected.failure(bug, "A bug in the data path; an exchange is ended.")
        if self._lost:
            self._ask_for_turn()

    def _flush_touched(self) -> None:
        touched = self._touched
        if touched:
            self._touched = []
            for stream in touched:
                if stream.touched:
                    stream.touched = False
                    stream.flush_sink()

    def _on_window(self) -> None:
        """Give every waiting stream its turn, one frame each, as long as there is room.

        Many have theirs in the next turns of the loop: what has left by then may choke the
        transport, and others are not kept waiting.
        """
        waiting = self._waiting
        left = _SENT_AT_ONCE
        while waiting and self.window_out > 0 and not self.choked:
            if left == 0:
                if not self._sends_on:
                    self._sends_on = True
                    self._ask_for_turn()
                return
            left -= 1
            self.work += _SENT_WORK
            stream = waiting.popleft()
            stream.waits = False
            if not stream.is_closed:
                stream.pump(1)

    def _on_windows(self) -> None:
        for stream in self.streams.values():
            stream.wait_for_window()
        self._on_window()

    # --- the side's own ------------------------------------------------------------------

    @abstractmethod
    def fail(self, fault: ConnectionFault) -> None:
        """Tell the peer what it did, and close."""

    @abstractmethod
    def drop(self) -> None:
        """Close at once: the peer does not even read."""

    def tear(self, bug: Exception) -> None:
        """Close after an exception of ours: the ends may not agree any more on what was said."""
        if self.is_closed:
            return
        failure = unexpected.failure(bug, "A bug in the HTTP/2 codec; the connection is closed.")
        self._out.clear()  # A frame may lack its payload.
        try:
            self._collapse(failure)
        except Exception:  # noqa: BLE001 (the second one: what can still be done is to cut)
            self.drop()

    @abstractmethod
    def _collapse(self, failure: ProxyError) -> None:
        """Close with what `failure` says."""

    @abstractmethod
    def _on_segment(self) -> None:
        """Note that a segment, or a turn's share of it, was taken."""

    @abstractmethod
    def _on_stream_gone(self) -> None:
        """Note that there is one stream less."""
