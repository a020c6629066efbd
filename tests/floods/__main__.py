"""`python -m tests.floods [NAME…]`: floods against this proxy and Envoy, in turns, side by side.

For each attack and contender a fresh process: a caller that means no harm calls 200 times a second,
first in quiet, then beside the attack.  Noted are how long its calls took (p99), which ones failed,
the memory that the attack took at its peak, and the processor time.  `--keep` writes the results
and the table in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.bench import machine
from tests.bench.contenders import Contender, Setup, contenders
from tests.bench.servers import LOAD_CORE, pinned
from tests.bench.upstream import Surroundings, surroundings
from tests.fakes import proc
from tests.floods import table
from tests.floods.attacks import ATTACKS, MIB
from tests.floods.caller import Seen, p99

ROOT = Path(__file__).parents[2]
AGAINST = ("proxy", "pure", "envoy")
LARGE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Turn:
    """What one attack did to one contender.  Times are milliseconds within which 99 of 100 are."""

    attack: str
    contender: str
    quiet_p99: float
    p99: float
    calls: int
    failures: int
    first_failure: str
    memory_mib: float
    """At the peak, above what it had in quiet."""
    cpu: float
    """Share of a core."""
    opened: int
    ends: dict[str, int]


class CallerProcess:
    """`tests.floods.caller` in a process of its own, while the context lasts."""

    def __init__(self, port: int) -> None:
        argv = [sys.executable, "-m", "tests.floods.caller", str(port), "/json"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            pinned(argv, LOAD_CORE), stdin=pipe, stdout=pipe, text=True, cwd=ROOT
        )
        hurry(self._process.pid)

    def take(self) -> Seen:
        """Return what it has seen since it was last asked."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return Seen(**json.loads(process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)


class AttackerProcess:
    """`tests.floods.attacks` in a process of its own: under way inside of the context."""

    def __init__(self, name: str, port: int) -> None:
        argv = [sys.executable, "-m", "tests.floods.attacks", name, str(port)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            pinned(argv, LOAD_CORE), stdin=pipe, stdout=pipe, text=True, cwd=ROOT
        )
        self.said: dict[str, Any] = {}
        """Connections and their ends, after the end."""

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.said = json.loads(self._process.communicate(timeout=180)[0])
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def hurry(pid: int) -> None:
    """Let a process that does little run as soon as it can, where this user may say so.

    Else what it waits for a core on a busy machine would count as what it waits for the contender.
    """
    with suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))


def turn(name: str, contender: Contender, around: Surroundings, seconds: float) -> Turn:
    """Attack one contender."""
    with contender.run(Setup(around, "plain", mixed=True)) as running:
        server = running.server
        assert server is not None
        with CallerProcess(running.port) as caller:
            time.sleep(0.5)
            caller.take()
            time.sleep(seconds / 2)
            quiet = caller.take()
            before = server.usage()
            server.forget_peak()
            with AttackerProcess(name, running.port) as attacker:
                if not ATTACKS[name].once:
                    caller.take()
                began, cpu = time.perf_counter(), server.usage().cpu_seconds
                time.sleep(seconds)
                after, took = server.usage(), time.perf_counter() - began
                seen = caller.take()
    return Turn(
        name, contender.name,
        round(p99(quiet.milliseconds), 2), round(p99(seen.milliseconds), 2),
        len(seen.milliseconds), len(seen.failures), seen.failures[0] if seen.failures else "",
        round((after.peak_bytes - before.rss_bytes) / MIB, 1),
        round((after.cpu_seconds - cpu) / took, 2),
        attacker.said["opened"], attacker.said["ends"],
    )  # fmt: skip


def main() -> int:
    """Run; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.floods", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=6.0, help="of each attack")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", nargs="*", default=AGAINST, choices=AGAINST)
    parser.add_argument("--keep", action="store_true", help="keep results and table")
    flags = parser.parse_args()
    if unknown := set(flags.names) - set(ATTACKS):
        parser.error(f"there is no {', '.join(unknown)}")
    machine.allow_many_files()
    turns: list[Turn] = []
    with (
        machine.Others() as others,
        tempfile.TemporaryDirectory(prefix="floods-", dir="/dev/shm") as folder,
        surroundings(Path(folder)) as around,
    ):
        around.make_blob(LARGE_BYTES)
        for pid in proc.children(os.getpid()):
            hurry(pid)  # The service.
        present = [each for each in contenders(Path(folder)) if each.name in flags.against]
        for name in flags.names or ATTACKS:
            for _ in range(flags.rounds):
                for contender in present:
                    found = turn(name, contender, around, flags.seconds)
                    print(json.dumps(asdict(found)), flush=True)
                    turns.append(found)
    document = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": machine.commit(),
        "machine": machine.facts(),
        "versions": machine.versions(),
        "others_share": round(others.share, 2),
        "seconds": flags.seconds,
        "rounds": flags.rounds,
        "turns": [asdict(each) for each in turns],
    }
    if flags.keep:
        table.keep(document)
    print(table.render(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
