"""Reading and writing chunked bodies (RFC 9112, 7.1); requests and responses have the same.

Sizes are read where they are, and data is passed on without being looked at: what llhttp does with
each byte of it costs ten times as much.  What a size line may say is what llhttp accepts in its
strict mode (tests/unit holds the two equal); trailers, which are rare, are read by llhttp itself.
"""

from __future__ import annotations

import re
from typing import Final, final

from httptools import HttpParserError, HttpRequestParser

from proxy.plane.head import OURS, block
from proxy.plane.message import MOST_FIELDS

# A constant beginning that makes a fresh parser expect the trailers of a chunked body.
_PRIMER: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
_LINE_END: Final = b"\r\n"
_LF: Final = b"\n"
_END: Final = b"\r\n\r\n"

# RFC 9112, 7.1 and 7.1.1, without white space around `;` and `=`, which nobody may send. Beyond
# the grammar, llhttp takes an empty name, an empty value, and a token before a quoted value.
# Every repetition is possessive, so that no line takes more than one pass.
_DIGITS: Final = rb"(?=[0-9A-Fa-f])0*+([0-9A-Fa-f]{0,15}+)"  # Below 2^60.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*+"
_TEXT: Final = rb"[\t !#-\[\]-~\x80-\xff]*+"
_QUOTED: Final = rb"%b(?:\\[\t -~\x80-\xff]%b)*+" % (_TEXT, _TEXT)
_EXTENSION: Final = b';(?!\\r)%b(?:=%b(?:"%b"|(?!"))|(?!=))' % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE: Final = b"%b(?:%b)*+" % (_DIGITS, _EXTENSION)
_SIZE: Final = re.compile(_LINE_END + _SIZE_LINE + _LINE_END)

# How a line begins that can still become one, and what no line has. The rest is judged when it
# has come whole: so each part of it costs what it is long, however many there are.
_BEGINS: Final = re.compile(rb"\r(?:\Z|\n(?:\Z|[0-9A-Fa-f]++(?:[;\r]|\Z)))")
_NEVER: Final = re.compile(rb"[^\t\r -~\x80-\xff]|\r(?!\Z)")

LONGEST_LINE: Final = 4096
"""Bytes of a size line with its extensions; as in Go."""

_MALFORMED: Final = "a chunk's size line, or the line end before it, is malformed"
_LONG_LINE: Final = f"a chunk's size line is longer than {LONGEST_LINE} bytes"
_TOO_LARGE: Final = "chunk extensions or trailers are too large"

# Chunk-size lines, extensions and trailers may be this many times as long as the data they
# carry, beyond the limit of a head: one byte per chunk is 5 bytes of framing to 1 of data.
_OVERHEAD_PER_BYTE: Final = 16

MOST_CHUNKS: Final = 256
"""Chunks that are read at once: about a quarter of a millisecond's work."""

# What came in many chunks is passed on in pieces of about so many bytes.  Larger ones are written
# as they are; for one much larger, the allocator would ask the kernel for fresh pages each time.
_PIECE_BYTES: Final = 64 * 1024

# Sizes by the line ends and digits that they stand in: to look one up costs half of what reading
# it does. Bounded: then all are forgotten.
_sizes: Final[dict[bytes, int]] = {}
_MOST_SIZES: Final = 1024
_LONGEST_PLAIN: Final = 12

# RFC 9110, 6.5.1: a trailer must not frame, route, authenticate, modify or tell how to process.
_FORBIDDEN_TRAILERS: Final = frozenset(
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
        if not _is_forbidden(name.lower().replace(b"_", b"-"))
    )


def _is_forbidden(name: bytes) -> bool:
    return name in _FORBIDDEN_TRAILERS or name.startswith(OURS)


def _size_of(line: re.Match[bytes]) -> int:
    """Return what a size line says, and remember it if it is one of a chunk's, and short."""
    size = int(line[1] or b"0", 16)
    if size and len(line[0]) <= _LONGEST_PLAIN:
        if len(_sizes) >= _MOST_SIZES:
            _sizes.clear()
        _sizes[line[0]] = size
    return size


def _joined(pieces: list[bytes], size: int) -> list[bytes]:
    """Return pieces of `size` bytes in all, with the small ones put together."""
    group = len(pieces) * _PIECE_BYTES // size
    if group <= 1:
        return pieces
    return [b"".join(pieces[at : at + group]) for at in range(0, len(pieces), group)]


