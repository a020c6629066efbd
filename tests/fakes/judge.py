"""A second opinion on every frame that the proxy sends: h2, in the place of the proxy's peer.

h2 is told what the peer has sent, as far as the peer may send it: a frame that breaks the protocol
changes nothing that the proxy may send, beyond a reset or a GOAWAY.  What the proxy sends is given
to h2 frame by frame, with the validation of fields on.  So h2 judges field names and values, states
of streams, windows, lengths of bodies, limits and header blocks as a peer that is exact would.
Settings hold from their acknowledgement on (RFC 9113, 6.5.3).

What h2 does not look at is judged here: that pings and settings are acknowledged in order and as
often as they came, what the proxy lets its peer send, and that nothing follows a GOAWAY that says
what was wrong.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, RequestReceived, ResponseReceived
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from hyperframe.exceptions import HyperframeError

HEAD_BYTES = 9
_RST_STREAM, _CONTINUATION = 0x3, 0x9
_ACK = _END_STREAM = 0x1
_END_HEADERS, _PADDED, _WEIGHTED = 0x4, 0x8, 0x20
_LARGEST = 2**31 - 1
_BOUNDLESS = 2**32 - 1

# What the proxy may let its peer send ahead, on all streams and on one.
AHEAD_BYTES, STREAM_AHEAD_BYTES = 4 * 1024 * 1024, 256 * 1024

# Of a head that the peer sends: an attack by larger ones is judged until then.
_READ_BYTES = 192 * 1024

_OBEYED = frozenset(
    (
        SettingCodes.HEADER_TABLE_SIZE,
        SettingCodes.MAX_CONCURRENT_STREAMS,
        SettingCodes.INITIAL_WINDOW_SIZE,
        SettingCodes.MAX_FRAME_SIZE,
    )
)
"""Settings that bind the proxy; what a field block may have is advice (RFC 9113, 10.5.1)."""


@dataclass
class _Half:
    """What the peer has done on a stream, and how much it may still send."""

    has_head: bool = False
    ended: bool = False
    ahead: int = 65_535

    @property
    def is_sending(self) -> bool:
        return self.has_head and not self.ended


class Judge:
    """Tells of one connection what the proxy does wrong on it."""

    def __init__(self, *, client: bool) -> None:
        """`client` says whether the proxy's peer is the side that opens streams."""
        self.fault = ""
        """What was wrong first."""
        config = H2Configuration(
            client_side=client, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = H2Connection(config)
        self._h2.local_settings = Settings(
            client=client,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: _BOUNDLESS,
                SettingCodes.MAX_HEADER_LIST_SIZE: _BOUNDLESS,
            },
        )
        self._h2.decoder.max_header_list_size = _BOUNDLESS
        self._h2.initiate_connection()
        self._is_client = client
        self._said = bytearray()
        self._decoder: hpack.Decoder | None = hpack.Decoder(max_header_list_size=_READ_BYTES)
        """Of what the peer sends; None once that means nothing any more, and nothing is judged."""
        self._block: tuple[int, int, bytes] | None = None
        self._halves: dict[int, _Half] = {}
        self._highest = 0
        self._ahead = 65_535
        self._settings: deque[dict[int, int]] = deque()
        self._pings: deque[bytes] = deque()
        self._given_up: set[int] = set()
        """Streams that the peer has reset: on these the proxy may go on until it knows."""
        self._empty: set[int] = set()
        """Streams whose answer may name a length that it does not have."""
        self._has_parted = False

    # --- what the peer sends

    def say(self, data: bytes) -> None:
        """Take what the peer sends."""
        self._said += data
        while len(self._said) >= HEAD_BYTES:
            first, flags, stream = struct.unpack_from(">IBI", self._said)
            end = HEAD_BYTES + (first >> 8)
            if len(self._said) < end:
                return
            payload = bytes(self._said[HEAD_BYTES:end])
            del self._said[:end]
            self._say_frame(first & 0xFF, flags, stream & _LARGEST, payload)

    def _say_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and kind != _CONTINUATION:
            return  # It breaks the connection.
        match kind:
            case 0x0:
                self._say_data(flags, stream, len(payload))
            case 0x1:
                self._block = (stream, flags, _bare(flags, payload))
                self._end_block(flags)
            case 0x9 if self._block is not None:
                stream, first, block = self._block
                self._block = (stream, first, block + payload)
                self._end_block(flags)
            case 0x3 if stream in self._halves and len(payload) == 4:
                self._halves.pop(stream)
                self._given_up.add(stream)
                self._tell(lambda: self._h2.reset_stream(stream))
            case 0x4 if not flags & _ACK and not stream:
                whole = payload[: len(payload) // 6 * 6]
                self._settings.append(dict(struct.iter_unpack(">HI", whole)))
            case 0x6 if not flags & _ACK and not stream:
                self._pings.append(payload)
            case 0x8 if len(payload) == 4:
                self._say_window(stream, struct.unpack(">I", payload)[0] & _LARGEST)

    def _say_data(self, flags: int, stream: int, size: int) -> None:
        self._ahead -= size
        half = self._halves.get(stream)
        if half is None or not half.is_sending:
            return
        half.ahead -= size
        if flags & _END_STREAM:
            half.ended = True
            self._tell(lambda: self._h2.send_data(stream, b"", end_stream=True))

    def _end_block(self, flags: int) -> None:
        if not flags & _END_HEADERS or self._block is None:
            return
        (stream, first, block), self._block = self._block, None
        if self._decoder is None:
            return
        try:
            pairs = self._decoder.decode(block, raw=True)
        except hpack.HPACKError:
            self._decoder = None
            return
        self._say_head(stream, [(bytes(name), bytes(value)) for name, value in pairs], first)

    def _say_head(self, stream: int, pairs: list[tuple[bytes, bytes]], flags: int) -> None:
        ended = bool(flags & _END_STREAM)
        half = self._halves.get(stream)
        if half is None:
            if not self._is_client or not stream & 1 or stream <= self._highest:
                return
            self._highest = stream
            half = self._halves[stream] = _Half()
        informational = not self._is_client and _is_informational(pairs)
        if half.ended or (half.has_head and not ended) or (informational and ended):
            return
        half.has_head = half.has_head or not informational
        half.ended = ended
        if (b":method", b"HEAD") in pairs:
            self._empty.add(stream)
        # Of the fields nothing else says what the proxy may answer, and h2 may know none such.
        told = b":method" if self._is_client else b":status"
        fields = [pair for pair in pairs if pair[0] == told] or [(b"a", b"")]
        self._tell(lambda: self._h2.send_headers(stream, fields, end_stream=ended))

    def _say_window(self, stream: int, increment: int) -> None:
        if not increment or (stream and stream not in self._halves):
            return
        self._tell(lambda: self._h2.increment_flow_control_window(increment, stream or None))

    def _tell(self, does: Callable[[], object]) -> None:
        """Do what the peer did, where the protocol allows it."""
        with suppress(H2Error, ValueError):
            does()
        self._h2.clear_outbound_data_buffer()

    # --- what the proxy sends

    def hear(self, data: bytes) -> None:
        """Take a frame, or the preface, that the proxy has sent."""
        if self.fault or self._decoder is None:
            return
        try:
            self._hear(data)
        except (H2Error, HyperframeError, hpack.HPACKError, AssertionError) as error:
            self.fault = f"{type(error).__name__}: {error} ({data[:200]!r})"

    def _hear(self, data: bytes) -> None:
        if data.startswith(b"PRI "):
            self._h2.receive_data(data)
            return
        assert not self._has_parted, "a frame behind the GOAWAY that says what is wrong"
        first, flags, stream = struct.unpack_from(">IBI", data)
        kind, payload = first & 0xFF, data[HEAD_BYTES:]
        match kind:
            case 0x4 if flags & _ACK:
                self._hear_settings_ack()
            case 0x6 if flags & _ACK:
                assert self._pings, "a PING acknowledged that did not come"
                assert self._pings.popleft() == payload, "another PING acknowledged"
            case 0x7:
                # An h2 that has heard a GOAWAY hears nothing else.
                self._has_parted = payload[4:8] != bytes(4)
                return
            case 0x8:
                self._hear_window(stream, struct.unpack(">I", payload)[0])
            case 0x1:
                self._hear_head(stream)
        for event in self._h2.receive_data(data):
            self._check_length(event)
        self._check_reply()
        if kind == _RST_STREAM:
            self._halves.pop(stream, None)

    def _check_length(self, event: Event) -> None:
        """Insist on the body that a head names; h2 does where there is any."""
        if isinstance(event, RequestReceived | ResponseReceived) and event.stream_ended:
            lengths = [value for name, value in event.headers if name == b"content-length"]
            fits = event.stream_id in self._empty or set(lengths) <= {b"0"}
            assert fits, "a head that ends the stream, with a length"

    def _check_reply(self) -> None:
        """Fail if h2 resets a stream for what it has heard, unless the peer has done so."""
        replies = self._h2.data_to_send()
        while replies:
            first, _, stream = struct.unpack_from(">IBI", replies)
            wrong = first & 0xFF == _RST_STREAM and stream not in self._given_up
            assert not wrong, f"a frame on stream {stream}, which has ended"
            replies = replies[HEAD_BYTES + (first >> 8) :]

    def _hear_settings_ack(self) -> None:
        """Let those settings hold that are acknowledged."""
        assert self._settings, "settings acknowledged that did not come"
        known = self._settings.popleft()
        obeyed = {key: value for key, value in known.items() if key in _OBEYED}
        if obeyed:
            self._h2.update_settings(obeyed)

    def _hear_window(self, stream: int, increment: int) -> None:
        if stream == 0:
            self._ahead += increment
            assert self._ahead <= AHEAD_BYTES, f"a window of {self._ahead} for all streams"
        elif (half := self._halves.get(stream)) is not None:
            half.ahead += increment
            assert half.ahead <= STREAM_AHEAD_BYTES, f"a window of {half.ahead} for a stream"

    def _hear_head(self, stream: int) -> None:
        if not self._is_client and stream > self._highest:
            self._highest = stream
            self._halves[stream] = _Half()

    def expect_no_body(self, stream: int) -> None:
        """Let the answer on `stream` name a length that it does not have, as that to HEAD may.

        h2 knows that of HEAD, and not of 304 (RFC 9110, 8.6).
        """
        self._empty.add(stream)
        known = self._h2.streams.get(stream)
        if known is not None:
            known.request_method = b"HEAD"


def _bare(flags: int, payload: bytes) -> bytes:
    """Return a header block without padding and priority."""
    if flags & _PADDED and payload:
        payload = payload[1 : max(len(payload) - payload[0], 1)]
    return payload[5:] if flags & _WEIGHTED else payload


def _is_informational(pairs: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a head is of a 1xx."""
    return any(name == b":status" and value.startswith(b"1") for name, value in pairs)
