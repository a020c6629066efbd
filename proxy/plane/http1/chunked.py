"""Reading and writing chunked bodies (RFC 9112, 7.1); requests and responses have the same.

Read here rather than by llhttp, which says that a message ended but not at which byte.  What
is accepted is the RFC's grammar without its optional white space: a line ends in CRLF, a size
is hexadecimal digits, an extension is tokens and quoted strings (and is dropped, 7.1.1), a
trailer is a field line like those of a head.
"""

from __future__ import annotations

import re

from proxy.plane.head import block, pairs

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSIONS = rb"(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)+"
# Sizes of more than 15 digits are beyond what every recipient counts right (2^63).
_SIZE_LINE = rb"0*([0-9A-Fa-f]{1,15})(?:" + _EXTENSIONS + rb")?\r\n"
_SIZE = re.compile(_SIZE_LINE)
_NEXT_SIZE = re.compile(rb"\r\n" + _SIZE_LINE)
# What can still become one of those.
_BEGUN = rb"[0-9A-Fa-f]*(?:;[\t -~\x80-\xff]*)?\r?"
_SIZE_BEGUN = re.compile(_BEGUN)
_NEXT_SIZE_BEGUN = re.compile(rb"\r?|\r\n" + _BEGUN)
# RFC 9112, 5.1 and RFC 9110, 5.5: no white space before the colon, no control characters.
_TRAILERS = re.compile(rb"(?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n)+")
_TRAILERS_BROKEN = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")

_TOO_LARGE = "chunk extensions or trailers are too large"

_LINE_END = b"\r\n"
_END = b"\r\n\r\n"

# Go's limit for the line of one chunk; nobody is known to send longer ones.
_LONGEST_LINE = 4096

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
        "_line", "_partial", "_remaining", "_slack", "_trailing", "done", "fault", "rest",
        "trailers",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        """`limit` bounds the bytes that are not data (bytes)."""
        self._slack = limit
        """Bytes that are not data and may still come."""
        self._partial = b""
        """The beginning of a line, or of the trailers."""
        self._line = _SIZE
        self._remaining = 0
        """Bytes of the current chunk that are still to come."""
        self._trailing = False
        """Whether the last chunk has come."""
        self.done = False
        self.fault = ""
        """Why the bytes are no chunked body, once that is known: nothing more is read then."""
        self.rest = b""
        """After the end: the bytes that came with it and do not belong to the body."""
        self.trailers = b""
        """The field block of the trailers that may be passed on, known once `done`."""

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body that `data` holds, up to the end or the fault in it."""
        if self._remaining > len(data):
            # The common case: within a large chunk.
            self._remaining -= len(data)
            self._slack += len(data) * _OVERHEAD_PER_BYTE
            return data
        if self._partial:
            data = self._partial + data
            self._partial = b""
        pieces: list[memoryview] = []
        view, at = memoryview(data), 0
        while at < len(data) and not (self.done or self.fault):
            if self._remaining:
                piece = view[at : at + self._remaining]
                pieces.append(piece)
                size = len(piece)
                at += size
                self._remaining -= size
                self._slack += size * _OVERHEAD_PER_BYTE
            elif self._trailing:
                at = self._take_trailers(data, at)
            else:
                at = self._take_line(data, at)
        if self.done:
            self.rest = data[at:]
        return b"".join(pieces)

    def _take_line(self, data: bytes, at: int) -> int:
        """Read the line with a chunk's size, and the line end of the chunk before it."""
        found = self._line.match(data, at)
        if found is None:
            return self._await_line(data, at)
        end = found.end()
        self._line = _NEXT_SIZE
        self._remaining = int(found[1], 16)
        self._slack -= end - at
        if self._slack < 0:
            self.fault = _TOO_LARGE
        elif self._remaining == 0:
            self._trailing = True
        return end

    def _await_line(self, data: bytes, at: int) -> int:
        """Keep what may become a whole line with more bytes."""
        begun = _SIZE_BEGUN if self._line is _SIZE else _NEXT_SIZE_BEGUN
        size = len(data) - at
        if size > _LONGEST_LINE or begun.fullmatch(data, at) is None:
            self.fault = "invalid chunk size, or no line end after a chunk"
        else:
            self._keep(data, at)
        return len(data)

    def _take_trailers(self, data: bytes, at: int) -> int:
        """Read the empty line, or the trailers with it; return where reading goes on."""
        if data.startswith(_LINE_END, at):
            self.done = True
            return at + 2
        end = data.find(_END, at)
        if end < 0:
            if _TRAILERS_BROKEN.search(data, at):
                self.fault = "invalid trailer section"
            self._keep(data, at)
            return len(data)
        if end + 4 - at > self._slack:
            self.fault = _TOO_LARGE
        elif _TRAILERS.fullmatch(data, at, end + 2) is None:
            self.fault = "invalid trailer section"
        else:
            self.trailers = allowed_trailers(list(pairs(_LINE_END + data[at:end])))
            self.done = True
        return end + 4

    def _keep(self, data: bytes, at: int) -> None:
        self._partial = data[at:]
        if len(self._partial) > self._slack:
            self.fault = _TOO_LARGE


def chunk(data: bytes) -> bytes:
    """Return `data`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: bytes) -> bytes:
    """Return the end of a chunked body with the field block of its trailers."""
    return b"0" + trailers + b"\r\n\r\n"
