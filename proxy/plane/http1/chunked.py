"""Reading a chunked body (RFC 9112, 7.1) with llhttp, and knowing exactly where it ends.

llhttp says that a message ended, not at which byte.  But a chunked body always ends with
CRLF CRLF (the last chunk's or the last trailer's line end and the empty line), so it is fed
in pieces that end at each such place: the one after which llhttp reports the end is the end.
Requests and responses have the same chunked bodies, so both sides use this.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser

from proxy.plane.head import block

# A constant head that makes a fresh parser expect a chunked body.
_PRIMER = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"\r\n\r\n"

# Chunk-size lines, extensions and trailers may be this many times as long as the data they
# carry, beyond the limit of a head: one byte per chunk is 6 bytes of framing to 1 of data.
_OVERHEAD_PER_BYTE = 16

# RFC 9110, 6.5.1: a trailer must not frame, route, authenticate, modify or tell how to process.
_FORBIDDEN_TRAILERS = frozenset(
    (
        b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length",
        b"content-range", b"content-type", b"cookie", b"expect", b"forwarded", b"host",
        b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since",
        b"keep-alive", b"max-forwards", b"pragma", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"range", b"set-cookie", b"te", b"trailer", b"transfer-encoding",
        b"upgrade", b"www-authenticate", b"x-forwarded-authorization", b"x-forwarded-for",
        b"x-forwarded-host", b"x-forwarded-proto", b"x-serverless-authorization",
    )
)  # fmt: skip


class ChunkedError(Exception):
    """The bytes are no chunked body; the text says why."""


def allowed_trailers(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return the field block of the trailers that may be passed on.

    Underscores count as hyphens: some servers read `X_Serverless_Authorization` as the
    identity header.
    """
    return block(
        (name, value)
        for name, value in pairs
        if name.lower().replace(b"_", b"-") not in _FORBIDDEN_TRAILERS
    )


class ChunkedBody:
    """Decodes one chunked body as its bytes come."""

    __slots__ = (
        "_limit", "_parser", "_pieces", "_read", "_tail", "_trailers", "_wire", "done", "rest",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        """`limit` bounds the bytes that are not data (bytes)."""
        self._pieces: list[bytes] = []
        self._trailers: list[tuple[bytes, bytes]] = []
        self._limit = limit
        self._tail = b""
        self._wire = 0
        self._read = 0
        self.done = False
        self.rest = b""
        """After the end: the bytes that came with it and do not belong to the body."""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_PRIMER)
        self._trailers.clear()

    def on_body(self, data: bytes) -> None:
        """Take a piece from llhttp."""
        self._pieces.append(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer from llhttp."""
        self._trailers.append((name, value))

    def on_message_complete(self) -> None:
        """Take the end from llhttp."""
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body that `data` holds.

        Raises:
            ChunkedError: the framing is invalid, or far larger than what it carries.
        """
        try:
            self._feed(data)
        except HttpParserError as error:
            raise ChunkedError(str(error)) from None
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._wire += len(data) - len(self.rest)
        self._read += len(body)
        if self._wire - self._read > self._limit + _OVERHEAD_PER_BYTE * self._read:
            raise ChunkedError("chunk extensions or trailers are too large")
        return body

    def _feed(self, data: bytes) -> None:
        """Feed up to the end of the body, or all."""
        view = memoryview(data)
        start = 0
        end = self._straddling(data)
        while True:
            if end == 0:
                found = data.find(_END, start)
                end = len(data) if found < 0 else found + len(_END)
            self._parser.feed_data(view[start:end])
            if self.done:
                self.rest = data[end:]
                return
            if end == len(data):
                self._tail = (self._tail + data[-3:])[-3:]
                return
            start, end = end, 0

    def _straddling(self, data: bytes) -> int:
        """Return how many bytes complete a CRLF CRLF begun in earlier data, 0 if none do."""
        for size in range(1, min(len(data), 3) + 1):
            if (self._tail + data[:size])[-4:] == _END:
                return size
        return 0

    @property
    def trailers(self) -> bytes:
        """The field block of the trailers, known once `done`."""
        return allowed_trailers(self._trailers)


def chunk(data: bytes) -> bytes:
    """Return `data`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: bytes) -> bytes:
    """Return the end of a chunked body with the field block of its trailers."""
    return b"0" + trailers + b"\r\n\r\n"
