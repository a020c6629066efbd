"""Faults of the process and of what is around it: clocks, signals, memory, files, whoever reads.

Each fault is a coroutine that does harm to a running program for a while and mends it; `run` has
callers call meanwhile and returns what does not hold afterwards.  Clocks are those of libfaketime,
moved while the program is stopped, so that nobody waits for minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.chaos import invariants
from tests.chaos.app import App
from tests.chaos.traffic import WELL_BEHAVED, Traffic
from tests.fakes import proc
from tests.fakes.lifelines import living
from tests.fakes.program import Program
from tests.fakes.proxies import config_for

FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""libfaketime for programs with threads, None where it is not installed."""

MONOTONIC_TOO: Final = "FAKETIME_DONT_FAKE_MONOTONIC"

HOUR: Final = 3600.0


class Clock:
    """The time of the emulated world, which a run moves; and of a program, by a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.ahead = 0.0
        """Seconds by which the world is ahead of this machine."""
        self.show(0.0)

    def __call__(self) -> float:
        """Return the world's time, in seconds since the epoch."""
        return time.time() + self.ahead  # noqa: TID251 (what is moved)

    def show(self, ahead: float) -> None:
        """Have the program's clocks say so many seconds more than this machine's."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{ahead:+.0f}\n")
        beside.replace(self._file)


@dataclass
class World:
    """A program, what it calls, and chance."""

    program: Program
    metadata: MetadataServer
    clock: Clock
    choice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    """Faults, by kind."""

    @property
    def processes(self) -> list[int]:
        """The parent, and its workers if it has some."""
        return [self.program.pid, *proc.children(self.program.pid)]

    @property
    def servers(self) -> list[int]:
        """Those that serve callers."""
        return proc.children(self.program.pid) or [self.program.pid]

    def send(self, number: signal.Signals, *, to: Sequence[int]) -> None:
        """Send a signal to processes, as far as they are still there."""
        # What goes on after a stop is a part of that.
        self.done[number.name] += number is not signal.SIGCONT
        for pid in to:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


Fault = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and what callers may notice of it."""

    fault: Fault
    """Once; it is repeated until the run is over."""
    allowed: frozenset[str] = frozenset()
    """What calls may come to, beside good; nothing where no call may fail at all."""
    workers: Sequence[int] = (1, 2)
    top: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the configuration."""
    clock: str = ""
    """Which clocks are moved: ``wall``, ``both``, or none."""
    between_calls: bool = False
    """Whether it happens while nobody calls; else at any moment of many calls."""
    counts: bool = True
    """Whether each call is counted for its route: not where a process ends, or refuses callers
    before it knows what they want."""


# --- clocks


async def _stopped(world: World, pids: Sequence[int]) -> None:
    """Stop processes, and wait until they are."""
    world.send(signal.SIGSTOP, to=pids)
    async with asyncio.timeout(10):
        for pid in pids:
            state = Path(f"/proc/{pid}/stat")
            while state.read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 (the kernel's state)
                await asyncio.sleep(0.005)


async def freeze_for_hours(world: World) -> None:
    """Stop the program; when it goes on, minutes or hours have passed, and its token maybe."""
    pids = world.processes
    await _stopped(world, pids)
    try:
        world.clock.ahead += world.choice.choice([120.0, 15 * 60.0, HOUR, 3 * HOUR])
        world.clock.show(world.clock.ahead)
    finally:
        world.send(signal.SIGCONT, to=pids)


async def move_the_clock(world: World) -> None:
    """Set the program's wall clock alone: back by hours, or ahead while its token is good."""
    world.done["clock"] += 1
    world.clock.show(world.choice.choice([-24, -3, -1, -0.1, 0, 0.3]) * HOUR)
    await asyncio.sleep(world.choice.uniform(0.1, 0.4))


async def a_wrong_clock(world: World) -> None:
    """Set the program's wall clock beyond the end of every token, and right again."""
    world.done["clock"] += 1
    world.clock.show(2 * HOUR)
    await asyncio.sleep(world.choice.uniform(0.1, 0.4))
    world.clock.show(0.0)
    await asyncio.sleep(world.choice.uniform(0.1, 0.4))


# --- signals

_HARMLESS: Final = (
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGCHLD),
    *(signal.SIGWINCH, signal.SIGCONT, signal.SIGURG),
)


async def signals(world: World) -> None:
    """Send a signal that must not end anything, to one process or all."""
    pids = world.processes
    to = pids if world.choice.random() < 0.5 else [world.choice.choice(pids)]
    world.send(world.choice.choice(_HARMLESS), to=to)
    await asyncio.sleep(world.choice.uniform(0.0, 0.1))


async def stop_and_go(world: World) -> None:
    """Stop some of the processes for a moment."""
    pids = [pid for pid in world.processes if world.choice.random() < 0.7]
    await _stopped(world, pids)
    await asyncio.sleep(world.choice.uniform(0.0, 0.3))
    world.send(signal.SIGCONT, to=pids)
    await asyncio.sleep(world.choice.uniform(0.0, 0.2))


