"""One end of a TCP or TLS connection, read and written as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from proxy.emulator.faults import reset
from proxy.emulator.wire import MalformedError

READ_SIZE = 64 * 1024
HEAD_LIMIT = 1024 * 1024
"""Bytes; far above what Google allows, so that the limit that a test meets is another's."""


App = tuple[str, int] | Path
"""Where an app listens: host and port, or the path of its Unix socket."""


async def connect(app: App) -> Peer:
    """Return a connection to `app`; raise OSError where it takes none."""
    if not isinstance(app, Path):
        return Peer(*await asyncio.open_connection(*app))
    if sys.platform != "win32":
        return Peer(*await asyncio.open_unix_connection(app))
    raise OSError(f"Python has no Unix sockets on Windows: {app}")


class GoneError(Exception):
    """The connection ended, or broke."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer


class Peer:
    """One end of a connection; `pending` is what it sent and nobody has used."""

    __slots__ = ("_reader", "_writer", "pending")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.pending = bytearray()

    async def more(self) -> bool:
        """Read into `pending`; return False at the end.  Raises `GoneError` when broken."""
        try:
            data = await self._reader.read(READ_SIZE)
        except OSError as error:  # TLS errors are OSErrors, too
            raise GoneError(self) from error
        self.pending += data
        return bool(data)

    async def head(self) -> bytes | None:
        """Take a whole head from `pending`, or None where the peer ended before its first byte.

        Raises `GoneError` when it ends inside a head, `MalformedError` when that has no end.
        """
        start = 0
        while (end := self.pending.find(b"\r\n\r\n", start)) < 0:
            if len(self.pending) > HEAD_LIMIT:
                raise MalformedError
            start = max(0, len(self.pending) - 3)
            if not await self.more():
                if self.pending:
                    raise GoneError(self)
                return None
        return self.take(end + 4)

    def take(self, count: int) -> bytes:
        """Remove and return the first `count` bytes of `pending`."""
        data = bytes(self.pending[:count])
        del self.pending[:count]
        return data

    async def send(self, data: bytes) -> None:
        """Write, and wait while the peer is slow.  Raises `GoneError`."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise GoneError(self) from error

    def end(self) -> None:
        """Let the connection end when what is written has been sent."""
        self._writer.close()

    async def close(self) -> None:
        """Send what is written, then end the connection."""
        self.end()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """End the connection at once, visibly: with a reset.  Nothing happens after `end`."""
        if not self._writer.transport.is_closing():
            reset(self._writer.transport)
