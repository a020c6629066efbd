"""Everything that callers do, all at once and for long, and what the proxy uses meanwhile.

Regions fail, tokens are replaced and the configuration is read again while they call.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.records import Records
from proxy.emulator.service import ProtectedService
from proxy.emulator.serving import Serving
from tests.chaos.app import App
from tests.chaos.invariants import still_busy
from tests.chaos.traffic import TROUBLE, WELL_BEHAVED
from tests.fakes import tls
from tests.fakes.grpc_service import GrpcService
from tests.fakes.program import Program
from tests.soak.callers import (
    GrpcCallers,
    Ledger,
    LiveCallers,
    Noted,
    live,
    open_channel,
    open_session,
)
from tests.soak.judge import KIB, Sample, Verdict, judge

TOKEN_LIFETIME = 75.0
"""Seconds: half a minute of it is spared, and half of the rest is waited for another one."""
TOKEN_CHANGES = 60.0
"""Seconds before the end of a token from which on another one is to be had."""

RELOAD_EVERY = 15.0
FAIL_EVERY = 20.0
DOWN_FOR = 2.0
"""Seconds that a region is away."""
GRACE = 5.0
"""Seconds after which nothing of that may be felt any more."""
KEPT_REQUESTS = 2000
"""That each service remembers; they are looked at once a second."""

TAKEN = "SIGHUP: the configuration was taken"

# Of those who are in trouble on purpose: what the proxy makes of it.
TROUBLED = frozenset(
    {"left", "cut", "error of the front", "error request_malformed", "error upstream_reset",
     "error upstream_timed_out", "error upstream_malformed"}
)  # fmt: skip
# Of those who call a service whose first region goes away.
DISTURBED = frozenset({"cut", "error upstream_reset", "error upstream_connect_failed"})
MIX = {name: weight for name, weight in TROUBLE.items() if name not in WELL_BEHAVED}


@dataclass(frozen=True, slots=True)
class Load:
    """How much is called."""

    callers: int = 4
    """Of each kind."""
    pause: float = 0.02
    """Seconds between two calls of one caller."""


@dataclass
class Outcome:
    """What a run found."""

    seconds: float
    samples: list[Sample]
    outcomes: dict[str, int]
    reloads: int
    failovers: int
    tokens: int
    """Different ones, of the service that has been asked for most."""
    verdict: Verdict
    problems: list[str] = field(default_factory=list)


class World:
    """A proxy between all callers and all services."""

    def __init__(self, folder: Path, metadata: MetadataServer) -> None:
        self._folder = folder
        self.metadata = metadata
        self.app = App()
        self.live = Serving(live)
        self.regions: list[ProtectedService] = []
        self.others: list[ProtectedService] = []
        """The one in trouble, and the one with streams."""
        self.grpc = GrpcService(_credentials(), keys=metadata.keys)
        self.program: Program

    async def open(self, stack: AsyncExitStack) -> None:
        """Start everything; `stack` ends it."""
        await stack.enter_async_context(self.app)
        await self.live.start()
        stack.push_async_callback(self.live.stop)
        for number in range(4):
            port = self.live.port if number == 3 else self.app.address[1]
            service = ProtectedService(self.metadata.keys, app=("127.0.0.1", port))
            service.requests = Records(KEPT_REQUESTS)
            await stack.enter_async_context(service)
            # What it writes goes with it when it is stopped.
            shutil.copy(str(service.ca_file), self._folder / f"{number}.pem")
            (self.regions if number < 2 else self.others).append(service)
        stack.enter_context(self.grpc)
        self.grpc.audience = "https://grpc.example"
        roots = [self._folder / f"{number}.pem" for number in range(4)]
        roots.append(tls.ca_file(self._folder))
        (self._folder / "roots.pem").write_bytes(b"".join(one.read_bytes() for one in roots))
        self.program = Program(self.configuration(0), env=self.metadata.environ)
        await stack.enter_async_context(self.program)

    def configuration(self, number: int) -> str:
        """Return one of three configurations that serve the same."""
        trouble, stream = self.others
        timeouts = {"response": "1s", "idle": "20s"}
        routes: dict[str, dict[str, Any]] = {
            "default": {"upstream": [each.url for each in self.regions]},
            "trouble": {"listen": "127.0.0.2:0", "upstream": trouble.url, "timeouts": timeouts},
            "live": {"path": "/live", "upstream": stream.url},
            "grpc": {
                "path": "/interop.Test",
                "upstream": self.grpc.url,
                "auth": "id_token",
                "audience": self.grpc.audience,
            },
        }
        defaults: dict[str, Any] = {"ca_file": str(self._folder / "roots.pem")}
        if number % 3 == 1:
            defaults["limits"] = {"connections": 64}
        if number % 3 == 2:
            routes["small"] = {**routes["default"], "path": "/bytes"}
        listeners = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        return json.dumps({**listeners, "defaults": defaults, "routes": routes, "drain": "3s"})

    def address(self, host: str) -> tuple[str, int]:
        """Return the listener on an address of the loopback."""
        (found,) = [each for each in self.program.listeners if each.startswith(f"{host}:")]
        return host, int(found.rpartition(":")[2])


class Soak:
    """One run."""

    def __init__(self, world: World, load: Load) -> None:
        self._world = world
        self._load = load
        self.ledger = Ledger()
        self.samples: list[Sample] = []
        self.reloads = 0
        self.failovers: list[tuple[float, float]] = []
        """From and until when (steady clock) one could be felt."""
        self._began = time.monotonic()

    async def run(self, seconds: float) -> None:
        """Call for so long, and wait until nothing is under way; what was wrong is noted."""
        end = self._began + seconds
        async with AsyncExitStack() as stack:
            callers = await self._callers(stack)
            for each in callers:
                each.start()
            async with asyncio.TaskGroup() as group:
                _ = group.create_task(self._watch(end, max(1.0, seconds / 3600)))
                _ = group.create_task(_every(RELOAD_EVERY, end, self._reload))
                _ = group.create_task(_every(FAIL_EVERY, end - DOWN_FOR - GRACE, self._fail))
            for each in callers:
                await each.stop()
                if isinstance(each, Noted):
                    self.ledger.problems += each.problems
        await self._end()

    async def _callers(self, stack: AsyncExitStack) -> list[Noted | LiveCallers | GrpcCallers]:
        world, load, ledger = self._world, self._load, self.ledger
        number, pause = load.callers, load.pause
        channel = await stack.enter_async_context(open_channel(world.program.listeners[0]))
        session = await stack.enter_async_context(open_session())
        more: dict[str, Any] = {"callers": number, "pause": pause}
        well = Noted(
            ledger, "HTTP/1.1", world.address("127.0.0.1"), WELL_BEHAVED,
            disturbed=DISTURBED, **more,
        )  # fmt: skip
        trouble = Noted(
            ledger, "trouble", world.address("127.0.0.2"), MIX,
            expected=TROUBLED, seed=1, **more,
        )  # fmt: skip
        return [
            well,
            trouble,
            LiveCallers(ledger, session, world.program.url, number, pause),
            GrpcCallers(ledger, channel, number, pause),
        ]

    # --- what happens meanwhile

    async def _watch(self, end: float, every: float) -> None:
        """Take samples; look for requests without a token, and for faults in the log."""
        pid = self._world.program.pid
        while (now := time.monotonic()) < end:
            self.samples.append(
                Sample(
                    round(now - self._began, 1),
                    self._world.program.rss_bytes() // KIB,
                    len(list(Path(f"/proc/{pid}/fd").iterdir())),
                    self._world.program.cpu_seconds(),
                    self.ledger.calls,
                )
            )
            self._look()
            await asyncio.sleep(every)

    def _look(self) -> None:
        world = self._world
        for service in (*world.regions, *world.others):
            for seen in service.requests:
                if seen.claims is None:
                    self.ledger.problem(f"{seen.refusal}: {seen.method} {seen.target}")
        # The services' memory is this process's, but what they remember need not grow either.
        del world.grpc.seen[:-KEPT_REQUESTS]
        for line in world.program.lines:
            if "Traceback" in line or '"severity":"CRITICAL"' in line:
                self.ledger.problem(f"the log says: {line[:500]}")

    async def _reload(self) -> None:
        """Have the configuration read again, another one each time."""
        program = self._world.program
        self._look()
        program.lines.clear()
        self.reloads += 1
        program.config_file.write_text(self._world.configuration(self.reloads))
        program.signal(signal.SIGHUP)
        await program.line(lambda line: TAKEN in line)

    async def _fail(self) -> None:
        """Let the first region go away with all its connections, and come back."""
        first, began = self._world.regions[0], time.monotonic()
        await first.stop()
        await asyncio.sleep(DOWN_FOR)
        await first.start()
        # Its certificate is the same, from the same authority.
        self.failovers.append((began, time.monotonic() + GRACE))

    # --- the end

    async def _end(self) -> None:
        self._look()
        for what, at in self.ledger.lost:
            if not any(began <= at <= until for began, until in self.failovers):
                self.ledger.problem(f"{what}, and no region was lost")
        if self._world.app.bad_uploads:
            self.ledger.problem(f"{self._world.app.bad_uploads} uploads came that were not sent")
        self.ledger.problems += await still_busy(self._world.program)
        pid = self._world.program.pid
        left = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        usual = sorted(each.descriptors for each in self.samples)[len(self.samples) // 2]
        if left > usual:
            self.ledger.problem(f"{left} descriptors are left without callers, {usual} with them")


async def soak(seconds: float, load: Load | None = None) -> Outcome:
    """Run for so long; raises only where the run itself could not be made."""
    async with _world() as world:
        run = Soak(world, load or Load())
        await run.run(seconds)
        verdict = judge(run.samples)
        return Outcome(
            seconds,
            run.samples,
            dict(sorted(run.ledger.outcomes.items())),
            run.reloads,
            len(run.failovers),
            max(world.metadata.mint.minted.values()),
            verdict,
            [*verdict.problems, *run.ledger.problems],
        )


@asynccontextmanager
async def _world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        metadata = MetadataServer(lifetime=TOKEN_LIFETIME, remint_below=TOKEN_CHANGES)
        metadata.requests.limit = KEPT_REQUESTS
        await stack.enter_async_context(metadata)
        world = World(folder, metadata)
        await world.open(stack)
        yield world


async def _every(seconds: float, end: float, act: Callable[[], Any]) -> None:
    """Do something every so many seconds, until it would begin after the end (steady clock)."""
    while time.monotonic() + seconds < end:
        await asyncio.sleep(seconds)
        await act()


def _credentials() -> grpc.ServerCredentials:
    leaf = tls.authority().issue_cert(*tls.LOOPBACK)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])
