"""Dialling: what becomes of a connection that breaks while it is made."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import struct
from pathlib import Path
from typing import Literal, cast

import pytest

from proxy.config.model import Upstream
from proxy.errors import Overloaded, ProxyError, UpstreamConnectFailed, UpstreamTlsFailed
from proxy.plane import descriptors, dial
from proxy.resolver import Resolver

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER, socket(7)


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_reset_while_dialling_closes_no_other_connection(
    monkeypatch: pytest.MonkeyPatch, scheme: Literal["https", "http"]
) -> None:
    """The number of a descriptor is soon somebody else's: it is closed once, by its owner."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset(sock: socket.socket) -> None:
            """Break the connection after TCP has made it, before anything is written."""
            numbers.append(sock.fileno())
            peer = server.accept()[0]
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            peer.close()

        numbers: list[int] = []
        monkeypatch.setattr(dial, "keep_alive", reset)
        port = server.getsockname()[1]
        dialler = dial.Dialler(Upstream(scheme, "127.0.0.1", port), None, Resolver())

        await _dial_in_vain(dialler)
        others = [socket.socket() for _ in range(8)]
        await _collected()

        # Otherwise this test would prove nothing.
        assert numbers[0] in [other.fileno() for other in others]
        for other in others:
            os.fstat(other.fileno())
            other.close()


async def test_nothing_is_connected_where_the_roots_cannot_be_read(tmp_path: Path) -> None:
    """The file may go while the proxy runs; no descriptor may be left over for each call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = Upstream("https", "127.0.0.1", server.getsockname()[1])
        dialler = dial.Dialler(upstream, tmp_path / "gone.pem", Resolver())
        said = "ca_file .*gone.pem cannot be read: No such file"
        with pytest.raises(UpstreamTlsFailed, match=said):
            await dialler.dial(Writing, 5)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("has_room", [True, False])
async def test_a_connection_leaves_the_last_descriptors_to_others(
    has_room: bool,  # noqa: FBT001 (a row of the table)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.socket() as probe:
            next_number = probe.fileno()
        kept_from = next_number + has_room
        limit = (
            kept_from + descriptors.RESERVE if kept_from > descriptors.RESERVE else 2 * kept_from
        )
        monkeypatch.setattr(descriptors, "soft_limit", lambda: limit)
        upstream = Upstream("http", "127.0.0.1", server.getsockname()[1])
        dialler = dial.Dialler(upstream, None, Resolver())

        if has_room:
            transport, _ = await dialler.dial(Writing, 5)
            transport.abort()
        else:
            with pytest.raises(Overloaded, match="no file descriptor left"):
                await dialler.dial(Writing, 5)
            with server.accept()[0] as peer:
                peer.settimeout(5)
                assert peer.recv(1) == b""


async def test_a_system_without_descriptors_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(dial, "start_connection", connect)
    dialler = dial.Dialler(Upstream("http", "127.0.0.1", 9), None, Resolver())

    with pytest.raises(Overloaded):
        await dialler.dial(Writing, 5)


async def test_a_connection_to_itself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux makes one where nobody listens on a port and the caller happens to get its number."""

    async def connect(*_: object, **__: object) -> socket.socket:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        made.append(sock)
        return sock

    made: list[socket.socket] = []
    monkeypatch.setattr(dial, "start_connection", connect)
    dialler = dial.Dialler(Upstream("http", "127.0.0.1", 9), None, Resolver())
    with pytest.raises(UpstreamConnectFailed, match="connection refused"):
        await dialler.dial(Writing, 5)

    assert made[0].fileno() == -1


@pytest.mark.parametrize(("theirs", "ours"), [("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15)])
def test_the_kernel_probes_silent_connections(theirs: str, ours: int) -> None:
    with socket.socket() as sock:
        dial.keep_alive(sock)

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, theirs)) == ours


@pytest.mark.parametrize("theirs", ["TCP_KEEPALIVE", None])
def test_a_system_that_calls_the_options_otherwise_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    number = socket.TCP_KEEPIDLE
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name)
    if theirs is not None:
        monkeypatch.setattr(socket, theirs, number, raising=False)
    with socket.socket() as sock:
        before = sock.getsockopt(socket.IPPROTO_TCP, number)
        dial.keep_alive(sock)

        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, number) == (60 if theirs else before)


class Writing(asyncio.Protocol):
    """Greets at once, as HTTP/2 does."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(b"PRI * HTTP/2.0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self.lost.set()


async def _dial_in_vain(dialler: dial.Dialler) -> None:
    """Dial; over plain TCP the failure shows only afterwards."""
    try:
        _, protocol = await dialler.dial(Writing, 5)
    except ProxyError:
        return
    await protocol.lost.wait()


async def _collected() -> None:
    """Let the loop end what it has to, and collect what nobody refers to any more."""
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
