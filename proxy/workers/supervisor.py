"""The parent of several workers: keeps them, and makes them look like one proxy.

It binds every address once per worker and holds those sockets: a worker that is restarted finds
its callers waiting in the queue.  It serves nothing but the admin listener itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from proxy.administration import Administration
from proxy.clock import Clocks
from proxy.config.model import Address, Config
from proxy.ops.lifecycle import Lifecycle, State, Truth
from proxy.ops.numbers import Numbers, add_up
from proxy.plane.listen import Sockets, close_all, real_addresses
from proxy.plane.stats import Connections, Stats
from proxy.sockets import OwnSockets
from proxy.workers.child import WorkerProcess
from proxy.workers.place import Place

log = logging.getLogger("proxy.supervisor")

# Seconds for an answer with numbers: a worker that is that busy is counted by its last ones.
_ASK_WITHIN: Final = 1.0

# Seconds beyond the drain that workers get to flush what is written and to end. With the default
# drain of 8 s that leaves half a second until Cloud Run's SIGKILL, 10 s after its SIGTERM.
_END_WITHIN: Final = 1.5


class _CrewLifecycle(Lifecycle):
    """The states of the parent, which is ready only while a worker serves."""

    __slots__ = ("_serving",)

    def __init__(self, clocks: Clocks, serving: Callable[[], int]) -> None:
        super().__init__(clocks)
        self._serving = serving

    @property
    def ready(self) -> Truth:
        """The readiness probe: new exchanges are welcome, and there is a worker to take them."""
        ready = super().ready
        if ready.holds and not self._serving():
            return Truth(holds=False, why="no worker serves at the moment")
        return ready


class Supervisor:
    """One proxy of several processes."""

    def __init__(
        self, config: Config, sockets: OwnSockets, *, clocks: Clocks | None = None
    ) -> None:
        """Open and start nothing yet."""
        clocks = clocks or Clocks()
        self.config = config
        self.clock = clocks.steady
        self.lifecycle = _CrewLifecycle(clocks, lambda: len(self._serving()))
        self.admin = Administration(
            self.lifecycle,
            numbers=self._numbers,
            config=self._shown_config,
            addresses=lambda: [real for each in self._real.values() for real in each],
            clocks=clocks,
        )
        self.ending = asyncio.Event()
        self.complete = asyncio.Event()
        self.spawning = asyncio.Lock()
        self._sockets = sockets
        self._real: dict[Address, tuple[Address, ...]] = {}
        """Where the listeners of the configuration really are."""
        self._places = [Place(n + 1, self) for n in range(config.workers)]
        self._keeping: list[asyncio.Task[None]] = []
        self._retired = Numbers(stats=Stats(), pids=())
        """The counters of workers that have ended."""
        self._cut = 0

    # --- what the process asks for

    async def start(self) -> None:
        """Open the listeners, start the workers, and return once all of them serve.

        Raises:
            ListenFailed: an address cannot be had.
            WorkerFailed: a worker ended instead.
        """
        try:
            self._sockets.plan(self.config)
            self._add_sockets(await self._bind_missing(self.config))
            loop = asyncio.get_running_loop()
            self._keeping = [
                loop.create_task(place.keep(), name=f"keep worker {place.number}")
                for place in self._places
            ]
            for keeping in self._keeping:
                keeping.add_done_callback(self._on_kept)
            await self.admin.start(self._sockets.admin)
            await self._all_serve()
        except BaseException:
            await self.stop()
            raise
        self.complete.set()
        if self.lifecycle.state is State.STARTING:
            self.lifecycle.move_to(State.SERVING)

    async def reload(self, config: Config) -> None:
        """Have all workers serve by another configuration; `workers` and `admin` stay.

        Raises:
            ListenFailed: an address of it cannot be had; nothing has changed then.
        """
        config = replace(config, admin=self.config.admin, workers=self.config.workers)
        self._sockets.plan(config)
        added = await self._bind_missing(config)
        self.config = config
        self._add_sockets(added)
        wanted = set(config.listeners)
        for address in [each for each in self._real if each not in wanted]:
            # The parent first: the last to close a socket serves those who wait in its queue.
            self._sockets.leave(address)
            del self._real[address]
            for place in self._places:
                place.give_up([address])
        await asyncio.gather(*(self._reload(place, added) for place in self._places))

    def drain(self) -> None:
        """Have the workers go on serving, and say when they are idle."""
        if self.lifecycle.state in (State.STARTING, State.SERVING):
            self.lifecycle.move_to(State.DRAINING)
        self.ending.set()
        for worker in self._workers():
            worker.drain()

    async def drained(self, seconds: float, delay: float) -> int:
        """Wait until no worker has anything in flight, then end them all.

        All go on serving until then, since the kernel spreads connections over all of them.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(delay)
                await self._all_idle()
        await self._end_workers(max(0.0, deadline - loop.time()))
        return self._cut

    async def stop(self) -> None:
        """End everything."""
        self.drain()
        await self._end_workers(0.0)
        await self.admin.stop()
        if self.lifecycle.state is State.DRAINING:
            self.lifecycle.move_to(State.STOPPED)

    def abandon(self) -> None:
        """Remove what would outlive the process, which ends at once."""
        for worker in self._workers():
            worker.kill()
        for address in self._real:
            self._sockets.leave(address)
        self.admin.abandon()

    # --- what places ask for

    def config_of_workers(self) -> Config:
        """Return what workers serve by: the admin listener is the parent's."""
        return replace(self.config, admin=None)

    def restore(self, place: Place) -> None:
        """Give the place the sockets that it lacks; raises OSError."""
        for address in self._real:
            if address not in place.sockets:
                share = next(p.sockets[address] for p in self._places if address in p.sockets)
                place.sockets[address] = self._sockets.another_share(address, share)

    def can_spare(self, place: Place, address: Address) -> bool:
        """Tell whether others take the listener's callers while the place gives up its sockets."""
        others = [each for each in self._places if each is not place and address in each.sockets]
        return self._sockets.is_spread(address) and bool(others)

    def left(self, worker: WorkerProcess) -> None:
        """Keep what a worker has counted, so that no counter of the sum goes back."""
        self._cut += worker.cut
        if worker.numbers is not None:
            self._retired = add_up([self._retired, _without_gauges(worker.numbers)])

    def _on_kept(self, keeping: asyncio.Task[None]) -> None:
        """Log that a place stays empty because of a bug; during the start, `start` raises it."""
        if not keeping.cancelled() and (error := keeping.exception()) and self.complete.is_set():
            extra = {"reason": "internal_error"}
            log.error("a bug in the keeping of a worker", exc_info=error, extra=extra)

    # --- sockets

    async def _bind_missing(self, config: Config) -> dict[Address, list[Sockets]]:
        """Bind the listeners that are not open yet, for every place; all or none."""
        bound: dict[Address, list[Sockets]] = {}
        try:
            for address in config.listeners:
                if address not in self._real:
                    shares = await self._sockets.take_shares(address, len(self._places))
                    bound[address] = shares
        except BaseException:
            for address, shares in bound.items():
                self._sockets.leave(address)
                for share in shares:
                    close_all(share)
            raise
        return bound

    def _add_sockets(self, added: Mapping[Address, list[Sockets]]) -> None:
        for address, shares in added.items():
            self._real[address] = real_addresses(address, shares[0])
            for place, share in zip(self._places, shares, strict=True):
                place.sockets[address] = share

    # --- workers

    def _workers(self) -> list[WorkerProcess]:
        return [place.worker for place in self._places if place.worker is not None]

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers() if worker.serves.is_set()]

    async def _all_serve(self) -> None:
        """Wait until every worker serves.  Raises `WorkerFailed` if one ends instead."""
        served = asyncio.ensure_future(asyncio.gather(*(p.served.wait() for p in self._places)))
        pending: set[asyncio.Future[Any]] = {served, *self._keeping}
        try:
            while not served.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()  # Raises why a worker has failed.
        finally:
            served.cancel()

    async def _reload(self, place: Place, added: Iterable[Address]) -> None:
        if (worker := place.worker) is None:
            return  # Its successor begins with what is in force then.
        sockets = {address: place.sockets[address] for address in added}
        if failure := await worker.serve(self.config_of_workers(), sockets):
            log.error("worker %d could not reload and is replaced: %s", place.number, failure)
            worker.kill()

    async def _all_idle(self) -> None:
        """Wait until no worker has anything in flight, all at the same time.

        Asked in rounds: one that was idle a while ago may have something to do again.
        """
        while not all(await asyncio.gather(*(worker.idle() for worker in self._workers()))):
            pass

    async def _end_workers(self, seconds: float) -> None:
        """End all workers within so many seconds, and a little more."""
        for address in list(self._real):
            self._sockets.leave(address)
        self._real.clear()
        for place in self._places:
            # Before the workers close theirs: what is then refused is not left hanging.
            place.give_up(list(place.sockets))
        for worker in self._workers():
            worker.finish(seconds)
        for place, keeping in zip(self._places, self._keeping, strict=False):
            if place.worker is None:
                keeping.cancel()
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=seconds + _END_WITHIN)
        for worker in self._workers():
            log.error("worker process %d did not end and is killed", worker.pid)
            worker.kill()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        self._keeping.clear()

    # --- what the admin listener shows

    def _shown_config(self) -> Config:
        """Return the configuration in force, with the URLs of services that workers know."""
        known = next((worker.config for worker in self._serving() if worker.config), self.config)
        return replace(known, admin=self.config.admin)

    async def _numbers(self) -> Numbers:
        """Return the sum of all counters and of all present values."""
        workers = self._workers()
        await asyncio.gather(*(worker.ask(_ASK_WITHIN) for worker in workers))
        latest = [worker.numbers for worker in self._workers() if worker.numbers is not None]
        return add_up([Numbers(stats=Stats()), self._retired, *latest])


def _without_gauges(numbers: Numbers) -> Numbers:
    """Return the counters alone of a worker that has ended."""
    for route in numbers.stats.routes.values():
        route.in_flight = 0
        route.connections = Connections
        for each in route.destinations.values():
            each.processes, each.available, each.connections = 0, int, Connections
    return replace(numbers, tokens={}, destination_tokens={}, pids=())
