"""Which inherited socket serves which listener, and which sockets are inherited at all."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from proxy.config.model import Address, Admin, Config, Destination, Route, Upstream
from proxy.plane.listen import ListenFailed, address_of
from proxy.sockets import Inherited, OwnSockets, advice, assign, inherit

Bind = Callable[[], socket.socket]

UPSTREAM = Upstream("http", "127.0.0.1", 9)
SHARED, OWN, ADMIN = (Address("127.0.0.1", port) for port in (8080, 8081, 9090))


def config(*listeners: Address, admin: Address | None = ADMIN) -> Config:
    """Routes ``r0``, ``r1`` and so on, each with one of the listeners."""
    routes = [
        Route(name=f"r{n}", listen=(each,), destinations=(Destination(upstream=UPSTREAM),))
        for n, each in enumerate(listeners)
    ]
    return Config(routes=tuple(routes), admin=None if admin is None else Admin(listen=admin))


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Makes listening sockets on free ports."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def test_a_socket_serves_the_listener_whose_address_it_has(bind: Bind) -> None:
    sock = bind()

    found, admin = assign(config(SHARED, address_of(sock)), [Inherited("", sock)])

    assert (found, admin) == ({address_of(sock): (sock,)}, None)


def test_the_address_comes_before_the_name(bind: Bind) -> None:
    sock = bind()

    found, _ = assign(config(SHARED, address_of(sock)), [Inherited("r0", sock)])

    assert found == {address_of(sock): (sock,)}


def test_a_socket_serves_the_listener_of_the_route_that_it_is_named_after(bind: Bind) -> None:
    sock = bind()

    found, _ = assign(config(SHARED, OWN), [Inherited("r1", sock)])

    assert found == {OWN: (sock,)}


def test_all_others_serve_the_first_listener(bind: Bind) -> None:
    first, second = bind(), bind()

    inherited = [Inherited("", first), Inherited("proxy.socket", second)]
    found, _ = assign(config(SHARED, OWN), inherited)

    assert found == {SHARED: (first, second)}


def test_a_socket_is_the_admin_listeners_by_name_or_by_address(bind: Bind) -> None:
    sock = bind()

    by_name = assign(config(SHARED), [Inherited("admin", sock)])
    by_address = assign(config(SHARED, admin=address_of(sock)), [Inherited("", sock)])

    assert by_name == by_address == ({}, sock)


def test_a_socket_on_a_loopback_address_is_one_of_localhosts(bind: Bind) -> None:
    data, admin_sock = bind(), bind()
    ours, admin = (Address("localhost", address_of(sock).port) for sock in (data, admin_sock))
    inherited = [Inherited("", data), Inherited("", admin_sock)]

    found = assign(config(SHARED, ours, admin=admin), inherited)

    assert found == ({ours: (data,)}, admin_sock)


def test_a_socket_beyond_loopback_is_none_of_localhosts() -> None:
    with socket.create_server(("0.0.0.0", 0)) as sock:  # noqa: S104 (nobody is served)
        port = address_of(sock).port
        found, admin = assign(
            config(SHARED, Address("localhost", port), admin=Address("localhost", port)),
            [Inherited("", sock)],
        )

    assert (found, admin) == ({SHARED: (sock,)}, None)


BUSY = OSError(errno.EADDRINUSE, "Address already in use")


@pytest.mark.parametrize(
    ("where", "why", "says"),
    [
        (SHARED, BUSY, "; --listen takes another"),
        (OWN, BUSY, "; routes.own.listen takes another"),
        (ADMIN, BUSY, "; --admin takes another"),
        (SHARED, OSError(errno.EACCES, "Permission denied"), ""),
        ("the inherited descriptor 3", "a socket unit needs ListenStream= and Accept=no", ""),
    ],
)
def test_a_busy_address_is_named_with_what_takes_another(
    where: Address | str, why: OSError | str, says: str
) -> None:
    shared = Route(name="shared", listen=(SHARED,), destinations=(Destination(upstream=UPSTREAM),))
    own = Route(
        name="own", listen=(OWN,), own_listener=True, destinations=(Destination(upstream=UPSTREAM),)
    )
    both = Config(routes=(shared, own), admin=Admin(listen=ADMIN))

    assert advice(ListenFailed(where, why), both) == says


def test_without_an_admin_listener_its_socket_serves_nobody(bind: Bind) -> None:
    found, _ = assign(config(SHARED, admin=None), [Inherited("admin", bind())])

    assert found == {}


async def test_what_is_taken_is_a_copy_so_that_a_reload_finds_the_original(bind: Bind) -> None:
    sock = bind()
    source = OwnSockets([Inherited("", sock)])
    source.plan(config(SHARED))
    (taken,) = await source.take(SHARED)
    taken.close()
    source.leave(SHARED)
    source.plan(config(OWN))

    (again,) = await source.take(OWN)

    assert address_of(again) == address_of(sock)
    again.close()


async def test_shares_of_an_inherited_socket_are_the_one_socket(bind: Bind) -> None:
    sock = bind()
    source = OwnSockets([Inherited("", sock)])
    source.plan(config(SHARED))
    shares = await source.take_shares(SHARED, 3)

    assert {address_of(each) for (each,) in shares} == {address_of(sock)}
    assert not source.is_spread(SHARED)
    for (each,) in (*shares, source.another_share(SHARED, shares[0])):
        each.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "-1", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "many", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_nothing_is_inherited_unless_it_is_meant_for_this_process(environ: dict[str, str]) -> None:
    assert inherit(environ) == []
    assert environ == {}
