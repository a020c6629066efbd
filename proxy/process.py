"""The process around a proxy: signals in, an exit code out.

What serves is a `Server` or, with workers, a `Supervisor`; this module knows only what both can
do.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final, Protocol

from proxy import PROGRAM
from proxy.administration import Administration
from proxy.clock import Clocks
from proxy.complaints import Complaints
from proxy.config.model import Config, Log
from proxy.config.problems import ConfigError
from proxy.notify import Notifier
from proxy.ops.exporting import LAST_SECONDS, LATE_SECONDS, MetricExport
from proxy.ops.logs import PATIENCE, Logs, configure
from proxy.plane.descriptors import raise_soft_limit
from proxy.plane.listen import ListenFailed
from proxy.sockets import OwnSockets, advice, inherit
from proxy.system import (
    ENDS,
    RELOADS,
    SWITCHES,
    forbid_dumps,
    ignore_signal,
    keep_freed_memory,
    on_signal,
    run,
)
from proxy.tasks import Tasks, Threads
from proxy.watch import Watch

log = logging.getLogger("proxy.process")

EXIT_UNAVAILABLE: Final = 69  # sysexits.h: a service is unavailable; here, an address

_LOOK_SECONDS: Final = 1.0
"""How often files are looked at; a change is taken once it has stood for one such interval."""

_READ_WITHIN: Final = 30.0
"""Seconds for reading the configuration again, thousands of routes on a busy machine included.

