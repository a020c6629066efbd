"""One run by a seed: a network with faults, what becomes of the program, and what did not hold.

A run goes one of several *ways*, by its seed: the program is one process or has two workers, and is
left alone, or its workers are killed, or it is ended at some moment of the faults, by SIGTERM or,
with workers, by the SIGKILL of their parent.  In all of them SIGHUP comes at random.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.chaos import invariants
from tests.chaos.network import Callers, Lane, Network
from tests.fakes import leaks, proc
from tests.fakes.lifelines import living
from tests.fakes.program import Program

CONTROL_SECONDS = 2.5
"""What no caller of a control lane waits for: less than the timeouts that end others' calls.  On
top comes what a busy machine costs: what calls take that do not pass the proxy, and how long the
proxy waited for a processor."""

RECOVERY_SECONDS = 45.0
"""Until all is well again: the pause between two fetches of tokens may have become 30 s."""

SOME = 10
"""Calls on a lane that have to be good, for it to be well."""

DRAIN = 3.0
"""Seconds that the program may take to end what is under way."""

END_WITHIN = DRAIN + 5.0
"""The same and what ending takes besides, with all callers calling on."""

BETWEEN_KILLS = 1.5
"""Seconds at least: a worker that dies soon after its start, again and again, has to wait."""


@dataclass(frozen=True)
class Way:
    """What becomes of the program in a run."""

    name: str
    workers: int = 1
    end: signal.Signals | None = None
    """What is sent to it, or to the parent, while faults happen; None for after all of them."""
    kills: bool = False
    """Whether workers are killed."""

    @property
    def code(self) -> int:
        """The exit code that it has to come to."""
        return -signal.SIGKILL if self.end is signal.SIGKILL else 0

    @property
    def is_left_alone(self) -> bool:
        """Whether every call is answered, and counted."""
        return self.end is None and not self.kills


WAYS: Final = (
    Way("parent killed", workers=2, end=signal.SIGKILL),
    Way("one process"),
    Way("two workers", workers=2),
    Way("SIGTERM", end=signal.SIGTERM),
    Way("workers killed", workers=2, kills=True),
    Way("SIGTERM with workers", workers=2, end=signal.SIGTERM),
)


@dataclass
class Outcome:
    """What a run came to."""

    seed: int
    way: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    """By lane, and what they came to."""
    met: Counter[str] = field(default_factory=Counter)
    """Faults that happened, by place and kind."""
    breaches: list[str] = field(default_factory=list)
    slowest: float = 0.0
    """Seconds that the slowest call of a control lane took, where the program was left alone."""


def way_of(seed: int) -> Way:
    """Return the way of a seed's run."""
    return WAYS[seed % len(WAYS)]


async def run(seed: int, seconds: float) -> Outcome:
    """Run all lanes with faults for so long, and look at what is left."""
    way = way_of(seed)
    outcome = Outcome(seed, way.name)
    with TemporaryDirectory(prefix="chaos-") as folder:
        network = Network(seed, Path(folder), workers=way.workers, drain=f"{DRAIN:g}s")
        async with network.serving() as program, living(program, code=way.code):
            await _Run(network, program, way, outcome).through(seconds)
            if way.end is None:
                await program.terminate()
        outcome.breaches += network.breaches()
        outcome.breaches += invariants.complaints(program)
    outcome.breaches += [f"a token in {where}" for where in leaks.take()]
    return outcome


