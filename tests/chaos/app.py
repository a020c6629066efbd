"""The app behind the front: does what the path says, well or badly.

``/bytes/SEED/SIZE`` and ``/chunks/SEED/SIZE`` send a body that both ends can compute,
``/events/SEED/COUNT`` sends events one by one, ``/end/SEED/SIZE`` a body that only the end of its
connection ends, ``/upload/SEED/SIZE`` checks one, ``/chat`` switches to an echo; ``/reset``,
``/cut/SEED/SIZE``, ``/stall`` and ``/garbage`` are upstreams in trouble: a reset instead of an
answer, one in the middle of the body, silence, and bytes that are no HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

PIECE = 16 * 1024

_PATTERN = bytes((7 * n + n // 251) % 256 for n in range(64 * 1024))


def body(seed: int, size: int) -> bytes:
    """Return the body that belongs to a seed."""
    start = seed % len(_PATTERN)
    return (_PATTERN[start:] + _PATTERN * (size // len(_PATTERN) + 1))[:size]


def event(seed: int, number: int) -> bytes:
    """Return one event of the stream that belongs to a seed."""
    return b"data: %d of %d\n\n" % (number, seed)


class App:
    """Serves as a context; leaving it raises what a handler raised."""

    def __init__(self) -> None:
        self.exchanges = 0
        """Requests whose head has come."""
        self.bad_uploads = 0
        """Uploads that came whole and differed from what was sent."""
        self.address = ("127.0.0.1", 0)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, *self.address)
        self.address = ("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failures and error is None:
            raise ExceptionGroup("the app failed", self._failures)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # Whoever called has gone away, as some do here.
        except Exception as error:  # noqa: BLE001 (raised again when the app is left)
            self._failures.append(error)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.exchanges += 1
        path = head.split(" ", 2)[1].partition("?")[0]
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }
        word, *numbers = path.strip("/").split("/")
        seed, size = (int(n) for n in (numbers or ("0", "0")))
        match word:
            case "bytes":
                await _send(writer, seed, size, chunked=False)
            case "chunks":
                await _send(writer, seed, size, chunked=True)
            case "events":
                await _send_events(writer, seed, size)
            case "end":
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body(seed, size))
                await writer.drain()
                return False
            case "upload":
                got = await _receive(reader, fields)
                self.bad_uploads += got != body(seed, size)
                answer = str(len(got)).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
                writer.write(answer)
            case "chat":
                await _chat(reader, writer)
                return False
            case _:
                await _misbehave(word, seed, size, reader, writer)
                return False
        await writer.drain()
        return True


async def _send(writer: asyncio.StreamWriter, seed: int, size: int, *, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
    data = body(seed, size)
    for start in range(0, size, PIECE):
        piece = data[start : start + PIECE]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


async def _send_events(writer: asyncio.StreamWriter, seed: int, count: int) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    for number in range(count):
        one = event(seed, number)
        writer.write(b"%x\r\n%b\r\n" % (len(one), one))
        await writer.drain()
        await asyncio.sleep(0.001)
    writer.write(b"0\r\n\r\n")


async def _receive(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    data = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        data += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return data


async def _chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
    )
    while said := await reader.read(PIECE):
        writer.write(said)
        await writer.drain()


async def _misbehave(
    word: str,
    seed: int,
    size: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    if word == "stall":
        # Until the proxy has lost its patience.
        await reader.read()
    elif word == "garbage":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
        await writer.drain()
    else:
        if word == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            writer.write(body(seed, size)[: size // 2])
            await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
