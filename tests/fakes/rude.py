"""An upstream that answers an upload early and closes with bytes of it unread.

The kernel makes RST of that.  It is a blocking server, so that a test can have the answer, the RST
and the proxy's next write come in this order within one turn of the loop.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.fakes.raw import PATIENCE


class RudeUpstream:
    """A server for one connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE)
        self.port = self._listening.getsockname()[1]
        self._sock: socket.socket | None = None

    async def accept(self, mark: bytes, *, greeting: bytes = b"") -> bytes:
        """Accept a connection, send `greeting`, and read up to `mark`; return what came."""
        return await asyncio.to_thread(self._accept, mark, greeting)

    def _accept(self, mark: bytes, greeting: bytes) -> bytes:
        sock, _ = self._listening.accept()
        self._sock = sock
        sock.settimeout(PATIENCE)
        # What waits for an acknowledgement of TLS' tickets, RST would destroy before it leaves.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock = self._sock = self._tls.wrap_socket(sock, server_side=True)
        sock.sendall(greeting)
        came = b""
        while mark not in came:
            piece = sock.recv(1)
            assert piece, came
            came += piece
        return came

    def say(self, data: bytes) -> None:
        """Send something and go on."""
        assert self._sock is not None
        self._sock.sendall(data)

    async def fill(self, send: Callable[[], None]) -> None:
        """Have `send` called, and wait until something has come that stays unread."""
        assert self._sock is not None
        before = self._unread()
        send()
        async with asyncio.timeout(PATIENCE):
            while self._unread() <= before:  # noqa: ASYNC110 (the kernel has no event)
                await asyncio.sleep(0)

    def _unread(self) -> int:
        assert self._sock is not None
        answer = fcntl.ioctl(self._sock.fileno(), termios.FIONREAD, bytes(4))
        (size,) = struct.unpack("i", answer)
        return int(size)

    async def break_off(self, answer: bytes, write: Callable[[], object]) -> None:
        """Answer and close; then have `write` called, before the loop looks at its sockets."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        ours, other = socket.socketpair()

        def act() -> None:
            loop.remove_reader(ours)
            assert self._sock is not None
            self._sock.sendall(answer)
            self._sock.close()
            write()
            done.set_result(None)

        # Among the callbacks of sockets: uvloop writes when it has run all of them.
        with ours, other:
            loop.add_reader(ours, act)
            other.send(b"!")
            await done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sock is not None:
            self._sock.close()
        self._listening.close()
