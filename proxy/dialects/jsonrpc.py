"""JSON-RPC 2.0's errors (https://www.jsonrpc.org/specification) at the reason's HTTP status.

An answer names the request by its ``id``, which stands in the body: where the body was not
read whole (the error came first, or it is long) the id is null, as section 5 has it for ids
that could not be determined.
"""

from __future__ import annotations

import json
from typing import Any

from proxy.dialects.base import ErrorAnswer, Request, common_fields, media_type, sentence
from proxy.errors import Explained

# Section 5.1: -32000 to -32099 are for errors that the implementation defines.
_CODE = -32000

# An answer is several times as long as the shortest request: a batch shall not multiply that.
_LONGEST_BATCH = 100

# Names that clients use beside application/json; none is registered.
_TYPES = ("application/json-rpc", "application/jsonrpc", "application/jsonrequest")


def recognises(request: Request) -> bool:
    """Tell whether a JSON-RPC client made the request, by its type or by its body."""
    found = media_type(request.field("content-type"))
    return found in _TYPES or ("json" in found and bool(_requests(request)))


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as one response; for a batch, one for each of its requests."""
    requests = _requests(request)
    said: Any = _response(error, request, None)
    if isinstance(requests, dict):
        said = _response(error, request, _id_of(requests))
    elif len(requests) <= _LONGEST_BATCH:
        # Section 6; a notification, which has no id, gets no response.
        answers = [_response(error, request, _id_of(one)) for one in requests if "id" in one]
        said = answers or said
    body = json.dumps(said).encode()
    return ErrorAnswer(error.status, common_fields(error, "application/json", body), body)


def _response(error: Explained, request: Request, number: str | int | None) -> dict[str, Any]:
    data = {
        "reason": error.reason,
        "status": error.status,
        "route": request.route,
        "hint": error.hint,
    }
    said = {"code": _CODE, "message": sentence(error), "data": data}
    return {"jsonrpc": "2.0", "error": said, "id": number}


def _requests(request: Request) -> dict[str, Any] | list[dict[str, Any]]:
    """Return the request, or those of a batch; empty if the body is none or is not at hand."""
    body = request.body()
    if b'"jsonrpc"' not in body:
        return []
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if _is_request(found):
        return found  # type: ignore[no-any-return]  # as _is_request found
    if isinstance(found, list):
        return [one for one in found if _is_request(one)]
    return []


def _is_request(value: Any) -> bool:
    return isinstance(value, dict) and value.get("jsonrpc") == "2.0"


def _id_of(request: dict[str, Any]) -> str | int | None:
    """Return the id to echo; a fraction, which section 4 advises against, is not echoed."""
    number = request.get("id")
    return number if isinstance(number, str | int) and not isinstance(number, bool) else None
