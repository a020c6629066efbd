"""Reading and writing chunked bodies (RFC 9112, 7.1); requests and responses have the same.

llhttp reads them.  It says that a message ended, not at which byte; but a chunked body always
ends with CRLF CRLF (the line end of the last chunk or trailer and the empty line), so it is fed
in pieces that end at each such place: the one after which llhttp reports the end is the end.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser

from proxy.plane.head import block

# A constant head that makes a fresh parser expect a chunked body.
_PRIMER = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"\r\n\r\n"

_SIZE_DIGITS = 15  # Hexadecimal: below 2^60.
_TAIL = 64  # Bytes that are remembered; a size with a longer extension is not looked at.

_TOO_LARGE = "chunk extensions or trailers are too large"

# Chunk-size lines, extensions and trailers may be this many times as long as the data they
# carry, beyond the limit of a head: one byte per chunk is 5 bytes of framing to 1 of data.
_OVERHEAD_PER_BYTE = 16

# RFC 9110, 6.5.1: a trailer must not frame, route, authenticate, modify or tell how to process.
_FORBIDDEN_TRAILERS = frozenset(
    (
        b"age", b"authorization", b"cache-control", b"connection", b"content-encoding",
        b"content-length", b"content-range", b"content-type", b"cookie", b"date", b"expect",
        b"expires", b"forwarded", b"host", b"http2-settings", b"if-match", b"if-modified-since",
        b"if-none-match", b"if-range", b"if-unmodified-since", b"keep-alive", b"location",
        b"max-forwards", b"origin", b"pragma", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"range", b"retry-after", b"set-cookie", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"vary", b"www-authenticate",
        b"x-forwarded-authorization", b"x-forwarded-for", b"x-forwarded-host",
        b"x-forwarded-proto", b"x-serverless-authorization",
    )
)  # fmt: skip


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
        "_open", "_parser", "_pieces", "_sized", "_slack", "_tail", "_trailers", "done", "fault",
        "rest",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        """`limit` bounds the bytes that are not data (bytes)."""
        self._slack = limit
        """Bytes that are not data and may still come."""
        self._pieces: list[bytes] = []
        self._trailers: list[tuple[bytes, bytes]] = []
        self._tail = b""
        """The last bytes that came: CRLF CRLF, or a chunk's size, may begin in them."""
        self._open = 0
        """Bytes that came of the current chunk."""
        self._sized = False
        """Whether a chunk began in the bytes that are being fed, and has not ended."""
        self.done = False
        self.fault = ""
        """Why the bytes are no chunked body, once that is known: nothing more is read then."""
        self.rest = b""
        """After the end: the bytes that came with it and do not belong to the body."""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_PRIMER)
        self._trailers.clear()

    def on_chunk_header(self) -> None:
        """Take the begin of a chunk from llhttp."""
        self._sized = True
        self._open = 0

    def on_body(self, data: bytes) -> None:
        """Take a piece from llhttp."""
        self._pieces.append(data)
        self._open += len(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer from llhttp."""
        self._trailers.append((name, value))

    def on_chunk_complete(self) -> None:
        """Take the end of a chunk from llhttp."""
        self._sized = False

    def on_message_complete(self) -> None:
        """Take the end from llhttp."""
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body that `data` holds, up to the end or the fault in it."""
        self._sized = False
        before = self._tail
        try:
            self._feed(data)
        except HttpParserError as error:
            self.fault = str(error)
        else:
            if self._sized and not self.done:
                self._check_size(before + data)
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._slack -= len(data) - len(self.rest) - len(body) * (1 + _OVERHEAD_PER_BYTE)
        if self._slack < 0 and not self.fault:
            self.fault = _TOO_LARGE
        return body

    def _feed(self, data: bytes) -> None:
        """Feed up to the end of the body, or all."""
        start, size = 0, len(data)
        end = self._straddling(data) if self._tail else 0
        while True:
            if end == 0:
                found = data.find(_END, start)
                end = size if found < 0 else found + len(_END)
            self._parser.feed_data(data if end - start == size else memoryview(data)[start:end])
            if self.done:
                self.rest = data[end:]
                return
            if end == size:
                self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]
                return
            start, end = end, 0

    def _straddling(self, data: bytes) -> int:
        """Return how many bytes complete a CRLF CRLF begun in earlier data, 0 if none do."""
        for size in range(1, min(len(data), 3) + 1):
            if (self._tail[-3:] + data[:size])[-4:] == _END:
                return size
        return 0

    def _check_size(self, came: bytes) -> None:
        """Refuse a chunk that no recipient counts right: llhttp counts in 64 bits, others in 63.

        `came` ends within the chunk.
        """
        framing = came[: len(came) - self._open]
        line = framing.removesuffix(b"\r\n").rpartition(b"\r\n")[2]
        # Where the size is 0, what follows its line are trailers, which have a colon.
        if not framing.endswith(b"\r\n") or b":" in line.partition(b";")[0]:
            return
        if len(line.partition(b";")[0].lstrip(b"0")) > _SIZE_DIGITS:
            self.fault = "a chunk size is beyond what can be counted"
            self._pieces[:] = [b"".join(self._pieces).removesuffix(came[len(came) - self._open :])]

    @property
    def trailers(self) -> bytes:
        """The field block of the trailers that may be passed on, known once `done`."""
        return allowed_trailers(self._trailers) if self._trailers else b""


def chunk(data: bytes) -> bytes:
    """Return `data`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: bytes) -> bytes:
    """Return the end of a chunked body with the field block of its trailers."""
    return b"0" + trailers + b"\r\n\r\n"
