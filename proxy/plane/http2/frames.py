"""Frames as bytes (RFC 9113, 4 and 6): numbers, and how each one is written."""

from __future__ import annotations

import enum
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a caller's connection begins with (RFC 9113, 3.4)."""

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WEIGHTED = 0x20
"""The flag PRIORITY of a HEADERS frame."""

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

HEADER_BYTES = 9
WINDOW = 65_535
"""Every window begins with this (RFC 9113, 6.9.2)."""
LARGEST_WINDOW = 2**31 - 1
SMALLEST_FRAME_LIMIT = 16_384
"""Every peer accepts a payload of this size, and ours is never larger (RFC 9113, 4.2)."""
LARGEST_FRAME_LIMIT = 2**24 - 1
LAST_STREAM = 2**31 - 1

header = struct.Struct(">IBI")
"""Length and type in one number, flags, stream."""
setting = struct.Struct(">HI")
word = struct.Struct(">I")
two_words = struct.Struct(">II")


class Code(enum.IntEnum):
    """Why a stream or a connection ends (RFC 9113, 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


def name_of(code: int) -> str:
    """Return a code's name, or its number where it has none."""
    try:
        return Code(code).name
    except ValueError:
        return hex(code)


class ConnectionFault(Exception):
    """The peer broke the protocol so that the connection must end (RFC 9113, 5.4.1)."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join([setting.pack(*item) for item in values.items()])
    return header.pack(len(payload) << 8 | SETTINGS, 0, 0) + payload


SETTINGS_ACK = header.pack(SETTINGS, ACK, 0)


def headers(stream: int, block: bytes, limit: int, *, ended: bool) -> bytes:
    """Return a HEADERS frame, with CONTINUATION where `block` is longer than `limit`."""
    flags = END_STREAM if ended else 0
    if len(block) <= limit:
        return header.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream) + block
    pieces = [block[at : at + limit] for at in range(0, len(block), limit)]
    frames = [header.pack(limit << 8 | HEADERS, flags, stream) + pieces[0]]
    for number, piece in enumerate(pieces[1:], 2):
        last = END_HEADERS if number == len(pieces) else 0
        frames.append(header.pack(len(piece) << 8 | CONTINUATION, last, stream) + piece)
    return b"".join(frames)


def reset(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return header.pack(4 << 8 | RST_STREAM, 0, stream) + word.pack(code)


def ping(data: bytes, *, ack: bool = False) -> bytes:
    """Return a PING frame; `data` are 8 bytes."""
    return header.pack(8 << 8 | PING, ACK if ack else 0, 0) + data


def goaway(last: int, code: int, text: str = "") -> bytes:
    """Return a GOAWAY frame: streams above `last` were not and will not be processed."""
    payload = two_words.pack(last, code) + text.encode()
    return header.pack(len(payload) << 8 | GOAWAY, 0, 0) + payload


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return header.pack(4 << 8 | WINDOW_UPDATE, 0, stream) + word.pack(increment)
