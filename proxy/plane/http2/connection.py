"""One end of a connection, without sockets: segments in, events and frames out (RFC 9113).

Whoever owns the connection gives it what came (`receive`) and takes what is to be written
(`output`).  In between it reads frames, keeps the states and windows of streams, obeys settings,
answers pings, and tells faults of one stream from those of all: the former are told to the stream,
the latter raised.  Events are methods: those of a stream are its own, the others the connection's.
What one frame causes (a stream is reset, the connection closed) has happened before the next is
looked at.

What a request is, and how much of anything a peer may send for nothing, is not known here: `heads`
judges messages, `tolls` counts frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from proxy.plane.http2 import frames
from proxy.plane.http2.block import Block
from proxy.plane.http2.decoder import CompressionError, Decoder, DecompressionBomb
from proxy.plane.http2.encoder import NOTHING, Encoder
from proxy.plane.http2.fields import Fields, is_informational
from proxy.plane.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    HEADERS,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    WEIGHTED,
    WINDOW_UPDATE,
    check_priority,
    need_connection,
    need_stream,
    without_padding,
    word_of,
)
from proxy.plane.http2.share import CONNECTION_SECONDS, MUCH_WORK
from proxy.plane.http2.standard import (
    FRAME_BYTES,
    LARGEST_FRAME_BYTES,
    LARGEST_WINDOW,
    LAST_STREAM,
    PREFACE,
    WINDOW,
    Code,
    ConnectionFault,
)
from proxy.plane.http2.tolls import TALK, UNREAD_SHIFT, Tolls

CONNECTION_WINDOW: Final = 4 * 1024 * 1024
"""Bytes of all streams together that may be on their way to us.

It only has to cover what the network holds: what arrives is handed to its stream at once, and
what streams may hold is bounded by their own windows.
"""

_FRAME_WORK: Final = 15.0

_PIECE_WORK: Final = MUCH_WORK + 1
"""What counts for each piece of a block that takes several: its sender is one who causes much."""

MOST_WORK: Final = 4000.0
"""Microseconds of work, as we reckon, that one segment causes before others have their turn."""

_LOOK_WORK: Final = 300.0
"""Microseconds of work, more than a short call, from one look at the clock to the next."""

_ANY_FRAME: Final = -1

# Settings in one frame: six are defined; more than this is a way to keep us busy.
_MOST_SETTINGS: Final = 64

# Streams that are remembered after their end, to tell late frames from wrong ones: at least.
_REMEMBERED: Final = 256


class StreamState(ABC):
    """What the protocol knows of one stream, and tells it."""

    __slots__ = (
        "has_head", "id", "is_closed", "local_ended", "remote_ended", "window_in", "window_out",
    )  # fmt: skip

    def __init__(self, window_out: int) -> None:
        """`window_out` is what the peer takes at first (bytes)."""
        self.id = 0
        """Its number, 0 until it is known."""
        self.is_closed = False
        self.has_head = False
        """Whether the head has come that is not informational: body and trailers follow."""
        self.remote_ended = False
        """Whether the peer has ended its half; set by the stream when it takes that end."""
        self.local_ended = False
        """Whether we have ended ours."""
        self.window_in = WINDOW
        """Bytes that the peer may still send."""
        self.window_out = window_out
        """Bytes that the peer takes at the moment; it can be negative (RFC 9113, 6.9.2)."""

    @abstractmethod
    def take_head(self, fields: Fields, *, ended: bool) -> None:
        """Take a head, or an informational one."""

    @abstractmethod
    def take_data(self, payload: bytes, *, ended: bool) -> None:
        """Take a part of the body, which may be empty."""

    @abstractmethod
    def take_trailers(self, fields: Fields) -> None:
        """Take the block that ends the stream (RFC 9113, 8.1)."""

    @abstractmethod
    def take_reset(self, code: int) -> None:
        """Take the peer's early end."""

    @abstractmethod
    def take_window(self) -> None:
        """Send on: the peer takes more."""

    @abstractmethod
    def fault(self, code: Code, text: str) -> None:
        """End the stream because the peer broke the protocol on it."""


