"""HTTP/1.1 as bytes: heads that can be passed on unchanged, and where bodies end.  Pure.

Just enough of RFC 9112 for a front that relays a message without touching it.
"""

from __future__ import annotations

import re
from typing import Protocol

from proxy.frozen import frozen

# RFC 9110, 5.6.2 and 5.5: a field name is a token; a value has no control characters but tabs.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r\n")

LINE_LIMIT = 64 * 1024
"""Bytes in one line of a chunked body: a size with extensions, or a trailer field."""

SWITCHING = 101
NO_CONTENT = 204
NOT_MODIFIED = 304
OK = 200


class MalformedError(Exception):
    """The bytes are not one unambiguous message."""


@frozen
class Head:
    """A start line and field lines as they came, without their line ends."""

    lines: tuple[bytes, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        """Split `raw`, which ends with an empty line; raise `MalformedError` for doubtful lines."""
        start, *fields = lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
        if _CONTROL.search(start) or not all(map(_is_field, fields)):
            raise MalformedError
        return cls(tuple(lines))

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names as they came, values without surrounding blanks; in order, repeats kept."""
        pairs = (line.split(b":", 1) for line in self.lines[1:])
        return [(name, value.strip(b" \t")) for name, value in pairs]

    def values(self, name: bytes) -> list[bytes]:
        """Return the members of every list under `name`, in lower case (RFC 9110, 5.6.1)."""
        found = (value for field, value in self.fields if field.lower() == name)
        return [part.strip(b" \t").lower() for value in found for part in value.split(b",")]

    def to_bytes(self) -> bytes:
        """Return the head with its empty line."""
        return b"\r\n".join(self.lines) + b"\r\n\r\n"


def _is_field(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    # A line that starts with a blank (obs-fold, RFC 9112, 5.2) has no valid name either.
    return bool(colon and _NAME.fullmatch(name) and not _CONTROL.search(value))


@frozen
class Request:
    """A request's head, read."""

    head: Head
    method: str
    target: bytes
    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""

    @classmethod
    def parse(cls, raw: bytes) -> Request:
        """Read a request's head; raise `MalformedError`."""
        head = Head.parse(raw)
        match = _REQUEST.fullmatch(head.lines[0])
        if match is None:
            raise MalformedError
        return cls(head, match[1].decode("ascii"), match[2], int(match[3]))

    @property
    def keeps_alive(self) -> bool:
        """Whether the caller allows another request on this connection (RFC 9112, 9.3)."""
        return self.minor == 1 and b"close" not in self.head.values(b"connection")

    def body(self) -> Body:
        """Return where the body ends (RFC 9112, 6.3); raise `MalformedError` in doubt."""
        return _announced(self.head) or Sized(0)


@frozen
class Response:
    """A response's head, read."""

    head: Head
    status: int
    minor: int

    @classmethod
    def parse(cls, raw: bytes) -> Response:
        """Read a response's head; raise `MalformedError`."""
        head = Head.parse(raw)
        match = _STATUS.fullmatch(head.lines[0])
        if match is None:
            raise MalformedError
        return cls(head, int(match[2]), int(match[1]))

    @property
    def is_final(self) -> bool:
        """Whether this is the response, not one of those that precede it (RFC 9110, 15.2)."""
        return self.status >= OK or self.status == SWITCHING

    @property
    def keeps_alive(self) -> bool:
        """Whether the sender allows another exchange after this one (RFC 9112, 9.3)."""
        return self.minor == 1 and b"close" not in self.head.values(b"connection")

    def body(self, method: str) -> Body:
        """Return where the body of the response to `method` ends; raise `MalformedError`."""
        if method == "HEAD" or self.status < OK or self.status in {NO_CONTENT, NOT_MODIFIED}:
            return Sized(0)
        return _announced(self.head) or UntilClose()


class Body(Protocol):
    """Counts a body's bytes as they pass."""

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        ...

    def take(self, data: bytes | bytearray) -> int:
        """Return how many of `data`'s first bytes are this body's; raise `MalformedError`."""
        ...


def _announced(head: Head) -> Body | None:
    codings, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    # RFC 9112, 6.3: both fields, or two lengths, are how requests are smuggled.
    if (codings and lengths) or len(lengths) > 1 or (codings and codings != [b"chunked"]):
        raise MalformedError
    if codings:
        return Chunked()
    if not lengths:
        return None
    if not _DIGITS.fullmatch(lengths[0]):
        raise MalformedError
    return Sized(int(lengths[0]))


class Sized:
    """A body of so many bytes."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        """Whether the body is complete."""
        return self._left == 0

    def take(self, data: bytes | bytearray) -> int:
        """Return how many of `data`'s first bytes are this body's."""
        count = min(self._left, len(data))
        self._left -= count
        return count


class UntilClose:
    """A response body that ends with its connection."""

    __slots__ = ()

    @property
    def done(self) -> bool:
        """Whether the body is complete: never by its bytes."""
        return False

    def take(self, data: bytes | bytearray) -> int:
        """Return how many of `data`'s first bytes are this body's: all."""
        return len(data)


class Chunked:
    """A chunked body with its sizes, extensions and trailers (RFC 9112, 7.1), left as it is."""

    __slots__ = ("_left", "_line", "_on_line", "done")

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # bytes of the current chunk's data
        self._line = b""  # the line that is being collected
        self._on_line = self._size

    def take(self, data: bytes | bytearray) -> int:
        """Return how many of `data`'s first bytes are this body's; raise `MalformedError`."""
        taken = 0
        while taken < len(data) and not self.done:
            if self._left:
                count = min(self._left, len(data) - taken)
                self._left -= count
            else:
                end = data.find(b"\n", taken) + 1 or len(data)
                count = end - taken
                self._collect(bytes(data[taken:end]))
            taken += count
        return taken

    def _collect(self, piece: bytes) -> None:
        self._line += piece
        if len(self._line) > LINE_LIMIT:
            raise MalformedError
        if self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            self._on_line(line)

    def _size(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise MalformedError
        self._left = int(match[1], 16)
        self._on_line = self._after_data if self._left else self._trailer

    def _after_data(self, line: bytes) -> None:
        if line != b"\r\n":
            raise MalformedError
        self._on_line = self._size

    def _trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.done = True
        elif not (line.endswith(b"\r\n") and _is_field(line[:-2])):
            raise MalformedError
