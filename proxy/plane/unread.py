"""What has come on a connection and that nobody has read: whether, and for a lost one, what.

An upstream may answer an upload before it is whole and close with bytes of it unread.  The kernel
makes RST of that, our next write fails, and the loop's transport gives up without another look:
but the answer lies in the socket, and whoever calls the upstream directly sees it.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from proxy.system import polling

_PIECE_BYTES: Final = 64 * 1024
_MOST_PIECES: Final = 16  # An answer to an upload is short, and all of this happens in one turn.


def watched(transport: asyncio.BaseTransport) -> Callable[[int], object]:
    """Return what asks the kernel whether something has come on the connection, a FIN included.

    Called with 0, which is how long it may wait, it returns something true or something false.
    """
    descriptor: int = transport.get_extra_info("socket").fileno()
    return polling(descriptor, "POLLIN") or partial(_select, descriptor)


def _select(descriptor: int, seconds: float) -> object:
    return select.select([descriptor], [], [], seconds)[0]


def unread(transport: asyncio.BaseTransport) -> list[bytes]:
    """Return what the kernel still has, in pieces; nothing of it waits for the far end.

    Only within `connection_lost`: the transport reads no more, and its socket is open until that
    returns.
    """
    lost = transport.get_extra_info("socket")
    pieces: list[bytes] = []
    if lost is None or lost.fileno() < 0:
        return pieces
    # Another object for the same descriptor: the transports' own cannot be read.  No generator,
    # which mypyc's would leave as it is where it is abandoned: the descriptor would be closed.
    sock = socket.socket(fileno=lost.fileno())
    try:
        # Nothing there (the transport's sockets never block), or the reset itself.
        with suppress(OSError):
            while len(pieces) < _MOST_PIECES and (data := sock.recv(_PIECE_BYTES)):
                pieces.append(data)
    finally:
        sock.detach()
    return pieces