async def kill_a_worker(world: World) -> None:
    """End a worker as the kernel does where memory is over, once all of them serve."""
    crew = 2
    served = sum("worker " in line and " serves" in line for line in world.program.lines)
    if len(world.servers) == crew and served >= crew + world.done["SIGKILL"]:
        world.send(signal.SIGKILL, to=[world.choice.choice(world.servers)])
    await asyncio.sleep(world.choice.uniform(0.1, 0.3))


# --- memory and descriptors


def _limit(pid: int, what: int, soft: int | None) -> None:
    """Set a soft limit of a process, as far as it is still there; None for as high as may be."""
    with suppress(OSError, ValueError):
        hard = resource.prlimit(pid, what)[1]
        resource.prlimit(pid, what, (hard if soft is None else soft, hard))


async def no_memory(world: World) -> None:
    """Let a process that serves have next to no more memory than it has."""
    world.done["memory"] += 1
    pid = world.choice.choice(world.servers)
    with suppress(OSError, TypeError):
        status = Path(f"/proc/{pid}/status").read_text()
        has = int(re.findall(r"VmSize:\s+(\d+) kB", status)[0]) * 1024
        _limit(pid, resource.RLIMIT_AS, has + world.choice.choice([0, 64, 300, 1000]) * 1024)
    await asyncio.sleep(world.choice.uniform(0.2, 0.5))
    _limit(pid, resource.RLIMIT_AS, None)
    await asyncio.sleep(world.choice.uniform(0.1, 0.3))


async def no_descriptors(world: World) -> None:
    """Let a process that serves open next to no more files than it has."""
    world.done["descriptors"] += 1
    pid = world.choice.choice(world.servers)
    with suppress(OSError):
        highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
        _limit(pid, resource.RLIMIT_NOFILE, highest + 1 + world.choice.choice([0, 1, 5]))
    await asyncio.sleep(world.choice.uniform(0.05, 0.3))
    _limit(pid, resource.RLIMIT_NOFILE, None)
    await asyncio.sleep(world.choice.uniform(0.1, 0.3))


# --- the configuration's file


async def spoil_the_configuration(world: World) -> None:
    """Do something to the file, which is watched; then put it back, sometimes changed."""
    file, good = world.program.config_file, json.loads(world.program.config_file.read_text())
    how = world.choice.choice(sorted(_SPOILS))
    world.done[how] += 1
    _remove(file)
    _SPOILS[how](file)
    if world.choice.random() < 0.5:
        world.program.signal(signal.SIGHUP)
    await asyncio.sleep(world.choice.uniform(0.0, 1.5))
    good["routes"]["default"]["limits"] = {"connections": world.choice.choice([50, 100])}
    beside = file.with_name("beside")
    beside.write_text(json.dumps(good))
    _remove(file)
    beside.replace(file)
    world.program.signal(signal.SIGHUP)
    await asyncio.sleep(world.choice.uniform(0.0, 0.3))


