"""A relay between two parties that does to each connection what a seed says.

What becomes of a connection (`Plan`) depends on the seed, on the relay's name and on which
connection it is, and on nothing else: a run with the same seed has the same plans, in the same
order.  Bytes are what is counted, so that a plan may end a connection within a TLS handshake, a
record, a head, a chunk or a frame.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.emulator.faults import reset

Address = tuple[str, int] | Path
"""Host and port, or the path of a Unix socket."""

SEGMENT = 64 * 1024

NONE = "none"

CUTS = ("reset", "fin", "half-close", "stall")
"""After so many bytes: RST to both; FIN to both; FIN to one; silence, then RST."""

DELAYS = ("pause", "drip", "delay")
"""After so many bytes: nothing for a while; single bytes; each segment late.  All of it arrives."""

DEAF = ("mute", "reset at once")
"""Accepted and never answered; accepted and reset."""

DOWN = "down"
"""Now and then nobody listens."""

CORRUPT = "corrupt"
"""One bit is another one: only where something checks it."""

PLAIN = (*CUTS, *DELAYS, *DEAF, DOWN)
TLS = (*PLAIN, CORRUPT)


@dataclass(frozen=True)
class Plan:
    """What becomes of one connection."""

    fault: str
    towards_target: bool
    """Which direction's bytes are counted, and meet the fault."""
    after: int
    """Bytes, or segments, that pass before."""
    in_segments: bool
    """Short messages are as likely as long ones to meet it then, and it comes before any byte."""
    seconds: float
    """How long silence lasts."""
    at_most: int
    """Bytes after which the connection ends in any case, so that there are more of them."""

    @classmethod
    def of(cls, choice: random.Random, faults: Sequence[str]) -> Plan:
        """Choose: a quarter of all connections are left alone, half of the faults come early."""
        fault = NONE if choice.random() < 0.25 else choice.choice(faults)
        early = choice.random() < 0.5
        after = choice.randrange(6000) if early else int(10 ** choice.uniform(3.5, 5.7))
        in_segments = choice.random() < 0.5
        return cls(
            fault,
            towards_target=choice.random() < 0.5,
            after=choice.randrange(50) if in_segments else after,
            in_segments=in_segments,
            seconds=choice.uniform(0.1, 4.0),
            at_most=int(10 ** choice.uniform(4.0, 5.8)),
        )

    def place(self, size: int, passed: int, segments: int) -> int | None:
        """Return where in the next segment of `size` bytes the fault is; None for not in it."""
        if self.in_segments:
            return 0 if segments >= self.after else None
        return max(0, self.after - passed) if passed + size > self.after else None


UNTOUCHED = Plan(
    NONE, towards_target=True, after=0, in_segments=False, seconds=0.0, at_most=sys.maxsize
)


class _End(Exception):
    """The connection ends, visibly broken if `is_reset`."""

    def __init__(self, *, is_reset: bool) -> None:
        super().__init__()
        self.is_reset = is_reset


