"""The process around a server: signals in, an exit code out."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

from proxy.config.model import Config
from proxy.config.problems import ConfigError
from proxy.ops.logs import Logs, configure
from proxy.plane.listen import ListenFailed
from proxy.server import Server

log = logging.getLogger("proxy.process")

EXIT_UNAVAILABLE = 69  # sysexits.h: a service is unavailable; here, an address


def serve(config: Config, reload: Callable[[], Config] | None = None) -> int:
    """Run the proxy until a signal or a request ends it; return the exit code.

    `reload` reads the configuration anew for SIGHUP; it raises what the parser raises.
    """
    import uvloop  # noqa: PLC0415 (30 ms that no other command needs)

    logs = configure(config.log)
    try:
        return uvloop.run(_Process(config, reload, logs).run())
    except ListenFailed as error:
        sys.stderr.write(f"cloud-run-auth-proxy: {error}\n")
        return EXIT_UNAVAILABLE
    finally:
        logs.close()


class _Process:
    """The process around a server: signals in, an exit code out."""

    def __init__(self, config: Config, reload: Callable[[], Config] | None, logs: Logs) -> None:
        self._server = Server(config, os.environ)
        self._reload = reload
        self._logs = logs
        self._ending = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        server = self._server
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        await server.start()
        # What is alive now stays alive: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        asked = asyncio.ensure_future(server.quit_asked.wait())
        ended = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
        for waiter in (asked, ended):
            waiter.cancel()
        server.drain()
        await server.drained()
        await server.stop()
        return 0

    def _on_end(self, number: int) -> None:
        """Drain at the first signal; at the second, end at once."""
        name = signal.Signals(number).name
        if self._ending.is_set():
            log.warning("%s again: ending at once", name)
            self._logs.close()
            os._exit(128 + number)
        log.info("%s: draining", name)
        self._ending.set()

    def _on_reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reload_now(), name="reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_now(self) -> None:
        """Read the configuration anew; a bad one changes nothing."""
        if self._reload is None:
            log.warning("SIGHUP: there is no configuration file to read")
            return
        try:
            await self._server.reload(self._reload())
        except (ConfigError, OSError) as error:
            # The operator needs the places in the file, not a traceback.
            log.error("SIGHUP: the configuration was not taken: %s", error)  # noqa: TRY400 (no traceback for the operator)
        else:
            log.info("SIGHUP: the configuration was taken")
