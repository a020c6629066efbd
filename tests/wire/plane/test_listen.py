"""Listening sockets: bound all or none, for one process or several, and given up without loss."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest

from proxy.config.model import Address
from proxy.plane.listen import (
    ListenFailed,
    Sockets,
    address_of,
    bind,
    bind_again,
    bind_shared,
    close_all,
    listen,
    open_listener,
    real_addresses,
    remove_file,
)

ANY = Address("127.0.0.1", 0)


class Greeter(asyncio.Protocol):
    """Says its name to whoever connects, and hangs up."""

    def __init__(self, name: bytes = b"hello") -> None:
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast("asyncio.WriteTransport", transport)  # uvloop's do not derive from it.
        writing.write(self._name)
        writing.close()


class Delays(asyncio.Protocol):
    """Notes whether the kernel holds back what is short (Nagle's algorithm, tcp(7))."""

    def __init__(self) -> None:
        self.held: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        self.held.set_result(not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        transport.close()


@contextmanager
def kept(sockets: Sockets) -> Iterator[Sockets]:
    try:
        yield sockets
    finally:
        close_all(sockets)


async def heard(address: Address) -> bytes:
    """Connect and return what comes until the end."""
    if address.path:
        # By a socket of ours: uvloop takes no path with a NUL in it.
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(f"\0{address.path[1:]}" if address.path.startswith("@") else address.path)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def connect(address: Address) -> socket.socket:
    """Connect, which the kernel does without anybody accepting."""
    return socket.create_connection((address.host, address.port), timeout=5)


# --- binding


async def test_port_0_becomes_a_real_port_that_answers() -> None:
    listener = await listen(ANY, Greeter)

    assert listener.address.port != 0
    assert await heard(listener.address) == b"hello"
    listener.close()


async def test_whoever_connects_between_binding_and_serving_waits_and_is_served() -> None:
    sockets = await bind(ANY)
    caller = connect(address_of(sockets[0]))

    listener = await open_listener(ANY, sockets, Greeter)
    await listener.start()

    reader, writer = await asyncio.open_connection(sock=caller)
    assert await reader.read() == b"hello"
    writer.close()
    listener.close()


async def test_nobody_is_served_before_the_listener_is_started() -> None:
    sockets = await bind(ANY)
    listener = await open_listener(ANY, sockets, Greeter)
    reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
    before = asyncio.ensure_future(reader.read())
    # One turn for each thing that a wrong listener would do: accept, make a protocol, write.
    for _ in range(10):
        await asyncio.sleep(0)

    assert not before.done()
    await listener.start()
    assert await before == b"hello"
    writer.close()
    listener.close()


async def test_a_name_with_two_addresses_has_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.1")

    with kept(await bind(Address("both.test", 0))) as sockets:
        names = [sock.getsockname() for sock in sockets]

        assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
        assert len({port for _, port in names}) == 1
        assert real_addresses(Address("both.test", 0), sockets) == (
            Address("both.test", names[0][1]),
        )


async def test_another_port_is_tried_where_the_first_is_taken_on_one_of_the_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    taken: list[int] = []
    real_bind = socket.socket.bind

    def refuse_the_first(self: socket.socket, name: tuple[str, int]) -> None:
        if name[0] == "127.0.0.2" and len(taken) < 3:
            taken.append(name[1])
            raise OSError(errno.EADDRINUSE, "taken")
        real_bind(self, name)

    monkeypatch.setattr(socket.socket, "bind", refuse_the_first)

    with kept(await bind(Address("both.test", 0))) as sockets:
        assert len(sockets) == 2
        assert len(taken) == 3


async def test_an_address_that_this_machine_lacks_is_left_out_of_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TEST-NET-3 (RFC 5737) is nobody's.
    _resolve_to(monkeypatch, "203.0.113.1", "127.0.0.1")

    with kept(await bind(Address("partly.test", 0))) as sockets:
        assert [address_of(sock).host for sock in sockets] == ["127.0.0.1"]


async def test_a_name_without_any_address_of_this_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _resolve_to(monkeypatch, "203.0.113.1", "203.0.113.2")

    with pytest.raises(ListenFailed, match=r"^cannot listen on elsewhere.test:80: Cannot assign"):
        await bind(Address("elsewhere.test", 80))


async def test_a_name_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(ListenFailed, match=r"^cannot listen on nowhere.invalid:80: "):
        await bind(Address("nowhere.invalid", 80))


async def test_a_port_in_use_is_refused_in_one_line() -> None:
    with kept(await bind(ANY)) as sockets:
        address = address_of(sockets[0])

        with pytest.raises(ListenFailed, match=f"^cannot listen on {address}: Address already"):
            await bind(address)


async def test_where_one_address_of_a_name_is_taken_none_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with kept(await bind(Address("127.0.0.2", 0))) as taken:
        port = address_of(taken[0]).port
        with monkeypatch.context() as patch:
            _resolve_to(patch, "127.0.0.1", "127.0.0.2")
            with pytest.raises(ListenFailed):
                await bind(Address("both.test", port))

        with kept(await bind(Address("127.0.0.1", port))) as free:
            assert address_of(free[0]).port == port


# --- localhost


@pytest.fixture
async def _no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody know any name, as in an image without /etc/hosts."""

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("_no_resolver")
async def test_localhost_is_both_loopback_addresses_on_one_port() -> None:
    listener = await listen(Address("localhost", 0), Greeter)
    port = listener.address.port

    assert listener.addresses == (Address("localhost", port),)
    assert await heard(Address("127.0.0.1", port)) == b"hello"
    assert await heard(Address("::1", port)) == b"hello"
    listener.close()


@pytest.mark.usefixtures("_no_resolver")
@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("why", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_one_loopback_address_is_enough_where_the_other_does_not_exist(
    monkeypatch: pytest.MonkeyPatch, missing: socket.AddressFamily, why: int
) -> None:
    _lack(monkeypatch, why, missing)

    with kept(await bind(Address("localhost", 0))) as sockets:
        (only,) = sockets
        assert only.family != missing
        assert real_addresses(Address("localhost", 0), sockets)[0].host == "localhost"


@pytest.mark.usefixtures("_no_resolver")
async def test_without_any_loopback_address_localhost_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _lack(monkeypatch, errno.EADDRNOTAVAIL, socket.AF_INET, socket.AF_INET6)

    with pytest.raises(ListenFailed, match=r"^cannot listen on localhost:80: "):
        await bind(Address("localhost", 80))


async def test_localhost_is_refused_where_somebody_has_its_port_on_one_of_the_addresses() -> None:
    with kept(await bind(Address("::1", 0))) as taken:
        port = address_of(taken[0]).port
        with pytest.raises(ListenFailed) as refused:
            await bind(Address("localhost", port))

    assert (refused.value.in_use, refused.value.where) == (True, Address("localhost", port))
    with kept(await bind(Address("127.0.0.1", port))) as free:
        assert address_of(free[0]).port == port


def _lack(monkeypatch: pytest.MonkeyPatch, why: int, *families: socket.AddressFamily) -> None:
    """Have this machine be without these families, as where IPv6 is switched off."""
    real_bind = socket.socket.bind

    def bind_others(self: socket.socket, name: tuple[str, int]) -> None:
        if self.family in families:
            raise OSError(why, os.strerror(why))
        real_bind(self, name)

    monkeypatch.setattr(socket.socket, "bind", bind_others)


def _resolve_to(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Have every name mean these addresses, as /etc/hosts could."""

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        del host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


# --- several processes


async def test_the_kernel_spreads_connections_over_the_shares_of_a_port() -> None:
    shares = await bind_shared(ANY, 2)
    address = address_of(shares[0][0])
    listeners = [
        await open_listener(ANY, share, lambda n=n: Greeter(b"%d" % n))  # type: ignore[misc]  # a lambda's default
        for n, share in enumerate(shares)
    ]
    for listener in listeners:
        await listener.start()

    heard_of = Counter([await heard(address) for _ in range(64)])

    # By a hash of the addresses: all on one side has a chance of 2 in 2^64.
    assert set(heard_of) == {b"0", b"1"}
    for listener in listeners:
        listener.close()


async def test_shares_of_port_0_are_one_port() -> None:
    shares = await bind_shared(ANY, 3)

    assert len({address_of(sock).port for share in shares for sock in share}) == 1
    for share in shares:
        close_all(share)


async def test_a_port_that_another_proxy_shares_among_its_workers_is_refused() -> None:
    shares = await bind_shared(ANY, 2)
    address = address_of(shares[0][0])

    # The kernel alone would let processes of one user join in.
    with pytest.raises(ListenFailed, match="Address already in use"):
        await bind_shared(address, 2)
    for share in shares:
        close_all(share)


async def test_a_share_can_be_bound_again_beside_the_others() -> None:
    first, second = await bind_shared(ANY, 2)
    close_all(second)

    with kept(bind_again(first)) as again:
        assert address_of(again[0]) == address_of(first[0])
    close_all(first)


async def test_a_unix_socket_is_one_queue_for_all(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "proxy.sock"))
    first, second = await bind_shared(address, 2)
    listener = await open_listener(address, second, Greeter)
    await listener.start()

    assert await heard(address) == b"hello"
    listener.close()
    close_all(first)


async def test_what_was_bound_is_closed_where_a_share_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_listen = socket.socket.listen
    listened: list[socket.socket] = []

    def fail_at_the_third(self: socket.socket, backlog: int) -> None:
        if len(listened) == 2:
            raise OSError(errno.EADDRINUSE, "taken")
        listened.append(self)
        real_listen(self, backlog)

    monkeypatch.setattr(socket.socket, "listen", fail_at_the_third)

    with pytest.raises(ListenFailed, match="taken"):
        await bind_shared(ANY, 3)
    assert [sock.fileno() for sock in listened] == [-1, -1]


# --- Unix sockets


async def test_a_unix_socket_is_for_its_own_user_and_group(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "proxy.sock"))
    before = os.umask(0)
    try:
        listener = await listen(address, Greeter)
    finally:
        os.umask(before)

    assert stat.S_IMODE(Path(address.path).stat().st_mode) == 0o660
    assert await heard(address) == b"hello"
    assert listener.addresses == (address,)
    listener.close()