def _remove(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


_SPOILS: Final[Mapping[str, Callable[[Path], object]]] = {
    "deleted": _remove,
    "empty": lambda file: file.write_text(""),
    "cut": lambda file: file.write_text('{"routes": {"default": {"upst'),
    "a directory": lambda file: file.mkdir(),
    "a link to itself": lambda file: file.symlink_to(file),
    "a pipe": os.mkfifo,
    "not text": lambda file: file.write_bytes(b"\xff\xfe\0" * 1000),
    "large": lambda file: file.write_text("# much\n" * 300_000),
    "without routes": lambda file: file.write_text("routes: {}"),
}


# --- the run

KINDS: Final[Mapping[str, Kind]] = {
    # What is under way when hours pass is over its time: tests/e2e/test_freeze.py has that.
    "freezes of hours": Kind(freeze_for_hours, clock="both", between_calls=True),
    "clock set back and ahead": Kind(move_the_clock, clock="wall"),
    "clock beyond every token": Kind(
        a_wrong_clock,
        allowed=frozenset({"error token_unavailable", "error token_timed_out"}),
        clock="wall",
    ),
    "signals": Kind(signals),
    "stopped for a moment": Kind(stop_and_go),
    "configuration spoilt": Kind(spoil_the_configuration, top={"watch": True}),
    "workers killed": Kind(
        kill_a_worker, allowed=invariants.ENDS_CALLS, workers=(2,), counts=False
    ),
    "no descriptors": Kind(
        no_descriptors,
        allowed=invariants.ENDS_CALLS | {"error overloaded", "error token_unavailable"},
        counts=False,
    ),
    "no memory": Kind(
        no_memory,
        allowed=invariants.ENDS_CALLS
        | {f"error {each}" for each in invariants.REASONS | {"internal_error"}},
        workers=(2,),
        counts=False,
    ),
}


@dataclass
class Outcome:
    """What came of one run."""

    faults: int
    calls: Counter[str]
    slowest: float
    breaches: list[str]


async def run(name: str, workers: int, seed: int, seconds: float) -> Outcome:
    """Have callers call while faults of one kind happen for so many seconds."""
    kind = KINDS[name]
    async with _world(kind, workers, seed) as (world, service, app):
        program = world.program
        await _assert_well(program)
        before = await invariants.footprint(program) if workers == 1 else None
        counted = await invariants.metrics(program)
        traffic = await _calls(world, kind, seed, seconds)
        breaches = list(traffic.problems)
        bad = traffic.bad.items()
        breaches += [f"{n} calls: {what}" for what, n in bad if what not in kind.allowed]
        breaches += await invariants.still_busy(program)
        if kind.counts:
            text = await invariants.metrics(program)
            breaches += invariants.miscounted(text, traffic.outcomes, before=counted)
            breaches += invariants.complaints(program)
        if before is not None:
            breaches += await invariants.grown(program, before)
        await _assert_well(program)
        await program.terminate()
        breaches += [f"exit code {code}" for code in [await program.exit_code()] if code]
        breaches += invariants.wrongly_admitted([service])
        breaches += [f"{app.bad_uploads} uploads that differ"] if app.bad_uploads else []
    return Outcome(world.done.total(), traffic.outcomes, traffic.slowest, breaches)


async def _calls(world: World, kind: Kind, seed: int, seconds: float) -> Traffic:
    """Have callers call while faults happen, or between them; return what they saw."""
    end, seen = time.monotonic() + seconds, Traffic(world.program.address, WELL_BEHAVED, seed=seed)
    while kind.between_calls and time.monotonic() < end:
        await kind.fault(world)
        traffic = Traffic(world.program.address, WELL_BEHAVED, seed=seed + seen.outcomes.total())
        traffic.start()
        await asyncio.sleep(world.choice.uniform(0.2, 0.5))
        await traffic.stop()
        seen.outcomes += traffic.outcomes
        seen.problems += traffic.problems
        seen.slowest = max(seen.slowest, traffic.slowest)
    if not kind.between_calls:
        seen.start()
        while time.monotonic() < end:
            await kind.fault(world)
        await seen.stop()
    return seen


@asynccontextmanager
async def _world(
    kind: Kind, workers: int, seed: int
) -> AsyncIterator[tuple[World, ProtectedService, App]]:
    with TemporaryDirectory() as folder:
        clock = Clock(Path(folder) / "clock")
        async with (
            MetadataServer(clock=clock) as metadata,
            App() as app,
            ProtectedService(metadata.keys, app=app.address, clock=clock) as service,
        ):
            route = {"timeouts": {"connect": "5s", "response": "20s", "idle": "20s"}}
            text = config_for(service, route=route, workers=workers, **kind.top)
            env = {**metadata.environ, **_moved(kind.clock, Path(folder) / "clock")}
            async with living(Program(text, env=env)) as program:
                yield World(program, metadata, clock, random.Random(seed)), service, app  # noqa: S311 (repeatable)


def _moved(which: str, file: Path) -> dict[str, str]:
    """Return the variables that put a program's clocks into the test's hand."""
    if not which:
        return {}
    found = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(file)}
    found |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_RESET": "1"}
    return found if which == "both" else {**found, MONOTONIC_TOO: "1"}


async def _assert_well(program: Program) -> None:
    """Call until what a fault has left is over; then nothing may fail."""
    async with asyncio.timeout(30):
        while (await _some_calls(program, 1)).bad:
            pass
    traffic = await _some_calls(program, 40)
    assert not traffic.bad, traffic.bad
    assert traffic.problems == []


async def _some_calls(program: Program, calls: int) -> Traffic:
    traffic = Traffic(program.address, WELL_BEHAVED, callers=2)
    traffic.start()
    while traffic.outcomes.total() < calls:  # noqa: ASYNC110 (callers tell no event)
        await asyncio.sleep(0.001)
    await traffic.stop()
    return traffic


# --- many runs, by hand


def main() -> int:
    """Run each kind with as many seeds as were asked for, print a table; return 1 for a breach."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.surroundings")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each kind (%(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of faults (%(default)s)")
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    flags = parser.parse_args()
    head = "| what | runs | faults | calls | failed, as may be | breaches |"
    rows = [head, "|---|--:|--:|--:|--:|--:|"]
    breaches = 0
    for name in flags.kind or KINDS:
        outcomes = [
            _one(name, KINDS[name].workers[seed % len(KINDS[name].workers)], seed, flags.seconds)
            for seed in range(flags.first, flags.first + flags.seeds)
        ]
        calls: Counter[str] = sum((each.calls for each in outcomes), Counter())
        found = sum(len(each.breaches) for each in outcomes)
        breaches += found
        numbers = (len(outcomes), sum(each.faults for each in outcomes), calls.total())
        cells = [f"{n:,}" for n in (*numbers, calls.total() - calls["good"], found)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    print(*rows, sep="\n")
    return 1 if breaches else 0


def _one(name: str, workers: int, seed: int, seconds: float) -> Outcome:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            outcome = asyncio.run(run(name, workers, seed, seconds))
        except Exception as error:  # noqa: BLE001 (the other seeds shall run)
            outcome = Outcome(0, Counter(), 0.0, [f"the run failed: {error!r}"[:2000]])
    if outcome.breaches:
        print(said.getvalue()[-20_000:], f"{name}, seed {seed}:", *outcome.breaches, sep="\n")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
