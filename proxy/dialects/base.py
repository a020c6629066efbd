"""What a dialect is given and what it returns."""

from __future__ import annotations

import struct
from dataclasses import field
from typing import Protocol

from proxy.config.model import ErrorFormat
from proxy.errors import Explained, MethodNotAllowed, PlatformError, UpstreamLoops
from proxy.frozen import frozen

REASON_FIELD = "x-auth-proxy-error"
"""On every answer that the proxy makes itself: its value is the reason."""


PLATFORM_FIELD = "x-auth-proxy-platform-error"
"""On every page of Google's front end that the proxy explains: its value is the status."""


LOOP_FIELD = "x-auth-proxy-loop"
"""On the answer to a request that went round in a circle: tells the proxies on the way."""


# RFC 9110, 15.5.6: a 405 must say what is supported: all but CONNECT and TRACE, unknown ones too.
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Request(Protocol):
    """The request that failed, as far as a dialect may look at it."""

    route: str
    """Empty where none matched."""
    language: ErrorFormat
    """What the route's ``errors`` says."""
    protocol: str
    """``h1`` or ``h2``."""
    method: str
    target: str
    """With its query, which is read but never repeated."""

    def field(self, name: str) -> str:
        """Return the first value of a field (lower case), empty if there is none."""

    def body(self) -> bytes:
        """Return the request's body where it was read whole and is small, else nothing."""


@frozen
class ErrorAnswer:
    """A response without a wire format."""

    status: int
    fields: tuple[tuple[str, str], ...]
    """Content-Length is in it where there is a body."""
    body: bytes = b""
    trailers: bytes = field(default=b"")
    """A field block."""


class Dialect(Protocol):
    """One language of errors."""

    def recognises(self, request: Request) -> bool:
        """Tell whether the caller speaks it."""

    def answer(self, error: Explained, request: Request) -> ErrorAnswer:
        """Return the error in it."""


def media_type(value: str) -> str:
    """Return the media type of a Content-Type or of the first member of an Accept."""
    return value.partition(",")[0].partition(";")[0].strip().lower()


def enveloped(flags: int, data: bytes) -> bytes:
    """Return `data` as one length-prefixed frame, which gRPC-Web and Connect have in common."""
    return struct.pack(">BI", flags, len(data)) + data


def sentence(error: Explained) -> str:
    """Return what a person reads of the error, for languages that have one text only."""
    said = error.detail
    if error.hint:
        stop = "" if said.endswith((".", "!", "?")) else "."
        said = f"{said}{stop} {error.hint}"
    return f"{error.title}: {said} [{error.reason}]"


def mark(error: Explained) -> tuple[str, str]:
    """Return the field that tells the answer from an application's."""
    if isinstance(error, PlatformError):
        return PLATFORM_FIELD, str(error.status)
    return REASON_FIELD, error.reason


def common_fields(error: Explained, content_type: str, body: bytes) -> tuple[tuple[str, str], ...]:
    """Return the fields that every answer has."""
    fields = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),  # RFC 9111, 5.2.2.5: an error of this moment.
        mark(error),
    ]
    if error.retry_after is not None:
        fields.append(("Retry-After", str(error.retry_after)))
    if isinstance(error, UpstreamLoops):
        fields.append((LOOP_FIELD, "1"))
    if isinstance(error, MethodNotAllowed):
        fields.append(("Allow", _METHODS))
    return tuple(fields)
