"""Many runs with faults in the network: `make chaos SEEDS=100`.

A run that broke an invariant is shown with all that the program said; `--first SEED --seeds 1`
repeats it, as far as the plan of the faults goes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import math
import random
import sys
import time
import traceback
from collections import Counter

from tests.chaos.runs import Outcome, run, way_of

GOOD = "good"
VISIBLY = ("cut", "silence", "silence to an upload", "refused")
"""How a call may end without an answer."""


def main() -> int:
    """Run as many seeds as were asked for, and print what came of them; return 1 for a breach."""
    arguments = _arguments()
    first = arguments.first if arguments.first is not None else random.randrange(10**6)  # noqa: S311 (printed)
    outcomes: list[Outcome] = []
    end = time.monotonic() + 60 * arguments.minutes
    for seed in range(first, first + arguments.seeds):
        if outcomes and time.monotonic() > end:
            break
        outcome = _one(seed, arguments.seconds)
        outcomes.append(outcome)
        calls, faults, found = outcome.calls.total(), outcome.met.total(), len(outcome.breaches)
        print(
            f"seed {seed}, {outcome.way}: {calls} calls, {faults} faults, {found} breaches",
            flush=True,
        )
    print(table(outcomes))
    return 1 if any(outcome.breaches for outcome in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="how many runs (%(default)s)")
    parser.add_argument("--first", type=int, help="the first seed; at random by default")
    parser.add_argument("--seconds", type=float, default=8.0, help="of faults (%(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no run begins later")
    return parser.parse_args()


def _one(seed: int, seconds: float) -> Outcome:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            outcome = asyncio.run(run(seed, seconds))
        except Exception as error:  # noqa: BLE001 (the other seeds shall run)
            outcome = Outcome(seed, way_of(seed).name, breaches=[_told(error)])
    if outcome.breaches:
        print(said.getvalue(), *outcome.breaches, sep="\n")
    return outcome


def _told(error: Exception) -> str:
    """Return what ended a run, and where."""
    places = [f"{each.name}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)]
    return f"the run failed: {error!r}"[:2000] + f" in {' '.join(places[-8:])}"


COLUMNS = ("between", "faults", "calls", "good", "errors", "visibly cut", "breaches")


def table(outcomes: list[Outcome]) -> str:
    """Return a row for each place where faults happen, in Markdown."""
    calls: Counter[str] = sum((each.calls for each in outcomes), Counter())
    met: Counter[str] = sum((each.met for each in outcomes), Counter())
    breaches = Counter(text.partition(": ")[0] for each in outcomes for text in each.breaches)
    rows = [f"| {' | '.join(COLUMNS)} |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    for place in dict.fromkeys(key.partition(": ")[0] for key in (*calls, *met)):
        figures = (_of(met, place).total(), *_ends(_of(calls, place)), breaches.pop(place, 0))
        rows.append(f"| {place} | " + " | ".join(f"{n:,}" for n in figures) + " |")
    rows += ["", *_ways(outcomes)]
    slowest = max(each.slowest for each in outcomes)
    rows.append(f"\n{len(outcomes)} seeds; the slowest call without faults took {slowest:.2f} s.")
    rows += [f"{n} breaches: {what}" for what, n in breaches.items()]
    return "\n".join(rows)


def _ways(outcomes: list[Outcome]) -> list[str]:
    """Return a row for each way that runs went."""
    rows = ["| the program | runs | faults | calls | breaches |", "|---|--:|--:|--:|--:|"]
    for way in dict.fromkeys(each.way for each in outcomes):
        these = [each for each in outcomes if each.way == way]
        faults, calls = (
            sum(getattr(one, what).total() for one in these) for what in ("met", "calls")
        )
        breaches = sum(len(one.breaches) for one in these)
        rows.append(f"| {way} | {len(these)} | {faults:,} | {calls:,} | {breaches} |")
    return rows


def _of(counted: Counter[str], place: str) -> Counter[str]:
    """Return what was counted in one place, by what it was."""
    parts = {key: key.partition(": ") for key in counted}
    return Counter({parts[key][2]: n for key, n in counted.items() if parts[key][0] == place})


def _ends(calls: Counter[str]) -> tuple[int, int, int, int]:
    """Return how many calls there were, and how many ended in which way."""
    errors = sum(n for what, n in calls.items() if what.startswith("error "))
    return calls.total(), calls[GOOD], errors, sum(calls[what] for what in VISIBLY)


if __name__ == "__main__":
    sys.exit(main())
