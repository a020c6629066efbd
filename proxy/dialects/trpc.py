"""tRPC's error envelope: one object, which its client applies to every call of a batch."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from proxy.dialects.base import ErrorAnswer, Request, common_fields, sentence
from proxy.errors import Explained

# HTTP status → tRPC's key and JSON-RPC number (@trpc/server, `TRPC_ERROR_CODES_BY_KEY`).
_CODES: dict[int, tuple[str, int]] = {
    400: ("BAD_REQUEST", -32600),
    401: ("UNAUTHORIZED", -32001),
    403: ("FORBIDDEN", -32003),
    404: ("NOT_FOUND", -32004),
    405: ("METHOD_NOT_SUPPORTED", -32005),
    413: ("PAYLOAD_TOO_LARGE", -32013),
    429: ("TOO_MANY_REQUESTS", -32029),
    500: ("INTERNAL_SERVER_ERROR", -32603),
    502: ("BAD_GATEWAY", -32603),
    503: ("SERVICE_UNAVAILABLE", -32603),
    504: ("GATEWAY_TIMEOUT", -32603),
}
_OTHER = ("BAD_REQUEST", -32600)

_QUERY = re.compile(r"[?&](?:batch|input)=")


def recognises(request: Request) -> bool:
    """Tell whether a tRPC client made the request (its links' paths, queries and fields)."""
    path = request.target.partition("?")[0]
    return (
        "/trpc/" in path
        or _QUERY.search(request.target) is not None
        or bool(request.field("trpc-accept"))
        or bool(request.field("x-trpc-source"))
    )


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as tRPC's envelope."""
    body = json.dumps({"error": shape(error, request)}).encode()
    return ErrorAnswer(error.status, common_fields(error, "application/json", body), body)


def shape(error: Explained, request: Request) -> dict[str, Any]:
    """Return the error object, with a copy of itself under ``json`` for transformers."""
    key, number = _CODES.get(error.status, _OTHER)
    path = unquote(request.target.partition("?")[0].rpartition("/")[2])
    plain: dict[str, Any] = {
        "message": sentence(error),
        "code": number,
        "data": {"code": key, "httpStatus": error.status, "path": path},
    }
    return {**plain, "json": plain}
