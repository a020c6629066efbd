"""gRPC's errors (PROTOCOL-HTTP2.md of gRPC): a response of trailers alone, with HTTP 200.

"Trailers-Only" is one block of fields that begins and ends the response: the fields are those
of the head, and there is no body.
"""

from __future__ import annotations

import re

from proxy.dialects.base import LOOP_FIELD, ErrorAnswer, Request, mark, media_type, sentence
from proxy.dialects.codes import code_of, percent_encoded
from proxy.errors import Explained, UpstreamLoops

_TYPE = re.compile(r"application/grpc(?:\+[a-z0-9.+-]{1,40})?")
_DEFAULT_TYPE = "application/grpc"


def recognises(request: Request) -> bool:
    """Tell whether a gRPC client made the request."""
    return _TYPE.fullmatch(media_type(request.field("content-type"))) is not None


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as the status of a call that brought nothing else."""
    content_type = media_type(request.field("content-type"))
    fields = [
        ("content-type", content_type if _TYPE.fullmatch(content_type) else _DEFAULT_TYPE),
        ("grpc-status", str(int(code_of(error)))),
        ("grpc-message", percent_encoded(sentence(error))),
        mark(error),
    ]
    if isinstance(error, UpstreamLoops):
        fields.append((LOOP_FIELD, "1"))
    if error.retry_after is not None:
        fields.append(("retry-after", str(error.retry_after)))
    return ErrorAnswer(200, tuple(fields))