async def test_an_abstract_socket_has_no_file() -> None:
    address = Address(path=f"@auth-proxy-test-{os.getpid()}")
    listener = await listen(address, Greeter)

    assert await heard(address) == b"hello"
    assert listener.addresses == (address,)
    remove_file(address)
    listener.close()


async def test_a_socket_file_that_a_process_left_behind_is_replaced(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "proxy.sock"))
    (await listen(address, Greeter)).close()
    assert Path(address.path).exists()

    listener = await listen(address, Greeter)

    assert await heard(address) == b"hello"
    listener.close()


async def test_a_socket_that_somebody_answers_on_is_not_taken(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "proxy.sock"))
    listener = await listen(address, Greeter)

    with pytest.raises(ListenFailed, match="Address already in use"):
        await bind(address)
    assert await heard(address) == b"hello"
    listener.close()


async def test_a_socket_whose_queue_is_full_is_not_taken(tmp_path: Path) -> None:
    path = str(tmp_path / "proxy.sock")
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)  # noqa: FBT003 (the socket module's own order)
            waiting.connect_ex(path)

        with pytest.raises(ListenFailed, match="Address already in use"):
            await bind(Address(path=path))


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "proxy.sock"
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()

    with pytest.raises(ListenFailed, match="the file exists and is no socket"):
        await bind(Address(path=str(path)))
    assert path.exists()


