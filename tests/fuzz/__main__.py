"""`python -m tests.fuzz TARGET [--seconds 60]`: search for bytes that break what must hold.

With atheris the search follows which lines of the program an input reaches; where that is not
installed, inputs are damaged at random.  What was found lies in build/fuzz/TARGET: `corpus` has the
inputs that reached something new, `crash-…` are those that failed.

    make fuzz TARGET=requests SECONDS=600
    python -m tests.fuzz requests --replay build/fuzz/requests/crash-…    one input, as it was
    python -m tests.fuzz requests --keep       keep in tests/fuzz/corpus what reached something new

Exit code 0 where nothing failed.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.kept import Growth
    from tests.fuzz.targets import Target

FOUND = Path(__file__).parents[2] / "build" / "fuzz"
LONGEST = 4096
"""Bytes of an input; heads are refused from 64 KiB on, which tests with limits cover."""
KEPT_BYTES = 512
"""Of an input that is kept: longer ones reach further by what is in them twice."""
MOST_MIB = 1024
"""Of memory, for all inputs together: nothing may grow without bound."""


def _targets(atheris: Any) -> dict[str, Target]:
    """Import the program, with a counter at each branch where atheris does the search."""
    if atheris is None:
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (atheris has to come before)
    else:
        with atheris.instrument_imports(include=["proxy"]):
            from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (as above)
    # What the program logs about strangers would fill the screen.
    logging.getLogger("proxy").propagate = False
    return TARGETS


def _guided(atheris: Any, target: Target, options: Sequence[str], *folders: Path) -> None:
    """Hand over to libFuzzer, which ends the process."""
    folder = FOUND / target.name
    words = folder / "dictionary"
    lines = ("".join(f"\\x{byte:02x}" for byte in piece) for piece in target.pieces)
    words.write_text("".join(f'"{line}"\n' for line in lines))
    flags = [f"-dict={words}", f"-artifact_prefix={folder}/", "-print_final_stats=1", *options]
    flags += [f"-max_len={LONGEST}", f"-rss_limit_mb={MOST_MIB}", "-timeout=30"]
    growth = _growth()
    atheris.Setup(
        [sys.argv[0], *flags, *map(str, folders)], lambda data: target.execute(data, growth)
    )
    atheris.Fuzz()


def _growth() -> Growth:
    from tests.fuzz.kept import Growth  # noqa: PLC0415 (see `_targets`)

    return Growth()


def _blind(target: Target, seconds: float) -> int:
    """Damage inputs at random until the time is over or one fails."""
    from tests.fuzz.targets import damage  # noqa: PLC0415 (see `_targets`)

    dice = random.Random()  # noqa: S311 (not a secret)
    inputs, done, until = target.inputs(), 0, time.perf_counter() + seconds
    growth = _growth()
    while time.perf_counter() < until:
        data = damage(dice.choice(inputs), target.pieces, dice)[:LONGEST]
        try:
            target.execute(data, growth)
        except BaseException:
            name = hashlib.sha256(data).hexdigest()[:16]
            (FOUND / target.name / f"crash-{name}").write_bytes(data)
            print(f"failed: {FOUND / target.name / f'crash-{name}'}", file=sys.stderr)
            raise
        done += 1
    print(f"{done} inputs at random, {done / seconds:.0f}/s, no failure")
    return 0


def _seed(target: Target, folder: Path) -> None:
    """Write down what the search begins with."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in target.inputs():
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main() -> int:
    """Search; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="how long; default: 60")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run this input alone")
    parser.add_argument(
        "--keep", action="store_true", help="keep what runs have found, and run nothing"
    )
    flags = parser.parse_args()
    atheris: Any = None
    if find_spec("atheris") and not (flags.replay or flags.keep):
        import atheris  # type: ignore[no-redef,import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415 (may be missing)
    targets = _targets(atheris)
    target = targets.get(flags.target)
    if target is None:
        parser.error(f"no target {flags.target}; there are {', '.join(targets)}")
    if flags.replay:
        target.execute(flags.replay.read_bytes())
        return 0
    found = FOUND / target.name / "corpus"
    if flags.keep:
        every = [file.read_bytes() for file in found.glob("*")]
        target.keep([data for data in every if len(data) <= KEPT_BYTES])
        return 0
    _seed(target, found)
    if atheris is None:
        return _blind(target, flags.seconds)
    _guided(atheris, target, [f"-max_total_time={flags.seconds}"], found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
