"""h2's connection, as a proxy needs it.

All that touches the library's insides is in here, in `buffer`, `decoder` and `encoder`;
`tests/unit/http2/test_library.py` holds the names.

HEADERS and DATA are written in here, as the HTTP/1.1 side writes its heads: h2 takes ten times as
long for it, and most of what it does is to check what we have made ourselves.  Its streams are
told what was sent, so that they stand where they would.

Frames are taken one by one, because what one of them causes (a stream is reset, the connection
is closed) has to happen before the next is looked at.  What h2 makes of each is either events,
or the fault of one stream or of the connection; h2 itself knows few faults of streams.
"""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import (
    AllowedStreamIDs,
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import (
    DenialOfServiceError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame

from proxy.plane.http2.buffer import Buffer
from proxy.plane.http2.decoder import CompressionError, Decoder
from proxy.plane.http2.encoder import NEVER, Encoder
from proxy.plane.http2.frames import data_head, frames_of
from proxy.plane.http2.standard import Code, ConnectionFault, LateFrame, StreamFault

_TRANSITIONS = H2ConnectionStateMachine._transitions  # noqa: SLF001 (there is no other way)
_GOAWAY = (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY)

_HEAD = StreamInputs.SEND_HEADERS
_INFORMATIONAL = StreamInputs.SEND_INFORMATIONAL_HEADERS
_END = StreamInputs.SEND_END_STREAM

_TEXTS = {
    Code.FLOW_CONTROL_ERROR: "More came than a window allows.",
    Code.STREAM_CLOSED: "A frame came after the end of its stream.",
}


class _Lasting(H2ConnectionStateMachine):
    """The library's table, but that a GOAWAY closes nothing (RFC 9113, 6.8).

    In h2 nothing is sent or accepted any more once it was sent or came, where what is open has
    to end in peace.
    """

    _transitions = {
        (state, what): (action, state if what in _GOAWAY else target)
        for (state, what), (action, target) in _TRANSITIONS.items()
    } | {(ConnectionState.CLOSED, what): (None, ConnectionState.CLOSED) for what in _GOAWAY}

    def __init__(self) -> None:
        super().__init__()
        self._kept = _KEPT[self.state]

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        """Take note of what is sent or comes; raise where it may not.

        Most of it leaves an open connection as it is, and the library's table has keys whose
        hash costs more than all the rest.
        """
        if input_._value_ in self._kept:
            return []
        events = super().process_input(input_)
        self._kept = _KEPT[self.state]
        return events


_KEPT = {
    state: frozenset(
        what.value
        for (before, what), (action, after) in _Lasting._transitions.items()  # noqa: SLF001 (as above)
        if before is after is state and action is None
    )
    for state in ConnectionState
}
"""What leaves each state as it is."""


class Connection(H2Connection):
    """One end of a connection: frames in, frames out, no sockets."""

    # What has ended is the endpoint's to remember: the library's 65,536 streams are 6 MB.
    MAX_CLOSED_STREAMS = 1

    decoder: Decoder
    encoder: Encoder
    incoming_buffer: Buffer

    def __init__(self, settings: dict[SettingCodes, int], head_limit: int, *, client: bool) -> None:
        """`settings` are ours; `head_limit` bounds heads (bytes)."""
        super().__init__(
            H2Configuration(
                client_side=client,
                header_encoding=None,
                # What heads mean is judged in `heads`, for both formats alike.
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.state_machine = _Lasting()
        ours = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: head_limit}
        self.local_settings = Settings(client=client, initial_values=ours | settings)
        self.decoder = Decoder(head_limit, of_responses=client)
        self.encoder = Encoder()
        self.incoming_buffer = Buffer(head_limit)

    # The library counts by going through all streams, twice for each exchange; the limits of
    # both sides are kept by those who open streams.  Less than none: a peer may allow none.
    open_inbound_streams = -1
    open_outbound_streams = -1

    def take(self, frame: Frame) -> list[Event]:
        """Return what a frame means.

        Raises:
            StreamFault: it breaks the rules of its stream.
            LateFrame: its stream has ended.
            ConnectionFault: it breaks the rules of the connection.
        """
        try:
            frames, events = self._frame_dispatch_table[frame.__class__](frame)
        except ProtocolError as error:
            raise self._judged(frame, error) from None
        if events and events[0].__class__ is StreamReset and not events[0].remote_reset:
            # Told as a fault: whoever ends the stream sends the reset.
            code = Code(events[0].error_code or 0)
            raise StreamFault(events[0].stream_id, code, "The window grows beyond all bounds.")
        if frames:
            self._prepare_for_sending(frames)
        return events  # type: ignore[no-any-return]  # h2's table of methods has no types

    def send_head(
        self,
        stream: int,
        lines: bytes,
        never: frozenset[bytes] = NEVER,
        *,
        ended: bool = False,
        informational: bool = False,
    ) -> None:
        """Send a field block as HEADERS: a head, or trailers where one was sent before."""
        known = self.streams.get(stream) or self._open(stream)
        state = known.state_machine
        state.process_input(_INFORMATIONAL if informational else _HEAD)
        if ended:
            state.process_input(_END)
        block = self.encoder.encode_lines(lines, never)
        self._data_to_send += frames_of(stream, block, ended=ended)

    def send_data(
        self,
        stream_id: int,
        data: bytes | memoryview,
        end_stream: bool = False,  # noqa: FBT001, FBT002 (the library's signature)
        pad_length: None = None,  # noqa: ARG002 (the library's signature)
    ) -> None:
        """Send a DATA frame, which has to fit into both windows and `FRAME_BYTES`."""
        size = len(data)
        stream = self.streams[stream_id]
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        if end_stream:
            stream.state_machine.process_input(_END)
        self._data_to_send += data_head(stream_id, size, ended=end_stream)
        self._data_to_send += data

    def output(self) -> bytearray:
        """Return what is to be written, and forget it."""
        data, self._data_to_send = self._data_to_send, bytearray()
        return data

    def _open(self, stream: int) -> H2Stream:
        """Open a stream of ours; only the side that is the client does."""
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        return self._begin_new_stream(stream, AllowedStreamIDs.ODD)

    def reset_stream(self, stream_id: int, error_code: ErrorCodes | int = 0) -> None:
        """Send RST_STREAM, also where the library takes the stream for closed by a fault."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.closed:
            self._prepare_for_sending([RstStreamFrame(stream_id, error_code=error_code)])
        else:
            super().reset_stream(stream_id, error_code)

    def forget(self, stream: int) -> None:
        """Drop what is known of a stream that has ended."""
        self.streams.pop(stream, None)

    def clear_outbound_data_buffer(self) -> None:
        """Keep what is to be sent: the library drops it when a GOAWAY comes."""

    def _handle_data_on_closed_stream(
        self,
        events: list[Event],  # noqa: ARG002 (the library's signature)
        exc: StreamClosedError,
        frame: DataFrame,  # noqa: ARG002 (the library's signature)
    ) -> tuple[list[Frame], list[Event]]:
        # The library would answer each such frame with a reset.
        raise exc

    def _judged(self, frame: Frame, error: ProtocolError) -> Exception | type[LateFrame]:
        """Return what an error of the library means: it knows hardly any but the connection's."""
        code = Code(error.error_code)
        text = _TEXTS.get(code, f"{error}")
        everywhere = (CompressionError, DenialOfServiceError)
        if isinstance(frame, HeadersFrame | DataFrame) and not isinstance(error, everywhere):
            if self.inbound_flow_control_window < 0:
                return ConnectionFault(code, "More DATA came than the connection's window allows.")
            if frame.stream_id in self.streams:
                return StreamFault(frame.stream_id, code, text)
            if isinstance(error, StreamClosedError | StreamIDTooLowError):
                return LateFrame
        return ConnectionFault(code, text)
