"""Threads for blocking calls: results, errors, the bound, and being left alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxy.tasks import Threads


async def test_a_result_and_an_error_come_back() -> None:
    threads = Threads()

    def fail() -> None:
        raise KeyError("x")

    assert await threads.run("add", lambda: 1 + 1) == 2
    with pytest.raises(KeyError):
        await threads.run("fail", fail)


async def test_calls_run_in_named_threads_that_do_not_delay_the_exit() -> None:
    thread = await Threads().run("fetch", threading.current_thread)

    assert thread.name == "fetch"
    assert thread.daemon
    assert thread is not threading.main_thread()


async def test_no_more_calls_run_at_once_than_there_are_threads() -> None:
    threads = Threads(2)
    running, release = threading.Semaphore(0), threading.Event()
    active = [0]

    def call() -> int:
        active[0] += 1
        seen = active[0]
        running.release()
        release.wait(5)
        active[0] -= 1
        return seen

    calls = [asyncio.get_running_loop().create_task(threads.run("call", call)) for _ in range(5)]
    for _ in range(2):
        assert await asyncio.to_thread(running.acquire, timeout=5)
    await asyncio.sleep(0)
    assert active == [2]
    release.set()

    assert max(await asyncio.gather(*calls)) <= 2


async def test_a_call_that_nobody_waits_for_keeps_its_thread_until_it_ends() -> None:
    threads = Threads(1)
    release = threading.Event()
    first = asyncio.get_running_loop().create_task(threads.run("stuck", lambda: release.wait(5)))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.get_running_loop().create_task(threads.run("next", lambda: "done"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not second.done()

    release.set()
    assert await second == "done"


async def test_a_system_without_threads_is_an_error_that_occupies_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            await threads.run("first", lambda: 1)

    assert await threads.run("second", lambda: 2) == 2


def test_a_call_that_outlives_its_loop_harms_nobody() -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def call() -> None:
        threads.append(threading.current_thread())
        release.wait(5)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Threads().run("late", call)

    asyncio.run(main())
    release.set()
    threads[0].join(5)

    assert not threads[0].is_alive()
