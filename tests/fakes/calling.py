"""Callers and failures for the tests of this folder."""

from __future__ import annotations

import base64
import struct
from typing import Any

from proxy import dialects
from proxy.config.model import ErrorFormat
from proxy.dialects import ErrorAnswer
from proxy.errors import REASONS, ProxyError

SECRET = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJhIn0.c2VjcmV0"

# Calls of the Node peers (tests/e2e/node), by the language that errors of them are in.
CONNECT = [
    "connect unary",
    "connect unary json",
    "connect get",
    "connect down",
    "connect down json",
    "connect up",
    "connect unary h2",
    "connect both h2",
    "grpc_web unary",
    "grpc_web down",
    "grpc_web unary h2",
    "grpc unary",
    "grpc down",
]
TRPC = ["trpc query", "trpc mutation", "trpc batch", "trpc stream"]

ANSWERED = sorted(reason for reason in REASONS if reason != "downstream_gone")
"""Every reason that a caller can be told: there is nobody to tell that he has gone."""

NAMES = {
    400: "INTERNAL",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
    431: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
NUMBERS = {
    "DEADLINE_EXCEEDED": 4,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}


def expected_code(reason: str) -> str:
    """Return gRPC's name of the code that stands for a reason."""
    return "RESOURCE_EXHAUSTED" if reason == "overloaded" else NAMES[REASONS[reason].status]


class Request(dialects.Request):
    """A request as a dialect sees it."""

    def __init__(
        self,
        target: str = "/",
        *,
        method: str = "POST",
        kind: str = "",
        body: bytes = b"",
        language: ErrorFormat = ErrorFormat.AUTO,
        route: str = "orders",
        **fields: str,
    ) -> None:
        self.route = route
        self.language = language
        self.protocol = "h1"
        self.method = method
        self.target = target
        self._fields = {name.replace("_", "-"): value for name, value in fields.items()}
        if kind:
            self._fields["content-type"] = kind
        self._body = body

    def field(self, name: str) -> str:
        assert name == name.lower()
        return self._fields.get(name, "")

    def body(self) -> bytes:
        return self._body


def failure(reason: str = "token_unavailable", **more: Any) -> ProxyError:
    """Return a failure whose text needs escaping in every language."""
    return REASONS[reason]('It said "no": 100 % <grüße>\r\nx: y', **more)


def fields_of(answer: ErrorAnswer) -> dict[str, str]:
    """Return the fields; fails where one is there twice, or could break a head."""
    names = [name.lower() for name, _ in answer.fields]
    assert len(set(names)) == len(names)
    for name, value in answer.fields:
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()
    return dict(zip(names, (value for _, value in answer.fields), strict=True))


def frames(body: bytes) -> list[tuple[int, bytes]]:
    """Return (flags, data) of the length-prefixed frames that make up a body."""
    found = []
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        assert len(body) >= 5 + size
        found.append((flags, body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def web_trailers(answer: ErrorAnswer) -> dict[str, str]:
    """Return the trailers in a gRPC-Web answer, which must be all that is in it."""
    text = "-text" in fields_of(answer)["content-type"]
    [(flags, data)] = frames(base64.b64decode(answer.body, validate=True) if text else answer.body)
    assert flags == 0x80
    assert data.endswith(b"\r\n")
    lines = data.decode("ascii").split("\r\n")[:-1]
    return dict(line.split(":", 1) for line in lines)


# Status → key and number, as @trpc/server has them; 431 has no key of its own there.
TRPC_KEYS = {
    400: ("BAD_REQUEST", -32600),
    403: ("FORBIDDEN", -32003),
    404: ("NOT_FOUND", -32004),
    405: ("METHOD_NOT_SUPPORTED", -32005),
    413: ("PAYLOAD_TOO_LARGE", -32013),
    431: ("BAD_REQUEST", -32600),
    500: ("INTERNAL_SERVER_ERROR", -32603),
    502: ("BAD_GATEWAY", -32603),
    503: ("SERVICE_UNAVAILABLE", -32603),
    504: ("GATEWAY_TIMEOUT", -32603),
}

# Codes that Twirp has and gRPC has not.
TWIRP_CODES = {
    "request_malformed": "malformed",
    "route_not_found": "bad_route",
    "method_not_allowed": "bad_route",
}
