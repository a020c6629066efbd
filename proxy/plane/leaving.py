"""How a caller's connection ends: in stages, so that nothing that was said is lost.

RFC 9112, 9.6: who closes a connection while bytes are still coming makes the kernel send RST,
which can destroy a response that the far end has not read yet.  So FIN goes first, what still
comes is read and thrown away for a while, and only then the connection is closed.
"""

from __future__ import annotations

import asyncio
import math
import socket
from contextlib import suppress
from typing import Final, final

from proxy.plane.sweeper import Sweeper
from proxy.system import RESET, UNIX

LINGER_TIMEOUT: Final = 2.0  # Seconds to read on after FIN; a caller that has read it closes.
LINGER_BYTES: Final = 16 * 1024 * 1024  # And how much: more than socket buffers hold (tcp(7)).
CLOSE_TIMEOUT: Final = 5.0  # Seconds that the far end may take to acknowledge the end.
# Seconds that it may read nothing of what is left to send; nginx' default.
SEND_TIMEOUT: Final = 60.0


def send_fin(transport: asyncio.WriteTransport) -> bool:
    """End the writing half behind what is written; return False where that cannot be done alone.

    A peer that has just reset the connection needs no FIN: under asyncio's own loop the attempt
    raises, and the loss of the connection is told in the same turn.
    """
    if not transport.can_write_eof():
        return False
    with suppress(OSError):
        transport.write_eof()
    return True


@final
class Leaving:
    """The end of one connection, watched by the sweeper until it is over."""

    __slots__ = ("_closed", "_left", "_sweeper", "_transport", "_unsent", "deadline")

    def __init__(self, transport: asyncio.Transport, sweeper: Sweeper) -> None:
        self._transport = transport
        self._sweeper = sweeper
        self._left = LINGER_BYTES
        self._unsent = 0
        self._closed = False
        self.deadline = math.inf
        sweeper.add(self)

    def linger(self) -> None:
        """Send FIN after what is written; `take` gets what still comes."""
        send_fin(self._transport)
        self.deadline = self._sweeper.clock() + LINGER_TIMEOUT

    def take(self, size: int) -> None:
        """Throw away `size` bytes that came; too many end the wait."""
        self._left -= size
        if self._left < 0:
            self.close()

    def close(self) -> None:
        """Close once what is written has left."""
        self._closed = True
        self._transport.close()
        self.deadline = self._sweeper.clock() + CLOSE_TIMEOUT

    def cut(self) -> None:
        """Send RST: what was not written is lost, and the caller shall see that."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != UNIX:
            with suppress(OSError):  # macOS: a peer's reset was first (EINVAL, setsockopt(2)).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()
        self.over()

    def over(self) -> None:
        """Be told that the connection has ended."""
        self._sweeper.discard(self)

    def on_deadline(self, now: float) -> None:
        """Wait on while the caller still reads; else go to the next stage."""
        unsent = self._transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:
            self._unsent = unsent
            self.deadline = now + SEND_TIMEOUT
        elif unsent or self._closed:
            self.cut()
        else:
            self.close()
