"""One span of OpenTelemetry for each exchange, where the standard variables ask for it.

Trace headers pass untouched: the span is a child of the caller's and a sibling of the
upstream's.  It is made when the exchange has ended, and exported by a thread of the SDK's.

Nothing of OpenTelemetry is imported unless a variable asks for spans, and then behind the first
exchanges; those are kept and told once it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from proxy.clock import Clock
from proxy.errors import ProxyError
from proxy.ops.exporting import is_disabled, is_installed
from proxy.plane.exchange import Exchange
from proxy.plane.plane import Plane
from proxy.tasks import Threads, import_alone

if TYPE_CHECKING:
    from proxy.ops.otel import Recorder

log = logging.getLogger("proxy.ops.tracing")

# Any of these asks for spans.  The specification's default, OTLP to localhost without being
# asked, would have every proxy without a collector complain that there is none.
_ASKING: Final = (
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)

EARLY: Final = 1000  # Exchanges that are kept until OpenTelemetry is there.
FLUSH_SECONDS: Final = 2.0  # A collector on this machine needs milliseconds.
CLOSE_SECONDS: Final = 0.5  # For what was cut at the end of the drain.

_Early = tuple[Exchange, float, float, ProxyError | None]


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Tell whether the standard variables ask for spans."""
    if is_disabled(environ):
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environ.get(name, "").strip() for name in _ASKING)


class Tracing:
    """The spans of one process: attached to the plane at once, exported from `start` on."""

    def __init__(self, environ: Mapping[str, str], wall: Clock, plane: Plane) -> None:
        """Observe `plane` if `environ` asks for spans and OpenTelemetry is installed."""
        self._environ = environ
        self._wall = wall
        self._plane = plane
        self._recorder: Recorder | None = None
        self._threads = Threads()
        self._early: deque[_Early] = deque(maxlen=EARLY)
        self._opening: asyncio.Task[None] | None = None
        self._stuck = False
        """Whether a flush was given up: then the end need not wait for another."""
        self._asked = is_asked_for(environ)
        if self._asked and is_installed():
            plane.on_finished = self._finished

    def start(self) -> None:
        """Begin to import OpenTelemetry; does not wait for it."""
        if self._plane.on_finished is not None:
            self._opening = asyncio.get_running_loop().create_task(self._open(), name="tracing")
        elif self._asked:
            log.warning(
                "no spans are recorded: OpenTelemetry is not installed",
                extra={"hint": "pip install 'cloud-run-auth-proxy[otel]'"},
            )

    async def flush(self) -> None:
        """Export what has ended, for `FLUSH_SECONDS` at most."""
        self._stuck = True  # Holds even if this is cancelled because the drain is over.
        self._stuck = not await self._within(FLUSH_SECONDS, lambda recorder: recorder.flush())

    async def close(self) -> None:
        """Export what is left, for `CLOSE_SECONDS` at most, and record nothing more."""
        self._plane.on_finished = None
        seconds = 0.0 if self._stuck else CLOSE_SECONDS
        if not await self._within(seconds, lambda recorder: recorder.close()):
            log.warning("spans were lost: they could not be exported in time")

    def _finished(self, exchange: Exchange, seconds: float, error: ProxyError | None) -> None:
        """Record an exchange that took `seconds`."""
        ended = self._wall()
        if self._recorder is None:
            self._early.append((exchange, ended - seconds, ended, error))
        else:
            self._record(exchange, ended - seconds, ended, error)

    def _record(
        self, exchange: Exchange, begun: float, ended: float, error: ProxyError | None
    ) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.record(exchange, begun, ended, error)
        except Exception:
            # Telemetry never breaks an exchange.
            log.exception("a span could not be made", extra={"reason": "internal_error"})

    async def _open(self) -> None:
        """Import OpenTelemetry and tell it what has ended meanwhile."""
        try:
            self._recorder = await self._threads.run(
                "open exporters", lambda: _recorder(self._environ)
            )
        except Exception as error:  # noqa: BLE001 (whatever a variable made the SDK raise)
            self._plane.on_finished = None
            log.error("no spans are recorded: %s", error)  # noqa: TRY400 (the operator's affair)
        while self._early:
            self._record(*self._early.popleft())

    async def _within(self, seconds: float, work: Callable[[Recorder], None]) -> bool:
        """Do `work` once everything is recorded; return whether there was time for it."""
        if self._opening is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._opening)
                if (recorder := self._recorder) is not None:
                    await self._threads.run("export spans", lambda: work(recorder))
        except TimeoutError:
            return False
        return True


def _recorder(environ: Mapping[str, str]) -> Recorder:
    recorder: Recorder = import_alone("proxy.ops.otel").Recorder(environ)
    return recorder
