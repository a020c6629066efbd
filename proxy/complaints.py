"""Why a command cannot do what it was asked: lines for a person, or JSON where the log is JSON.

Only `run` has a log.  Where its lines are collected as JSON, whoever looks there for the reason of
a start that was refused finds it with its severity, and alerts see it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import TextIO

from proxy import PROGRAM

FORMAT_FLAG = "--log-format"
FORMAT_VARIABLE = "AUTH_PROXY_LOG_FORMAT"

PLATFORMS = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "KUBERNETES_SERVICE_HOST")
"""Variables that Cloud Run sets for services, jobs and worker pools, and Kubernetes for pods."""


def format_of(arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the log's format as far as it is known before the configuration is read.

    `arguments` are those of `run`; they need not be valid.
    """
    chosen = environ.get(FORMAT_VARIABLE) or "auto"
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == FORMAT_FLAG:
            chosen = after
        elif word.startswith(f"{FORMAT_FLAG}="):
            chosen = word.partition("=")[2]
    return chosen


class Complaints:
    """Written to standard error."""

    def __init__(self, log_format: str = "text", environ: Mapping[str, str] = os.environ) -> None:
        """`log_format` is the log's; with ``auto`` JSON is written where a platform collects it."""
        is_collected = any(environ.get(name) for name in PLATFORMS)
        by_itself = log_format == "auto" and is_collected and not sys.stderr.isatty()
        self._as_json = log_format == "json" or by_itself

    def tell(self, *lines: str) -> None:
        """Write lines, each of which says what is wrong."""
        self._write([self._formatted(line) for line in lines] if self._as_json else lines)

    def tell_of_bug(self, error: Exception) -> None:
        """Write what only a bug can cause, with its traceback."""
        ask = f"{PROGRAM}: this is a bug; please report it with the traceback"
        if self._as_json:
            self._write([self._formatted(ask, error)])
        else:
            trace = "".join(traceback.format_exception(error)).rstrip("\n")
            self._write([trace, f"{ask} above"])

    def _formatted(self, line: str, error: Exception | None = None) -> str:
        from proxy.ops.logformat import JsonFormatter  # noqa: PLC0415 (most starts are taken)

        caught = None if error is None else (type(error), error, error.__traceback__)
        record = logging.LogRecord("proxy.cli", logging.ERROR, __file__, 0, line, None, caught)
        return JsonFormatter().format(record)

    def _write(self, lines: Sequence[str]) -> None:
        try:
            sys.stderr.write("".join(f"{line}\n" for line in lines))
        except OSError:
            let_go(sys.stderr)  # Where nobody can be told, the exit code still says it.


def let_go(stream: TextIO) -> None:
    """Redirect a closed stream to the null device, so that flushing it at exit cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
