"""What has come on a connection that is lost, and that nobody has read.

An upstream may answer an upload before it is whole and close with bytes of it unread.  The kernel
makes RST of that, our next write fails, and the loop's transport gives up without another look:
but the answer lies in the socket, and whoever calls the upstream directly sees it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

_PIECE_BYTES = 64 * 1024
_MOST_PIECES = 16  # An answer to an upload is short, and all of this happens in one turn.


def unread(transport: asyncio.BaseTransport) -> Iterator[bytes]:
    """Yield what the kernel still has, piece by piece; nothing of it waits for the far end.

    Only within `connection_lost`: the transport reads no more, and its socket is open until that
    returns.
    """
    lost = transport.get_extra_info("socket")
    if lost is None or lost.fileno() < 0:
        return
    # Another object for the same descriptor: the transports' own cannot be read.
    sock = socket.socket(fileno=lost.fileno())
    try:
        # Nothing there (the transport's sockets never block), or the reset itself.
        with suppress(OSError):
            for _ in range(_MOST_PIECES):
                data = sock.recv(_PIECE_BYTES)
                if not data:
                    return
                yield data
    finally:
        sock.detach()
