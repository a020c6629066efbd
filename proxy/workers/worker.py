"""The program of a worker: a server that does what its parent says.

It has no admin listener and takes no signals.  When the parent is gone without a message, it
closes its listeners, lets what is in flight finish, and ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from contextlib import suppress
from typing import Final

from proxy.config.model import Address, Config, Log
from proxy.ops.logs import Logs, configure
from proxy.ops.numbers import dump
from proxy.plane.listen import Sockets
from proxy.server import Server
from proxy.system import forbid_dumps, keep_freed_memory, run
from proxy.tasks import Tasks
from proxy.workers.channel import (
    Ask,
    AskIdle,
    Channel,
    Drain,
    Finish,
    Finished,
    Idle,
    Message,
    Report,
    Serve,
    Serving,
)
from proxy.workers.child import PARENTS_SIGNALS

log = logging.getLogger("proxy.worker")

_LAST_WORDS: Final = 0.5  # Seconds to read the rest of the log; the parent waits 1.5 at most.
EXIT_SOFTWARE: Final = 70  # sysexits.h: a bug


def main(control: int, passing: int) -> int:
    """Serve for the parent at the other end of two sockets; return the exit code."""
    for number in PARENTS_SIGNALS:
        # Not SIG_IGN, which programs that this one starts would inherit (execve(2)).
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)
    forbid_dumps()
    channel = Channel(socket.socket(fileno=control), socket.socket(fileno=passing))
    try:
        return run(_Worker(channel).run())
    except Exception:
        log.exception("a bug in a worker", extra={"reason": "internal_error"})
        return EXIT_SOFTWARE
    finally:
        logging.shutdown()


class _HandedSockets:
    """The sockets that the parent has handed over."""

    def __init__(self) -> None:
        self.admin: socket.socket | None = None
        self._handed: dict[Address, Sockets] = {}

    def put(self, sockets: dict[Address, Sockets]) -> None:
        """Keep sockets until the server takes them."""
        self._handed.update(sockets)

    def plan(self, config: Config) -> None:
        """Do nothing: the parent has planned."""

    async def take(self, address: Address) -> Sockets:
        """Return the sockets of a listener."""
        return self._handed.pop(address)

    def leave(self, address: Address) -> None:
        """Do nothing: files are the parent's."""


class _Worker:
    """One worker, from its first order to its last message."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sockets = _HandedSockets()
        self._server: Server | None = None
        self._log: Log | None = None
        self._logs: Logs | None = None
        self._orders: asyncio.Queue[Serve] = asyncio.Queue()
        self._tasks = Tasks()
        self._left: float | None = None
        """Seconds until the end, once the parent has said so."""

    async def run(self) -> int:
        """Serve until the parent ends it, or has gone."""
        await self._channel.open()
        serving = self._tasks.spawn(self._serve(), "serve")
        taking = self._tasks.spawn(self._take_orders(), "take orders")
        done, _ = await asyncio.wait((serving, taking), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # Raises the bug that has ended it, if that is why.
            await task
        await self._end()
        return 0

    async def _take_orders(self) -> None:
        """Take orders until the last one, or until the parent has gone."""
        while (message := await self._channel.receive()) is not None:
            match message:
                case Serve(listeners=listeners):
                    self._sockets.put(self._channel.take(listeners))
                    self._orders.put_nowait(message)
                case Ask():
                    self._report()
                case Drain():
                    self._drain()
                case AskIdle():
                    _ = self._tasks.spawn(self._say_when_idle(), "say when idle")
                case Finish(seconds):
                    self._left = seconds
                    return
                case _:
                    raise AssertionError(f"a parent does not say {message!r}")

    async def _serve(self) -> None:
        """Begin and reload, one order after the other."""
        while True:
            order = await self._orders.get()
            self._follow(order.config.log)
            failure = ""
            if self._server is None:
                self._server = Server(order.config, os.environ, sockets=self._sockets)
                await self._server.start()
                # What is alive at this point stays alive: the collector need not look again.
                gc.collect()
                gc.freeze()
                keep_freed_memory()
            else:
                failure = await self._reload(self._server, order.config)
            self._say(Serving(self._server.config, failure))

    async def _reload(self, server: Server, config: Config) -> str:
        """Return why the reload failed, empty if it did not."""
        try:
            await server.reload(config)
        except Exception as error:
            log.exception("a worker could not reload", extra={"reason": "internal_error"})
            return str(error) or type(error).__name__
        return ""

    def _follow(self, wanted: Log) -> None:
        if wanted != self._log:
            self._log = wanted
            if self._logs is None:
                self._logs = configure(wanted)
            else:
                self._logs.follow(wanted)

    def _say(self, message: Message) -> None:
        # Where the parent has gone nobody listens, and taking orders has ended already, or will.
        with suppress(OSError):
            self._channel.send(message)

    def _report(self) -> None:
        if self._server is not None:
            self._say(Report(dump(self._server.numbers()), self._server.config))

    def _drain(self) -> None:
        if self._server is not None:
            self._server.drain()

    async def _say_when_idle(self) -> None:
        at_once = True
        if self._server is not None:
            try:
                async with asyncio.timeout(0):
                    await self._server.plane.until(self._server.plane.is_idle)
            except TimeoutError:
                at_once = False
                await self._server.plane.until(self._server.plane.is_idle)
        self._say(Idle(at_once))

    async def _end(self) -> None:
        server, seconds, cut = self._server, self._left, 0
        if server is not None:
            server.drain()
            if seconds is None:
                log.warning("the parent process has gone: ending")
                # Its successor wants the ports.
                server.refuse_more()
            cut = await server.drained(seconds)
            await self._tasks.end()
            await server.stop()
        self._say(Finished(cut))
        await self._channel.flush()
        if self._logs is not None:
            self._logs.close(_LAST_WORDS)
