"""Tasks with an owner: kept while they run, forgotten afterwards, all ended together."""

from __future__ import annotations

import asyncio

import pytest

from proxy.tasks import Tasks


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _stubborn(told: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        told.append("cancelled")
        await asyncio.sleep(0)
        told.append("ended")
        raise ValueError("at the end") from None


async def test_a_task_has_its_name_and_is_forgotten_when_it_ends() -> None:
    tasks, event = Tasks(), asyncio.Event()
    task = tasks.spawn(_until(event), "wait")
    assert (task.get_name(), tasks._running) == ("wait", {task})

    event.set()
    await task
    await asyncio.sleep(0)
    assert tasks._running == set()


async def test_the_end_waits_for_every_task_whatever_it_raises() -> None:
    tasks = Tasks()
    told: list[str] = []
    stubborn = tasks.spawn(_stubborn(told), "stubborn")
    waiting = tasks.spawn(_until(asyncio.Event()), "waiting")
    await asyncio.sleep(0)

    await tasks.end()
    assert waiting.cancelled()
    assert told == ["cancelled", "ended"]
    with pytest.raises(ValueError, match="at the end"):
        stubborn.result()


async def test_no_tasks_end_at_once() -> None:
    await Tasks().end()
