"""Threads for libraries that block.

Not `asyncio.to_thread`: the interpreter waits at its exit for the threads of an executor, so
that one stuck call would delay the end of the process; daemon threads just end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

THREADS = 4
"""Blocking calls that run at once; the caches ask for no more than that of one source."""


class Workers:
    """Runs blocking calls off the event loop, a few at a time."""

    def __init__(self, threads: int = THREADS) -> None:
        self._free = asyncio.Semaphore(threads)

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
            Thread(target=work, name=name, daemon=True).start()
        except RuntimeError:  # The system has no more threads.
            self._free.release()
            raise
        return await result
