"""`python -m tests.soak [--seconds 7200]`: everything at once for long, and what it costs.

Exit code 0 where memory and descriptors stay level and every call ended as it should.  With
`--keep` the samples and the graph of docs/reliability.md are written.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter

from tests.soak import graph
from tests.soak.run import Load, Outcome, soak


def report(found: Outcome) -> str:
    """Return what a run found, in lines."""
    verdict = found.verdict
    first, last = found.samples[0], found.samples[-1]
    start, end = first.rss_kib / 1024, last.rss_kib / 1024
    changes = f"{found.reloads} reloads, {found.failovers} failovers, {found.tokens} tokens"
    lines = [
        f"{found.seconds:g} s, {sum(found.outcomes.values())} calls, {changes}",
        f"memory {start:.1f} MiB at the start, {end:.1f} at the end",
        f"in the last {verdict.minutes:.0f} minutes {verdict.rss_slope:+.1f} KiB a minute",
        f"descriptors {last.descriptors} at the end; {verdict.descriptor_slope:+.2f} a minute",
        f"processor {last.cpu_seconds - first.cpu_seconds:.0f} s",
        *(f"  {number:8} {what}" for what, number in found.outcomes.items()),
        *(f"PROBLEM, {n} times: {what}" for what, n in Counter(found.problems).items()),
    ]
    return "\n".join(lines)


def main() -> int:
    """Run; see the module."""
    usual = Load()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200, help="default: two hours")
    parser.add_argument("--callers", type=int, default=usual.callers, help="of each kind")
    parser.add_argument(
        "--pause", type=float, default=usual.pause, help="seconds between two calls of a caller"
    )
    parser.add_argument("--keep", action="store_true", help="keep the samples and their graph")
    flags = parser.parse_args()
    found = asyncio.run(soak(flags.seconds, Load(flags.callers, flags.pause)))
    print(report(found))
    if flags.keep:
        graph.keep(found)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
