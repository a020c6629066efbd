"""What Linux says about a process: memory and processor time, read from /proc (proc(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def rss_bytes(pid: int) -> int:
    """Return the memory that is resident right now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory since the start or the last `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) * 1024


def forget_peak(pid: int) -> None:
    """Make `peak_bytes` count from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """Return user and system time of all threads so far, in steps of a clock tick (10 ms)."""
    # The name in parentheses may hold blanks; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def waited_seconds(pid: int) -> float:
    """Return how long the main thread was ready to run so far, and other processes ran instead."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def page_faults(pid: int) -> int:
    """Return how many pages the process has been given so far, without reading a disk."""
    # minflt is field 10.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def children(pid: int) -> list[int]:
    """Return the ids of all processes below this one."""
    direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, direct) for found in (child, *children(child))]
