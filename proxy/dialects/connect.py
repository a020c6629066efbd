"""Connect's errors (https://connectrpc.com/docs/protocol): unary as JSON, streams as an envelope.

A unary answer keeps the status of the reason: the client takes the code from the body.  A
stream is always HTTP 200, and its last envelope says how it ended; with any other status the
client makes up a code of its own and drops the message.
"""

from __future__ import annotations

import json
import re

from proxy.dialects.base import (
    ErrorAnswer,
    Request,
    common_fields,
    enveloped,
    media_type,
    sentence,
)
from proxy.dialects.codes import code_of
from proxy.errors import Explained

_STREAM = re.compile(r"application/connect\+[a-z0-9.+-]{1,40}")
_GET = re.compile(r"[?&]connect=v1(?:&|$)")
_END_OF_STREAM = 0x02


def recognises(request: Request) -> bool:
    """Tell whether a Connect client made the request: a stream, a unary POST or a unary GET."""
    if request.field("connect-protocol-version") or _stream_type(request):
        return True
    return request.method == "GET" and _GET.search(request.target) is not None


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as the end of a stream where the caller opened one, else as JSON."""
    said = {"code": code_of(error).label, "message": sentence(error)}
    if stream_type := _stream_type(request):
        # Without `metadata`: clients add the fields of the head to it by themselves.
        body = enveloped(_END_OF_STREAM, json.dumps({"error": said}).encode())
        return ErrorAnswer(200, common_fields(error, stream_type, body), body)
    body = json.dumps(said).encode()
    return ErrorAnswer(error.status, common_fields(error, "application/json", body), body)


def _stream_type(request: Request) -> str:
    """Return the stream's media type, which the answer must have too; empty for unary calls."""
    found = media_type(request.field("content-type"))
    return found if _STREAM.fullmatch(found) else ""
