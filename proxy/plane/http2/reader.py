"""From segments to frames: sizes, order and padding, whatever the frames mean (RFC 9113, 4)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from proxy.plane.http2 import frames
from proxy.plane.http2.decoder import CompressionError, Decoder, DecompressionBomb
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.frames import Code, ConnectionFault

ANY_FRAME = -1

# CONTINUATION frames that one block may take: 16 KiB each, that is far beyond any limit.
_LONGEST_BLOCK = 64

# A block may be this many times as long as what it may decode to: one that is merely too large
# is decoded, so that its stream gets an answer and the others go on.
_BLOCK_SHARE = 4


class FrameReader(ABC):
    """Cuts what comes into frames and hands each to the method that is named after it.

    All methods may raise `ConnectionFault`.
    """

    __slots__ = ("_block", "_block_ended", "_block_pieces", "_block_stream", "_only", "_partial",
                 "decoder", "is_closed")  # fmt: skip

    def __init__(self, head_limit: int) -> None:
        self.decoder = Decoder(head_limit)
        self.is_closed = False
        """Whether what comes is no longer looked at."""
        self._partial = b""
        self._only = frames.SETTINGS
        """The only kind of frame that may come next: the first one, and within a block."""
        self._block: list[bytes] = []
        self._block_stream = 0
        self._block_ended = False
        self._block_pieces = 0

    def receive(self, data: bytes) -> None:
        """Consume one segment."""
        if self._partial:
            data = self._partial + data
        position, size = 0, len(data)
        unpack = frames.header.unpack_from
        while size - position >= frames.HEADER_BYTES and not self.is_closed:
            first, flags, stream = unpack(data, position)
            if first >> 8 > frames.SMALLEST_FRAME_LIMIT:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than we allow.")
            start = position + frames.HEADER_BYTES
            end = start + (first >> 8)
            if end > size:
                break
            kind = first & 0xFF
            if self._only != ANY_FRAME:
                self._check_order(kind, flags, stream)
            if kind == frames.DATA:
                self._take_data(flags, stream & frames.LAST_STREAM, data[start:end])
            else:
                self._take(kind, flags, stream & frames.LAST_STREAM, data[start:end])
            position = end
        self._partial = data[position:]

    @property
    def in_head(self) -> bool:
        """Whether a part of a header block has come, and the rest has not."""
        if self._block_stream:
            return True
        return bool(self._partial) and self._partial[3:4] in (b"\x01", b"")

    # --- what frames mean: the endpoint's ------------------------------------------------

    @abstractmethod
    def _on_data(self, stream: int, payload: bytes, size: int, *, ended: bool) -> None:
        """Take a part of a body; `size` counts for the windows, padding included."""

    @abstractmethod
    def _on_fields(self, stream: int, fields: Fields, *, ended: bool) -> None:
        """Take a whole header block."""

    @abstractmethod
    def _on_reset(self, stream: int, code: int) -> None:
        """Take the end of a stream."""

    @abstractmethod
    def _on_settings(self, values: list[tuple[int, int]]) -> None:
        """Obey the peer's settings."""

    @abstractmethod
    def _on_ping(self, data: bytes, *, ack: bool) -> None:
        """Answer a ping, or take an answer."""

    @abstractmethod
    def _on_goaway(self, last: int, code: int, text: bytes) -> None:
        """Open no more streams."""

    @abstractmethod
    def _on_window_update(self, stream: int, increment: int) -> None:
        """Send more."""

    @abstractmethod
    def _on_idle_talk(self) -> None:
        """Count a frame that brings nobody anything."""

    # --- frames --------------------------------------------------------------------------

    def _check_order(self, kind: int, flags: int, stream: int) -> None:
        if kind != self._only:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame comes where none of its kind may.")
        if kind == frames.SETTINGS:
            if flags & frames.ACK:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "The first frame is no settings.")
            self._only = ANY_FRAME
        elif stream & frames.LAST_STREAM != self._block_stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "A block goes on in another stream.")

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        if stream == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on stream 0.")
        if not payload and not flags & frames.END_STREAM:
            self._on_idle_talk()
        self._on_data(stream, payload, size, ended=bool(flags & frames.END_STREAM))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case frames.HEADERS:
                self._take_headers(flags, stream, payload)
            case frames.WINDOW_UPDATE:
                (increment,) = _words(payload, 1)
                self._on_window_update(stream, increment & frames.LARGEST_WINDOW)
            case frames.RST_STREAM:
                (code,) = _words(payload, 1)
                _need_stream(stream)
                self._on_reset(stream, code)
            case frames.CONTINUATION:
                self._take_continuation(flags, payload)
            case frames.SETTINGS | frames.PING | frames.GOAWAY:
                _need_connection(stream)
                self._take_control(kind, flags, payload)
            case frames.PUSH_PROMISE:
                # RFC 9113, 8.4: callers cannot push, and we tell upstreams not to.
                raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE was not permitted.")
            case _:
                self._take_other(kind, stream, payload)

    def _take_control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == frames.SETTINGS:
            self._take_settings(flags, payload)
        elif kind == frames.PING:
            if len(payload) != 8:  # noqa: PLR2004 (RFC 9113, 6.7)
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A PING has not 8 bytes.")
            self._on_ping(payload, ack=bool(flags & frames.ACK))
        else:
            last, code = _words(payload[:8], 2)
            self._on_goaway(last & frames.LAST_STREAM, code, payload[8:])

    def _take_other(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == frames.PRIORITY:
            _need_stream(stream)
            if len(payload) != 5:  # noqa: PLR2004 (RFC 9113, 6.3)
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A PRIORITY has not 5 bytes.")
        self._on_idle_talk()  # RFC 9113, 5.3 and 5.5: what is deprecated or unknown is ignored.

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        _need_stream(stream)
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        if flags & frames.WEIGHTED:
            if len(payload) < 5:  # noqa: PLR2004 (RFC 9113, 6.2)
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS end within their priority.")
            payload = payload[5:]
        ended = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._on_fields(stream, self._decode(payload), ended=ended)
            return
        self._only = frames.CONTINUATION
        self._block = [payload]
        self._block_stream = stream
        self._block_ended = ended
        self._block_pieces = 1

    def _take_continuation(self, flags: int, payload: bytes) -> None:
        if not self._block_stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without a block.")
        self._block.append(payload)
        self._block_pieces += 1
        size = sum(map(len, self._block))
        if size > self.decoder.limit * _BLOCK_SHARE or self._block_pieces > _LONGEST_BLOCK:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block does not end.")
        if flags & frames.END_HEADERS:
            stream, self._block_stream, self._only = self._block_stream, 0, ANY_FRAME
            block, self._block = b"".join(self._block), []
            self._on_fields(stream, self._decode(block), ended=self._block_ended)

    def _decode(self, block: bytes) -> Fields:
        try:
            return self.decoder.decode(block)
        except CompressionError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, str(error)) from None
        except DecompressionBomb as error:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, str(error)) from None

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A SETTINGS ACK has a payload.")
            return
        if len(payload) % frames.setting.size:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS end within a setting.")
        self._on_settings(list(frames.setting.iter_unpack(payload)))


def _without_padding(payload: bytes) -> bytes:
    """Return the payload without its padding (RFC 9113, 6.1)."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "The padding is longer than its frame.")
    return payload[1 : len(payload) - payload[0]]


def _words(payload: bytes, count: int) -> tuple[int, ...]:
    """Return the numbers of a payload that has `count` of them."""
    if len(payload) != 4 * count:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame has not the size of its kind.")
    return frames.word.unpack(payload) if count == 1 else frames.two_words.unpack(payload)


def _need_stream(stream: int) -> None:
    if stream == 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame of a stream comes on stream 0.")


def _need_connection(stream: int) -> None:
    if stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame of the connection comes on a stream.")
