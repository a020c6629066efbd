"""Writes finished log lines to a file descriptor without stopping the event loop.

A line is written at once where the descriptor takes it: one poll and one write, in order,
there even if the process is killed the moment after.  Where the reader of a pipe is slow, or a
terminal was stopped (Ctrl-S), a write would block, so the line goes into a bounded queue and a
thread waits for the reader.
Lines that find the queue full are dropped and counted.
"""

from __future__ import annotations

import os
import queue
import select
import stat
import threading
from collections.abc import Callable
from typing import Final

from proxy.system import polling

MAX_LINES: Final = 10_000
"""Lines that wait for a slow reader: a few megabytes, some seconds of a busy access log."""

# pipe(7): a write of up to PIPE_BUF bytes (4096 on Linux, 512 on macOS) is never mixed with another
# process's, which matters to workers that share a pipe; and a pipe that polls as writable has a
# free page, so that such a write does not block. (Unless another worker takes that page in
# between: then a pipe that could be opened anew takes nothing, and else this one waits for the
# reader once.)
ATOMIC_BYTES: Final[int] = getattr(select, "PIPE_BUF", 512)

PATIENCE: Final = 2.0
"""Seconds that a slow reader gets at the end, unless whoever ends has less."""

_LONGEST_WAIT: Final = 60.0

Housekeeping = Callable[[], float]


class LineWriter:
    """Owns one thread for what cannot be written at once; safe to use from threads."""

    __slots__ = (
        "_closed", "_fd", "_given", "_housekeeping", "_lines", "_lock", "_owned", "_takes",
        "_thread", "_waiting", "dropped",
    )  # fmt: skip

    def __init__(self, fd: int, *, housekeeping: Housekeeping = lambda: _LONGEST_WAIT) -> None:
        """Write to `fd`, which stays the caller's.

        `housekeeping` runs in the thread before each wait and returns how many seconds that may
        last; it may call `write`.
        """
        self._given = fd
        self._owned = _opened_anew(fd)
        self._fd = fd if self._owned is None else self._owned
        self._housekeeping = housekeeping
        self._takes = self._polled()
        self._lock = threading.Lock()
        # A line; an event to set once everything before it is written; None to end.
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._closed = False
        self.dropped = 0
        """Lines that found the queue full; whoever reports them sets it back."""

    def start(self) -> None:
        """Start the thread. A process that forks afterwards needs a writer of its own."""
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Write or queue one line, with its newline; never waits for a slow reader."""
        with self._lock:
            if not self._waiting and len(line) <= ATOMIC_BYTES and self._takes(0):
                line = self._write_at_once(line)
                if not line:
                    return
            if self._closed or self._waiting >= MAX_LINES:
                self.dropped += 1
            else:
                self._waiting += 1
                self._lines.put(line)

    def _write_at_once(self, line: bytes) -> bytes:
        """Write a short line; return what the descriptor does not take of it after all."""
        if self._owned is None:
            _write_all(self._fd, line)
            return b""
        try:
            # pipe(7): up to PIPE_BUF it is all or nothing; a terminal may take a part.
            return line[os.write(self._fd, line) :]
        except BlockingIOError:
            return line
        except OSError:
            return b""  # As in `_write_all`.

    def _polled(self) -> Callable[[int], object]:
        """Return what tells whether a short line can be written without waiting for a reader.

        A terminal says that it can as soon as there is room for one byte: it is asked only where it
        is ours and does not block.
        """
        if self._owned is None and _is_terminal(self._fd):
            return _never
        return polling(self._fd, "POLLOUT") or _never

    def flush(self, timeout: float = PATIENCE) -> bool:
        """Wait until what was queued is written; False if that took longer than `timeout`.

        After `close` it does not wait: the reader has had its time.
        """
        if not self._waiting or self._closed or not self._thread.is_alive():
            return not self._waiting
        reached = threading.Event()
        self._lines.put(reached)
        return reached.wait(timeout)

    def close(self, timeout: float = PATIENCE) -> None:
        """Write what is queued, as far as the reader takes it in time, and end the thread.

        Called again it does nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._lines.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        else:
            self._give_back()

    def _give_back(self) -> None:
        """Close what was opened here; whoever writes later does so to what was given."""
        with self._lock:
            if self._owned is None:
                return
            os.close(self._owned)
            self._owned, self._fd = None, self._given
            self._takes = self._polled()

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            wait = min(max(0.0, self._housekeeping()), _LONGEST_WAIT)
            try:
                item = self._lines.get(timeout=wait)
            except queue.Empty:
                continue
            goes_on = self._take(item)
        self._give_back()

    def _take(self, item: bytes | threading.Event | None) -> bool:
        """Write a line or wake whoever flushes; False once `close` was reached."""
        if isinstance(item, bytes):
            _write_all(self._fd, item)
            with self._lock:
                self._waiting -= 1
        elif item is not None:
            item.set()
        return item is not None


def _never(milliseconds: int) -> bool:  # noqa: ARG001 (as poll(2))
    """Have every line go through the thread: Windows tells of sockets alone what they take."""
    return False


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _opened_anew(fd: int) -> int | None:
    """Return a non-blocking descriptor of our own for a pipe or terminal, None if it has none.

    To make `fd` itself non-blocking would do so to every process that shares it.  Linux alone has
    the path, and it needs the permission to write: pipes of another user refuse it.
    """
    try:
        if hasattr(os, "O_NONBLOCK") and (stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd)):
            flags = os.O_WRONLY | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0)
            return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        pass
    return None


def _write_all(fd: int, data: bytes) -> None:
    """Write all of it; a reader that is gone is nobody's failure, and nobody could be told."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Another process that shares the pipe has made it non-blocking.
            select.select([], [fd], [], 1.0)
        except OSError:
            return
