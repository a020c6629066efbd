"""What both ends of a connection have in common: settings, windows, pings, streams, faults."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import deque
from typing import cast

from proxy.plane.http2 import frames
from proxy.plane.http2.batch import BATCH
from proxy.plane.http2.budget import Budget
from proxy.plane.http2.encoder import Encoder
from proxy.plane.http2.frames import Code, ConnectionFault
from proxy.plane.http2.reader import FrameReader
from proxy.plane.http2.stream import Stream
from proxy.plane.sweeper import Sweeper

log = logging.getLogger("proxy.plane")

CONNECTION_WINDOW = 4 * 1024 * 1024
"""Bytes of all streams together that may be on their way to us.

It only has to cover what the network holds: what arrives is handed to its stream at once, and
what streams may hold is bounded by their own windows.
"""

# Frames that bring nobody anything: PING, SETTINGS, PRIORITY, empty DATA, unknown ones.
# grpcio pings some ten times a second while it measures the bandwidth.
_IDLE_TALK = 1000.0, 100.0

# WINDOW_UPDATEs that a peer may send: so many at first, for each stream, and for each DATA
# frame of ours.  grpcio sends two with each call.
_UPDATES = 1000
_UPDATES_PER_STREAM = 16
_UPDATES_PER_FRAME = 8

# Settings in one frame: six are defined; more than this is a way to keep us busy.
_MOST_SETTINGS = 64

# Bytes of answers that may wait for a peer that does not read, beyond paused streams.
_MOST_UNREAD = 1024 * 1024

# Streams that are remembered after their end, to tell late frames from wrong ones.
_REMEMBERED = 256


class Endpoint(FrameReader):
    """One end of a connection."""

    __slots__ = (
        "_idle_talk", "_past", "_touched", "_transport", "_updates", "_waiting",
        "_window_in", "_written", "choked", "encoder", "frame_limit", "initial_window", "out",
        "streams", "sweeper", "window",
    )  # fmt: skip

    def __init__(self, head_limit: int, sweeper: Sweeper) -> None:
        super().__init__(head_limit)
        self.sweeper = sweeper
        self.encoder = Encoder()
        self.out: list[bytes | memoryview] = []
        """Frames that were made and not written yet."""
        self.streams: dict[int, Stream] = {}
        self.choked = False
        """Whether the transport has all that it can take: no more DATA is made then."""
        self.window = frames.WINDOW
        """Bytes that the peer takes for all streams together."""
        self.initial_window = frames.WINDOW
        self.frame_limit = frames.SMALLEST_FRAME_LIMIT
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._window_in = CONNECTION_WINDOW
        self._waiting: deque[Stream] = deque()
        """Streams that wait for the connection's window or the transport, in their turn."""
        self._touched: list[Stream] = []
        self._written = True
        self._past: dict[int, bool] = {}
        """Streams that have ended, and whether it was by our reset."""
        self._updates = _UPDATES
        """WINDOW_UPDATEs that the peer may still send."""
        self._idle_talk = Budget(*_IDLE_TALK, sweeper.clock)

    # --- the transport's side ------------------------------------------------------------

    def begin(self, greeting: bytes) -> None:
        """Send what the connection begins with."""
        self.out.append(greeting)
        self.out.append(frames.window_update(0, CONNECTION_WINDOW - frames.WINDOW))
        self.write_out()

    def take_segment(self, data: bytes) -> None:
        """Consume one segment, then let everything leave that it caused."""
        BATCH.begin()
        try:
            self.receive(data)
            self._flush_touched()
        except ConnectionFault as fault:
            self.fail(fault)
        except Exception:
            log.exception("A bug in the HTTP/2 codec; the connection is closed.")
            self.fail(ConnectionFault(Code.INTERNAL_ERROR, "The proxy met a bug."))
        finally:
            BATCH.end()

    def pause_writing(self) -> None:
        """Make no more DATA: the peer reads slowly."""
        self.choked = True

    def resume_writing(self) -> None:
        """Go on."""
        self.choked = False
        self._pump_waiting()
        self.flush()

    def flush(self) -> None:
        """Write what was made, with all that the segment under way still adds."""
        if self._written:
            self._written = False
            BATCH.note(self)

    def write_out(self) -> None:
        """Write what was made, as one piece: over TLS, one record."""
        self._written = True
        out = self.out
        if not out:
            return
        data = b"".join(out)
        out.clear()
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self.choked and self._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.drop()

    def emit_data(
        self, stream: int, payload: bytes | memoryview, size: int, *, ended: bool
    ) -> None:
        """Make a DATA frame."""
        self._updates += _UPDATES_PER_FRAME
        self.out.append(frames.header.pack(size << 8, frames.END_STREAM if ended else 0, stream))
        if size:
            self.out.append(payload)

    # --- streams -------------------------------------------------------------------------

    def touch(self, stream: Stream) -> None:
        """Note that something was delivered; it is flushed when the segment is done."""
        if not stream.touched:
            stream.touched = True
            self._touched.append(stream)

    def wait(self, stream: Stream) -> None:
        """Give the stream a turn when the connection can send again."""
        if not stream.waits:
            stream.waits = True
            self._waiting.append(stream)

    def adopt(self, stream: Stream) -> None:
        """Take in a stream that has its number."""
        self.streams[stream.id] = stream
        self._updates += _UPDATES_PER_STREAM

    def forget(self, stream: Stream, *, reset: bool = False) -> None:
        """Take a stream out that has ended; `reset` if it was us who ended it early."""
        stream.is_closed = True
        if self.streams.pop(stream.id, None) is not None:
            self.remember(stream.id, reset=reset)
        self._on_stream_gone()

    def remember(self, stream: int, *, reset: bool) -> None:
        """Note a stream that has ended; see `_check_past`."""
        past = self._past
        past[stream] = reset
        if len(past) > _REMEMBERED:
            del past[next(iter(past))]

    def _flush_touched(self) -> None:
        touched = self._touched
        if touched:
            self._touched = []
            for stream in touched:
                stream.touched = False
                stream.flush_sink()

    def _pump_waiting(self) -> None:
        """Give every waiting stream its turn, one frame each, as long as there is room."""
        waiting = self._waiting
        while waiting and self.window > 0 and not self.choked:
            stream = waiting.popleft()
            stream.waits = False
            if not stream.is_closed:
                stream.pump(turns=1)

    # --- frames --------------------------------------------------------------------------

    def _on_data(self, stream: int, payload: bytes, size: int, *, ended: bool) -> None:
        self._window_in -= size
        if self._window_in <= CONNECTION_WINDOW >> 1:
            self.out.append(frames.window_update(0, CONNECTION_WINDOW - self._window_in))
            self._window_in = CONNECTION_WINDOW
            self.flush()
        found = self.streams.get(stream)
        if found is not None:
            found.take_data(payload, size, ended=ended)
        else:
            self._check_past(stream)

    def _check_past(self, stream: int) -> None:
        """Ignore a frame for a stream that we have reset; the peer may not know it yet.

        Raises:
            ConnectionFault: the stream never was, or its sender had ended it.
        """
        if self._is_idle(stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame comes on a stream that never was.")
        if self._past.get(stream) is False:
            raise ConnectionFault(Code.STREAM_CLOSED, "A frame comes on a stream that has ended.")

    def _on_window_update(self, stream: int, increment: int) -> None:
        self._updates -= 1
        if self._updates < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "WINDOW_UPDATEs without need.")
        if stream:
            self._open_stream_window(stream, increment)
            return
        self.window += increment
        if increment == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A WINDOW_UPDATE of 0.")
        if self.window > frames.LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The window grows beyond all bounds.")
        self._pump_waiting()
        self.flush()

    def _open_stream_window(self, number: int, increment: int) -> None:
        stream = self.streams.get(number)
        if stream is None:
            if self._is_idle(number):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream.")
            return
        stream.window += increment
        if increment == 0:
            stream.fault(Code.PROTOCOL_ERROR, "A WINDOW_UPDATE of 0.")
        elif stream.window > frames.LARGEST_WINDOW:
            stream.fault(Code.FLOW_CONTROL_ERROR, "The window grows beyond all bounds.")
        else:
            stream.flush()

    def _on_settings(self, values: list[tuple[int, int]]) -> None:
        self._on_idle_talk()
        if len(values) > _MOST_SETTINGS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A flood of settings.")
        initial = self.initial_window
        for name, value in values:
            self._set(name, value)
        if self.initial_window != initial:
            self._move_windows(self.initial_window - initial)
        self.out.append(frames.SETTINGS_ACK)
        self.flush()

    def _set(self, name: int, value: int) -> None:
        match name:
            case frames.HEADER_TABLE_SIZE:
                self.encoder.resize(value)
            case frames.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
            case frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The window is too large.")
                self.initial_window = value
            case frames.MAX_FRAME_SIZE:
                if not frames.SMALLEST_FRAME_LIMIT <= value <= frames.LARGEST_FRAME_LIMIT:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of its range.")
                self.frame_limit = min(value, frames.SMALLEST_FRAME_LIMIT)
            case frames.MAX_CONCURRENT_STREAMS:
                self._on_stream_limit(value)
            case _:
                pass  # RFC 9113, 6.5.2: what is not known is ignored.

    def _move_windows(self, change: int) -> None:
        """Move every stream's window with the initial one (RFC 9113, 6.9.2)."""
        for stream in list(self.streams.values()):
            stream.window += change
            if stream.window > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "A window grows beyond all bounds.")
            if change > 0:
                stream.pump()

    def _on_ping(self, data: bytes, *, ack: bool) -> None:
        if ack:
            self._on_pong(data)
            return
        self._on_idle_talk()
        self.out.append(frames.ping(data, ack=True))
        self.flush()

    def _on_idle_talk(self) -> None:
        if not self._idle_talk.spend():
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "Too many frames that carry nothing.")

    # --- the side's own ------------------------------------------------------------------

    @abstractmethod
    def fail(self, fault: ConnectionFault) -> None:
        """Tell the peer what it did, and close."""

    @abstractmethod
    def drop(self) -> None:
        """Close at once: the peer does not even read."""

    @abstractmethod
    def _is_idle(self, stream: int) -> bool:
        """Tell whether a stream of this number was never opened."""

    @abstractmethod
    def _on_stream_gone(self) -> None:
        """Note that there is one stream less."""

    @abstractmethod
    def _on_stream_limit(self, limit: int) -> None:
        """Note how many streams the peer allows."""

    @abstractmethod
    def _on_pong(self, data: bytes) -> None:
        """Take the answer to our own ping."""