S = TypeVar("S", bound=StreamState)


class Connection(ABC, Generic[S]):
    """One end of a connection; see the module."""

    __slots__ = (
        "_at", "_block", "_client", "_forgotten", "_older_past", "_only", "_out", "_past",
        "_segment", "_unread", "_window_in", "decoder", "encoder", "highest", "initial_window",
        "is_closed", "most_work", "streams", "tolls", "window_out", "work",
    )  # fmt: skip

    def __init__(self, head_limit: int, tolls: Tolls, *, client: bool) -> None:
        """`head_limit` bounds heads (bytes); the `client` is the side that opens streams."""
        self.decoder = Decoder(head_limit)
        self.encoder = Encoder()
        self.tolls = tolls
        self.is_closed = False
        """Whether what comes is no longer looked at."""
        self.streams: dict[int, S] = {}
        """By number, those that have not ended."""
        self.highest = 0
        """The latest stream that was opened."""
        self.window_out = WINDOW
        """Bytes that the peer takes for all streams together."""
        self.initial_window = WINDOW
        """What the window of a new stream is, as the peer says."""
        self.work = 0.0
        """Microseconds that the turn under way has taken, about."""
        self.most_work = MOST_WORK
        """How many it may take."""
        self._client = client
        self._window_in = CONNECTION_WINDOW
        self._out: list[bytes | memoryview] = []
        self._segment = b""
        self._at = 0
        """How much of the segment was taken."""
        self._only = SETTINGS
        """The only kind of frame that may come next: the first one, and within a block."""
        self._block: Block | None = None
        """The header block of which some frames have come."""
        self._unread: Block | None = None
        """The header block that has come and is read in pieces."""
        self._past: dict[int, bool] = {}
        """Streams that have ended, and whether it was by our reset."""
        self._older_past: dict[int, bool] = {}
        """Those that have ended before them: what is forgotten next."""
        self._forgotten = 0
        """The highest of those that are not remembered any more."""

    # --- what comes ----------------------------------------------------------------------

    def receive(self, data: bytes) -> bool:
        """Take the frames of a segment; return whether none is left that could be taken.

        A turn's work is done where some are; calls with nothing take them in the next ones.

        Raises:
            ConnectionFault: the peer broke the protocol, or sent too much of something.
        """
        self.work = 0.0
        if self._at < len(self._segment) or self._unread is not None:
            data = self._resume(data)
        self._segment = data
        self._at = at = 0
        size = len(data)
        look, ends = min(_LOOK_WORK, self.most_work), 0.0
        while self._unread is None and size - at >= HEAD_BYTES and not self.is_closed:
            first, flags, stream = frames.read_head(data, at)
            length = first >> 8
            if length > FRAME_BYTES:
                # RFC 9113, 4.2: we never announce that we take more, so nobody may send it.
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than we allow.")
            begin = at + HEAD_BYTES
            end = begin + length
            if end > size:
                break
            if self.work > look:
                now = self.tolls.clock()
                ends = ends or now + CONNECTION_SECONDS
                if now >= ends or self.work > self.most_work:
                    return False
                look = min(self.work + _LOOK_WORK, self.most_work)
            self.work += _FRAME_WORK
            self._at = at = end
            kind = first & 0xFF
            stream &= LAST_STREAM  # RFC 9113, 4.1: the bit before the number is ignored.
            if self._only != _ANY_FRAME:
                self._check_order(kind, flags, stream)
            if kind == DATA:
                self._take_data(flags, stream, data[begin:end])
            elif kind == HEADERS:
                self._take_headers(flags, stream, data[begin:end])
            else:
                self._take_other(kind, flags, stream, data[begin:end])
        return self._unread is None

    def _resume(self, data: bytes) -> bytes:
        """Read another piece of the block under way; return all bytes that are not taken."""
        block, self._unread = self._unread, None
        if block is not None:
            self._take_block(block.stream, None, ended=block.ended)
        return self._segment[self._at :] + data

    def hold(self, data: bytes) -> None:
        """Put a segment behind what waits for the next turn."""
        self._segment = self._segment[self._at :] + data
        self._at = 0

    @property
    def waiting(self) -> int:
        """Bytes that have come and are not taken."""
        return len(self._segment) - self._at

    @property
    def in_head(self) -> bool:
        """Whether a part of a header block has come, and the rest has not."""
        if self._block is not None:
            return True
        waits = self.waiting
        return waits > 0 and (waits < 4 or self._segment[self._at + 3] == HEADERS)  # noqa: PLR2004 (where the kind stands)

    # --- what is sent --------------------------------------------------------------------

    def greet(self, settings: dict[int, int]) -> None:
        """Begin: say our settings, and how much we take."""
        if self._client:
            self._out.append(PREFACE)
        self._out.append(frames.settings(settings))
        # RFC 9113, 6.9.2: settings change the windows of streams alone.  With the 64 KiB that the
        # connection begins with, one upload would stop all other streams at each round trip.
        self._out.append(frames.window_update(0, CONNECTION_WINDOW - WINDOW))

    def send_head(
        self,
        stream: StreamState,
        lines: bytes,
        never: frozenset[bytes] = NOTHING,
        *,
        ended: bool = False,
    ) -> None:
        """Send a field block: an informational head, a head, or trailers."""
        stream.local_ended = ended
        self.tolls.sent += 1
        block = self.encoder.encode(lines, never)
        self._out.append(frames.headers(stream.id, block, ended=ended))

    def send_data(
        self, stream: StreamState, piece: bytes | memoryview, size: int, *, ended: bool
    ) -> None:
        """Send `size` bytes of body, which have to fit into both windows and `FRAME_BYTES`."""
        stream.window_out -= size
        self.window_out -= size
        stream.local_ended = ended
        self.tolls.sent += 1
        self._out.append(frames.data_head(stream.id, size, ended=ended))
        if size:
            self._out.append(piece)

    def send_reset(self, stream: int, code: int) -> None:
        """End a stream early."""
        self._out.append(frames.reset(stream, code))

    def send_ping(self, data: bytes) -> None:
        """Ask for an answer, which `_on_pong` gets; `data` are 8 bytes."""
        self._out.append(frames.ping(data))

    def send_goaway(self, last: int, code: int, text: str = "") -> None:
        """Say that streams above `last` were not and will not be processed."""
        self._out.append(frames.goaway(last, code, text))

    def grant(self, stream: StreamState, increment: int) -> None:
        """Let the peer send `increment` more bytes on a stream (RFC 9113, 6.9)."""
        stream.window_in += increment
        self._out.append(frames.window_update(stream.id, increment))

    def output(self) -> bytes:
        """Return what is to be written, and forget it."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # --- streams -------------------------------------------------------------------------

    def adopt(self, stream: S) -> None:
        """Take in a stream that has its number."""
        self.streams[stream.id] = stream
        self.tolls.opened += 1

    def release(self, stream: S, *, reset: bool) -> None:
        """Take out a stream that has ended; `reset` if it was us who ended it early."""
        stream.is_closed = True
        if self.streams.pop(stream.id, None) is not None:
            self._remember(stream.id, reset=reset)

    def is_idle(self, stream: int) -> bool:
        """Tell whether a stream of this number was never opened.

        Those that the client opens have odd numbers (RFC 9113, 5.1.1); nobody opens the others,
        since pushing is off.
        """
        return stream > self.highest or not stream & 1

    def _remember(self, stream: int, *, reset: bool) -> None:
        self._past[stream] = reset
        if len(self._past) == _REMEMBERED:
            # All at once: to find the oldest of a dictionary takes a walk.
            self._forgotten = max([self._forgotten, *self._older_past])
            self._past, self._older_past = {}, self._past

    def _end_of(self, stream: int) -> bool | None:
        """Tell whether a stream ended by our reset, None where that is not known."""
        end = self._past.get(stream)
        return self._older_past.get(stream) if end is None else end

    def _check_late(self, stream: int) -> None:
        """Ignore a frame for a stream that we have reset; the peer may not know it yet.

        Raises:
            ConnectionFault: the stream never was, or its sender had ended it.
        """
        if self.is_idle(stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame comes on a stream that never was.")
        if self._end_of(stream) is False:
            raise ConnectionFault(Code.STREAM_CLOSED, "A frame comes on a stream that has ended.")

    # --- frames --------------------------------------------------------------------------

    def _check_order(self, kind: int, flags: int, stream: int) -> None:
        """Insist on the settings that everything begins with, and on whole blocks (4.3, 6.5)."""
        if kind != self._only:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame comes where none of its kind may.")
        if kind == SETTINGS:
            if flags & ACK:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no settings.")
            self._only = _ANY_FRAME
        elif self._block is not None and stream != self._block.stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A block goes on in another stream.")

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        if number == 0:  # RFC 9113, 6.1.
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA comes on stream 0.")
        if flags & PADDED:
            payload = without_padding(payload)
        ended = flags & END_STREAM != 0
        if not payload and not ended:
            # It costs no window, so nothing but the toll bounds how many come (CVE-2019-9518).
            self.tolls.charge(TALK)
        # What is late counts, too, and so does padding (RFC 9113, 6.1 and 6.9).
        self._window_in -= size
        # Half of it is left while the update travels; one for each frame would double the frames.
        if self._window_in <= CONNECTION_WINDOW >> 1:
            self._out.append(frames.window_update(0, CONNECTION_WINDOW - self._window_in))
            self._window_in = CONNECTION_WINDOW
        stream = self.streams.get(number)
        if stream is None:
            self._check_late(number)
            return
        stream.window_in -= size
        # RFC 9113, 5.1 (half-closed), 8.1 (the head comes first) and 6.9.1: each is the stream's
        # own fault, and the others go on.
        if stream.remote_ended:
            stream.fault(Code.STREAM_CLOSED, "DATA came after the end of the stream.")
        elif not stream.has_head:
            stream.fault(Code.PROTOCOL_ERROR, "DATA came before a head.")
        elif stream.window_in < 0:
            stream.fault(Code.FLOW_CONTROL_ERROR, "More DATA came than the window allows.")
        else:
            stream.take_data(payload, ended=ended)

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        need_stream(stream)
        if flags & PADDED:
            payload = without_padding(payload)
        if flags & WEIGHTED:
            # RFC 9113, 5.3.2: priorities are deprecated.
            if len(payload) < frames.PRIORITY_BYTES:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS end within their priority.")
            payload = payload[frames.PRIORITY_BYTES :]
        ended = flags & END_STREAM != 0
        if flags & END_HEADERS:
            self._take_block(stream, payload, ended=ended)
            return
        # RFC 9113, 6.2 and 6.10: nothing else may come before the block is whole, on any stream.
        self._only = CONTINUATION
        self._block = Block(stream, self.decoder.limit, ended=ended)
        self._block.add(payload)

    def _take_continuation(self, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without a block.")
        block.add(payload)
        if flags & END_HEADERS:
            self._block, self._only = None, _ANY_FRAME
            self._take_block(block.stream, block.whole(), ended=block.ended)

    def _take_block(self, number: int, block: bytes | None, *, ended: bool) -> None:
        """Take a whole block, or (None) go on with `_unread`; a new stream begins with it.

        It is decoded whatever its stream is: the table that blocks are compressed with belongs to
        the connection (RFC 9113, 4.3), and without this one all later ones would mean other fields.
        What takes long is read a piece in each turn, before any other frame.
        """
        if block is not None and len(block) > self.decoder.longest:
            self.tolls.charge(len(block) >> UNREAD_SHIFT)
        try:
            fields = self.decoder.read_on() if block is None else self.decoder.decode(block)
        except CompressionError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"{error}") from None
        except DecompressionBomb as bomb:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, f"{bomb}") from None
        if fields is None:
            self._unread = Block(number, 0, ended=ended)
            self.work += _PIECE_WORK
            return
        self.work += _PIECE_WORK if block is None else fields.work
        stream = self.streams.get(number)
        if stream is None:
            stream = self._opened(number)
            if stream is None:
                self.tolls.charge(TALK + fields.work)
                return
        if stream.remote_ended:
            stream.fault(Code.STREAM_CLOSED, "HEADERS came after the end of the stream.")
        elif not stream.has_head:
            # RFC 9113, 8.1: any number of 1xx, then the head, then trailers, which end the stream.
            stream.has_head = not (self._client and is_informational(fields))
            stream.take_head(fields, ended=ended)
        elif ended:
            stream.take_trailers(fields)
        else:
            stream.fault(Code.PROTOCOL_ERROR, "The trailers do not end the stream.")

    def _opened(self, number: int) -> S | None:
        """Return the stream that HEADERS open, None where they mean nothing any more."""
        if not self.is_idle(number):
            self._check_late(number)
            is_known = number <= self._forgotten or self._end_of(number) is not None
            if not is_known and not self._client:
                # RFC 9113, 5.1.1: it was left out when a higher one was opened.
                raise ConnectionFault(Code.PROTOCOL_ERROR, "A stream is opened below the highest.")
            return None
        if self._client or not number & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A stream is opened that cannot be.")
        # RFC 9113, 5.1.1: lower ones that were idle are closed by this.
        self.highest = number
        stream = self._accept(number)
        if stream is None:
            self.send_reset(number, Code.REFUSED_STREAM)
            self._remember(number, reset=True)
        return stream

    def _take_other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Take what carries no message."""
        if kind == WINDOW_UPDATE:
            self._take_window_update(number, payload)
        elif kind == PING:
            self._take_ping(flags, number, payload)
        elif kind == RST_STREAM:
            self._take_reset(number, payload)
        elif kind == CONTINUATION:
            self._take_continuation(flags, payload)
        elif kind == SETTINGS:
            self._take_settings(flags, number, payload)
        elif kind == frames.GOAWAY:
            self._take_goaway(number, payload)
        elif kind == frames.PUSH_PROMISE:
            # RFC 9113, 8.4: callers cannot push, and we tell upstreams not to.
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE was not permitted.")
        else:
            if kind == frames.PRIORITY:
                check_priority(number, payload)
            self.tolls.charge(TALK)  # RFC 9113, 5.3.2 and 5.5: deprecated or unknown, ignored.

    def _take_window_update(self, number: int, payload: bytes) -> None:
        self.tolls.charge_update()
        increment = word_of(payload) & LARGEST_WINDOW  # RFC 9113, 6.9: the first bit is reserved.
        if number:
            self._open_stream_window(number, increment)
            return
        if increment == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A WINDOW_UPDATE of 0.")
        self.window_out += increment
        if self.window_out > LARGEST_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The window grows beyond all bounds.")
        self._on_window()

    def _open_stream_window(self, number: int, increment: int) -> None:
        stream = self.streams.get(number)
        if stream is None:
            if self.is_idle(number):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream.")
            # RFC 9113, 5.1: it may have been sent before the peer knew of the end.
            return
        stream.window_out += increment
        if increment == 0:
            stream.fault(Code.PROTOCOL_ERROR, "A WINDOW_UPDATE of 0.")
        elif stream.window_out > LARGEST_WINDOW:
            stream.fault(Code.FLOW_CONTROL_ERROR, "The window grows beyond all bounds.")
        else:
            stream.take_window()

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        need_connection(number)
        if len(payload) != frames.PING_BYTES:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A PING has not 8 bytes.")
        if flags & ACK:
            self._on_pong(payload)
            return
        # Each makes us write one, whether it is read or not (CVE-2019-9512).
        self.tolls.charge(TALK)
        self._out.append(frames.ping(payload, ack=True))

    def _take_reset(self, number: int, payload: bytes) -> None:
        code = word_of(payload)
        need_stream(number)
        stream = self.streams.get(number)
        if stream is not None:
            stream.take_reset(code)
        elif self.is_idle(number):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream.")
        else:
            self.tolls.charge(TALK)

    def _take_goaway(self, number: int, payload: bytes) -> None:
        need_connection(number)
        # What follows the two numbers is text for people, and nobody's to read.
        if len(payload) < 8:  # noqa: PLR2004 (RFC 9113, 6.8)
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A GOAWAY has not 8 bytes.")
        last, code = frames.read_two_words(payload)
        self._on_goaway(last & LAST_STREAM, code)

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        need_connection(number)
        # A window's first size is changed for each stream that is open.
        self.tolls.charge(TALK + len(self.streams))
        if flags & ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A SETTINGS ACK has a payload.")
            return
        if len(payload) % frames.SETTING_BYTES:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS end within a setting.")
        if len(payload) > _MOST_SETTINGS * frames.SETTING_BYTES:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A flood of settings.")
        initial = self.initial_window
        # RFC 9113, 6.5.3: in their order, with no other frame between.
        for name, value in frames.read_settings(payload):
            self._set(name, value)
        change = self.initial_window - initial
        if change:
            self._move_windows(change)
        # Before what a window lets leave: until then a peer may hold us to the settings before.
        self._out.append(frames.SETTINGS_ACK)
        if change > 0:
            self._on_windows()
        self._on_settings()

    def _set(self, name: int, value: int) -> None:
        """Obey one setting; what is not known is ignored (RFC 9113, 6.5.2)."""
        if name == frames.HEADER_TABLE_SIZE:
            self.encoder.resize(value)
        elif name == frames.ENABLE_PUSH:
            # A server may not send it but as 0 (RFC 9113, 6.5.2); we push nothing anyway.
            if value > (0 if self._client else 1):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
        elif name == frames.INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "The window is too large.")
            self.initial_window = value
        elif name == frames.MAX_FRAME_SIZE:
            # Ours are never larger than what everybody accepts.
            if not FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of its range.")
        elif name == frames.MAX_CONCURRENT_STREAMS:
            self._on_stream_limit(value)

    def _move_windows(self, change: int) -> None:
        """Move every stream's window with the initial one (RFC 9113, 6.9.2).

        What has been sent already stays sent, so a window can become negative; DATA waits then
        until updates have brought it above 0.
        """
        self.work += len(self.streams)
        for stream in self.streams.values():
            stream.window_out += change
            if stream.window_out > LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "A window grows beyond all bounds.")

    # --- events --------------------------------------------------------------------------

    @abstractmethod
    def _accept(self, number: int) -> S | None:
        """Return the new stream that the peer opens, or None to refuse it."""

    @abstractmethod
    def _on_window(self) -> None:
        """Send what waits for the connection's window."""

    @abstractmethod
    def _on_windows(self) -> None:
        """Send what waits for the window of any stream."""

    @abstractmethod
    def _on_settings(self) -> None:
        """Take note that the peer's settings have come."""

    @abstractmethod
    def _on_stream_limit(self, limit: int) -> None:
        """Note how many streams the peer allows."""

    @abstractmethod
    def _on_pong(self, data: bytes) -> None:
        """Take the answer to a ping."""

    @abstractmethod
    def _on_goaway(self, last: int, code: int) -> None:
        """Open no more streams; those above `last` were not and will not be processed."""
