"""An event loop for one command, which no stuck call can keep from ending."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

from proxy.system import forbid_dumps

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on an event loop of its own; name lookups that hang are left behind.

    The proxy's log is not written: what it would say is in the report, or in the error.
    """
    forbid_dumps()
    logging.getLogger("proxy").addHandler(logging.NullHandler())

    async def with_daemons() -> T:
        asyncio.get_running_loop().set_default_executor(_Daemons())
        return await main

    return asyncio.run(with_daemons())


class _Daemons(ThreadPoolExecutor):
    """A thread for each call, none of which is waited for.

    getaddrinfo(3) cannot be interrupted and takes half a minute where the name server is out
    of reach; the interpreter would wait for an ordinary executor's threads before it exits.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` in a thread."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
                future.set_exception(error)
            else:
                future.set_result(result)

        future.set_running_or_notify_cancel()
        Thread(target=work, name="doctor", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 (the base's signature)
        """Wait for nobody."""
        super().shutdown(wait=False)
