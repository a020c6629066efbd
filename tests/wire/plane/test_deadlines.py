"""Deadlines on real loops that stand still, as a process does whose CPU is withdrawn."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from proxy.deadlines import GRACE, LATE, PatientTimer, Within

SHORT = 0.02  # Seconds.


def pair() -> tuple[socket.socket, socket.socket]:
    ours, other = socket.socketpair()
    ours.setblocking(False)  # noqa: FBT003 (the socket module's own order)
    return ours, other


def stand_still(act: Callable[[], object], seconds: float = SHORT + 2 * LATE) -> None:
    """Do something, and hold the loop for longer than a deadline of `SHORT` and `LATE` together."""
    act()
    time.sleep(seconds)


@pytest.mark.parametrize("seconds", [SHORT + LATE / 2, SHORT + 2 * LATE], ids=["short", "long"])
async def test_what_came_while_the_loop_stood_still_is_in_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ours, other = pair()
    with ours, other:
        async with Within(SHORT):
            _ = loop.call_soon(stand_still, lambda: other.send(b"x"), seconds)
            assert await loop.sock_recv(ours, 10) == b"x"


async def test_what_was_under_way_can_go_on_for_a_while() -> None:
    loop = asyncio.get_running_loop()
    ours, other = pair()
    with ours, other:
        async with Within(SHORT):
            _ = loop.call_soon(stand_still, lambda: other.send(b"x"))
            assert await loop.sock_recv(ours, 10) == b"x"
            # Behind the freeze the far end still has to answer.
            _ = loop.call_later(GRACE / 4, other.send, b"y")
            assert await loop.sock_recv(ours, 10) == b"y"


@pytest.mark.parametrize("freezes", [0, 1])
async def test_a_deadline_is_met_in_the_end(freezes: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(freezes):
        _ = loop.call_soon(stand_still, int)
    begun = loop.time()
    with pytest.raises(TimeoutError):
        async with Within(SHORT):
            await loop.create_future()
    assert loop.time() - begun >= (GRACE if freezes else SHORT) - 0.01


async def test_a_deadline_is_put_off_once() -> None:
    loop = asyncio.get_running_loop()
    put_off = loop.time() + SHORT + 2 * LATE + GRACE / 2
    _ = loop.call_soon(stand_still, int)
    _ = loop.call_at(put_off, stand_still, int, GRACE)
    with pytest.raises(TimeoutError):
        async with Within(SHORT):
            await loop.create_future()


async def test_what_ends_in_time_or_fails_is_left_alone() -> None:
    async with Within(SHORT):
        pass
    with pytest.raises(KeyError):
        async with Within(SHORT):
            raise KeyError
    task = asyncio.ensure_future(waiting())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def waiting() -> None:
    async with Within(60):
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_timer_can_be_cancelled_until_it_calls(turns: int) -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    timer = PatientTimer(0, lambda: called.append(1))
    # It is due with the first look at the timers; then it waits for the sockets.
    done = loop.create_future()

    def cancel(left: int) -> None:
        if left:
            _ = loop.call_soon(cancel, left - 1)
        else:
            timer.cancel()
            done.set_result(None)

    _ = loop.call_later(0, cancel, turns)
    await done
    for _ in range(10):
        await asyncio.sleep(0)
    assert called == []