class Relay:
    """Passes bytes on to `target`, or to one of `impostors`; faithfully as long as it is calm.

    `faults` are words of this module, or keys of `impostors`.  A context listens on a port of its
    own on `hosts`, or on the Unix socket `at`.
    """

    def __init__(
        self,
        name: str,
        target: Address,
        faults: Sequence[str],
        *,
        seed: int,
        impostors: Mapping[str, Address] | None = None,
        hosts: Sequence[str] = ("127.0.0.1",),
        at: Path | None = None,
    ) -> None:
        self.name = name
        self.met: Counter[str] = Counter()
        """Faults that happened."""
        self.connections = 0
        self.port = 0
        self._is_calm = asyncio.Event()
        self._is_calm.set()
        self._target = target
        self._impostors = impostors or {}
        self._in_bytes = {*CUTS, *DELAYS, CORRUPT}
        self._faults = [*(each for each in faults if each != DOWN), *self._impostors]
        self._seed = seed
        self._hosts = hosts
        self.at = at
        self._down_at_times = DOWN in faults
        self._planned = 0
        self._servers: list[asyncio.Server] = []
        self._kept: list[socket.socket] = []
        """They only hold the port, which somebody else might take while nobody listens."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.Task[None]] = set()
        """Those of connections."""
        self._failures: list[Exception] = []

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._hosts[0], self.port

    def be(self, *, calm: bool) -> None:
        """Do from now on what is planned, or nothing; connections from calmer days are reset."""
        if calm:
            self._is_calm.set()
            return
        self._is_calm.clear()
        for task in self._open:
            task.cancel()

    async def __aenter__(self) -> Self:
        await self._listen()
        if self._down_at_times:
            self._own(asyncio.get_running_loop().create_task(self._come_and_go()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        for sock in self._kept:
            sock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failures and error is None:
            raise ExceptionGroup(f"the relay {self.name} failed", self._failures)

    # --- listening

    async def _listen(self) -> None:
        if self.at is not None:
            self.at.unlink(missing_ok=True)
            self._servers = [await asyncio.start_unix_server(self._accepted, self.at)]
            return
        for host in self._hosts:
            if len(self._kept) < len(self._hosts):
                self._kept.append(_bound(host, self.port))
                self.port = self._kept[0].getsockname()[1]
            server = await asyncio.start_server(self._accepted, host, self.port, reuse_port=True)
            self._servers.append(server)

    def _close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers = []

    async def _come_and_go(self) -> None:
        """Close the port for a moment, again and again; connections that are open stay."""
        choice = random.Random(f"{self._seed}/{self.name}/down")  # noqa: S311 (repeatable)
        while True:
            await asyncio.sleep(choice.uniform(0.5, 2.5))
            if self._is_calm.is_set():
                continue
            self._close()
            self.met[DOWN] += 1
            await asyncio.sleep(choice.uniform(0.05, 0.5))
            await self._listen()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._own(task)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one connection

    def _plan(self) -> Plan:
        self.connections += 1
        if self._is_calm.is_set():
            return UNTOUCHED
        self._planned += 1
        choice = random.Random(f"{self._seed}/{self.name}/{self._planned}")  # noqa: S311 (repeatable)
        return Plan.of(choice, self._faults)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plan = self._plan()
        ends = [writer]
        is_reset = True
        try:
            await self._be_deaf(plan)
            target = self._impostors.get(plan.fault, self._target)
            self.met[plan.fault] += plan.fault in self._impostors
            far_reader, far_writer = await _connect(target)
            ends.append(far_writer)
            await _all_or_none(
                self._pump(reader, far_writer, plan, meets=plan.towards_target),
                self._pump(far_reader, writer, plan, meets=not plan.towards_target),
            )
            is_reset = False
        except _End as how:
            is_reset = how.is_reset
        except OSError:
            pass  # Nobody there, or a reset, which is passed on.
        except Exception as error:  # noqa: BLE001 (raised again when the relay is left)
            self._failures.append(error)
        finally:
            for end in ends:
                with suppress(OSError):  # It may have ended by itself.
                    _end(end, is_reset=is_reset)

    async def _be_deaf(self, plan: Plan) -> None:
        if plan.fault not in DEAF:
            return
        self.met[plan.fault] += 1
        if plan.fault == "mute":
            await self._for(plan.seconds)
        raise _End(is_reset=True)

    async def _for(self, seconds: float) -> None:
        """Let time pass; no longer than until all is calm again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_calm.wait()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, plan: Plan, *, meets: bool
    ) -> None:
        """Relay one direction, which meets the fault or not; pass its end on as what it is."""
        passed = segments = 0
        meets = meets and plan.fault in self._in_bytes
        while data := await reader.read(SEGMENT):
            place = plan.place(len(data), passed, segments) if meets else None
            if place is not None:
                data = await self._spoil(data, place, writer, plan)
                meets = plan.fault == "delay"
            passed += len(data)
            segments += 1
            writer.write(data)
            await writer.drain()
            if passed > plan.at_most:
                self.met["fin"] += 1
                raise _End(is_reset=False)
        with suppress(OSError, NotImplementedError):
            writer.write_eof()

    async def _spoil(self, data: bytes, at: int, writer: asyncio.StreamWriter, plan: Plan) -> bytes:
        """Do what the plan says at a place in `data`; return what is still to be sent."""
        self.met[plan.fault] += 1
        if plan.fault == CORRUPT:
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        writer.write(data[:at])
        await writer.drain()
        if plan.fault in CUTS:
            await self._cut(writer, plan)
        elif plan.fault == "drip":
            return await self._drip(data[at:], writer, plan.seconds)
        else:
            await self._for(plan.seconds if plan.fault == "pause" else plan.seconds / 100)
        return data[at:]

    async def _drip(self, data: bytes, writer: asyncio.StreamWriter, seconds: float) -> bytes:
        """Send single bytes for a while; return the rest.

        By the clock: a turn of a busy loop takes so long that a few hundred of them are half a
        minute.
        """
        end, place = time.monotonic() + seconds, 0
        while place < min(300, len(data)) and time.monotonic() < end and not self._is_calm.is_set():
            writer.write(data[place : place + 1])
            place += 1
            await asyncio.sleep(0.001)
        return data[place:]

    async def _cut(self, writer: asyncio.StreamWriter, plan: Plan) -> None:
        if plan.fault == "half-close":
            writer.write_eof()
        if plan.fault in ("half-close", "stall"):
            await self._for(plan.seconds)
        raise _End(is_reset=plan.fault != "fin")


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that has a port beside those that listen there."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


def _end(writer: asyncio.StreamWriter, *, is_reset: bool) -> None:
    if is_reset:
        reset(writer.transport)
    else:
        writer.close()


async def _all_or_none(*pumps: Coroutine[None, None, None]) -> None:
    """Run both to their end; the first exception of one ends the other and is raised."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connect(target: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target, Path):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection(*target)
