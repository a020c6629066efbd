"""A caller that means no harm: so many calls a second, and how long each took.

    python -m tests.floods.caller PORT PATH

It calls until its stdin ends, and answers each line there with a line of JSON about the calls since
the last one.  Calls are begun by the clock: one that waits for the one before it on its connection
has waited since it should have begun.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field

RATE = 200.0
"""Calls a second, of all connections together."""
CONNECTIONS = 8
PATIENCE = 20.0
"""Seconds after which a call has failed."""


@dataclass
class Seen:
    """What calls came to."""

    milliseconds: list[float] = field(default_factory=list)
    """Of those that were answered with 200."""
    failures: list[str] = field(default_factory=list)


def p99(milliseconds: list[float]) -> float:
    """Return the time within which 99 of 100 were answered."""
    ordered = sorted(milliseconds)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else float("nan")


class Caller:
    """Calls on connections that it keeps."""

    def __init__(self, port: int, path: str, rate: float = RATE) -> None:
        self._port = port
        self._ask = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._rate = rate
        self._tasks: list[asyncio.Task[None]] = []
        self.seen = Seen()
        self._wanted = math.inf
        self._reached = asyncio.Event()

    def start(self) -> None:
        """Begin to call."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._run(number)) for number in range(CONNECTIONS)]

    async def stop(self) -> None:
        """Call no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answered(self, number: int) -> None:
        """Wait until so many calls have ended since they were looked at."""
        self._wanted = number
        if self._ended < number:
            await self._reached.wait()

    @property
    def _ended(self) -> int:
        return len(self.seen.milliseconds) + len(self.seen.failures)

    def take(self) -> Seen:
        """Return what has been seen since the last time."""
        seen, self.seen = self.seen, Seen()
        return seen

    async def _run(self, number: int) -> None:
        each = CONNECTIONS / self._rate
        due = time.monotonic() + each * number / CONNECTIONS
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                due += each
                if (early := due - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                    due = time.monotonic()
                try:
                    async with asyncio.timeout(PATIENCE):
                        if streams is None:
                            streams = await asyncio.open_connection("127.0.0.1", self._port)
                        await self._call(*streams)
                except (OSError, EOFError, ValueError) as error:
                    self.seen.failures.append(repr(error))
                    if streams is not None:
                        streams[1].close()
                    streams = None
                else:
                    self.seen.milliseconds.append((time.monotonic() - due) * 1000)
                if self._ended >= self._wanted:
                    self._reached.set()
        finally:
            if streams is not None:
                streams[1].transport.abort()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._ask)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200 "):
            raise ValueError(head.partition(b"\r\n")[0].decode())
        size = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(size))


async def main(port: int, path: str) -> None:
    """Call; see the module."""
    caller = Caller(port, path)
    caller.start()
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(caller.take())), flush=True)
    await caller.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
