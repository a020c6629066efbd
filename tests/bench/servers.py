"""Processes of a benchmark: pinned to a core, watched through /proc, ended by their own id."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes import proc

# The proxy has a core for itself; the load, the upstream and this script share the other.
PROXY_CORE = 0
LOAD_CORE = 1

START_SECONDS = 10.0


class BenchError(Exception):
    """A measurement that cannot be trusted or made; the text says why."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(argv: Sequence[str | Path], core: int) -> list[str]:
    """Return the command line that runs `argv` on one core; the process id stays the same."""
    # A machine with one core has nothing to share out.
    core = min(core, (os.cpu_count() or 1) - 1)
    return ["taskset", "--cpu-list", str(core), *map(str, argv)]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far."""

    cpu_seconds: float
    rss_bytes: int
    peak_bytes: int


class Server:
    """A running process; as a context, ended when the context ends."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        core: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._log = log
        self._argv = pinned(argv, core)
        self.started_at = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it: politely, after five seconds for good."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def wait_for(self, port: int, path: str, starts_with: bytes) -> float:
        """Ask for `path` until the answer begins as it should; return seconds since the start.

        Raises `BenchError` with the end of the process's log if it dies or takes too long.
        """

        def answers() -> bool:
            answer = _get(port, path)
            return answer is not None and answer.startswith(starts_with)

        return self._wait(answers, path)

    def wait_for_port(self, port: int) -> None:
        """Wait until it accepts connections; see `wait_for`."""

        def accepts() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        self._wait(accepts, f"port {port}")

    def _wait(self, done: Callable[[], bool], what: str) -> float:
        deadline = self.started_at + START_SECONDS
        while time.perf_counter() < deadline and self._process.poll() is None:
            if done():
                return time.perf_counter() - self.started_at
            time.sleep(0.001)
        tail = self._log.read_text(errors="replace")[-3000:]
        raise BenchError(f"{' '.join(self._argv)} did not serve {what}:\n{tail}")

    def usage(self) -> Usage:
        """Return what it has used; its workers included."""
        pids = self._family()
        return Usage(
            cpu_seconds=sum(map(proc.cpu_seconds, pids)),
            rss_bytes=sum(map(proc.rss_bytes, pids)),
            peak_bytes=sum(map(proc.peak_bytes, pids)),
        )

    def cpu_seconds_of_each(self) -> dict[int, float]:
        """Return the processor time that each of its processes has used so far, by their ids."""
        return {pid: proc.cpu_seconds(pid) for pid in self._family()}

    def forget_peak(self) -> None:
        """Make ``peak_bytes`` count from here."""
        for pid in self._family():
            proc.forget_peak(pid)

    def _family(self) -> list[int]:
        return [self.pid, *proc.children(self.pid)]


def _get(port: int, path: str) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == http.HTTPStatus.OK else None
