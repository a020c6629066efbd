"""Metrics over OTLP, where ``OTEL_METRICS_EXPORTER`` asks for them.

One export for the whole process, workers included: whoever answers /metrics sends the same.
Nothing of OpenTelemetry is imported unless it is asked for, and then in a thread, behind the start.
A collector that cannot be reached costs a thread that waits, and one line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from proxy.clock import Clock
from proxy.ops.lifecycle import Reload
from proxy.ops.numbers import Numbers
from proxy.tasks import Threads, import_alone

if TYPE_CHECKING:
    from proxy.ops.otel_metrics import Sender

log = logging.getLogger("proxy.ops.exporting")

INTERVAL: Final = 60.0
"""Seconds between exports; the specification's default of ``OTEL_METRIC_EXPORT_INTERVAL``."""

LAST_SECONDS: Final = 2.0
"""For the last export, at the end of the process."""

LATE_SECONDS: Final = 0.5
"""For the same where the drain took all of its time: Cloud Run kills 10 s after SIGTERM."""

Reading = Callable[[], Awaitable[tuple[Numbers, Reload]]]
"""Answers what is counted at this moment."""


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Tell whether the standard variable turns OpenTelemetry off."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_installed() -> bool:
    """Tell whether the extra ``otel`` is."""
    try:
        return find_spec("opentelemetry.sdk.trace") is not None
    except ModuleNotFoundError:
        return False


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Tell whether ``OTEL_METRICS_EXPORTER`` names an exporter; /metrics needs none."""
    names = {name.strip() for name in environ.get("OTEL_METRICS_EXPORTER", "").lower().split(",")}
    return bool(names - {"", "none", "prometheus"}) and not is_disabled(environ)


def interval(environ: Mapping[str, str]) -> float:
    """Return the seconds between exports; what is no number of milliseconds counts as unset."""
    text = environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    return int(text) / 1000 if text.isdecimal() and int(text) else INTERVAL


class MetricExport:
    """Exports what is counted, from `start` on until `close`."""

    def __init__(self, environ: Mapping[str, str], wall: Clock, reading: Reading) -> None:
        self._environ = environ
        self._wall = wall
        self._reading = reading
        self._started_at = wall()
        self._threads = Threads()
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begin, if it is asked for; does not wait for anything."""
        if not is_asked_for(self._environ):
            return
        if not is_installed():
            log.warning(
                "no metrics are exported: OpenTelemetry is not installed",
                extra={"hint": "pip install 'cloud-run-auth-proxy[otel]'"},
            )
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), name="export metrics")

    async def close(self, seconds: float = LAST_SECONDS) -> None:
        """Export once more, for `seconds` at most; a collector that failed is not asked."""
        self._ending.set()
        if self._task is not None and not self._failing:
            done, _ = await asyncio.wait((self._task,), timeout=seconds)
            if not done:
                log.warning("the last metrics could not be exported in time")
        if self._task is not None:
            _ = self._task.cancel()

    async def _run(self) -> None:
        try:
            sender = await self._threads.run(
                "open exporters", lambda: _sender(self._environ, self._started_at)
            )
        except Exception as error:  # noqa: BLE001 (whatever a variable made the SDK raise)
            log.error("no metrics are exported: %s", error)  # noqa: TRY400 (the operator's affair)
            return
        seconds = interval(self._environ)
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ending.wait()
            # Asked before: what is counted while an export is under way is not in it.
            is_last = self._ending.is_set()
            await self._export(sender)
        await self._threads.run("end the export of metrics", sender.close)

    async def _export(self, sender: Sender) -> None:
        """Send what is counted now, and tell of a change."""
        try:
            numbers, reload = await self._reading()
            why = await self._threads.run(
                "export metrics", lambda: sender.send(numbers, reload, self._wall())
            )
        except Exception as error:  # noqa: BLE001 (whatever it is, the next export may succeed)
            why = repr(error)
        if why and not self._failing:
            log.warning("metrics cannot be exported: %s", why)
        elif self._failing and not why:
            log.info("metrics are exported again")
        self._failing = bool(why)


def _sender(environ: Mapping[str, str], started_at: float) -> Sender:
    sender: Sender = import_alone("proxy.ops.otel_metrics").Sender(environ, started_at)
    return sender
