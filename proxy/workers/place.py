"""A worker's place: the process in it at the moment, and the sockets that are kept for it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.config.model import Address, Config
from proxy.plane.listen import Sockets, close_all
from proxy.workers.child import WorkerProcess

log = logging.getLogger("proxy.supervisor")

STEADY: Final = 10.0
"""Seconds of life after which a death says nothing about the next one."""

_FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


class WorkerFailed(Exception):
    """A worker has ended before all of them had begun to serve."""


class Crew(Protocol):
    """What a place needs to know of all of them together."""

    clock: Clock
    spawning: asyncio.Lock
    """Held while a process is started."""
    ending: asyncio.Event
    """Set once no worker is replaced any more."""
    complete: asyncio.Event
    """Set once all workers serve."""

    def config_of_workers(self) -> Config:
        """Return what workers serve by."""

    def restore(self, place: Place) -> None:
        """Give the place the sockets that it lacks; raises OSError."""

    def can_spare(self, place: Place, address: Address) -> bool:
        """Tell whether others take the listener's callers while the place gives up its sockets."""

    def left(self, worker: WorkerProcess) -> None:
        """Note that a worker has ended."""


class Pauses:
    """How long to wait before a worker that has died is started again."""

    def __init__(self) -> None:
        self._quick = 0
        """Deaths in a row, each soon after the start."""

    def after(self, lived: float) -> float:
        """Return the seconds after a life of `lived` seconds; none after the first early death."""
        self._quick = self._quick + 1 if lived < STEADY else 0
        if self._quick <= 1:
            return 0.0
        # Bounded before it is computed: the exponent grows for as long as the worker dies.
        return min(LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._quick - 2, 10))


class Place:
    """Kept filled until the end."""

    def __init__(self, number: int, crew: Crew) -> None:
        """`number` counts from 1, for the log."""
        self.number = number
        self.sockets: dict[Address, Sockets] = {}
        """By listener; held here too, so that a successor finds the queues as they are."""
        self.worker: WorkerProcess | None = None
        self.served = asyncio.Event()
        """Set once a worker has served here."""
        self._crew = crew
        self._pauses = Pauses()

    async def keep(self) -> None:
        """Have a worker here until the end.

        Raises:
            WorkerFailed: it ended before the crew was complete.
        """
        while not self._crew.ending.is_set():
            began = self._crew.clock()
            how = await self._fill()
            if self._crew.ending.is_set():
                break
            if not self._crew.complete.is_set():
                raise WorkerFailed(f"worker {self.number} {how} before all workers served")
            await self._pause(how, self._crew.clock() - began)
        # Callers must not wait in queues that nothing empties any more.
        self.give_up(list(self.sockets))

    async def _fill(self) -> str:
        """Have one worker serve for its whole life; return how it ended."""
        try:
            self._crew.restore(self)
            worker = await WorkerProcess.spawn(self._crew.spawning)
        except OSError as error:
            return f"could not be started ({error.strerror or error})"
        # In one step with the first order: a reload in between would come before it.
        self.worker = worker
        worker.on_serving = self._on_serving
        _ = worker.serve(self._crew.config_of_workers(), self.sockets)
        if self._crew.ending.is_set():
            worker.finish(0.0)
        try:
            return _how(await worker.run())
        finally:
            self.worker = None
            self._crew.left(worker)

    def _on_serving(self) -> None:
        if self.worker is not None:
            self.served.set()
            fields = {"worker": self.number, "pid": self.worker.pid}
            log.info("worker %d serves", self.number, extra={"fields": fields})

    async def _pause(self, how: str, lived: float) -> None:
        seconds = self._pauses.after(lived)
        if seconds:
            # Callers shall go to the others. Who waits in the queue is lost with the worker.
            self.give_up([each for each in self.sockets if self._crew.can_spare(self, each)])
        log.error(
            "worker %d %s: starting another in %g s",
            self.number,
            how,
            seconds,
            extra={"fields": {"worker": self.number, "ended": how}},
        )
        if seconds:
            await asyncio.sleep(seconds)

    def give_up(self, addresses: Iterable[Address]) -> None:
        """Close the sockets of these listeners."""
        for address in tuple(addresses):
            close_all(self.sockets.pop(address, ()))


def _how(code: int) -> str:
    """Return in words how a process has ended."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
