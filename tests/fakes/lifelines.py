"""A proxy process between raw callers and a scripted upstream, for tests of its life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.fakes.program import A_TOKEN, Program
from tests.fakes.raw import RawCaller, ScriptedUpstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def scripted(automatic: bytes | None = None) -> AsyncIterator[ScriptedUpstream]:
    """An upstream in plain HTTP that does what the test says."""
    upstream = ScriptedUpstream(automatic)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


def document(
    upstream: ScriptedUpstream | None, *, route: Mapping[str, Any] | None = None, **top: Any
) -> str:
    """Return a configuration with a route ``default`` to `upstream`, on free ports.

    `route` and `top` are more keys of the route and of the document.  It is JSON, which is YAML.
    """
    routes = {}
    if upstream is not None:
        routes["default"] = {"upstream": url_of(upstream), **(route or {})}
    routes |= top.pop("routes", {})
    return json.dumps(
        {"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0", "quit": True}, **top}
        | {"routes": routes}
    )


def url_of(upstream: ScriptedUpstream) -> str:
    return f"http://127.0.0.1:{upstream.port}"


@asynccontextmanager
async def living(
    program: Program, *, code: int = 0, serving: bool = True
) -> AsyncIterator[Program]:
    """A program that the test itself ends, and that must have ended with `code` afterwards.

    Without `serving` it has only been started inside.
    """
    await (program.start() if serving else program.spawn())
    try:
        yield program
        assert await program.exit_code() == code, program.output
        assert A_TOKEN.search(program.output) is None, "a token is in the log"
    finally:
        await program._release()


@asynccontextmanager
async def calling(program: Program, listener: int = 0) -> AsyncIterator[RawCaller]:
    """A connection to a listener of the program, by its number in the log line."""
    async with calling_at(program.listeners[listener]) as caller:
        yield caller


@asynccontextmanager
async def between(
    automatic: bytes | None = None, **top: Any
) -> AsyncIterator[tuple[ScriptedUpstream, Program, RawCaller]]:
    """A scripted upstream, a program that leads to it, and a connection to the program.

    `top` are more keys of the configuration (see `document`).
    """
    async with (
        scripted(automatic) as upstream,
        Program(document(upstream, **top)) as program,
        calling(program) as caller,
    ):
        yield upstream, program, caller


@asynccontextmanager
async def calling_at(address: str) -> AsyncIterator[RawCaller]:
    """A connection to ``host:port`` or ``unix:/path``."""
    loop = asyncio.get_running_loop()
    if address.startswith("unix:"):
        _, caller = await loop.create_unix_connection(RawCaller, address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        _, caller = await loop.create_connection(RawCaller, host.strip("[]"), int(port))
    async with caller:
        yield caller


async def status_of(address: str, path: str, method: str = "GET", host: str = "localhost") -> int:
    """Return the status of one request over a connection of its own."""
    async with calling_at(address) as caller:
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        return (await caller.ask(request.encode())).status
