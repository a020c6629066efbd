"""Fields ↔ heads: what RFC 9113, 8 demands of a message, and what the exchange is told.

What was read out of a block is kept with it (`Fields.meanings`): the heads of a repeated
block are one object, which nobody changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.errors import HeadersTooLarge, RequestMalformed, UpstreamLoops, UpstreamMalformed
from proxy.plane.guard import is_from_browser, notable
from proxy.plane.head import LOOP, OURS, RequestHead, ResponseHead
from proxy.plane.http1.chunked import allowed_trailers
from proxy.plane.http2.fields import Field, Fields, Kind
from proxy.plane.message import (
    FRAMING_IN_DISGUISE,
    are_same,
    check_method,
    count,
    host_or_none,
    is_authority,
    is_path,
    is_scheme,
)

_STATUS: Final = re.compile(rb"[1-9][0-9][0-9]")

# A body may follow these, so that some servers want to be told that there is none (411).
_WITH_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))

_GRPC: Final = re.compile(rb"application/grpc(?:$|[+;])", re.IGNORECASE)

_REQUEST_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path"))


class _Parts:
    """A request's fields, sorted by what the codec does with them."""

    def __init__(self) -> None:
        self.pseudo: dict[bytes, bytes] = {}
        self.noted: dict[bytes, bytes] = {}
        self.lines: list[bytes] = []
        self.cookies: list[bytes] = []


def read_request(fields: Fields, *, ended: bool, on_path: bool = False) -> RequestHead:
    """Return the head of a request; `ended` where no body follows.

    It came `on_path`, through a Unix socket, or through a port; see `message.host_or_none`.

    Raises:
        RequestMalformed: it is not exactly one request with exactly one meaning.
        HeadersTooLarge: it is larger than any route takes.
    """
    key = "whole request" if ended else "request"
    known = fields.meanings.get(key)
    if known is not None:
        head: RequestHead = known
        return head
    if fields.oversize:
        raise HeadersTooLarge("More came than any route takes.")
    head = _request(_sort(fields.items), ended=ended, on_path=on_path)
    head.raw_size += fields.size
    head.never_indexed = fields.never_indexed
    fields.meanings[key] = head
    return head


def rest_of_request(fields: Fields) -> RequestHead:
    """Return what can be known of a request that is refused, to answer in its language."""
    values = {field.name: field for field in fields.items if not field.flaw}
    method, path = values.get(b":method"), values.get(b":path")
    lines = [field.line for field in values.values() if field.kind is not Kind.PSEUDO]
    return RequestHead(
        method.value if method else b"", path.value if path else b"", b"".join(lines)
    )


def read_response(fields: Fields, method: bytes, *, ended: bool) -> ResponseHead:
    """Return the head of a response to a request with `method`.

    Raises:
        UpstreamMalformed: it breaks the rules, or is too large.
    """
    known = fields.meanings.get("response")
    if known is None:
        known = fields.meanings["response"] = _response(fields)
    status, block, length = known
    head = ResponseHead(status, block, length=length)
    head.never_indexed = fields.never_indexed
    if method == b"HEAD" or status in (204, 304) or status < 200:  # noqa: PLR2004 (RFC 9110, 6.4.1)
        head.bodyless = True
    elif ended:
        if length:
            raise UpstreamMalformed("The response ends with its head, against Content-Length.")
        head.length = 0
    return head


def read_trailers(fields: Fields) -> bytes:
    """Return the field block of the trailers that may be passed on.

    Raises:
        ValueError: they break the rules; the text says how.
    """
    known = fields.meanings.get("trailers")
    if known is None:
        if fields.oversize:
            raise ValueError("The trailers are too large.")
        for field in fields.items:
            if field.flaw or field.kind is Kind.PSEUDO:
                raise ValueError(field.flaw or "A pseudo-header stands among the trailers.")
        pairs = [(field.name, field.value) for field in fields.items]
        known = fields.meanings["trailers"] = allowed_trailers(pairs)
    block: bytes = known
    return block


def request_lines(
    head: RequestHead, scheme: bytes, *, target: bytes, authority: bytes, fields: bytes
) -> bytes:
    """Return the field block of a request for the upstream, pseudo-headers first."""
    return b"\r\n:method: %b\r\n:scheme: %b\r\n:path: %b\r\n:authority: %b%b%b" % (
        head.method,
        scheme,
        target,
        authority,
        fields,
        b"\r\nte: trailers" if head.has_trailers_te else b"",
    )


def _sort(items: Sequence[Field]) -> _Parts:
    parts = _Parts()
    for field in items:
        if field.flaw:
            raise RequestMalformed(field.flaw)
        if field.kind is Kind.PLAIN:
            parts.lines.append(field.line)
        elif field.kind is Kind.PSEUDO:
            _take_pseudo(parts, field)
        else:
            _take_noted(parts, field)
    return parts


def _take_pseudo(parts: _Parts, field: Field) -> None:
    if field.name not in _REQUEST_PSEUDO:
        raise RequestMalformed(f"{field.name.decode()} is no pseudo-header of a request.")
    if field.name in parts.pseudo:
        raise RequestMalformed(f"{field.name.decode()} comes twice.")
    if parts.lines:
        raise RequestMalformed("A pseudo-header comes behind a field.")
    parts.pseudo[field.name] = field.value


