"""How connections end, whatever the peer has done."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from proxy.plane.leaving import send_fin

_RESET = struct.pack("ii", 1, 0)


async def _reset_connection() -> tuple[asyncio.Transport, socket.socket]:
    """Return the transport of a connection that its peer has reset, before the loop knows."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.settimeout(0)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    peer.close()
    return transport, ours


async def test_a_fin_to_a_peer_that_has_reset_raises_nothing() -> None:
    transport, _ = await _reset_connection()

    assert send_fin(transport)

    transport.abort()


async def test_what_it_spares_is_an_error_of_the_system() -> None:
    transport, ours = await _reset_connection()

    with pytest.raises(OSError, match="not connected"):
        ours.shutdown(socket.SHUT_WR)

    transport.abort()
