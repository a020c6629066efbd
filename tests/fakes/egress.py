"""Egress proxies: one in this process that finds every name on loopback, and Debian's tinyproxy."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

TINYPROXY = shutil.which("tinyproxy")

needs_tinyproxy = pytest.mark.skipif(TINYPROXY is None, reason="tinyproxy is not installed")

START_SECONDS = 20.0


class ForwardProxy:
    """Opens a tunnel for every CONNECT, to the port that it names on 127.0.0.1, whatever the host.

    The upstreams of tests are on loopback, where no proxy is ever asked; through this one they
    have names that no name server knows.
    """

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []
        """What was asked for, in order."""
        self.open = 0
        """Tunnels that are open."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    @property
    def targets(self) -> list[str]:
        """What was asked for, the authorities alone."""
        return [head.split(" ")[1] for head in self.heads]

    @contextlib.asynccontextmanager
    async def serving(self, host: str = "127.0.0.1") -> AsyncIterator[ForwardProxy]:
        server = await asyncio.start_server(self._serve, host, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._failures == []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("CONNECT "), head
            self.heads.append(head)
            port = int(head.split(" ")[1].rpartition(":")[2])
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self.open += 1
            with contextlib.suppress(ConnectionError):
                await _relay(reader, writer, far_reader, far_writer)
            self.open -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # A port where nobody listens, or a caller that has gone.
        except Exception as error:  # noqa: BLE001 (raised again when the proxy is left)
            self._failures.append(error)
        finally:
            writer.close()


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    try:
        there = asyncio.ensure_future(_copy(reader, far_writer))
        back = asyncio.ensure_future(_copy(far_reader, writer))
        _, pending = await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
    finally:
        far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


CONFIG = """
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 100
LogFile "{folder}/log"
LogLevel Connect
{more}
"""


@contextlib.asynccontextmanager
async def tinyproxy(folder: Path, *lines: str, behind: ForwardProxy) -> AsyncIterator[int]:
    """Run tinyproxy, with `lines` more in its configuration; yield its port.

    It asks `behind` for each tunnel, which finds every name on loopback.
    """
    assert TINYPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    more = "\n".join([f"Upstream http 127.0.0.1:{behind.port}", *lines])
    file = folder / "tinyproxy.conf"
    file.write_text(CONFIG.format(port=port, folder=folder, more=more))
    process = await asyncio.create_subprocess_exec(TINYPROXY, "-d", "-c", str(file))
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _answers(port):
                assert process.returncode is None, "tinyproxy did not start"
                await asyncio.sleep(0.01)
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
