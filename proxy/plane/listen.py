"""Listening sockets of the data path: bound, then served, and closed without losing who waits.

Binding and serving are two steps.  Binding is all that can fail, so that a start or a reload
either has every address or changes nothing; and callers who come between the two wait in the
socket's queue instead of being refused.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from proxy.config.model import Address
from proxy.system import EXCLUSIVE, REUSE_PORT, UNIX

# Connections that may wait to be accepted: a burst of an app that starts must not be refused.
BACKLOG = 4096

# A socket file that only the proxy's own user and group may use.
SOCKET_MODE = 0o660

# Port 0 is one port for all addresses of a name: what the kernel chose for the first may be
# taken on the second, and then another one has to be tried.
_ATTEMPTS = 10

# A name can have addresses that this machine lacks: "localhost" is also ::1 where IPv6 is off.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

Sockets = tuple[socket.socket, ...]
"""What one address needs: a socket for each IP address of its host, or one for a path."""

Factory = Callable[[], asyncio.BaseProtocol]

Place = tuple[int, tuple[object, ...]]
"""An address family, and an address as `socket.bind` takes it."""


class ListenFailed(OSError):
    """An address cannot be listened on; the text is one line for the operator."""

    def __init__(self, where: Address | str, why: OSError | str) -> None:
        reason = why if isinstance(why, str) else why.strerror or str(why)
        super().__init__(f"cannot listen on {where}: {reason}")
        self.where = where
        self.in_use = isinstance(why, OSError) and why.errno == errno.EADDRINUSE
        """Whether somebody else has the address."""


async def bind(address: Address) -> Sockets:
    """Return sockets that are bound to the address and whose queue takes connections.

    Raises:
        ListenFailed: the address is in use, not ours, or not permitted.
    """
    try:
        if address.path:
            return (_unix_socket(address.path),)
        return await _tcp_sockets(address)
    except OSError as error:
        raise ListenFailed(address, error) from error


async def bind_shared(address: Address, processes: int) -> list[Sockets]:
    """Bind once for each of `processes`, which the kernel then spreads connections over.

    A Unix socket has no such sharing: its one queue is everybody's.

    Raises:
        ListenFailed: as `bind`; somebody else's sharing of the port is refused, too.
    """
    shares = [await bind(address)]
    try:
        for _ in range(processes - 1):
            shares.append(bind_again(shares[0]))
    except OSError as error:
        for sockets in shares:
            close_all(sockets)
        raise ListenFailed(address, error) from error
    return shares


def close_all(sockets: Sockets) -> None:
    """Close sockets; their connections go on."""
    for sock in sockets:
        sock.close()


def bind_again(sockets: Sockets) -> Sockets:
    """Return one more share of the port that `sockets` have; see `bind_shared`.  Raises OSError."""
    return tuple(_another(sock) for sock in sockets)


def real_addresses(address: Address, sockets: Sockets) -> tuple[Address, ...]:
    """Return where `sockets` listen: `address` with its real port, unless they are elsewhere."""
    return tuple(dict.fromkeys(_real_address(address, address_of(sock)) for sock in sockets))


def address_of(sock: socket.socket) -> Address:
    """Return the address that a socket is bound to, as a configuration would write it."""
    name = sock.getsockname()
    if sock.family != UNIX:
        return Address(str(name[0]), int(name[1]))
    text = name.decode() if isinstance(name, bytes) else str(name)
    return Address(path=text.replace("\0", "@", 1))


def _real_address(address: Address, found: Address) -> Address:
    # The configuration's word for the host is what the operator knows: localhost, for ::1 too.
    if not found.path and not address.path and address.port in (0, found.port):
        return replace(address, port=found.port)
    return found


def remove_file(address: Address) -> None:
    """Remove the file of a Unix socket; before it is closed, or it might be a successor's."""
    if address.path and not _is_abstract(address.path):
        Path(address.path).unlink(missing_ok=True)


class Listener:
    """Sockets whose connections are accepted from `start` on; it owns them."""

    __slots__ = ("_factory", "_servers", "_sockets", "addresses")

    def __init__(
        self,
        address: Address,
        sockets: Sockets,
        factory: Factory,
        servers: tuple[asyncio.AbstractServer, ...],
    ) -> None:
        self.addresses = real_addresses(address, sockets)
        """The real ones: a port 0 has become what the kernel chose."""
        self._sockets = sockets
        self._factory = factory
        self._servers = servers

    @property
    def address(self) -> Address:
        """The first of `addresses`."""
        return self.addresses[0]

    async def start(self) -> None:
        """Accept whoever has connected since the sockets were bound, and comes from here on."""
        for server in self._servers:
            await server.start_serving()

    def close(self) -> None:
        """Accept nobody any more; connections go on."""
        for server in self._servers:
            server.close()
        close_all(self._sockets)

    async def retire(self) -> None:
        """Close, and serve those who had connected but were not accepted yet."""
        for server in self._servers:
            server.close()
        # The connections of a socket's queue would be reset with its last descriptor.
        waiting = [connection for sock in self._sockets for connection in _accept_all(sock)]
        close_all(self._sockets)
        loop = asyncio.get_running_loop()
        for connection in waiting:
            # A caller may have gone away again.
            with suppress(OSError):
                await loop.connect_accepted_socket(self._factory, connection)


