"""A server that answers every connection with the bytes it was given, whatever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class RawServer:
    """Where it listens, and the heads of the requests that came."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def raw_server(
    *pieces: bytes, hold: bool = False, host: str = "127.0.0.1"
) -> AsyncIterator[RawServer]:
    """Serve `pieces`, each in a write of its own; then close, or with `hold` keep the connection.

    Like a real server it waits for the whole request head before it answers.
    """
    server = RawServer()
    failures: list[Exception] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server.requests.append(await reader.readuntil(b"\r\n\r\n"))
            await _write(writer, pieces)
            if hold:
                await done.wait()
        except ConnectionError:
            pass  # The peer has gone away, as some tests want.
        except Exception as error:  # noqa: BLE001 (raised again when the server is left)
            failures.append(error)
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        done.set()
        listener.close()
        await listener.wait_closed()
    if failures:
        raise ExceptionGroup("the raw server failed", failures)


async def _write(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)  # So that the next piece is a read of its own.