A pipe in the file's place, or a network's file system that hangs, would let a reload wait for
ever, and with it those that come after.
"""

_LAST_WORDS: Final = 0.1
"""Seconds in which the rest of the log may be read after the drain or a second signal."""

Reload = Callable[[], Config]


class Proxy(Protocol):
    """What the process starts, reloads, drains and stops."""

    config: Config
    """What is in force."""
    admin: Administration

    async def start(self) -> None:
        """Serve; return once everything is up.  Leaves nothing open where it raises."""

    async def reload(self, config: Config) -> None:
        """Serve by another configuration, or raise and change nothing."""

    def drain(self) -> None:
        """Go on serving, but say to callers and probes that the end is near."""

    async def drained(self, seconds: float, delay: float) -> int:
        """Wait for the end of what is in flight; return how many exchanges had to be cut."""

    async def stop(self) -> None:
        """Close everything."""

    def abandon(self) -> None:
        """Remove what would outlive the process, which ends at once."""


def serve(config: Config, reload: Reload | None = None) -> int:
    """Run the proxy until a signal or a request ends it; return the exit code.

    `reload` reads the configuration anew for SIGHUP; it raises what the parser raises.
    """
    signals = _Signals()
    forbid_dumps()
    logs = _Logging(config.log)
    raise_soft_limit()
    try:
        notifier = Notifier(os.environ, Clocks().steady)
        sockets = OwnSockets(inherit(os.environ))
        if config.workers == 1:
            from proxy.server import Server  # noqa: PLC0415 (a supervisor serves nothing itself)

            server = Server(config, os.environ, sockets=sockets)
            _collect_from_here()
            return run(_Process(server, reload, signals, logs, notifier).run())
        from proxy.workers.supervisor import Supervisor  # noqa: PLC0415 (only with workers)

        supervisor = Supervisor(config, sockets)
        _collect_from_here()
        return asyncio.run(_Process(supervisor, reload, signals, logs, notifier).run())
    except ListenFailed as error:
        line = f"{PROGRAM}: {error}{advice(error, config)}"
        Complaints(config.log.format).tell(line)
        return EXIT_UNAVAILABLE
    finally:
        logs.close()


def _collect_from_here() -> None:
    """Have the garbage collector look at what is made from now on, and at nothing older."""
    gc.freeze()
    gc.enable()


class _Signals:
    """Receives signals from the very start, and passes them on once they can be acted on."""

    def __init__(self) -> None:
        self._early: list[int] = []
        # As process 1 of a container there is no default action: a signal that came while the
        # libraries are being imported would be lost.
        for number in (*ENDS, *RELOADS, *SWITCHES):
            signal.signal(number, self._keep)

    def _keep(self, number: int, _frame: FrameType | None) -> None:
        self._early.append(number)

    def attach(self, on_end: Callable[[int], None], on_reload: Callable[[], None]) -> None:
        """Have the running loop call these; signals that came earlier first."""
        for number in ENDS:
            on_signal(number, on_end, number)
        for number in RELOADS:
            on_signal(number, on_reload)
        for number in SWITCHES:
            on_signal(number, _refuse_signal, number)
        for early in self._early:
            if early in RELOADS:
                on_reload()
            elif early in SWITCHES:
                _refuse_signal(early)
            else:
                on_end(early)


def _refuse_signal(number: int) -> None:
    """Do nothing where the default is to end at once: scripts that rotate logs send such signals.

    Go's programs, Google's sidecars among them, ignore them as well.
    """
    name = signal.Signals(number).name
    extra = {"reason": "signal_ignored", "per_minute": 1}
    log.warning("%s means nothing here and is ignored", name, extra=extra)


class _Logging:
    """The log as the configuration in force wants it."""

    def __init__(self, config: Log) -> None:
        self._config = config
        self._logs: Logs = configure(config)
        self._end_at = math.inf

    def follow(self, config: Log) -> None:
        """Log by another configuration."""
        if config != self._config:
            self._config = config
            self._logs.follow(config)

    def end_by(self, deadline: float) -> None:
        """Set when `close` stops waiting for readers, on the steady clock."""
        self._end_at = deadline

    def close(self) -> None:
        """Write what is left, as far as it is read in time."""
        left = self._end_at - time.monotonic()
        self._logs.close(max(_LAST_WORDS, min(PATIENCE, left)))


class _Process:
    """One run, from the first signal handler to the exit code."""

    def __init__(
        self,
        proxy: Proxy,
        reload: Reload | None,
        signals: _Signals,
        logs: _Logging,
        notifier: Notifier,
    ) -> None:
        self._proxy = proxy
        self._reload = reload
        self._signals = signals
        self._logs = logs
        self._notifier = notifier
        self._signalled = False
        self._ending = asyncio.Event()
        self._delay = 0.0
        """Seconds that the process stays although it is idle; for signals alone."""
        self._reload_asked = asyncio.Event()
        self._asked_by = ""
        """What asks for it, for the log: SIGHUP, or a changed file."""
        self._tasks = Tasks()
        self._export = MetricExport(os.environ, Clocks().wall, proxy.admin.reading)
        self._threads = Threads()

    async def run(self) -> int:
        """Serve until the end has been asked for and the drain is over."""
        self._signals.attach(self._on_end, self._on_reload)
        start = self._tasks.spawn(self._start(), "start")
        ending = self._tasks.spawn(self._until_ending(), "wait for the end")
        try:
            await asyncio.wait((start, ending), return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                # Raises why it failed.
                await start
            await ending
            cut = await self._drain()
            await self._export.close(LATE_SECONDS if cut else LAST_SECONDS)
        finally:
            await self._tasks.end()
            await self._proxy.stop()
            for number in (*RELOADS, *SWITCHES):
                # What means nothing any more must not change the exit code of one that has drained.
                ignore_signal(number)
        return 0

    async def _start(self) -> None:
        if self._ending.is_set():
            return  # The signal came before there was anything to start.
        await self._proxy.start()
        # What is alive at this point stays alive: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        keep_freed_memory()
        self._proxy.admin.announce()
        self._export.start()
        self._notifier.ready()
        if self._reload is not None:
            _ = self._tasks.spawn(self._watch(), "watch files")
        _ = self._tasks.spawn(self._reload_when_asked(), "reload")

    async def _until_ending(self) -> None:
        quit_ = self._tasks.spawn(self._on_quit(), "wait for a request to quit")
        await self._ending.wait()
        quit_.cancel()

    async def _on_quit(self) -> None:
        await self._proxy.admin.quit_asked.wait()
        self._end("asked to quit")

    def _end(self, why: str, delay: float = 0.0) -> None:
        """Begin to drain."""
        # Before the log line, so that whoever reads that can rely on it.
        self._proxy.drain()
        self._notifier.stopping()
        log.info("%s: draining", why)
        self._delay = delay
        self._logs.end_by(time.monotonic() + self._proxy.config.drain)
        self._ending.set()

    async def _drain(self) -> int:
        """Wait for the end of the drain; return how many exchanges it cut."""
        cut = await self._proxy.drained(self._proxy.config.drain, self._delay)
        extra = {"fields": {"cut": cut}}
        if cut:
            log.warning("%d exchanges were cut when the drain was over", cut, extra=extra)
        else:
            log.info("drained", extra=extra)
        return cut

    def _on_end(self, number: int) -> None:
        """Drain at the first signal; at the second, end at once."""
        name = signal.Signals(number).name
        if self._signalled:
            log.warning("%s again: ending at once", name)
            self._proxy.abandon()
            self._logs.end_by(-math.inf)
            self._logs.close()
            os._exit(128 + number)
        self._signalled = True
        if self._ending.is_set():
            log.info("%s: draining already", name)
        else:
            self._end(name, self._proxy.config.sigterm_delay)

    # --- reload

    def _on_reload(self) -> None:
        if self._ending.is_set():
            log.info("SIGHUP: nothing is reloaded any more, the process is ending")
        else:
            self._ask_for_reload("SIGHUP")

    def _ask_for_reload(self, by: str) -> None:
        self._asked_by = by
        self._reload_asked.set()

    async def _watch(self) -> None:
        """Ask for a reload when a file of the configuration in force has changed."""
        watch = Watch()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            config = self._proxy.config
            # In a thread: a network's file system can hang.
            look = partial(watch.have_changed, config.files)
            if config.watch and await self._threads.run("watch files", look):
                self._ask_for_reload("watch")

    async def _reload_when_asked(self) -> None:
        """Reload once for all requests that have come since the last one began."""
        while True:
            await self._reload_asked.wait()
            self._reload_asked.clear()
            await self._reload_now(self._asked_by)

    async def _reload_now(self, by: str) -> None:
        """Read the configuration anew; a bad one changes nothing."""
        if self._reload is None:
            log.warning("%s: there is no configuration file to read", by)
            return
        self._notifier.reloading()
        before = self._proxy.config
        try:
            config = await self._read(self._reload)
            await self._proxy.reload(config)
        except ConfigError as error:
            fields = {"problems": [str(problem) for problem in error.problems]}
            # The operator needs the places in the file, not a traceback.
            log.error(_REFUSED, by, error, extra={"fields": fields})  # noqa: TRY400 (see above)
            self._proxy.admin.reloaded(str(error))
        except OSError as error:
            log.error(_REFUSED, by, error)  # noqa: TRY400 (as above)
            self._proxy.admin.reloaded(str(error))
        except Exception:
            log.exception("a bug in the reload", extra={"reason": "internal_error"})
            self._proxy.admin.reloaded("a bug in the reload; the log has its trace")
        else:
            self._logs.follow(config.log)
            _warn_of_restarts(before, config, by)
            log.info("%s: the configuration was taken", by)
            self._proxy.admin.warn()
            self._proxy.admin.reloaded()
        finally:
            self._notifier.ready()

    async def _read(self, reload: Reload) -> Config:
        """Read the configuration; raises what the parser raises, or OSError.

        In a thread: a large file takes seconds, which exchanges shall not wait for.  The process
        does not wait for one that hangs.
        """
        try:
            async with asyncio.timeout(_READ_WITHIN):
                return await self._threads.run("read the configuration", reload)
        except TimeoutError:
            raise OSError(f"it could not be read within {_READ_WITHIN:g} s") from None


_REFUSED: Final = "%s: the configuration was not taken, nothing has changed: %s"


def _warn_of_restarts(before: Config, after: Config, by: str) -> None:
    """Log the changes that need a restart."""
    for key in ("workers", "admin"):
        if getattr(before, key) != getattr(after, key):
            fields = {"key": key}
            log.warning("%s: a changed %s needs a restart", by, key, extra={"fields": fields})
