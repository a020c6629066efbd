"""gRPC-Web's errors (PROTOCOL-WEB.md of gRPC): HTTP 200, and trailers as a frame of the body.

The status stands in the body and not in fields: a browser shows a page only those fields of
another origin's answer that ``Access-Control-Expose-Headers`` names.
"""

from __future__ import annotations

import base64
import re

from proxy.dialects.base import (
    ErrorAnswer,
    Request,
    common_fields,
    enveloped,
    media_type,
    sentence,
)
from proxy.dialects.codes import code_of, percent_encoded
from proxy.errors import Explained

_TYPE = re.compile(r"application/grpc-web(?:-text)?(?:\+[a-z0-9.+-]{1,40})?")
_DEFAULT_TYPE = "application/grpc-web+proto"
_TRAILERS = 0x80


def recognises(request: Request) -> bool:
    """Tell whether a gRPC-Web client made the request."""
    return _TYPE.fullmatch(media_type(request.field("content-type"))) is not None


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as trailers in the body, in base64 for the text variant."""
    # The reason is a field of the head alone: clients put both into one set of metadata.
    status, message = int(code_of(error)), percent_encoded(sentence(error))
    trailers = f"grpc-status:{status}\r\ngrpc-message:{message}\r\n"
    body = enveloped(_TRAILERS, trailers.encode("ascii"))
    content_type = _answer_type(request)
    if "-text" in content_type:
        body = base64.b64encode(body)
    return ErrorAnswer(200, common_fields(error, content_type, body), body)


def _answer_type(request: Request) -> str:
    """Return the type the caller accepts, or else the one that it sent."""
    for name in ("accept", "content-type"):
        found = media_type(request.field(name))
        if _TYPE.fullmatch(found):
            return found
    return _DEFAULT_TYPE
