"""Names and numbers of RFC 9113, and the ways in which a peer breaks it."""

from __future__ import annotations

from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a caller's connection begins with (RFC 9113, 3.4)."""

WINDOW = 65_535
"""Every window begins with this (RFC 9113, 6.9.2)."""

FRAME_BYTES = 16_384
"""Every peer accepts a payload of this size, and ours is never larger (RFC 9113, 4.2)."""

LAST_STREAM = 2**31 - 1

Code = ErrorCodes
"""Why a stream or a connection ends (RFC 9113, 7)."""


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


class StreamFault(Exception):
    """The peer broke the protocol so that one stream must end (RFC 9113, 5.4.2)."""

    def __init__(self, stream: int, code: Code, text: str) -> None:
        super().__init__(text)
        self.stream = stream
        self.code = code


class LateFrame(Exception):
    """A frame comes on a stream that has ended."""
