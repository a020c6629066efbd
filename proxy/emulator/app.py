"""The app behind the protected service: says what reached it, streams lines and events."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy.emulator.claims import Claims
from proxy.emulator.gate import AUTHORIZATION, SERVERLESS

Pause = Callable[[int], Awaitable[None]]
"""Waited for before line N of a stream, counted from 1."""

LINES = 5
LINES_AT_MOST = 100_000
PAUSE = 0.3  # Seconds: long enough to see lines come one by one, short enough to wait for.

_JWT = re.compile(r"eyJ[\w-]*\.(eyJ[\w-]*)\.[\w-]*")


async def short_pause(_line: int) -> None:
    """Wait as long as a person likes to watch."""
    await asyncio.sleep(PAUSE)


class EchoApp:
    """Answers ``/stream`` with text lines, ``/events`` with server-sent events, else an echo.

    ``?lines=N`` says how many lines or events; `pause` is waited for before each but the
    first.
    """

    def __init__(self, pause: Pause = short_pause) -> None:
        self._pause = pause

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if request.path == "/stream":
            return await self._stream(request, "text/plain; charset=utf-8", _line)
        if request.path == "/events":
            return await self._stream(request, "text/event-stream", _event)
        return await _echo(request)

    async def _stream(
        self, request: web.Request, content_type: str, render: Callable[[int, int], str]
    ) -> web.StreamResponse:
        wanted = request.query.get("lines", "")
        count = min(int(wanted), LINES_AT_MOST) if wanted.isdecimal() else LINES
        headers = {"Content-Type": content_type, "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number in range(1, count + 1):
            if number > 1:
                await self._pause(number)
            await response.write(render(number, count).encode())
        await response.write_eof()
        return response


def _line(number: int, count: int) -> str:
    return f"line {number} of {count}\n"


def _event(number: int, count: int) -> str:
    return f"id: {number}\nevent: tick\ndata: {json.dumps({'tick': number, 'of': count})}\n\n"


async def _echo(request: web.Request) -> web.Response:
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers
    ]
    path, _, query = request.raw_path.partition("?")
    body_bytes = 0
    async for piece in request.content.iter_any():
        body_bytes += len(piece)
    shown = [(name, _JWT.sub(_named, value)) for name, value in headers]
    arrived = {
        "method": json.dumps(request.method),
        "path": json.dumps(path),
        "query": json.dumps(query),
        "headers": "[\n    " + ",\n    ".join(map(json.dumps, shown)) + "\n  ]",
        "claims": json.dumps(_identity(headers), indent=2).replace("\n", "\n  "),
        "body_bytes": str(body_bytes),
    }
    # Laid out by hand: one line for each header reads better than four.
    text = ",\n".join(f'  "{name}": {value}' for name, value in arrived.items())
    return web.Response(text=f"{{\n{text}\n}}\n", content_type="application/json")


def _identity(headers: list[tuple[str, str]]) -> Claims | None:
    """Return the claims of the token that the front admitted: it has checked the signature."""
    for wanted in (SERVERLESS, AUTHORIZATION):
        for name, value in headers:
            if name.lower() == wanted and (match := _JWT.search(value)):
                return _claims(match)
    return None


def _named(match: re.Match[str]) -> str:
    # What an echo shows ends up in terminals and bug reports; a token does not belong there.
    claims = _claims(match) or {}
    return f"<token of {claims.get('email') or claims.get('sub')} for {claims.get('aud')}>"


def _claims(match: re.Match[str]) -> Claims | None:
    try:
        claims = json.loads(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None
