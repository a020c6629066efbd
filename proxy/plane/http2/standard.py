"""Names and numbers of RFC 9113, and the ways in which a peer breaks it."""

from __future__ import annotations

import enum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a caller's connection begins with (RFC 9113, 3.4)."""

WINDOW: Final = 65_535
"""Every window begins with this (RFC 9113, 6.9.2)."""

LARGEST_WINDOW: Final = 2**31 - 1
"""No window may grow beyond this (RFC 9113, 6.9.1)."""

FRAME_BYTES: Final = 16_384
"""Every peer accepts a payload of this size, and ours is never larger (RFC 9113, 4.2)."""

LARGEST_FRAME_BYTES: Final = 2**24 - 1
"""The largest payload that a peer may say it accepts (RFC 9113, 6.5.2)."""

LAST_STREAM: Final = 2**31 - 1


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