async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "proxy.sock")

    with pytest.raises(ListenFailed, match=f"cannot listen on unix:{path}: No such file"):
        await bind(Address(path=path))


async def test_the_file_is_removed_when_asked_for(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "proxy.sock"))
    with kept(await bind(address)):
        remove_file(address)

        assert not Path(address.path).exists()
        remove_file(address)


# --- the end of a listener


async def test_a_closed_listener_refuses() -> None:
    listener = await listen(ANY, Greeter)
    listener.close()

    with pytest.raises(ConnectionRefusedError):
        await heard(listener.address)


async def test_whoever_is_in_the_queue_of_a_retired_listener_is_served() -> None:
    sockets = await bind(ANY)
    address = address_of(sockets[0])
    listener = await open_listener(ANY, sockets, Greeter)
    # Not started: as if all three had come in the moment of the reload.
    callers = [connect(address) for _ in range(3)]

    await listener.retire()

    for caller in callers:
        reader, writer = await asyncio.open_connection(sock=caller)
        assert await reader.read() == b"hello"
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await heard(address)


async def test_a_caller_that_left_the_queue_again_stops_nobody() -> None:
    sockets = await bind(ANY)
    address = address_of(sockets[0])
    listener = await open_listener(ANY, sockets, Greeter)
    gone, stays = connect(address), connect(address)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    gone.close()

    await listener.retire()

    reader, writer = await asyncio.open_connection(sock=stays)
    assert await reader.read() == b"hello"
    writer.close()


async def test_a_listener_that_cannot_be_opened_gives_its_sockets_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sockets = await bind(ANY)

    def no_descriptor(self: socket.socket) -> socket.socket:
        del self
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket.socket, "dup", no_descriptor)

    with pytest.raises(ListenFailed, match="Too many open files"):
        await open_listener(ANY, sockets, Greeter)
    assert sockets[0].fileno() == -1


async def test_what_is_short_is_sent_at_once() -> None:
    protocol = Delays()
    listener = await listen(ANY, lambda: protocol)
    await heard(listener.address)
    listener.close()

    assert not await protocol.held
