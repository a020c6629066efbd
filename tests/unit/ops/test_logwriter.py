"""Lines reach the descriptor in order, whole, and without stopping whoever writes them."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from proxy.ops.logwriter import ATOMIC_BYTES, MAX_LINES, LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def fill(fd: int) -> int:
    """Fill the pipe; return how many bytes it took."""
    return os.write(fd, b"f" * fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ))


def in_background(*steps: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        for step in steps:
            step()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def read_all(fd: int) -> bytes:
    found = b""
    while chunk := os.read(fd, 65536):
        found += chunk
    return found


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd)
    writer.start()
    lines = [b"line %d\n" % number for number in range(1000)]
    for line in lines:
        writer.write(line)
    writer.close()
    os.close(fd)

    assert read_all(reader) == b"".join(lines)


def test_flush_returns_when_everything_is_written(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd)
    writer.start()
    writer.write(b"before\n")

    assert writer.flush()
    assert os.read(reader, 100) == b"before\n"

    writer.close()


def test_a_reader_that_does_not_read_blocks_nobody(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    capacity = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    writer = LineWriter(fd)
    writer.start()
    line = b"x" * 999 + b"\n"
    lines = capacity // len(line) + 100
    for _ in range(lines):
        writer.write(line)

    assert not writer.flush(timeout=0.05)

    writer.close(timeout=0.05)
    left = in_background(writer._thread.join, lambda: os.close(fd))

    assert read_all(reader) == line * lines

    left.join()


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    keyboard, fd = os.openpty()
    yield keyboard, fd
    os.close(fd)


@pytest.mark.parametrize("opened_anew", [True, False])
def test_a_terminal_that_was_stopped_blocks_nobody(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch, *, opened_anew: bool
) -> None:
    # Ctrl-S, or a window that scrolls back: it says that there is room where there is for a byte.
    keyboard, fd = terminal
    if not opened_anew:
        monkeypatch.setattr("proxy.ops.logwriter._opened_anew", lambda _: None)
    writer = LineWriter(fd)
    lines = [b"%d " % number + b"x" * (number % 700) + b"\n" for number in range(600)]
    writing = in_background(*(partial(writer.write, line) for line in lines))
    try:
        writing.join(10)
        is_stuck = writing.is_alive()
        # Its own descriptor takes lines at once, whatever becomes of the process.
        came_at_once = bool(select.select([keyboard], [], [], 5 if opened_anew else 0)[0])
        writer.start()
        writer.close(timeout=0.05)
        whole = b"".join(lines).replace(b"\n", b"\r\n")
        found = b""
        while not is_stuck and len(found) < len(whole):
            found += os.read(keyboard, 65536)
    finally:
        os.close(keyboard)  # Whoever is stuck is told that it has gone.

    assert not is_stuck
    assert came_at_once is opened_anew
    assert found == whole
    assert writer.dropped == 0


@pytest.mark.parametrize(("more", "dropped"), [(-1, 0), (0, 0), (1, 1)])
def test_lines_beyond_the_queue_are_counted(pipe: tuple[int, int], more: int, dropped: int) -> None:
    _, fd = pipe
    fill(fd)
    writer = LineWriter(fd)
    for _ in range(MAX_LINES + more):
        writer.write(b"x\n")

    assert writer.dropped == dropped
    assert not writer.flush()


def test_a_line_that_a_write_could_not_take_whole_goes_to_the_thread(
    pipe: tuple[int, int],
) -> None:
    reader, fd = pipe
    writer = LineWriter(fd)
    at_once, later = b"a" * ATOMIC_BYTES, b"b" * (ATOMIC_BYTES + 1)
    writer.write(at_once)
    writer.write(later)
    writer.write(b"c")

    assert os.read(reader, 1 << 20) == at_once

    writer.start()

    assert writer.flush()
    assert os.read(reader, 1 << 20) == later + b"c"

    writer.close()


def test_a_line_that_would_have_to_wait_after_close_is_dropped(pipe: tuple[int, int]) -> None:
    _, fd = pipe
    fill(fd)
    writer = LineWriter(fd)
    writer.close()
    writer.write(b"late\n")

    assert writer.dropped == 1


def test_a_reader_that_is_gone_is_no_failure(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    os.close(reader)
    writer = LineWriter(fd)
    writer.start()
    writer.write(b"nobody reads this\n")

    assert writer.flush()

    writer.close()


def test_a_descriptor_made_non_blocking_by_others_still_gets_everything(
    pipe: tuple[int, int],
) -> None:
    reader, fd = pipe
    os.set_blocking(fd, False)
    capacity = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    writer = LineWriter(fd)
    writer.start()
    line = b"x" * (capacity * 2) + b"\n"
    writer.write(line)
    left = in_background(writer.close, lambda: os.close(fd))

    assert read_all(reader) == line

    left.join()


def test_a_page_that_another_process_takes_in_between_stops_nobody(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, fd = pipe
    writer = LineWriter(fd)
    full = fill(fd)
    # What another process wrote between the look and the write.
    monkeypatch.setattr(writer, "_takes", lambda _: [(fd, 4)])
    writer.write(b"late\n")

    assert os.get_blocking(fd)
    writer.start()
    assert os.read(reader, full) == b"f" * full
    assert os.read(reader, 100) == b"late\n"
    monkeypatch.undo()
    writer.close()


def test_housekeeping_says_how_long_the_thread_may_wait(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    third = threading.Event()
    calls: list[None] = []

    def housekeeping() -> float:
        calls.append(None)
        if len(calls) == 3:
            writer.write(b"from housekeeping\n")
            third.set()
        return 0.0 if len(calls) < 3 else 60.0

    writer = LineWriter(fd, housekeeping=housekeeping)
    writer.start()

    assert third.wait(5)

    writer.close()

    assert os.read(reader, 100) == b"from housekeeping\n"
