"""A worker process as its parent sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import proxy
from proxy.config.model import Address, Config
from proxy.ops.numbers import Numbers, load
from proxy.plane.listen import Sockets
from proxy.system import ENDS, RELOADS, SWITCHES
from proxy.workers.channel import (
    Ask,
    AskIdle,
    Channel,
    Drain,
    Finish,
    Finished,
    Idle,
    Message,
    Report,
    Serve,
    Serving,
    pairs,
)

# A new interpreter instead of a fork: the parent has threads and a running loop, and a child
# shall not hold what only the parent needs.  `-P` and the folder of this very package: with
# the working directory on its path, a child could import another package of the same name.
_ROOT: Final = Path(proxy.__file__).parents[1]
_CODE: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); import proxy; del sys.path[0]; "
    "from proxy.workers.worker import main; sys.exit(main(*map(int, sys.argv[2:])))"
)

# What ends or reloads the parent reaches the whole process group of a terminal, or the whole
# unit of a service manager: a worker listens to its parent alone.
PARENTS_SIGNALS: Final = (*ENDS, *RELOADS, *SWITCHES)


T = TypeVar("T")


def _ignore() -> None:
    pass


class WorkerProcess:
    """One process, from `spawn` until `run` returns."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.pid = process.pid
        self.serves = asyncio.Event()
        """Set once it serves."""
        self.cut = 0
        """Exchanges that it cut in the end."""
        self.config: Config | None = None
        """What it serves by, with the URLs of services as far as it knows them."""
        self.numbers: Numbers | None = None
        """The last that it reported."""
        self.on_serving: Callable[[], None] = _ignore
        """Called when it serves for the first time."""
        self._process = process
        self._channel = channel
        self._ended = asyncio.Event()
        self._serving: deque[asyncio.Future[str]] = deque()
        self._idle: deque[asyncio.Future[bool]] = deque()
        self._report: asyncio.Future[None] | None = None

    @classmethod
    async def spawn(cls, turn: asyncio.Lock) -> WorkerProcess:
        """Start a process; it waits for its first `serve`.

        `turn` is held meanwhile, since starting changes what this process does with signals.
        Raises OSError where there is no process or descriptor to be had.
        """
        mine, its = pairs()
        channel = Channel(*mine)
        try:
            async with turn:
                process = await _start([sock.fileno() for sock in its])
            await channel.open()
        except BaseException:
            channel.close()
            raise
        finally:
            for sock in its:
                sock.close()
        return cls(process, channel)

    def serve(self, config: Config, sockets: Mapping[Address, Sockets]) -> asyncio.Future[str]:
        """Have it serve by `config`; `sockets` are those that it does not have yet.

        The future's result is why that failed, or empty; also for a worker that has ended, whose
        successor begins with what is then in force.
        """
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self._ended.is_set():
            answer.set_result("")
            return answer
        self._serving.append(answer)
        self._send(Serve(config, tuple(sockets)), sockets)
        return answer

    async def ask(self, seconds: float) -> None:
        """Bring `numbers` up to date; they stay as they are if it takes longer than `seconds`."""
        if self._ended.is_set() or not self.serves.is_set():
            return
        if self._report is None:
            self._report = asyncio.get_running_loop().create_future()
            self._send(Ask())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # Several may ask at once, and one who gives up leaves the others waiting.
                await asyncio.shield(self._report)

    def drain(self) -> None:
        """Have it drain."""
        self._send(Drain())

    async def idle(self) -> bool:
        """Wait until nothing is in flight, or it has ended; return whether that was so at once."""
        if self._ended.is_set():
            return True
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._idle.append(answer)
        self._send(AskIdle())
        return await answer

    def finish(self, seconds: float) -> None:
        """Have it end within so many seconds."""
        self._send(Finish(seconds))

    def kill(self) -> None:
        """End it at once."""
        if not self._ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until the process has ended."""
        await self._ended.wait()

    async def run(self) -> int:
        """Handle its messages until it ends; return its exit code, negative for a signal."""
        try:
            while (message := await self._channel.receive()) is not None:
                self._take(message)
            return await self._process.wait()
        finally:
            self._end()

    def _take(self, message: Message) -> None:
        match message:
            case Serving(config, failure):
                self.config = config
                self._serves()
                _answer(self._serving, result=failure)
            case Report(numbers, config):
                self.config = config
                self.numbers = load(numbers)
                self._reported()
            case Idle(at_once):
                _answer(self._idle, result=at_once)
            case Finished(cut):
                self.cut = cut
            case _:
                raise AssertionError(f"a worker does not say {message!r}")

    def _serves(self) -> None:
        if not self.serves.is_set():
            self.serves.set()
            self.on_serving()

    def _send(self, message: Message, sockets: Mapping[Address, Sockets] | None = None) -> None:
        if self._ended.is_set():
            return
        try:
            self._channel.send(message, sockets)
        except OSError:
            # It does not read any more: another one has to take its place.
            self.kill()

    def _reported(self) -> None:
        report, self._report = self._report, None
        if report is not None:
            report.set_result(None)

    def _end(self) -> None:
        """Resolve every request to a process that has ended."""
        self._ended.set()
        self._channel.close()
        self._reported()
        while self._serving:
            _answer(self._serving, result="")
        while self._idle:
            _answer(self._idle, result=True)


def _answer(waiting: deque[asyncio.Future[T]], *, result: T) -> None:
    """Resolve the oldest request, unless it was cancelled."""
    if not (future := waiting.popleft()).done():
        future.set_result(result)


async def _start(descriptors: list[int]) -> asyncio.subprocess.Process:
    """Start an interpreter that begins with the parent's signals blocked.

    It inherits the mask; unblocked, one that comes while it starts would end it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-c", _CODE, str(_ROOT), *map(str, descriptors)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=descriptors,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
