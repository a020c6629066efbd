"""What both ends of a connection have in common: settings, windows, pings, streams, faults."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.settings import SettingCodes
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from proxy.plane.http2.batch import BATCH
from proxy.plane.http2.connection import Connection
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.standard import WINDOW, Code, ConnectionFault, LateFrame, StreamFault
from proxy.plane.http2.stream import Stream
from proxy.plane.http2.tolls import TALK, Tolls
from proxy.plane.sweeper import Sweeper

log = logging.getLogger("proxy.plane")

CONNECTION_WINDOW = 4 * 1024 * 1024
"""Bytes of all streams together that may be on their way to us.

It only has to cover what the network holds: what arrives is handed to its stream at once, and
what streams may hold is bounded by their own windows.
"""

# Bytes of answers that may wait for a peer that does not read, beyond paused streams.
_MOST_UNREAD = 1024 * 1024

TURN_WORK = 4000.0
"""Microseconds of work, about, that one connection may cause before others have their turn."""

_FRAME_WORK = 15.0

# Bytes that may wait for a turn before reading stops.
_MOST_WAITING = 64 * 1024

# Streams that are remembered after their end, to tell late frames from wrong ones.
_REMEMBERED = 256

# Settings in one frame: six are defined; more than this is a way to keep us busy.
_MOST_SETTINGS = 64
_SETTING_BYTES = 6  # RFC 9113, 6.5.1.
_KNOWN_SETTINGS = frozenset(SettingCodes)


class Endpoint(ABC):
    """One end of a connection."""

    __slots__ = (
        "_holds_back", "_is_last", "_past", "_settled", "_touched", "_transport", "_waiting",
        "_waits_for_turn", "_written", "choked", "connection", "head_limit", "is_closed", "streams",
        "sweeper", "tolls", "work",
    )  # fmt: skip

    def __init__(
        self,
        settings: dict[SettingCodes, int],
        head_limit: int,
        sweeper: Sweeper,
        tolls: Tolls,
        *,
        client: bool,
    ) -> None:
        self.head_limit = head_limit
        self.sweeper = sweeper
        self.connection = Connection(settings, head_limit, client=client)
        self.tolls = tolls
        self.is_closed = False
        """Whether what comes is no longer looked at."""
        self.streams: dict[int, Stream] = {}
        self.choked = False
        """Whether the transport has all that it can take: no more DATA is made then."""
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._settled = False
        """Whether the peer's settings have come, as they must before anything else."""
        self._waiting: deque[Stream] = deque()
        """Streams that wait for the connection's window or the transport, in their turn."""
        self._touched: list[Stream] = []
        self._written = True
        self.work = 0.0
        """Microseconds of the turn under way, about."""
        self._waits_for_turn = False
        """Whether a part of what has come waits for the next turn."""
        self._holds_back = False
        """Whether nothing is read until it had that."""
        self._is_last = False
        """Whether nothing more can come."""
        self._past: dict[int, bool] = {}
        """Streams that have ended, and whether it was by our reset."""

    # --- the transport's side ------------------------------------------------------------

    def begin(self) -> None:
        """Send what the connection begins with."""
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(CONNECTION_WINDOW - WINDOW)
        self.write_out()

    def take_segment(self, data: bytes) -> None:
        """Consume one segment, then let everything leave that it caused.

        What takes longer than a turn waits for the next, so that the connections of others have
        theirs in between; reading stops where too much waits.
        """
        if self._waits_for_turn:
            self.connection.incoming_buffer.add_data(data)
            self._hold_back()
            return
        BATCH.begin()
        try:
            self._receive(data)
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
        data = self.connection.output()
        if not data or self._transport.is_closing():
            return
        self._transport.write(data)
        if self.choked and self._transport.get_write_buffer_size() > _MOST_UNREAD:
            self.drop()

    @property
    def in_head(self) -> bool:
        """Whether a part of a header block has come, and the rest has not."""
        return self.connection.incoming_buffer.in_head

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
        self.tolls.opened += 1

    def forget(self, stream: Stream, *, reset: bool = False) -> None:
        """Take a stream out that has ended; `reset` if it was us who ended it early."""
        stream.is_closed = True
        if self.streams.pop(stream.id, None) is not None:
            self.remember(stream.id, reset=reset)
        self._on_stream_gone()

    def remember(self, stream: int, *, reset: bool) -> None:
        """Note a stream that has ended; see `_check_past`."""
        self.connection.forget(stream)
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
        waiting, connection = self._waiting, self.connection
        while waiting and connection.outbound_flow_control_window > 0 and not self.choked:
            stream = waiting.popleft()
            stream.waits = False
            if not stream.is_closed:
                stream.pump(turns=1)

    # --- frames --------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        """Take the frames of a segment, one by one."""
        connection = self.connection
        buffer = connection.incoming_buffer
        buffer.add_data(data)
        self.work = 0.0
        for frame in buffer:
            self._take(frame)
            if self.is_closed:
                return
            self.work += _FRAME_WORK
            if self.work > TURN_WORK and not self._is_last:
                self._wait_for_turn()
                break
        room = connection.inbound_flow_control_window
        if room <= CONNECTION_WINDOW >> 1:
            connection.increment_flow_control_window(CONNECTION_WINDOW - room)
        self.flush()  # h2 may have answered pings and settings.

    def _wait_for_turn(self) -> None:
        """Take what is left when others have had their turn."""
        if self.connection.incoming_buffer.waiting:
            self._waits_for_turn = True
            self._hold_back()
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _hold_back(self) -> None:
        """Read no more where too much waits."""
        if not self._holds_back and self.connection.incoming_buffer.waiting > _MOST_WAITING:
            self._holds_back = True
            self._transport.pause_reading()

    def _take_turn(self) -> None:
        if self.is_closed or not self._waits_for_turn:
            return
        self._waits_for_turn = False
        self.take_segment(b"")
        if not (self._waits_for_turn or self.is_closed):
            self._let_come()

    def _let_come(self) -> None:
        """Read on."""
        if self._holds_back and not self._is_last:
            self._holds_back = False
            self._transport.resume_reading()

    def take_rest(self) -> None:
        """Take all that waits for a turn at once, because nothing more will come."""
        self._is_last = True
        if self._waits_for_turn:
            self._take_turn()

    def _take(self, frame: Frame) -> None:
        if not self._settled:
            self._check_first(frame)
        try:
            toll = _TOLLS.get(frame.__class__)
            if toll is not None and not toll(self, frame):
                return
            if frame.__class__ is RstStreamFrame and frame.stream_id not in self.streams:
                self._check_late_reset(frame.stream_id)
                return
            events = self.connection.take(frame)
        except StreamFault as fault:
            self._end_faulty(fault)
        except LateFrame:
            self._check_late(frame)
        else:
            for event in events:
                self._on_event(event)

    def _on_event(self, event: Event) -> None:
        """Hand an event to what it concerns; the frequent ones first."""
        kind = event.__class__
        if kind is DataReceived:
            self._on_data(cast("DataReceived", event))
        elif kind is StreamEnded:
            pass  # The event that ended it has said so.
        elif kind in _HEADS:
            # The ones that are informational never end their stream.
            ended = getattr(event, "stream_ended", None) is not None
            fields = self.connection.decoder.latest
            self.work += fields.work
            self._on_fields(cast("ResponseReceived", event).stream_id, fields, ended=ended)
        elif kind is WindowUpdated:
            self._on_window(cast("WindowUpdated", event).stream_id)
        elif kind is StreamReset:
            reset = cast("StreamReset", event)
            self._on_reset(reset.stream_id, int(reset.error_code or 0))
        elif kind is RemoteSettingsChanged:
            self._on_settings(cast("RemoteSettingsChanged", event))
        elif kind is PingAckReceived:
            self._on_pong(cast("PingAckReceived", event).ping_data)
        elif kind is ConnectionTerminated:
            self._on_goaway(cast("ConnectionTerminated", event).last_stream_id or 0)

    def _check_first(self, frame: Frame) -> None:
        """Insist on the settings that everything begins with (RFC 9113, 3.4)."""
        if not isinstance(frame, SettingsFrame):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame comes where none of its kind may.")
        if "ACK" in frame.flags:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no settings.")
        self._settled = True

    def _end_faulty(self, fault: StreamFault) -> None:
        found = self.streams.get(fault.stream)
        if found is not None:
            found.fault(fault.code, f"{fault}")
        elif self.is_idle(fault.stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame comes on a stream that never was.")

    def _check_late_reset(self, stream: int) -> None:
        """Count a frame that ends a stream that has ended, of which h2 thinks nothing."""
        if self.is_idle(stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream.")
        self.tolls.charge(TALK)

    def _check_late(self, frame: Frame) -> None:
        """Ignore a frame for a stream that we have reset; the peer may not know it yet.

        Raises:
            ConnectionFault: its sender had ended the stream, or cannot open one of this number.
        """
        was_reset = self._past.get(frame.stream_id)
        if was_reset is False:
            raise ConnectionFault(Code.STREAM_CLOSED, "A frame comes on a stream that has ended.")
        opens = isinstance(frame, HeadersFrame) and not self.connection.config.client_side
        if was_reset is None and opens:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS on a stream that cannot be opened.")

    def _on_data(self, event: DataReceived) -> None:
        found = self.streams.get(event.stream_id)
        if found is not None:
            found.take_data(event.data, ended=event.stream_ended is not None)

    def _on_window(self, number: int) -> None:
        """Send what was waiting for the window of a stream, or of the connection."""
        if number == 0:
            self._pump_waiting()
            return
        stream = self.streams.get(number)
        if stream is not None:
            stream.flush()

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        limit = event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
        if limit is not None:
            self._on_stream_limit(limit.new_value)
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            for stream in list(self.streams.values()):
                if not stream.is_closed:
                    stream.pump()

    # --- the side's own ------------------------------------------------------------------

    @abstractmethod
    def fail(self, fault: ConnectionFault) -> None:
        """Tell the peer what it did, and close."""

    @abstractmethod
    def drop(self) -> None:
        """Close at once: the peer does not even read."""

    @abstractmethod
    def is_idle(self, stream: int) -> bool:
        """Tell whether a stream of this number was never opened."""

    @abstractmethod
    def _on_fields(self, stream: int, fields: Fields, *, ended: bool) -> None:
        """Take a whole header block."""

    @abstractmethod
    def _on_reset(self, stream: int, code: int) -> None:
        """Take the peer's end of a stream."""

    @abstractmethod
    def _on_goaway(self, last: int) -> None:
        """Open no more streams; those above `last` were not and will not be processed."""

    @abstractmethod
    def _on_stream_gone(self) -> None:
        """Note that there is one stream less."""

    @abstractmethod
    def _on_stream_limit(self, limit: int) -> None:
        """Note how many streams the peer allows."""

    @abstractmethod
    def _on_pong(self, data: bytes) -> None:
        """Take the answer to our own ping."""


_HEADS = frozenset(
    (RequestReceived, ResponseReceived, InformationalResponseReceived, TrailersReceived)
)


def _data_toll(endpoint: Endpoint, frame: DataFrame) -> bool:
    if not frame.data and "END_STREAM" not in frame.flags:
        endpoint.tolls.charge(TALK)
    return True


def _ping_toll(endpoint: Endpoint, frame: PingFrame) -> bool:
    # An answer to one of ours is worth something: whoever has asked counts the others.
    if "ACK" not in frame.flags:
        endpoint.tolls.charge(TALK)
    return True


def _idle_toll(endpoint: Endpoint, frame: Frame) -> bool:  # noqa: ARG001 (see `_TOLLS`)
    endpoint.tolls.charge(TALK)
    return False  # RFC 9113, 5.3 and 5.5: ignored.


def _update_toll(endpoint: Endpoint, frame: WindowUpdateFrame) -> bool:
    endpoint.tolls.charge_update()
    if frame.window_increment == 0:
        raise StreamFault(frame.stream_id, Code.PROTOCOL_ERROR, "A WINDOW_UPDATE of 0.")
    return True


def _settings_toll(endpoint: Endpoint, frame: SettingsFrame) -> bool:
    # A window's first size is changed for each stream that is open.
    endpoint.tolls.charge(TALK + len(endpoint.streams))
    if frame.body_len > _MOST_SETTINGS * _SETTING_BYTES:
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A flood of settings.")
    # h2 would remember every number that it does not know, 65,530 of them.
    settings = frame.settings.items()
    frame.settings = {key: value for key, value in settings if key in _KNOWN_SETTINGS}
    return True


def _without_priority(endpoint: Endpoint, frame: HeadersFrame) -> bool:  # noqa: ARG001 (see `_TOLLS`)
    # RFC 9113, 5.3.2: priorities are deprecated. h2 ends the connection for odd ones.
    frame.flags.discard("PRIORITY")
    return True


_TOLLS: dict[type[Frame], Callable[[Endpoint, Any], bool]] = {
    HeadersFrame: _without_priority,
    DataFrame: _data_toll,
    WindowUpdateFrame: _update_toll,
    SettingsFrame: _settings_toll,
    PingFrame: _ping_toll,
    PriorityFrame: _idle_toll,
    ExtensionFrame: _idle_toll,
    AltSvcFrame: _idle_toll,
}
"""What takes the price of a frame, by its kind, and tells whether it means anything to us."""