def _take_noted(parts: _Parts, field: Field) -> None:
    name = field.name
    if name == b"cookie":
        # RFC 9113, 8.2.3: crumbs of a cookie become one field again.
        parts.cookies.append(field.value)
        if len(parts.cookies) > 1:
            return
    elif name in parts.noted and name in (b"host", b"content-length"):
        raise RequestMalformed(f"The request has two fields {name.decode()}.")
    elif name in FRAMING_IN_DISGUISE:
        raise RequestMalformed("A field's name reads like one that frames the message elsewhere.")
    parts.noted[name] = field.value
    parts.lines.append(field.line)


def _request(parts: _Parts, *, ended: bool, on_path: bool) -> RequestHead:
    pseudo, noted, lines = parts.pseudo, parts.noted, parts.lines
    method = pseudo.get(b":method", b"")
    check_method(method)
    if len(parts.cookies) > 1:
        first = lines.index(b"\r\ncookie: " + parts.cookies[0])
        lines[first] = b"\r\ncookie: " + b"; ".join(parts.cookies)
    if ended and method in _WITH_BODY and b"content-length" not in noted:
        lines.append(b"\r\ncontent-length: 0")
    head = RequestHead(method, _target(method, pseudo), b"".join(lines))
    head.version = b"2"
    head.raw_size = len(method) + len(head.target)
    head.authority = _authority(pseudo, noted, on_path=on_path)
    head.length = _length(noted.get(b"content-length"), ended=ended)
    head.has_trailers_te = b"te" in noted
    head.expects_continue = b"expect" in noted
    head.guarded = is_from_browser(noted)
    head.notable = notable(method, head.authority, noted)
    head.grpc = _GRPC.match(noted.get(b"content-type", b"")) is not None
    return head


def _target(method: bytes, pseudo: dict[bytes, bytes]) -> bytes:
    if method == b"CONNECT":
        # RFC 9113, 8.5. The plane refuses it; only its form is checked here.
        if b":path" in pseudo or b":scheme" in pseudo:
            raise RequestMalformed("CONNECT has neither :scheme nor :path.")
        return pseudo.get(b":authority", b"")
    if not is_scheme(pseudo.get(b":scheme", b"")):
        raise RequestMalformed("The request has no :scheme that is served here.")
    target = pseudo.get(b":path", b"")
    if not is_path(target) and not (target == b"*" and method == b"OPTIONS"):
        raise RequestMalformed("The request has no valid :path.")
    return target


def _authority(pseudo: dict[bytes, bytes], noted: dict[bytes, bytes], *, on_path: bool) -> bytes:
    """Return the authority, which two fields may name but not differently."""
    named, host = pseudo.get(b":authority"), noted.get(b"host")
    if on_path:
        named = host_or_none(named or b"") or None
        host = host_or_none(host or b"") or None
        if named is None and host is None:
            return b""
    authority = host if named is None else named
    if authority is None or not is_authority(authority):
        raise RequestMalformed("The request names no valid :authority.")
    scheme = pseudo.get(b":scheme", b"https")  # CONNECT has none.
    if host is not None and not are_same(host, authority, scheme):
        raise RequestMalformed("The field host contradicts :authority.")
    return authority


def _length(value: bytes | None, *, ended: bool) -> int | None:
    if value is None:
        return 0 if ended else None
    length = count(value)
    if length is None:
        raise RequestMalformed("Content-Length is beyond counting, or has leading zeros.")
    if ended and length:
        raise RequestMalformed("The request ends with its head, against Content-Length.")
    return length


def _check_loop(name: bytes) -> None:
    if name == LOOP:
        raise UpstreamLoops("A loop, says the upstream, which is a proxy like this one.")


def _only_length(earlier: int | None, value: bytes) -> int:
    length = count(value)
    if earlier is not None or length is None:
        raise UpstreamMalformed("Content-Length is not one number that can be counted.")
    return length


def _response(fields: Fields) -> tuple[int, bytes, int | None]:
    """Return status, field block and length."""
    if fields.oversize:
        raise UpstreamMalformed(
            "The response head is larger than the route takes.",
            hint="Raise the route's limits.header_bytes if the upstream needs that much.",
        )
    status = length = None
    lines: list[bytes] = []
    for field in fields.items:
        if field.flaw:
            raise UpstreamMalformed(field.flaw)
        if field.kind is Kind.PSEUDO:
            if field.name != b":status" or status is not None or lines:
                raise UpstreamMalformed("The response has a pseudo-header that it may not have.")
            status = field.value
            continue
        if field.kind is Kind.NOTED and field.name.startswith(OURS):
            _check_loop(field.name)
            continue
        if field.name == b"content-length":
            length = _only_length(length, field.value)
            if status is not None and (status == b"204" or status.startswith(b"1")):
                continue  # RFC 9110, 8.6: a length must not stand there.
        lines.append(field.line)
    # RFC 9113, 8.6: HTTP/2 cannot switch protocols.
    if status is None or not _STATUS.fullmatch(status) or status == b"101":
        raise UpstreamMalformed("The response has no valid :status.")
    return int(status), b"".join(lines), length
