"""What the kernel still has of a connection: whether anything came, and all that did."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from proxy.plane.unread import unread, watched


class Transport:
    """What a transport tells of its socket."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock

    def get_extra_info(self, name: str) -> socket.socket | None:
        assert name == "socket"
        return self._sock


def on(sock: socket.socket | None) -> asyncio.BaseTransport:
    return cast("asyncio.BaseTransport", Transport(sock))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that keep messages apart, so that each is one piece."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # noqa: FBT003 (the socket module's own order)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("has_poll", [True, False], ids=["poll", "select"])
def test_the_kernel_is_asked_whether_anything_has_come(
    ends: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_poll: bool,
) -> None:
    """Windows has no poll(2)."""
    if not has_poll:
        monkeypatch.delattr(select, "poll")
    ours, theirs = ends
    ask = watched(on(ours))

    before = bool(ask(0))
    theirs.send(b"a")

    assert (before, bool(ask(0))) == (False, True)


def test_a_fin_has_come_too(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ask = watched(on(ours))

    theirs.close()

    assert ask(0)


@pytest.mark.parametrize(("sent", "taken"), [(0, 0), (15, 15), (16, 16), (17, 16)])
def test_so_many_pieces_are_taken_in_one_turn(
    ends: tuple[socket.socket, socket.socket], sent: int, taken: int
) -> None:
    ours, theirs = ends
    for number in range(sent):
        theirs.send(bytes((number,)))

    assert list(unread(on(ours))) == [bytes((number,)) for number in range(taken)]
    # The transport's own socket is still open, and still its own.
    assert ours.fileno() >= 0


def test_what_came_before_the_end_is_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    theirs.send(b"last words")
    theirs.close()

    assert list(unread(on(ours))) == [b"last words"]


def test_without_a_socket_there_is_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = ends
    ours.close()

    assert [*unread(on(None)), *unread(on(ours))] == []
