"""Faults on purpose, at random, all at once; what must hold whatever happens.

1. Every exchange that began has ended, and the gauges are back at 0.
2. Nothing reaches the service without a valid token for it.
3. No token is in the log or in an error of the proxy's own.
4. What callers get is a prefix of what was sent, and all of it where the framing says so.
5. Afterwards everything works.

A few seconds long; `AUTH_PROXY_TEST_SECONDS=60` makes it a minute, `AUTH_PROXY_TEST_SEED`
repeats a run.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web

from proxy.emulator.faults import Answer, Exchange, Fault, Minted, Reset
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.chaos import invariants
from tests.chaos.app import App
from tests.chaos.traffic import TROUBLE, WELL_BEHAVED, Traffic
from tests.fakes import proc
from tests.fakes.lifelines import calling, living
from tests.fakes.program import Program
from tests.fakes.proxies import config_for

SECONDS = float(os.environ.get("AUTH_PROXY_TEST_SECONDS", "6"))
SEED = int(os.environ.get("AUTH_PROXY_TEST_SEED", random.randrange(10_000)))  # noqa: S311 (printed, to repeat)

MEGABYTE = 1_000_000

pytestmark = pytest.mark.timeout(90 + 4 * SECONDS)

TOKEN_FAULTS: tuple[Fault, ...] = (
    Answer(status=500),
    Answer(status=429, headers={"Retry-After": "1"}),
    Answer(status=200, body="<html>not a token</html>"),
    Minted(lifetime=-60),
    Minted(lifetime=10),
    Minted(claims={"aud": "https://another.example"}),
    Reset(),
    Reset(sent=b"HTTP/1.1 200 OK\r\nContent-Le"),
    Answer(status=200, headers={"Metadata-Flavor": "Portal"}),
)

_SERVES = re.compile(r"worker \d+ serves")


class Moody:
    """A metadata server whose tokens do not last, and which often has none.

    A token is used until 30 s before it expires: these for a second and a half.
    """

    def __init__(self, choice: random.Random) -> None:
        self._choice = choice

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Answer well three times out of four."""
        if self._choice.random() < 0.75:
            return exchange.mint(31.5, {})
        return await self._choice.choice(TOKEN_FAULTS).respond(exchange)


class World:
    """A proxy between callers and a service, and everything that can go wrong with it."""

    def __init__(
        self, app: App, service: ProtectedService, metadata: MetadataServer, program: Program
    ) -> None:
        self.app = app
        self.service = service
        self.metadata = metadata
        self.program = program
        self.killed = 0
        self.crew = len(proc.children(program.pid))
        """How many workers there are; none where one process serves."""
        self.choice = random.Random(SEED)  # noqa: S311 (repeatable)

    async def reload(self) -> None:
        document = json.loads(self.program.config_file.read_text())
        route = document["routes"]["default"]
        route["limits"] = {"connections": self.choice.choice([4, 20, 100])}
        route["retries"] = {"attempts": self.choice.choice([1, 3]), "backoff": "10ms"}
        self.program.config_file.write_text(json.dumps(document))
        self.program.signal(signal.SIGHUP)

    async def bad_reload(self) -> None:
        good = self.program.config_file.read_text()
        before = _refused(self.program)
        self.program.config_file.write_text("routes: [")
        self.program.signal(signal.SIGHUP)
        await self.program.line(lambda _: _refused(self.program) > before)
        self.program.config_file.write_text(good)

    async def restart_service(self) -> None:
        """Every connection to it breaks, and for a moment there is nobody."""
        await self.service.stop()
        await self.service.start()

    async def kill_worker(self) -> None:
        """End one of the workers if all of them serve.

        Whoever dies soon after the start, again and again, is given time before the next
        start: if all of them did so at once, nobody would be served for many seconds.
        """
        workers = proc.children(self.program.pid)
        served = sum(bool(_SERVES.search(line)) for line in self.program.lines)
        if workers and len(workers) == self.crew and served >= self.crew + self.killed:
            self.killed += 1
            os.kill(self.choice.choice(workers), signal.SIGKILL)

    async def few_descriptors(self) -> None:
        """No further connection can be accepted or dialled for a moment."""
        for pid in [self.program.pid, *proc.children(self.program.pid)]:
            with _few_descriptors(pid):
                await asyncio.sleep(0.05)

    @property
    def faults(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.reload,
            self.bad_reload,
            self.restart_service,
            self.kill_worker,
            self.few_descriptors,
        ]


