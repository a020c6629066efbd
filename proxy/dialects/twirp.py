"""Twirp's errors (https://twitchtv.github.io/twirp/docs/spec_v7.html): JSON at the HTTP status."""

from __future__ import annotations

import json
import re

from proxy.dialects.base import ErrorAnswer, Request, common_fields, sentence
from proxy.dialects.codes import code_of
from proxy.errors import Explained

_PATH = re.compile(r"/twirp/[\w.]+/\w+")

# Where Twirp has a name of its own for what gRPC calls INTERNAL and UNIMPLEMENTED.
_OWN_CODES = {400: "malformed", 404: "bad_route", 405: "bad_route"}


def recognises(request: Request) -> bool:
    """Tell whether a Twirp client made the request: POST to …/twirp/package.Service/Method."""
    path = request.target.partition("?")[0]
    at = path.rfind("/twirp/")
    return request.method == "POST" and at >= 0 and _PATH.fullmatch(path, at) is not None


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as Twirp's object; the values of ``meta`` are strings by its rules."""
    said = {
        "code": _OWN_CODES.get(error.status) or code_of(error).label,
        "msg": sentence(error),
        "meta": {"reason": error.reason, "route": request.route, "hint": error.hint},
    }
    body = json.dumps(said).encode()
    return ErrorAnswer(error.status, common_fields(error, "application/json", body), body)