class _Run:
    """One run, from a program that serves until everybody has stopped calling."""

    def __init__(self, network: Network, program: Program, way: Way, outcome: Outcome) -> None:
        self._network = network
        self._program = program
        self._way = way
        self._outcome = outcome
        self._choice = random.Random(f"{network.seed}/way")  # noqa: S311 (repeatable)
        self._callers: dict[str, Callers] = {}
        self._before_the_end: dict[str, Counter[str]] = {}
        """What callers had seen when the parent was killed, or shortly before a drain was over."""
        self._workers: list[int] = []
        self._killed_at = 0.0
        self._ending: asyncio.Task[int] | None = None

    async def through(self, seconds: float) -> None:
        """Let everybody call while faults happen, and judge what came of it."""
        network, program = self._network, self._program
        await network.stand_before(program)
        await self._recover()
        before, counted = await invariants.footprint(program), await invariants.metrics(program)
        waited = self._waited()
        network.be(calm=False)
        self._callers = {one.name: one.traffic(program, network.seed) for one in network.lanes}
        self._callers |= network.direct_callers()
        for each in self._callers.values():
            each.start()
        await self._harm(seconds)
        network.be(calm=True)
        for each in self._callers.values():
            await each.stop()
        self._outcome.met += network.met
        for lane in network.lanes:
            self._judge(lane)
        if self._ending is not None:
            await self._judge_end(self._ending)
            return
        later = self._waited()
        most = max((later[pid] - waited.get(pid, 0.0) for pid in later), default=0.0)
        self._outcome.breaches += await invariants.still_busy(program)
        if self._way.is_left_alone:
            self._judge_all(counted, await invariants.metrics(program), most)
        await self._recover()
        self._outcome.breaches += await invariants.grown(program, before)

    @property
    def _knows_tokens(self) -> bool:
        """Whether one process has all tokens: each worker has its own, and nobody knows whose."""
        return self._way.is_left_alone and self._way.workers == 1

    # --- what happens to the program

    async def _harm(self, seconds: float) -> None:
        """Let so much time pass, with SIGHUP at random, and with what the way of the run has."""
        end = time.monotonic() + seconds
        ends_at = end - seconds * self._choice.uniform(0.2, 0.8)
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(self._choice.uniform(0.05, 1.2), left))
            if self._way.end is not None and self._ending is None and time.monotonic() > ends_at:
                self._ending = asyncio.ensure_future(self._end(self._way.end))
            if self._way.kills:
                self._kill_a_worker()
            self._reload()
            if self._knows_tokens:
                self._network.look_at_tokens(await invariants.metrics(self._program))

    async def _end(self, number: signal.Signals) -> int:
        """Send the signal; return the exit code."""
        self._note(number.name)
        self._workers = proc.children(self._program.pid)
        self._look_back()
        signalled = time.monotonic()
        self._program.signal(number)
        if number is signal.SIGTERM:
            await asyncio.sleep(DRAIN - 0.1)
            if time.monotonic() < signalled + DRAIN:
                self._look_before_the_cut()
        return await self._program.exit_code(END_WITHIN)

    def _look_before_the_cut(self) -> None:
        """See that nobody noticed that it drains; all of it idle for a moment is the end, too."""
        ends = [record["cut"] for record in self._program.records() if "cut" in record]
        if any(ends):
            self._outcome.breaches.append(f"{ends} exchanges were cut before the drain was over")
        elif not ends:
            self._look_back()

    def _look_back(self) -> None:
        seen = {name: Counter(each.outcomes) for name, each in self._callers.items()}
        self._before_the_end = seen

    def _kill_a_worker(self) -> None:
        """End one as the kernel does where memory is over, once all of them serve."""
        workers = proc.children(self._program.pid)
        served = sum("worker " in line and " serves" in line for line in self._program.lines)
        killed = self._outcome.met["program: SIGKILL"]
        soon = time.monotonic() < self._killed_at + BETWEEN_KILLS
        if soon or len(workers) < self._way.workers or served < self._way.workers + killed:
            return
        self._killed_at = time.monotonic()
        self._note("SIGKILL")
        with suppress(ProcessLookupError):
            os.kill(self._choice.choice(workers), signal.SIGKILL)

    def _reload(self) -> None:
        """Have the configuration read again: changed, as it was, several times, or spoilt."""
        how = self._choice.choice(("changed", "changed", "as it was", "often", "spoilt"))
        self._note(f"SIGHUP, {how}")
        file = self._program.config_file
        if how == "spoilt":
            file.write_text('{"routes": {"tls": {"upst')
            # Whether it reads this or what comes next is chance.
            self._program.signal(signal.SIGHUP)
        file.write_text(self._network.document(changed=how in ("changed", "spoilt")))
        for _ in range(5 if how == "often" else 1):
            self._program.signal(signal.SIGHUP)

    def _note(self, what: str) -> None:
        self._outcome.met[f"program: {what}"] += 1

    # --- judgement

    def _judge(self, lane: Lane) -> None:
        """Look at what the callers of one lane saw, whatever became of the program."""
        callers, way = self._callers[lane.name], self._way
        for what, n in callers.outcomes.items():
            self._outcome.calls[f"{lane.name}: {what}"] += n
        found = [*callers.problems, *invariants.inexplicable(callers.outcomes)]
        if not way.kills:
            # Until the end, nothing has ended.
            seen = self._before_the_end.get(lane.name, callers.outcomes)
            found += [f"{seen[what]} times {what}" for what in lane.never if seen[what]]
            bad = {what: n for what, n in seen.items() if what != "good"}
            found += [f"saw {bad}"] if lane.is_control and bad else []
        if lane.is_control and not way.is_left_alone:
            bad_ends = set(callers.bad) - invariants.ENDS_CALLS - {"error draining"}
            found += [f"{each} at the end of a process" for each in bad_ends]
        self._breach(lane, found)

    def _judge_all(self, before: str, after: str, waited: float) -> None:
        """Look at calls of which none was lost with a process."""
        for lane in self._network.lanes:
            callers = self._callers[lane.name]
            self._breach(lane, invariants.miscounted(after, callers.outcomes, lane.name, before))
            if self._knows_tokens:
                self._breach(lane, self._network.tokenless(lane, callers))
            if lane.is_control:
                straight = self._callers[f"{lane.name} past the proxy"]
                most = CONTROL_SECONDS + straight.slowest + waited
                self._outcome.slowest = max(self._outcome.slowest, callers.slowest)
                self._breach(lane, invariants.disturbed(callers, most))

    def _breach(self, lane: Lane, found: list[str]) -> None:
        self._outcome.breaches += [f"{lane.name}: {each}" for each in found]

    async def _judge_end(self, ending: asyncio.Task[int]) -> None:
        """See that it ended in time, all of it, and that nobody is listening any more."""
        await ending
        left = [pid for pid in self._workers if Path(f"/proc/{pid}/exe").exists()]
        self._outcome.breaches += [f"worker {pid} outlives its parent" for pid in left]
        for place in (*self._program.listeners, self._program.admin):
            host, _, port = place.rpartition(":")
            with suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                self._outcome.breaches.append(f"somebody listens on {place}")

    def _waited(self) -> Mapping[int, float]:
        """Return how long each process was ready to run so far, and others ran instead."""
        found = {}
        for pid in [self._program.pid, *proc.children(self._program.pid)]:
            with suppress(FileNotFoundError):
                found[pid] = proc.waited_seconds(pid)
        return found

    async def _recover(self) -> None:
        """Call on each lane until all is well, which may take a moment after faults.

        A moment more on a busy machine, where a token of two seconds is over before it is used.
        """
        for lane in self._network.lanes:
            began, waited = time.monotonic(), max(self._waited().values())
            while bad := await _some(lane, self._program):
                more = max(self._waited().values()) - waited
                if time.monotonic() > began + RECOVERY_SECONDS + more:
                    self._breach(lane, [f"does not recover: {bad}"])
                    break


async def _some(lane: Lane, program: Program) -> dict[str, int]:
    """Make a few calls on a lane, and return what they came to if it is not what they should."""
    callers = lane.traffic(program, seed=0, recovered=True)
    callers.start()
    with suppress(TimeoutError):
        async with asyncio.timeout(2 * RECOVERY_SECONDS):
            while callers.outcomes.total() < SOME:  # noqa: ASYNC110 (callers tell no event)
                await asyncio.sleep(0.01)
    await callers.stop()
    if callers.problems:
        return dict.fromkeys(callers.problems, 1)
    missing = SOME - callers.outcomes.total()
    return {**callers.bad, "nothing": missing} if missing > 0 else callers.bad
