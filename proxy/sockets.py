"""Where listening sockets come from: bound here, or inherited from a service manager.

systemd's socket activation (sd_listen_fds(3)) passes sockets that are bound already: the proxy
needs no privilege for a low port, and callers wait in the queue while it restarts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final, Protocol

from proxy.config.addresses import is_loopback
from proxy.config.model import Address, Config
from proxy.frozen import frozen
from proxy.plane import listen
from proxy.plane.listen import ListenFailed, Sockets

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
ADMIN: Final = "admin"


class SocketSource(Protocol):
    """Where a server gets its listening sockets."""

    admin: socket.socket | None
    """The one for the admin listener, if it was inherited."""

    def plan(self, config: Config) -> None:
        """Decide which inherited sockets serve which listener of `config`."""

    async def take(self, address: Address) -> Sockets:
        """Return bound sockets for a listener, owned by the caller.  Raises `ListenFailed`."""

    def leave(self, address: Address) -> None:
        """Remove what stands for the listener in the file system; it is closed next."""


@frozen
class Inherited:
    """A socket that the process was started with."""

    name: str
    """``FileDescriptorName`` of the socket unit; empty where none was given."""
    sock: socket.socket


def inherit(environ: MutableMapping[str, str], pid: int | None = None) -> list[Inherited]:
    """Return the sockets that a service manager passed, and take them out of the environment.

    Raises:
        ListenFailed: a descriptor is no listening stream socket.
    """
    said = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    # sd_listen_fds(3): the variables are another process's where the number is not ours.
    if said["LISTEN_PID"] != str(os.getpid() if pid is None else pid):
        return []
    count = int(said["LISTEN_FDS"]) if said["LISTEN_FDS"].isdecimal() else 0
    names = said["LISTEN_FDNAMES"].split(":") + [""] * count
    return [Inherited(names[n], _stream(FIRST_DESCRIPTOR + n)) for n in range(count)]


def _stream(descriptor: int) -> socket.socket:
    """Return the listening socket behind a descriptor."""
    where = f"the inherited descriptor {descriptor}"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ListenFailed(where, error) from error
    is_stream = sock.type == socket.SOCK_STREAM
    if not is_stream or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ListenFailed(where, "a socket unit needs ListenStream= and Accept=no")
    sock.set_inheritable(False)
    sock.setblocking(False)  # noqa: FBT003 (the socket module's own order)
    return sock


def assign(
    config: Config, inherited: Sequence[Inherited]
) -> tuple[dict[Address, Sockets], socket.socket | None]:
    """Return the inherited sockets of each listener, and the admin listener's.

    A socket serves the listener whose address it has; else the listener of the route that it is
    named after (``admin`` for the admin listener); else the first listener of all, so that a
    unit with one socket needs no word about it in the configuration.
    """
    found: dict[Address, Sockets] = {}
    admin: socket.socket | None = None
    named = {route.name: route.listen[0] for route in config.routes}
    for each in inherited:
        address = listen.address_of(each.sock)
        if each.name == ADMIN or (
            config.admin is not None and _is_at(address, config.admin.listen)
        ):
            admin = each.sock
            continue
        named_so = (listener for listener in config.listeners if _is_at(address, listener))
        listener = next(named_so, named.get(each.name, config.listeners[0]))
        found[listener] = (*found.get(listener, ()), each.sock)
    return found, admin


def _is_at(address: Address, listener: Address) -> bool:
    """Tell whether a socket bound to `address` is one of those that `listener` means."""
    if listener.host == "localhost" and not address.path:
        return address.port == listener.port and is_loopback(address.host)
    return address == listener


def advice(busy: ListenFailed, config: Config) -> str:
    """Return how to choose another address where this one is taken; empty for other errors.

    It begins where the error's own text ends.
    """
    if not busy.in_use:
        return ""
    if config.admin is not None and busy.where == config.admin.listen:
        return "; --admin takes another"
    own = [
        route.name for route in config.routes if route.own_listener and busy.where in route.listen
    ]
    return f"; routes.{own[0]}.listen takes another" if own else "; --listen takes another"


class OwnSockets:
    """Binds every address that no inherited socket stands for."""

    def __init__(self, inherited: Sequence[Inherited] = ()) -> None:
        self._inherited = inherited
        self._assigned: dict[Address, Sockets] = {}
        self._bound: set[Address] = set()
        self.admin: socket.socket | None = None

    def plan(self, config: Config) -> None:
        """Decide which inherited sockets serve which listener of `config`."""
        self._assigned, self.admin = assign(config, self._inherited)

    async def take(self, address: Address) -> Sockets:
        """Return bound sockets for a listener, owned by the caller.  Raises `ListenFailed`."""
        inherited = self._assigned.get(address)
        if inherited is None:
            sockets = await listen.bind(address)
            self._bound.add(address)
            return sockets
        # The originals stay open: a reload may give them to another listener.
        return tuple(sock.dup() for sock in inherited)

    async def take_shares(self, address: Address, count: int) -> list[Sockets]:
        """Return the sockets of `count` processes for one listener.  Raises `ListenFailed`."""
        if address in self._assigned:
            return [await self.take(address) for _ in range(count)]
        shares = await listen.bind_shared(address, count)
        self._bound.add(address)
        return shares

    def is_spread(self, address: Address) -> bool:
        """Tell whether each process has a queue of its own, instead of one for all."""
        return address in self._bound and not address.path

    def another_share(self, address: Address, share: Sockets) -> Sockets:
        """Return sockets for one more process beside the one that has `share`.

        Raises OSError.
        """
        if address in self._bound:
            return listen.bind_again(share)
        return tuple(sock.dup() for sock in share)

    def leave(self, address: Address) -> None:
        """Remove the file of a Unix socket that was bound here."""
        if address in self._bound:
            self._bound.remove(address)
            listen.remove_file(address)
