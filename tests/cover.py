"""`python -m tests.cover FILE`: hold the data path to the share of its code that tests run.

FILE is what ``coverage json`` has made of the last run.  Prints the share of the program as a
whole, and names each module of the data path that falls short of `LEAST` with what was not run;
then the exit code is 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DATA_PATH = "proxy/plane/"
LEAST = 95.0
"""Per cent of the lines and branches of each module of the data path."""


def shortfalls(files: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each module of the data path that is below `LEAST`.

    `files` is what the report has under ``files``: a summary and what was not run, for each
    module by its path from the root of the checkout.
    """
    for name, file in sorted(files.items()):
        share = file["summary"]["percent_covered"]
        if name.startswith(DATA_PATH) and share < LEAST:
            # Two digits, so that 94.96 does not read as what is enough.
            yield f"{name}: {share:.2f} %, at least {LEAST:g} % are wanted; {_not_run(file)}"


def _not_run(file: Mapping[str, Any]) -> str:
    """Return the lines that were not run, and the branches as FROM->TO (0: out of the function)."""
    lines = ", ".join(map(str, file["missing_lines"])) or "none"
    branches = (f"{start}->{max(end, 0)}" for start, end in file["missing_branches"])
    return f"lines not run: {lines}; branches not taken: {', '.join(branches) or 'none'}"


def main(file: str) -> int:
    """Print the figures and return the exit code."""
    report = json.loads(Path(file).read_text())
    short = list(shortfalls(report["files"]))
    for line in short:
        print(line)
    print(f"lines and branches that tests run: {report['totals']['percent_covered']:.1f} %")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
