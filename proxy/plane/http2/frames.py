"""Frames as bytes (RFC 9113, 4.1 and 6): numbers, and how they are written and read."""

from __future__ import annotations

import struct
from typing import Final

from proxy.plane.http2.standard import FRAME_BYTES, Code, ConnectionFault

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2  # Deprecated (RFC 9113, 5.3.2): read for its form alone.
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

# Flags mean what they mean for one kind of frame: END_STREAM and ACK are the same bit.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WEIGHTED: Final = 0x20
"""The flag PRIORITY of a HEADERS frame."""

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

# Sizes that are part of the format: any other is FRAME_SIZE_ERROR (RFC 9113, 4.2 and 6).
HEAD_BYTES: Final = 9
PING_BYTES: Final = 8
PRIORITY_BYTES: Final = 5
SETTING_BYTES: Final = 6
WORD_BYTES: Final = 4

_head = struct.Struct(">IBI")
"""Length and type in one number, flags, stream."""
_setting = struct.Struct(">HI")
_word = struct.Struct(">I")
_two_words = struct.Struct(">II")

read_head = _head.unpack_from
read_settings = _setting.iter_unpack
read_word = _word.unpack
read_two_words = _two_words.unpack_from

SETTINGS_ACK: Final = _head.pack(SETTINGS, ACK, 0)


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame (RFC 9113, 6.5) of values by their numbers."""
    payload = b"".join([_setting.pack(*item) for item in values.items()])
    return _head.pack(len(payload) << 8 | SETTINGS, 0, 0) + payload


def headers(stream: int, block: bytes, *, ended: bool) -> bytes:
    """Return a HEADERS frame, with CONTINUATION where the block is too long for one."""
    size = len(block)
    if size <= FRAME_BYTES:
        flags = END_HEADERS | END_STREAM if ended else END_HEADERS
        return _head.pack(size << 8 | HEADERS, flags, stream) + block
    # RFC 9113, 6.2: the end of the stream is said by HEADERS, that of the block by the last
    # CONTINUATION.  All in one piece: no frame of another stream may come between (6.10).
    flags = END_STREAM if ended else 0
    pieces = [_head.pack(FRAME_BYTES << 8 | HEADERS, flags, stream), block[:FRAME_BYTES]]
    for at in range(FRAME_BYTES, size, FRAME_BYTES):
        piece = block[at : at + FRAME_BYTES]
        last = END_HEADERS if at + FRAME_BYTES >= size else 0
        pieces += _head.pack(len(piece) << 8 | CONTINUATION, last, stream), piece
    return b"".join(pieces)


def data_head(stream: int, size: int, *, ended: bool) -> bytes:
    """Return what stands before the payload of a DATA frame."""
    return _head.pack(size << 8, END_STREAM if ended else 0, stream)


def reset(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame (RFC 9113, 6.4)."""
    return _head.pack(4 << 8 | RST_STREAM, 0, stream) + _word.pack(code)


def ping(data: bytes, *, ack: bool = False) -> bytes:
    """Return a PING frame; `data` are 8 bytes."""
    return _head.pack(PING_BYTES << 8 | PING, ACK if ack else 0, 0) + data


def goaway(last: int, code: int, text: str = "") -> bytes:
    """Return a GOAWAY frame: streams above `last` were not and will not be processed (6.8)."""
    payload = _two_words.pack(last, code) + text.encode()
    return _head.pack(len(payload) << 8 | GOAWAY, 0, 0) + payload


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return _head.pack(4 << 8 | WINDOW_UPDATE, 0, stream) + _word.pack(increment)


def without_padding(payload: bytes) -> bytes:
    """Return the payload of a frame with `PADDED` without its padding (RFC 9113, 6.1)."""
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A padded frame has no length of padding.")
    if payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "The padding is longer than its frame.")
    return payload[1 : len(payload) - payload[0]]


def word_of(payload: bytes) -> int:
    """Return the number that a payload of four bytes is; any other size is a fault."""
    if len(payload) != WORD_BYTES:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame has not the size of its kind.")
    word: int = read_word(payload)[0]
    return word


def check_priority(stream: int, payload: bytes) -> None:
    """Check the form of a PRIORITY, which is all that is left of it (RFC 9113, 6.3)."""
    need_stream(stream)
    if len(payload) != PRIORITY_BYTES:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A PRIORITY has not 5 bytes.")


def need_stream(stream: int) -> None:
    """Insist on a stream where a frame is about one."""
    if stream == 0:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame of a stream comes on stream 0.")


def need_connection(stream: int) -> None:
    """Insist on no stream where a frame is about the connection."""
    if stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "A frame of the connection comes on a stream.")