async def open_listener(address: Address, sockets: Sockets, factory: Factory) -> Listener:
    """Return a listener that is not started, whose connections are served by `factory`'s.

    `address` is what the sockets were bound to.  Raises `ListenFailed`; they are closed then.
    """
    loop = asyncio.get_running_loop()
    servers: list[asyncio.AbstractServer] = []
    try:
        for sock in sockets:
            is_unix = sock.family == UNIX
            create = loop.create_unix_server if is_unix else loop.create_server
            # A descriptor of its own, which the server closes as it likes.
            server = await create(factory, sock=sock.dup(), backlog=BACKLOG, start_serving=False)
            servers.append(server)
    except OSError as error:
        Listener(address, sockets, factory, tuple(servers)).close()
        raise ListenFailed(address, error) from error
    return Listener(address, sockets, factory, tuple(servers))


async def listen(address: Address, factory: Factory) -> Listener:
    """Bind and start at once; see `bind`."""
    listener = await open_listener(address, await bind(address), factory)
    await listener.start()
    return listener


async def _tcp_sockets(address: Address) -> Sockets:
    places = await _places(address)
    for attempt in range(_ATTEMPTS):
        try:
            return _bind_all(places)
        except OSError as error:
            is_last = attempt == _ATTEMPTS - 1
            if address.port or is_last or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("the last attempt returns or raises")


async def _places(address: Address) -> list[Place]:
    """Return what a host's name stands for."""
    if address.host == "localhost":
        # RFC 6761, 6.3: a name that nobody need be asked for. /etc/hosts often lacks one of them.
        return [
            (socket.AF_INET, ("127.0.0.1", address.port)),
            (socket.AF_INET6, ("::1", address.port)),
        ]
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # The resolver may name an address twice.
    return list(dict.fromkeys((family, name) for family, _, _, _, name in found))


def _bind_all(places: Sequence[Place]) -> Sockets:
    """Bind to every place that this machine has, with one port for all."""
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (host, port, *rest) in places:
            if sockets:
                port = sockets[0].getsockname()[1]
            try:
                sockets.append(_tcp_socket(family, (host, port, *rest)))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
    except OSError:
        close_all(tuple(sockets))
        raise
    if missing is not None and not sockets:
        raise missing
    return tuple(sockets)


def _tcp_socket(family: int, name: tuple[object, ...], *, share: bool = False) -> socket.socket:
    # By its number: asyncio leaves Nagle's algorithm on for a socket that does not say TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # socket(7): a predecessor's connections in TIME_WAIT do not matter; to Windows never.
        sock.setsockopt(socket.SOL_SOCKET, EXCLUSIVE or socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, REUSE_PORT, 1)
        sock.bind(name)
        return _ready(sock)
    except OSError:
        sock.close()
        raise


def _ready(sock: socket.socket) -> socket.socket:
    sock.listen(BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 (the socket module's own order)
    return sock


def _another(sock: socket.socket) -> socket.socket:
    """Return one more socket on the same address, for another process."""
    if sock.family == UNIX:
        return sock.dup()
    # Set only here, after `sock` was bound and listens without it: the kernel then has refused
    # a port on which somebody else listens, even if that one would share.
    sock.setsockopt(socket.SOL_SOCKET, REUSE_PORT, 1)
    return _tcp_socket(sock.family, sock.getsockname(), share=True)


def _unix_socket(path: str) -> socket.socket:
    """Return a socket bound to the path, for the proxy's own user and group only."""
    sock = socket.socket(UNIX, socket.SOCK_STREAM)
    try:
        if _is_abstract(path):
            sock.bind(b"\0" + path[1:].encode())
        else:
            _remove_stale(path)
            sock.bind(path)
            # Nobody can have connected yet: that takes `listen`.
            Path(path).chmod(SOCKET_MODE)
        return _ready(sock)
    except OSError:
        sock.close()
        raise


def _is_abstract(path: str) -> bool:
    """Tell whether a name lies in Linux' abstract namespace (unix(7)), which has no files."""
    return path.startswith("@")


def _remove_stale(path: str) -> None:
    """Remove a socket file that a process left behind; one that still answers stays."""
    file = Path(path)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(file.stat().st_mode):
            raise OSError(errno.EEXIST, "the file exists and is no socket")
        if not _answers(path):
            file.unlink()


def _answers(path: str) -> bool:
    with socket.socket(UNIX) as probe:
        # A full queue must not block: then somebody is there.
        probe.setblocking(False)  # noqa: FBT003 (the socket module's own order)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
    return True


def _accept_all(sock: socket.socket) -> list[socket.socket]:
    """Take every connection out of a socket's queue."""
    connections: list[socket.socket] = []
    with suppress(BlockingIOError):
        while True:
            try:
                connections.append(sock.accept()[0])
            except ConnectionAbortedError:
                continue  # accept(2): the caller has gone away again.
    return connections
