"""Lets the first few of many equal log records through and counts the rest.

A service that is down fails every exchange in the same way; the tenth line says no more than
the first, and the ten thousandth costs money.  Equal means: same logger, route and reason, or
status where a record has no reason.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.clock import Clock

PER_MINUTE: Final = 10
"""Records of one key that are written in a window, unless the record says ``per_minute``."""
WINDOW: Final = 60.0

# Routes times reasons are bounded by the configuration; this holds even if a caller of the
# logger invents reasons. Beyond it records pass unlimited.
MAX_KEYS: Final = 10_000

Key = tuple[str, str, str]


@dataclass(slots=True)
class _Window:
    ends_at: float
    """On the steady clock."""
    level: int
    seen: int = 0
    left_out: int = 0


class RepeatLimiter(logging.Filter):
    """A filter of records that have a reason or a status; the others pass.  Safe among threads.

    Whoever owns it calls `sweep` before each record and when `next_end` has passed.
    """

    def __init__(self, steady: Clock, *, exempt: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self._steady = steady
        self.exempt = exempt
        """Loggers whose records all pass."""
        self._lock = threading.Lock()
        # All windows have one length, so the first in order of insertion is the first to end.
        self._windows: dict[Key, _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        key = None if record.name in self.exempt else _key(record)
        if key is None:
            return True
        with self._lock:
            return self._passes(key, record)

    def _passes(self, key: Key, record: logging.LogRecord) -> bool:
        window = self._windows.get(key)
        if window is None:
            if len(self._windows) >= MAX_KEYS:
                return True
            window = self._windows[key] = _Window(self._steady() + WINDOW, record.levelno)
        window.seen += 1
        passes: bool = window.seen <= getattr(record, "per_minute", PER_MINUTE)
        window.left_out += not passes
        return passes

    def sweep(self) -> list[logging.LogRecord]:
        """Close the windows that have ended; return a record for each that left something out."""
        if not self._windows:
            return []
        with self._lock:
            return [_summary(key, window) for key, window in self._ended() if window.left_out]

    def _ended(self) -> Iterator[tuple[Key, _Window]]:
        now = self._steady()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now < window.ends_at:
                return
            del self._windows[key]
            yield key, window

    def close(self) -> list[logging.LogRecord]:
        """Close all windows, ended or not, as at the end of the process."""
        with self._lock:
            closed, self._windows = self._windows, {}
        return [_summary(key, window) for key, window in closed.items() if window.left_out]

    def next_end(self) -> float:
        """Return the seconds until a window ends, at most `WINDOW`."""
        with self._lock:
            first = next(iter(self._windows.values()), None)
        return WINDOW if first is None else max(0.0, first.ends_at - self._steady())


def _key(record: logging.LogRecord) -> Key | None:
    reason = getattr(record, "reason", "") or (getattr(record, "http", None) or {}).get("status")
    return (record.name, getattr(record, "route", ""), str(reason)) if reason else None


def _summary(key: Key, window: _Window) -> logging.LogRecord:
    name, route, reason = key
    text = f"… and {window.left_out} more like this in the last minute"
    record = logging.LogRecord(name, window.level, __file__, 0, text, None, None)
    record.__dict__.update(route=route, reason=reason, fields={"left_out": window.left_out})
    return record
