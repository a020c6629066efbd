"""What runs beside: tasks with an owner, who ends them, and calls that block in threads.

A task without references may be collected while it runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


THREADS = 4
"""Blocking calls that run at once, unless their owner says otherwise."""


class Tasks:
    """The tasks of one owner; each is forgotten when it ends."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run `work` as a task of the running loop."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def end(self) -> None:
        """Cancel every task and wait until all have ended, ignoring their outcomes."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Threads:
    """Runs blocking calls off the event loop, a few at a time.

    Not `asyncio.to_thread`: the interpreter waits at its exit for the threads of an executor, so
    that one stuck call would delay the end of the process (an exporter whose collector does not
    answer can take minutes); daemon threads just end with it.
    """

    def __init__(self, most: int = THREADS) -> None:
        self._free = asyncio.Semaphore(most)

    async def run(self, name: str, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises.

        Whoever is cancelled here leaves the call running; its thread stays occupied until
        the call ends, so that stuck calls cannot pile up.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def end(value: T | None, error: Exception | None) -> None:
            self._free.release()
            if result.done():
                return  # Nobody waits any more.
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type] # None only if T allows it

        def work() -> None:
            value, error = None, None
            try:
                value = call()
            except Exception as raised:  # noqa: BLE001 (raised again where it is waited for)
                error = raised
            with suppress(RuntimeError):  # The loop was closed meanwhile.
                loop.call_soon_threadsafe(end, value, error)

        try:
            threading.Thread(target=work, name=name, daemon=True).start()
        except RuntimeError:  # The system has no more threads.
            self._free.release()
            raise
        return await result


async def in_turns(work: Generator[None, None, T]) -> T:
    """Do `work` piece by piece, one in each turn of the loop; return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(0)


_importing = threading.Lock()


def import_alone(name: str) -> Any:
    """Import a module, which blocks, and return it; one at a time, whichever threads ask.

    Two threads that import parts of one library with circles in it can meet half of a part: Python
    breaks the deadlock that way (importlib, `_ModuleLock`).
    """
    with _importing:
        return import_module(name)
