r"""Heads as the exchange knows them: no wire format, but a field block both formats can use.

A *field block* is the field lines of a head, each preceded by CRLF: ``\r\nA: 1\r\nB: 2``.
HTTP/1.1 passes it on as it came; HTTP/2 splits it into pairs, or makes it from pairs.  It is
only ever made from a head that a strict parser accepted: names are tokens, values hold no CR,
LF or NUL (RFC 9110, 5.5), nothing is folded.  That is what makes it safe to work on with
regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, final

_LINE: Final = re.compile(rb"\r\n([^:\r\n]+):[ \t]*([^\r\n]*)")


def pairs(fields: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (name, value) pairs of a field block, in order, white space around values off."""
    for name, value in _LINE.findall(fields):
        yield name, value.rstrip(b" \t")


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the field block of the pairs."""
    return b"".join([b"\r\n%b: %b" % pair for pair in fields])


def values(fields: bytes, name: bytes) -> list[bytes]:
    """Return every value of the field `name` (lower case) in the block, in order."""
    return [value for key, value in pairs(fields) if key.lower() == name]


def join_repeated(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the value of each field, those of a repeated one as a list (RFC 9110, 5.3).

    In time that is linear in the bytes, however many of them have the same name.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return {name: b", ".join(each) for name, each in found.items()}


def tokens(value: bytes) -> list[bytes]:
    """Return the members of a comma-separated list in lower case (RFC 9110, 5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]


NONE: Final[frozenset[bytes]] = frozenset()

OURS: Final = b"x-auth-proxy-"
"""How the names of fields begin in which the proxy speaks: no upstream may, in its name."""

VIA: Final = OURS + b"via"
"""On every request to an upstream: the mark of the route that it has come through."""
LOOP: Final = OURS + b"loop"
"""On a response: the request went round in a circle, says the proxy that noticed."""


@final
class RequestHead:
    """A request's head as the listener's codec read it."""

    __slots__ = (
        "authority", "chunked", "connection", "expects_continue", "fields", "grpc", "guarded",
        "has_trailers_te", "keep_alive", "length", "method", "never_indexed", "notable", "path",
        "raw_size", "target", "upgrade", "version",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, fields: bytes) -> None:
        self.method = method
        self.target = target
        """Origin form, byte for byte: what follows the authority, or ``*``."""
        self.path = target.partition(b"?")[0]
        self.authority = b""
        """Host and port as the caller named them."""
        self.fields = fields
        """Everything the caller sent, hop-by-hop fields and identity header included."""
        self.length: int | None = 0
        """Bytes of the body, None where only its end will tell."""
        self.chunked = False
        self.version = b"1.1"
        self.keep_alive = True
        self.connection: bytes = b""
        """What Connection names beyond keep-alive and close."""
        self.upgrade: bytes = b""
        """The protocols the caller offers to switch to."""
        self.has_trailers_te = False
        self.expects_continue = False
        self.guarded = False
        """Whether a browser made it, by what stands in it (`guard.is_from_browser`)."""
        self.notable = 0
        """What the listener has to judge before it is served (`guard.notable`), mostly nothing."""
        self.raw_size = 0
        """Bytes of the head on the wire."""
        self.grpc = False
        """Whether a gRPC client made it, which nothing but HTTP/2 can serve."""
        self.never_indexed = NONE
        """Names of the fields that their sender forbids to compress (RFC 7541, 6.2.3)."""

    def again(self, target: bytes, raw_size: int) -> RequestHead:
        """Return the head of a request that differs only in its target."""
        head = RequestHead(self.method, target, self.fields)
        head.authority = self.authority
        head.length = self.length
        head.chunked = self.chunked
        head.version = self.version
        head.keep_alive = self.keep_alive
        head.connection = self.connection
        head.upgrade = self.upgrade
        head.has_trailers_te = self.has_trailers_te
        head.expects_continue = self.expects_continue
        head.guarded = self.guarded
        head.notable = self.notable
        head.raw_size = raw_size
        head.grpc = self.grpc
        head.never_indexed = self.never_indexed
        return head


NOBODY: Final = RequestHead(b"", b"", b"")
"""Stands for a request whose head could not be read."""


@final
class ResponseHead:
    """A response's head, its fields end-to-end only."""

    __slots__ = (
        "bodyless", "fields", "length", "never_indexed", "phrase", "status", "switching",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        fields: bytes,
        phrase: bytes = b"",
        length: int | None = None,
        *,
        bodyless: bool = False,
    ) -> None:
        self.status = status
        self.phrase = phrase
        self.fields = fields
        """Content-Length stands in it where it was sent."""
        self.length = length
        """Bytes of the body, None where only its end will tell."""
        self.bodyless = bodyless
        """HEAD, 204 and 304: the length describes a body that is not there."""
        self.never_indexed = NONE
        """Names of the fields that their sender forbids to compress (RFC 7541, 6.2.3)."""
        self.switching: bytes = b""
        """The protocol a 101 switches to."""