@asynccontextmanager
async def world(metadata: MetadataServer, **top: Any) -> AsyncIterator[World]:
    """Everything is up inside; afterwards the proxy has ended with 0."""
    async with App() as app, ProtectedService(metadata.keys, app=app.address) as service:
        timeouts = {"connect": "2s", "response": "1s", "idle": "2s"}
        with TemporaryDirectory() as folder:
            # The service's own copy goes with it when it is stopped.
            roots = Path(folder) / "roots.pem"
            roots.write_bytes(Path(str(service.ca_file)).read_bytes())
            route = {"timeouts": timeouts, "ca_file": str(roots)}
            program = Program(config_for(service, route=route, **top), env=metadata.environ)
            async with living(program):
                yield World(app, service, metadata, program)
        assert invariants.wrongly_admitted([service]) == []
        assert app.bad_uploads == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_whatever_goes_wrong_these_hold(metadata: MetadataServer, workers: int) -> None:
    print(f"AUTH_PROXY_TEST_SEED={SEED}")
    metadata.inject(Moody(random.Random(SEED)), times=math.inf)  # noqa: S311 (repeatable)
    async with world(metadata, workers=workers, drain="2s") as it:
        traffic = Traffic(it.program.address, TROUBLE, seed=SEED)
        traffic.start()
        async with asyncio.timeout(SECONDS + 60):
            end = asyncio.get_running_loop().time() + SECONDS
            while asyncio.get_running_loop().time() < end:
                await it.choice.choice(it.faults)()
                await asyncio.sleep(it.choice.uniform(0.05, 0.3))
        it.metadata.clear_faults()
        await traffic.stop()

        assert traffic.problems == []
        assert invariants.inexplicable(traffic.outcomes) == []
        assert traffic.good > 5 * SECONDS
        assert await invariants.still_busy(it.program) == []
        if not it.killed:
            assert (
                invariants.miscounted(await invariants.metrics(it.program), traffic.outcomes) == []
            )
        await _assert_all_is_well(it)
        await it.program.terminate()


async def test_a_signal_at_any_moment_of_the_faults_ends_it_in_time(
    metadata: MetadataServer,
) -> None:
    print(f"AUTH_PROXY_TEST_SEED={SEED}")
    for moment in range(3):
        metadata.inject(Moody(random.Random(SEED)), times=math.inf)  # noqa: S311 (repeatable)
        async with world(metadata, drain="500ms") as it:
            it.choice = random.Random(SEED + moment)  # noqa: S311 (repeatable)
            traffic = Traffic(it.program.address, TROUBLE, seed=SEED + moment)
            traffic.start()
            for _ in range(it.choice.randrange(1, 4)):
                await it.choice.choice([it.bad_reload, it.reload])()
                await asyncio.sleep(it.choice.uniform(0, 0.3))
            it.program.signal(signal.SIGTERM)
            assert await it.program.exit_code() == 0
            await traffic.stop()
            metadata.clear_faults()

            assert traffic.problems == []


async def test_callers_that_do_not_read_cost_little_memory(metadata: MetadataServer) -> None:
    slow, size = 20, 20 * MEGABYTE
    async with world(metadata) as it, AsyncExitStack() as stack:
        await _assert_all_is_well(it)
        before = it.program.rss_bytes()
        it.program.forget_peak()
        for _ in range(slow):
            caller = await stack.enter_async_context(calling(it.program))
            caller.send(f"GET /bytes/1/{size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await caller.until(lambda caller=caller: caller.received, "the first bytes")  # type: ignore[misc]  # a lambda's default
            caller.pause()
        # While they wait, everybody else is served.
        await _assert_all_is_well(it)
        grown = it.program.peak_bytes() - before
        await stack.aclose()

        # What TLS, two kernels' buffers aside, and the proxy hold of each is well below one MB.
        assert grown < slow * MEGABYTE
        assert await invariants.still_busy(it.program) == []
        await it.program.terminate()


async def test_it_recovers_from_a_lack_of_descriptors(metadata: MetadataServer) -> None:
    async with world(metadata) as it:
        await _assert_all_is_well(it)
        with _few_descriptors(it.program.pid):
            waiting = [socket.create_connection(it.program.address, timeout=5) for _ in range(3)]
            for sock in waiting:
                head = b"GET /bytes/0/10 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                sock.sendall(head + b"\r\n")
        for sock in waiting:
            # libuv turns away whom it cannot accept, a few are told why; nobody waits in vain.
            answer = await asyncio.to_thread(_read_all, sock)
            is_refused = answer.startswith(b"HTTP/1.1 503 ") and (
                b"\r\nx-auth-proxy-error: overloaded\r\n" in answer.lower()
            )
            assert answer == b"" or answer.startswith(b"HTTP/1.1 200 ") or is_refused, answer

        await _assert_all_is_well(it)
        assert await invariants.still_busy(it.program) == []
        await it.program.terminate()


# --- looking


@contextmanager
def _few_descriptors(pid: int) -> Iterator[None]:
    """Leave a process no descriptor beyond those that it has."""
    try:
        highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    except (OSError, ValueError):
        yield  # It has just ended.
        return
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _read_all(sock: socket.socket) -> bytes:
    with sock:
        data = b""
        while more := sock.recv(65536):
            data += more
        return data


async def _assert_all_is_well(it: World) -> None:
    """Call until a backoff that a fault has left is over, then without a single failure."""
    async with asyncio.timeout(40):
        while not await _works(it, calls=1):
            pass
    assert await _works(it, calls=50)


async def _works(it: World, *, calls: int) -> bool:
    traffic = Traffic(it.program.address, WELL_BEHAVED, callers=2)
    traffic.start()
    async with asyncio.timeout(20):
        while sum(traffic.outcomes.values()) < calls:  # noqa: ASYNC110 (callers tell no event)
            await asyncio.sleep(0)
    await traffic.stop()
    assert traffic.problems == []
    return not traffic.bad


def _refused(program: Program) -> int:
    return sum("the configuration was not taken" in line for line in program.lines)
