"""Sets up logging once: one format, one stream, limited repeats, nothing secret.

All other modules use the standard library: ``logging.getLogger("proxy.<room>")``.  What a record
may carry beside its message goes into ``extra``, each key optional:

=============  ====================================================================================
``route``      name of the route
``reason``     snake_case name of a failure (`proxy.errors`) or of a condition worth counting; a
               record that has one is *limited*: `PER_MINUTE` a minute per (logger, route, reason)
               are written, then one line that says how many more there were.  Where an exchange
               has no reason, its status stands for it
``per_minute`` another number than `PER_MINUTE` for this record's key
``hint``       a sentence that says what a person can do
``http``       mapping of the exchange: ``method``, ``path`` (raw; a query is cut off), ``status``,
               ``seconds``, ``request_bytes``, ``response_bytes``, ``user_agent``,
               ``protocol`` (h1, h2 or ws); any may be missing or None
``trace``      pair (header name, value) of the request's ``traceparent``, or else of its
               ``X-Cloud-Trace-Context``
``fields``     mapping of anything more, written under its own keys into the JSON line
=============  ====================================================================================

The access log is the logger `ACCESS`, with a level of its own.  One record is written for each
finished exchange, at INFO where the exchange went well, WARNING or ERROR where it counts as an
error; ``access: all|errors|off`` is that logger's level INFO, WARNING or above everything.  Ask
``isEnabledFor`` before building the record.  With ``all`` its records are not limited.

Everything goes to one stream, standard error: Cloud Logging takes the severity from the line,
and standard output stays free for what commands print.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final, TextIO

from proxy.clock import Clocks
from proxy.config.model import Log
from proxy.ops.logformat import JsonFormatter, TextFormatter
from proxy.ops.loglimit import PER_MINUTE, RepeatLimiter
from proxy.ops.logwriter import PATIENCE, LineWriter

__all__ = ["ACCESS", "PATIENCE", "PER_MINUTE", "Logs", "configure"]

ACCESS: Final = "proxy.access"
OURS: Final = "proxy"

_NEVER: Final = logging.CRITICAL + 1
_ACCESS_LEVELS: Final = {"all": logging.INFO, "errors": logging.WARNING, "off": _NEVER}

# Where our own level is debug, libraries still say only what an operator must know: at debug
# google-auth prints requests, and those have tokens in them.
_LIBRARIES_LEVEL: Final = logging.WARNING


PROJECT_VARIABLE: Final = "GOOGLE_CLOUD_PROJECT"


class Logs(logging.Handler):
    """The one handler, put on the root logger by `configure`."""

    def __init__(
        self, log: Log, stream: TextIO, clocks: Clocks, environ: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._project = environ.get(PROJECT_VARIABLE, "")
        self._environ = environ
        self._limiter = RepeatLimiter(clocks.steady)
        self.addFilter(self._limiter)
        self._stream = stream
        self.follow(log)
        self._writer = _writer(stream, self._housekeeping)
        if self._writer is not None:
            self._writer.start()

    def follow(self, log: Log) -> None:
        """Apply `log` from now on; lines that wait for a slow reader are kept."""
        self.setFormatter(_formatter(log, self._stream, self._project, self._environ))
        self._limiter.exempt = frozenset({ACCESS}) if log.access == "all" else frozenset()
        logging.getLogger(OURS).setLevel(log.level.upper())
        logging.getLogger(ACCESS).setLevel(_ACCESS_LEVELS[log.access])

    def set_project(self, project: str) -> None:
        """Say the Google Cloud project once it is known, for the names of traces."""
        self._project = project
        if isinstance(self.formatter, JsonFormatter):
            self.formatter.project = project

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record unless it is one of too many; what a window left out comes first."""
        self._write_summaries(self._limiter.sweep())
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Format and write one record; a record that cannot be formatted is reported."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (a bad record must not break the exchange it is about)
            self.handleError(record)
            return
        self._write(line)

    def _write(self, line: str) -> None:
        if self._writer is None:
            self._stream.write(line + "\n")
        else:
            self._writer.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Wait, for two seconds at most, until everything is written."""
        if self._writer is None:
            self._stream.flush()
        else:
            self._writer.flush()

    def close(self, seconds: float = PATIENCE) -> None:
        """Write what is left, summaries included, and take the handler off the root logger.

        A slow reader is waited for `seconds` at most.
        """
        logging.getLogger().removeHandler(self)
        self._write_summaries(self._limiter.close())
        if self._writer is not None:
            self._writer.close(seconds)
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Say in one line that a record could not be formatted.

        The library would print to the stream itself, and wait for a slow reader there.
        """
        kind = type(sys.exception()).__name__
        text = f"a log record of {record.name} could not be written: {kind} in line {record.lineno}"
        self._write(self.format(_record(logging.ERROR, text)))

    def _housekeeping(self) -> float:
        """Write the summaries that are due, and what was dropped; in the writer's thread."""
        self._write_summaries(self._limiter.sweep())
        if self._writer is not None and (dropped := self._writer.dropped):
            self._writer.dropped = 0
            text = f"{dropped} log lines were dropped: whoever reads this stream is too slow"
            self.emit(_record(logging.WARNING, text))
        return self._limiter.next_end()

    def _write_summaries(self, records: list[logging.LogRecord]) -> None:
        # `emit` needs no lock of the handler's: the writer has its own.
        for record in records:
            self.emit(record)


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(OURS, level, __file__, 0, text, None, None)


def configure(
    log: Log,
    *,
    stream: TextIO | None = None,
    clocks: Clocks | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Logs:
    """Make the root logger write to `stream` as `log` says; what stood there before is replaced.

    `stream` is standard error unless given.  The Google Cloud project is the one that
    GOOGLE_CLOUD_PROJECT names; `name_project` says it later.  After a reload call `Logs.follow`,
    and ``close`` at the end.
    """
    stream = sys.stderr if stream is None else stream
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, Logs):
            handler.close()
    logs = Logs(log, stream, clocks or Clocks(), environ)
    root.addHandler(logs)
    root.setLevel(_LIBRARIES_LEVEL)
    return logs


def name_project(project: str) -> None:
    """Have the process's log name traces as `project`'s, once its id has become known."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Logs):
            handler.set_project(project)


def _formatter(
    log: Log, stream: TextIO, project: str, environ: Mapping[str, str]
) -> logging.Formatter:
    terminal = stream.isatty()
    if log.format == "json" or (log.format == "auto" and not terminal):
        return JsonFormatter(project)
    # https://no-color.org: set and not empty, whatever the value.
    colour = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return TextFormatter(colour=colour)


def _writer(stream: TextIO, housekeeping: Callable[[], float]) -> LineWriter | None:
    """Return a writer for the stream's descriptor; None where it has none, as in memory."""
    try:
        fd = stream.fileno()
    except OSError:
        return None
    return LineWriter(fd, housekeeping=housekeeping)
