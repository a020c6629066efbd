"""Listening sockets of the data path."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from proxy.config.model import Address

# Connections that may wait to be accepted: a burst of an app that starts must not be refused.
BACKLOG = 4096

# A socket file that only the proxy's own user and group may use.
_SOCKET_MODE = 0o660


class ListenFailed(OSError):
    """An address cannot be listened on; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Listener:
    """An open listener."""

    address: Address
    """The real one: a port 0 has become what the kernel chose."""
    server: asyncio.Server

    def close(self) -> None:
        """Accept nobody any more; connections go on."""
        self.server.close()
        if self.address.path:
            Path(self.address.path).unlink(missing_ok=True)


async def listen(
    address: Address, factory: Callable[[], asyncio.Protocol], *, share: bool = False
) -> Listener:
    """Open a listener whose connections are served by what `factory` makes.

    `share` lets several processes accept on one port (SO_REUSEPORT, socket(7)).

    Raises:
        ListenFailed: the address is in use, not ours, or not permitted.
    """
    loop = asyncio.get_running_loop()
    try:
        if address.path:
            sock = _unix_socket(address.path)
            return Listener(
                address, await loop.create_unix_server(factory, sock=sock, backlog=BACKLOG)
            )
        server = await loop.create_server(
            factory,
            address.host,
            address.port,
            backlog=BACKLOG,
            reuse_address=True,
            reuse_port=share or None,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise ListenFailed(f"cannot listen on {address}: {reason}") from error
    port = server.sockets[0].getsockname()[1]
    return Listener(replace(address, port=port), server)


def _unix_socket(path: str) -> socket.socket:
    """Return a socket bound to the path, for the proxy's own user and group only."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    Path(path).chmod(_SOCKET_MODE)
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket file that a process left behind; one that still answers stays."""
    file = Path(path)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(file.stat().st_mode):
            raise ListenFailed(f"cannot listen on unix:{path}: the file exists and is no socket")
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            file.unlink()
        finally:
            probe.close()
