"""Processes that a test starts: their output is kept, and none outlives its test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.fakes import leaks, proc

T = TypeVar("T")

# A loaded two-core machine starts an interpreter within a second or two.
START_SECONDS = 20.0
STOP_SECONDS = 15.0


def plain_environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without this machine's proxies, credentials and gcloud settings."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **more}


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended that was run to its end."""

    code: int
    out: str
    err: str


async def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    given: str = "",
    seconds: float = 60.0,
    prints_a_token: bool = False,
) -> Done:
    """Run a command to its end with `given` on its stdin; it is killed after `seconds`.

    What it writes is searched for tokens; `prints_a_token` excepts its stdout.
    The event loop stays free, so that servers of the same test can answer the command.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    leaks.look(f"stderr of {argv[0]}", err)
    if not prints_a_token:
        leaks.look(f"stdout of {argv[0]}", out)
    return Done(process.returncode, out.decode(), err.decode())


class Child:
    """A server in a process of its own, from its first line of readiness to its end.

    `lines` holds what it wrote on stdout and stderr, in order; no token may be in it.
    """

    def __init__(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self.lines: list[str] = []
        self._argv = [str(part) for part in argv]
        self._env = env
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._at_end = False
        self._news = asyncio.Condition()

    @property
    def name(self) -> str:
        """What messages call it."""
        return " ".join(Path(part).name for part in self._argv[:2])

    @property
    def pid(self) -> int:
        """The process id; the child must have been started."""
        return self._started.pid

    @property
    def output(self) -> str:
        """Everything written so far."""
        return "\n".join(self.lines)

    @property
    def _started(self) -> asyncio.subprocess.Process:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    async def spawn(self) -> None:
        """Start the process and collect its output; does not wait for readiness."""
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            # A log line may carry a traceback: far beyond the 64 KiB that StreamReader allows.
            limit=8 * 1024 * 1024,
        )
        self._reading = asyncio.get_running_loop().create_task(
            self._read(), name=f"read what {self.name} says"
        )

    async def line(self, wanted: Callable[[str], bool], seconds: float = START_SECONDS) -> str:
        """Return the first line that is `wanted`, earlier ones included.

        Fails with the whole output if the process ends or `seconds` pass before it comes, in
        which a processor was to be had.
        """
        try:
            return await self._within(seconds, lambda: self._wanted(wanted))
        except TimeoutError:
            raise AssertionError(f"{self.name} did not say so in time:\n{self.output}") from None

    async def _wanted(self, wanted: Callable[[str], bool]) -> str:
        async with self._news:
            while (found := next(filter(wanted, self.lines), None)) is None:
                assert not self._at_end, f"{self.name} ended early:\n{self.output}"
                await self._news.wait()
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process alone; nothing happens if it has just ended."""
        # Popen.send_signal, which asyncio would use, reaps a child that has just ended, and
        # the exit code is lost to `exit_code` (bugs.python.org/issue38630).
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def exit_code(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        try:
            return await self._within(seconds, self._end)
        except TimeoutError:
            raise AssertionError(f"{self.name} did not end:\n{self.output}") from None

    async def _end(self) -> int:
        code = await self._started.wait()
        if self._reading is not None:
            await asyncio.shield(self._reading)
        return code

    async def _within(self, seconds: float, wait: Callable[[], Awaitable[T]]) -> T:
        """Wait for so long, and for as long again as other processes had the processors.

        A start takes half a second of a processor: at a low priority beside ten busy processes
        that is half a minute.  Raises TimeoutError.
        """
        starved, left = self._starved(), seconds
        while True:
            try:
                async with asyncio.timeout(left):
                    return await wait()
            except TimeoutError:
                before, starved = starved, self._starved()
                left = starved - before
                if left < seconds / 20:
                    raise

    def _starved(self) -> float:
        """Return how long it, and its children, were ready to run and others ran instead."""
        found = 0.0
        with contextlib.suppress(OSError, AssertionError):
            for pid in (self.pid, *proc.children(self.pid)):
                found += proc.waited_seconds(pid)
        return found

    async def kill(self) -> None:
        """End the process if it still runs, at once and without a verdict."""
        if self._process is None:
            return
        if self.running:
            self.signal(signal.SIGKILL)
        await self._process.wait()
        if self._reading is not None:
            await self._reading

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    def rss_bytes(self) -> int:
        """Return the memory that is resident right now."""
        return proc.rss_bytes(self.pid)

    def peak_bytes(self) -> int:
        """Return the largest resident memory since the start or the last `forget_peak`."""
        return proc.peak_bytes(self.pid)

    def forget_peak(self) -> None:
        """Make `peak_bytes` count from here."""
        proc.forget_peak(self.pid)

    def cpu_seconds(self) -> float:
        """Return user and system time of all its threads so far."""
        return proc.cpu_seconds(self.pid)

    async def _read(self) -> None:
        stream = self._started.stdout
        assert stream is not None
        while line := await stream.readline():
            leaks.look(f"the output of {self.name}", line)
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
            await self._tell()
        self._at_end = True
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
