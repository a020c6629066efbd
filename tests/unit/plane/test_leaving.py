"""The stages in which a caller's connection ends, and what hurries them."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from typing import Any, cast

import pytest

from proxy.plane.leaving import (
    CLOSE_TIMEOUT,
    LINGER_BYTES,
    LINGER_TIMEOUT,
    SEND_TIMEOUT,
    Leaving,
    send_fin,
)
from proxy.plane.sweeper import Sweeper

NOW = 1000.0


class Socket:
    """Takes options."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.options: list[tuple[Any, ...]] = []

    def setsockopt(self, *option: object) -> None:
        self.options.append(option)


class Wire:
    """A transport that notes what is done to it."""

    def __init__(self, family: int | None = socket.AF_INET, *, half_closes: bool = True) -> None:
        self.done: list[str] = []
        self.unsent = 0
        self.socket = None if family is None else Socket(family)
        self._half_closes = half_closes

    def can_write_eof(self) -> bool:
        return self._half_closes

    def write_eof(self) -> None:
        self.done.append("fin")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> Socket | None:
        assert name == "socket"
        return self.socket


class World:
    """A connection that begins to end at `NOW`."""

    def __init__(self, wire: Wire | None = None) -> None:
        self.wire = wire or Wire()
        self.now = NOW
        self.sweeper = Sweeper(lambda: self.now)
        self.end = Leaving(cast("asyncio.Transport", self.wire), self.sweeper)

    def sweep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.sweeper.sweep()

    @property
    def is_over(self) -> bool:
        return self.end not in self.sweeper.watched


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_fin_comes_first_and_the_close_when_the_far_end_had_its_time(world: World) -> None:
    assert world.end.deadline == math.inf
    world.end.linger()
    world.sweep(LINGER_TIMEOUT - 0.1)
    assert world.wire.done == ["fin"]
    world.sweep(0.1)

    assert world.wire.done == ["fin", "close"]
    assert not world.is_over
    world.end.over()
    assert world.is_over


async def test_what_cannot_be_closed_by_half_gets_no_fin() -> None:
    world = World(Wire(half_closes=False))

    assert not send_fin(cast("asyncio.Transport", world.wire))
    world.end.linger()
    assert world.wire.done == []
    world.sweep(LINGER_TIMEOUT)
    assert world.wire.done == ["close"]


@pytest.mark.parametrize(("more", "closed"), [(0, False), (1, True)])
async def test_too_much_that_still_comes_ends_the_wait(
    world: World,
    more: int,
    closed: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    world.end.linger()
    world.end.take(LINGER_BYTES // 2)
    world.end.take(LINGER_BYTES // 2 + more)

    assert world.wire.done == (["fin", "close"] if closed else ["fin"])


@pytest.mark.parametrize("reads", [True, False])
async def test_who_still_reads_gets_all_and_who_does_not_is_cut(
    world: World,
    reads: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    world.end.linger()
    world.wire.unsent = 5000
    world.sweep(LINGER_TIMEOUT)
    assert world.wire.done == ["fin"]
    if reads:
        world.wire.unsent = 3000
    world.sweep(SEND_TIMEOUT - 0.1)
    assert world.wire.done == ["fin"]
    world.sweep(0.1)
    assert world.wire.done == (["fin"] if reads else ["fin", "abort"])
    assert world.is_over is not reads

    if reads:
        world.wire.unsent = 0
        world.sweep(SEND_TIMEOUT)
        assert world.wire.done == ["fin", "close"]


async def test_a_close_that_is_not_acknowledged_is_cut_short(world: World) -> None:
    world.end.close()
    world.sweep(CLOSE_TIMEOUT - 0.1)
    assert world.wire.done == ["close"]
    world.sweep(0.1)

    assert world.wire.done == ["close", "abort"]
    assert world.is_over


@pytest.mark.parametrize(
    ("family", "resets"), [(socket.AF_INET, True), (socket.AF_INET6, True), (socket.AF_UNIX, False)]
)
async def test_a_cut_is_a_reset_where_there_is_one(family: int, *, resets: bool) -> None:
    world = World(Wire(family))
    world.end.cut()

    option = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert world.wire.socket is not None
    assert world.wire.socket.options == ([option] if resets else [])
    assert world.wire.done == ["abort"]
    assert world.is_over


async def test_a_cut_without_a_socket_ends_the_connection_all_the_same() -> None:
    world = World(Wire(None))
    world.end.cut()

    assert world.wire.done == ["abort"]
    assert world.is_over