@final
class ChunkedBody:
    """Decodes one chunked body as its bytes come."""

    __slots__ = (
        "_left", "_line", "_pairs", "_slack", "_trailer", "done", "fault", "rest",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        """`limit` bounds the bytes that are not data (bytes)."""
        self._slack = limit
        """Bytes that are not data and may still come."""
        self._left = 0
        """Bytes of the current chunk that are still to come."""
        self._line = _LINE_END
        """What has come of a size line, beginning with the end of the chunk before it (before the
        first it is the head's); or the last bytes that have come of the trailers."""
        self._trailer: HttpRequestParser | None = None
        """Reads the trailers, once the last chunk has come."""
        self._pairs: list[tuple[bytes, bytes]] = []
        self.done = False
        self.fault = ""
        """Why the bytes are no chunked body, once that is known: nothing more is read then."""
        self.rest = b""
        """The bytes that were not read: those behind the end, or, before it, too many chunks."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of the body that `data` holds, up to the end or the fault in it.

        None of them is empty: an empty chunk would end the body where they are passed on.

        Where `rest` is not empty and the body not `done`, it has to be fed again: at most
        `MOST_CHUNKS` are read at once.
        """
        size = len(data)
        self.rest = b""
        if size <= self._left:
            self._left -= size
            self._slack += size * _OVERHEAD_PER_BYTE
            return [data] if data else []
        body = self._read(data) if self._trailer is None else self._take_trailers(data)
        read = sum(map(len, body))
        self._slack -= size - len(self.rest) - read * (1 + _OVERHEAD_PER_BYTE)
        if self._slack < 0 and not self.fault:
            self.fault = _TOO_LARGE
        return _joined(body, read) if len(body) > 1 else body

    def _read(self, data: bytes) -> list[bytes]:
        """Take chunk after chunk; `data` begins in one, or in the line of its size."""
        known, data = len(self._line), self._line + data
        self._line = b""
        pieces: list[bytes] = []
        at, size, left = 0, len(data), self._left
        line, same = _LINE_END, 0
        for _ in range(MOST_CHUNKS):
            if left:
                if at == size:
                    break
                end = at + left
                pieces.append(data[at:end])
                if end >= size:
                    left = end - size
                    break
                at = end
            # Most chunks are as long as the one before, or as one that came earlier.
            if same and data.startswith(line, at):
                at += len(line)
                left = same
                continue
            end = data.find(_LF, at + len(_LINE_END)) + len(_LF)
            line = data[at:end] if end else b""
            left = same = _sizes.get(line, 0)
            if left:
                at += len(line)
                continue
            found = _SIZE.match(data, at)
            if found is None:
                self._begin_line(data[at:], known if at == 0 else 0)
                break
            if found.end() - at > LONGEST_LINE + len(_END):
                self.fault = _LONG_LINE
                break
            at = found.end()
            left = _size_of(found)
            if left == 0:
                self._take_trailers(data[at:])
                break
        else:
            # What has come of the last chunk is taken with the next ones.
            self.rest = data[at:]
        self._left = left
        return pieces

    def _begin_line(self, line: bytes, known: int) -> None:
        """Keep what has come of a size line, if it can become one.

        Its first `known` bytes were looked at before.
        """
        self._line = line
        if not line:
            return
        # From the last known byte on: it may be a CR, which only LF may follow.
        if not _BEGINS.match(line) or _NEVER.search(line, max(len(_LINE_END), known - 1)):
            self.fault = _MALFORMED
        elif len(line.removesuffix(b"\r")) > LONGEST_LINE + len(_LINE_END):
            self.fault = _LONG_LINE

    def _take_trailers(self, data: bytes) -> list[bytes]:
        """Take what follows the size of the last chunk; return that there is no data in it."""
        parser = self._trailer
        if parser is None:
            if data.startswith(_LINE_END):
                self.done = True
                self.rest = data[len(_LINE_END) :]
                return []
            parser = self._trailer = HttpRequestParser(self)
            parser.feed_data(_PRIMER)
            self._pairs.clear()
            self._line = _LINE_END  # The empty line may begin with the end of the size line.
        if data:
            self._read_trailers(parser, data)
        return []

    def _read_trailers(self, parser: HttpRequestParser, data: bytes) -> None:
        """Have llhttp read up to the first empty line, which ends the body."""
        known = len(self._line)  # Of what follows; llhttp has read it.
        lines = self._line + data
        found = lines.find(_END)
        end = len(lines) if found < 0 else found + len(_END)
        # Before they are read, since llhttp calls us for each; the empty line has an end, too.
        if len(self._pairs) + lines.count(_LINE_END, known, end) > MOST_FIELDS + 2:
            self.fault = _TOO_LARGE
            return
        try:
            parser.feed_data(lines[known:end])
        except HttpParserError as error:
            self.fault = str(error)
            return
        if len(self._pairs) > MOST_FIELDS:
            self.fault = _TOO_LARGE
        elif found >= 0 and not self.done:
            self.fault = "its trailers do not end with an empty line"
        self.rest = lines[end:]
        self._line = lines[-3:]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer from llhttp."""
        self._pairs.append((name, value))

    def on_message_complete(self) -> None:
        """Take the end from llhttp."""
        self.done = True

    @property
    def trailers(self) -> bytes:
        """The field block of the trailers that may be passed on, known once `done`."""
        return allowed_trailers(self._pairs) if self._pairs else b""


def chunk(data: bytes) -> bytes:
    """Return `data`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LARGE: Final = 16 * 1024
"""Bytes from which on a chunk is written as `framed`: to copy them costs more than three pieces."""


def framed(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the pieces of `data`, which is not empty, as one chunk, for `writelines`."""
    return b"%x\r\n" % len(data), data, _LINE_END


def last_chunk(trailers: bytes) -> bytes:
    """Return the end of a chunked body with the field block of its trailers."""
    return b"0" + trailers + b"\r\n\r\n"
