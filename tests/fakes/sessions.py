"""aiohttp as a caller of the proxy: what it is answered is searched for tokens."""

from __future__ import annotations

from typing import Any

import aiohttp

from tests.fakes import leaks

WHERE = "what aiohttp was answered"


def session(**more: Any) -> aiohttp.ClientSession:
    """Return a session; `more` are its own arguments.

    Heads are searched, and bodies that are read whole: every error of the proxy's own is.
    """
    watch = aiohttp.TraceConfig()
    watch.on_request_end.append(_head)
    watch.on_response_chunk_received.append(_body)
    return aiohttp.ClientSession(trace_configs=[watch], **more)


async def _head(_: object, __: object, ended: aiohttp.TraceRequestEndParams) -> None:
    leaks.look(WHERE, repr(ended.response.raw_headers))


async def _body(_: object, __: object, got: aiohttp.TraceResponseChunkReceivedParams) -> None:
    leaks.look(WHERE, got.chunk)
