"""One stream, as both sides have it: a half that sends, a half that receives, two windows.

What is sent waits in a queue while the peer's windows are shut; what was received is passed
on at once, and the peer may send on when it was.  So a reader that is slow makes its queue
grow, the queue pauses the sender's exchange, and the exchange stops granting window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, cast

from proxy.errors import ProxyError
from proxy.plane.http2.encoder import NEVER
from proxy.plane.http2.standard import FRAME_BYTES, WINDOW, Code

if TYPE_CHECKING:
    from h2.stream import H2Stream

    from proxy.plane.http2.endpoint import Endpoint

HIGH_WATER = 64 * 1024
"""Bytes that may wait for the peer's window before the sender is asked to pause."""
LOW_WATER = 16 * 1024

LARGEST_GRANT = 256 * 1024
"""Bytes that a sender may be ahead of its reader.

Each stream begins with the standard's 64 KiB; from the second time that it is granted more, the
grant doubles: by then it is read, so that a thousand streams that nobody reads hold a third of
what they could.
"""

ANY_LENGTH = -1


class Stream(ABC):
    """One stream of an `Endpoint`."""

    __slots__ = (
        "_ended", "_expected", "_grant", "_head", "_paused", "_proven", "_queue", "_queued",
        "_sent_end", "_slow", "_trailers", "_windows", "endpoint", "id", "is_closed",
        "never_indexed", "remote_ended", "touched", "waits",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.id = 0
        """Its number, 0 until it is known."""
        self.is_closed = False
        self.touched = False
        """Whether something was delivered that the other side has not flushed yet."""
        # Sending
        self.waits = False
        """Whether it stands in the queue for the connection's window."""
        self._windows = cast("H2Stream", None)
        """h2's side of the stream, which counts both windows; there once it has its number."""
        self.never_indexed = NEVER
        self._head: bytes | None = None
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._ended = False
        """Whether nothing will be added to what is sent."""
        self._trailers = b""
        self._sent_end = False
        self._slow = False
        # Receiving
        self.remote_ended = False
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

    def flush(self) -> None:
        """Let what was sent leave as far as the peer's windows allow."""
        if not self.is_closed:
            self.pump()
            self.endpoint.flush()

    def pump(self, turns: int = 1_000_000) -> None:
        """Make frames of what waits, at most `turns` of DATA."""
        if self._head is not None:
            self._emit_head(self._head)
        if self._queue:
            self._emit_data(turns)
            if self._slow:
                if self._queued <= LOW_WATER:
                    self._slow = False
                    self._on_caught_up()
            elif self._queued > HIGH_WATER:
                self._slow = True
                self._on_slow()
        if self._ended and not self._sent_end and not self._queue:
            self._emit_end()

    @property
    def is_stalled(self) -> bool:
        """Whether only the peer's window keeps the stream from ending."""
        return self._ended and bool(self._queue)

    @property
    def is_answered(self) -> bool:
        """Whether all that is sent has been sent."""
        return self._sent_end

    def _emit_head(self, lines: bytes) -> None:
        endpoint = self.endpoint
        self._head = None
        ended = self._ended and not self._queue and not self._trailers
        opens = self.id == 0
        if opens:
            self._number()
        endpoint.tolls.sent += 1
        endpoint.connection.send_head(self.id, lines, self.never_indexed, ended=ended)
        if opens:
            self._windows = endpoint.connection.streams[self.id]
        if ended:
            self._on_sent_end()

    def _emit_data(self, turns: int) -> None:
        endpoint, queue, windows = self.endpoint, self._queue, self._windows
        connection = endpoint.connection
        while queue:
            shared = connection.outbound_flow_control_window
            if endpoint.choked or shared <= 0 or turns == 0:
                endpoint.wait(self)
                return
            # A stream's window can be negative (RFC 9113, 6.9.2).
            room = min(windows.outbound_flow_control_window, shared, FRAME_BYTES)
            if room <= 0:
                return  # Its own window is shut: the update that opens it comes to us.
            piece = queue[0]
            size = len(piece)
            if size > room:
                view = memoryview(piece)
                piece, queue[0], size = view[:room], view[room:], room
            else:
                queue.popleft()
            turns -= 1
            self._queued -= size
            ended = self._ended and not queue and not self._trailers
            endpoint.tolls.sent += 1
            connection.send_data(self.id, piece, end_stream=ended)
            if ended:
                self._on_sent_end()

    def _emit_end(self) -> None:
        connection = self.endpoint.connection
        self.endpoint.tolls.sent += 1
        if self._trailers:
            connection.send_head(self.id, self._trailers, ended=True)
        else:
            connection.end_stream(self.id)
        self._on_sent_end()

    def _on_sent_end(self) -> None:
        self._sent_end = True
        if self.remote_ended:
            self.endpoint.forget(self)
        else:
            self._on_half_closed()

    def reset(self, code: Code) -> None:
        """End the stream at once."""
        if self.is_closed:
            return
        self._queue.clear()
        self._head = None
        if self.id:
            self.endpoint.connection.reset_stream(self.id, code)
        self.endpoint.forget(self, reset=True)
        self.endpoint.flush()

    # --- receiving -----------------------------------------------------------------------

    def take_data(self, payload: bytes, *, ended: bool) -> None:
        """Take a DATA frame."""
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
            if not self._paused:
                self._replenish()

    def take_end(self, trailers: bytes) -> None:
        """Take the end of the body; `trailers` is a field block."""
        if self.is_closed:
            return
        if self._expected > 0:
            self.fault(Code.PROTOCOL_ERROR, "The body is shorter than Content-Length.")
            return
        self.remote_ended = True
        self._deliver_end(trailers)

    def pause_receiving(self) -> None:
        """Let the peer use up its window, and grant no more."""
        self._paused = True

    def resume_receiving(self) -> None:
        """Grant window again."""
        self._paused = False
        if not self.is_closed and not self.remote_ended:
            self._replenish()

    def _replenish(self) -> None:
        """Grant window if half of it is used up."""
        room = self._windows.inbound_flow_control_window
        if room > self._grant >> 1:
            return
        if not self._proven:
            self._proven = True
        elif self._grant < LARGEST_GRANT:
            self._grant = min(self._grant * 2, LARGEST_GRANT)
        self.endpoint.connection.increment_flow_control_window(self._grant - room, self.id)
        self.endpoint.flush()

    # --- the side's own ------------------------------------------------------------------

    def _number(self) -> None:
        """Take a number: the side that opens streams does so when their head leaves."""
        raise AssertionError("a caller's stream has its number from the beginning")

    @abstractmethod
    def fault(self, code: Code, text: str) -> None:
        """End the stream because the peer broke the protocol on it."""

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
        """Pass on the end."""

    @abstractmethod
    def _on_half_closed(self) -> None:
        """Note that we have sent everything and the peer has not."""

    @abstractmethod
    def _on_slow(self) -> None:
        """Ask for a pause."""

    @abstractmethod
    def _on_caught_up(self) -> None:
        """Ask to go on."""
