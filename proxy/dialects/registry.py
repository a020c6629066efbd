"""Which dialect answers a caller."""

from __future__ import annotations

from proxy.config.model import ErrorFormat
from proxy.dialects import connect, grpc, grpc_web, jsonrpc, problem, trpc, twirp
from proxy.dialects.base import Dialect, ErrorAnswer, Request
from proxy.errors import Explained

# In the order in which `auto` asks them: by content type first, then by path and query, then by
# the body; the last accepts everybody.
_DIALECTS: dict[ErrorFormat, Dialect] = {
    ErrorFormat.GRPC: grpc,
    ErrorFormat.GRPC_WEB: grpc_web,
    ErrorFormat.CONNECT: connect,
    ErrorFormat.TRPC: trpc,
    ErrorFormat.TWIRP: twirp,
    ErrorFormat.JSONRPC: jsonrpc,
    ErrorFormat.PROBLEM: problem,
}


def is_recognised(request: Request) -> bool:
    """Tell whether the caller's language is known: its route names it, or the request shows it."""
    return request.language in _DIALECTS or any(
        dialect.recognises(request)
        for language, dialect in _DIALECTS.items()
        if language is not ErrorFormat.PROBLEM
    )


def render(error: Explained, request: Request) -> ErrorAnswer:
    """Return the answer to `caller`: in the language its route names, or its own."""
    chosen = _DIALECTS.get(request.language)
    if chosen is None:
        chosen = next(dialect for dialect in _DIALECTS.values() if dialect.recognises(request))
    return chosen.answer(error, request)
