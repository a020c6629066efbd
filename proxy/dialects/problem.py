"""The neutral language: Problem Details for HTTP APIs (RFC 9457).

It carries one member more, ``error``: what a tRPC client looks for.  A tRPC caller that was
not recognised still shows the message, with a transformer such as superjson (which reads
``error.json``) or without.
"""

from __future__ import annotations

import json
from typing import Any

from proxy.dialects import trpc
from proxy.dialects.base import ErrorAnswer, Request, common_fields
from proxy.errors import Explained

CONTENT_TYPE = "application/problem+json"

TYPE = "urn:cloud-run-auth-proxy:reason:"
"""What a problem's type begins with; the reason follows.

A name, not an address (RFC 9457, 3.1.1): docs/reasons.md has a section for each.
"""


def recognises(request: Request) -> bool:  # noqa: ARG001 (the interface)
    """Accept everybody: this is what remains."""
    return True


def answer(error: Explained, request: Request) -> ErrorAnswer:
    """Return the error as a problem."""
    body = json.dumps(members(error, request)).encode()
    return ErrorAnswer(error.status, common_fields(error, CONTENT_TYPE, body), body)


def members(error: Explained, request: Request) -> dict[str, Any]:
    """Return the members of the problem's object."""
    return {
        "type": TYPE + error.reason,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "reason": error.reason,
        "route": request.route,
        "hint": error.hint,
        "error": trpc.shape(error, request),
    }
