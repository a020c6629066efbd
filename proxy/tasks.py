"""Tasks with an owner, who ends them: a task without references may be collected while it runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")


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
