"""Callers and apps in raw bytes, on the two sides of the emulated private service."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from proxy.emulator.claims import CALLER, id_token_claims
from proxy.emulator.keys import Keys
from proxy.emulator.service import ProtectedService

NOW = 1_800_000_000.0
AUDIENCE = "https://orders.example"
KEYS = Keys.shared()
SIGNED_OFF = "SIGNATURE_REMOVED_BY_GOOGLE"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def token(keys: Keys = KEYS, **changes: Any) -> str:
    return keys.sign({**id_token_claims(CALLER, AUDIENCE, now=NOW, lifetime=3600), **changes})


GOOD = token()
BEARER = f"Authorization: Bearer {GOOD}"
STRIPPED = f"Authorization: Bearer {GOOD.rpartition('.')[0]}.{SIGNED_OFF}"


def protected(**more: Any) -> ProtectedService:
    return ProtectedService(KEYS, AUDIENCE, **{"clock": lambda: NOW, "tls": False, **more})


def message(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(*lines: str, target: str = "/") -> bytes:
    return message(f"GET {target} HTTP/1.1", "Host: orders.example", *lines)


class Caller:
    """A connection to a service, in raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> list[str]:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        return raw.decode("latin-1").split("\r\n")[:-2]

    async def response(self) -> tuple[int, bytes]:
        """Read a response whose length is announced."""
        head = await self.head()
        (length,) = (int(line.split(":")[1]) for line in head if "Content-Length" in line)
        return int(head[0].split()[1]), await self.reader.readexactly(length)

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        self.send(data)
        return await self.response()


@contextlib.asynccontextmanager
async def call(
    to: ProtectedService, context: ssl.SSLContext | None = None, name: str | None = None
) -> AsyncIterator[Caller]:
    _, _, port = to.url.rpartition(":")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(port), ssl=context, server_hostname=name
    )
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def app(handler: Handler) -> AsyncIterator[tuple[str, int]]:
    """Serve `handler`; what it raises is raised here."""
    failures: list[Exception] = []
    handled: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handled.add(task)
        try:
            await handler(reader, writer)
        except Exception as error:  # noqa: BLE001 (raised again below)
            failures.append(error)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()
    if handled:
        await asyncio.wait(handled)
    await server.wait_closed()
    if failures:
        raise failures[0]
