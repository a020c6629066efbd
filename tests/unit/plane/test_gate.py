from __future__ import annotations

import asyncio

import pytest

from proxy.plane.gate import Gate, GateFull


async def waiting(gate: Gate, count: int) -> list[asyncio.Task[None]]:
    """Return `count` tasks that wait for a place."""
    tasks = [asyncio.ensure_future(gate.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    assert gate.waiting == count
    return tasks


@pytest.mark.parametrize("inside", [1, 2])
def test_there_are_as_many_places_as_the_limit(inside: int) -> None:
    gate = Gate(limit=2, queue=0)

    assert all(gate.try_enter() for _ in range(inside))
    assert gate.try_enter() is (inside < 2)


async def test_nobody_overtakes_who_waits() -> None:
    gate = Gate(limit=1, queue=2)
    gate.try_enter()
    first, second = await waiting(gate, 2)
    gate.leave()

    assert not gate.try_enter()
    await first
    assert not second.done()
    gate.leave()
    await second
    assert gate.inside == 1


async def test_a_full_queue_refuses() -> None:
    gate = Gate(limit=1, queue=1)
    gate.try_enter()
    (task,) = await waiting(gate, 1)

    with pytest.raises(GateFull):
        await gate.enter()
    task.cancel()
    await asyncio.wait([task])
    assert gate.waiting == 0


async def test_a_place_given_to_somebody_who_has_just_left_goes_on() -> None:
    gate = Gate(limit=1, queue=2)
    gate.try_enter()
    first, second = await waiting(gate, 2)

    gate.leave()
    first.cancel()
    await second
    assert (gate.inside, gate.waiting) == (1, 0)
    gate.leave()
    assert gate.inside == 0


async def test_who_leaves_while_a_place_becomes_free_is_passed_over() -> None:
    gate = Gate(limit=1, queue=2)
    gate.try_enter()
    first, second = await waiting(gate, 2)

    first.cancel()
    gate.leave()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first

    assert (gate.inside, gate.waiting) == (1, 0)


class Waiter(asyncio.Future[object]):
    """What the loop makes where somebody waits; counts comparisons, as a search makes them."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Waiter.compared += 1
        return self is other

    __hash__ = asyncio.Future.__hash__


async def test_who_leaves_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_future", lambda: Waiter(loop=loop))
    gate = Gate(limit=1, queue=100)
    gate.try_enter()
    tasks = await waiting(gate, 100)
    Waiter.compared = 0

    for task in reversed(tasks):
        task.cancel()
    await asyncio.wait(tasks)

    assert (gate.waiting, Waiter.compared) == (0, 0)
