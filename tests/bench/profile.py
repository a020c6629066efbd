"""`python -m tests.bench.profile`: where this proxy spends its time under load.

``calls`` runs it under cProfile: which Python functions, how often for one request.
``native`` samples it with perf: which functions of the interpreter, OpenSSL, the kernel.
``system`` counts its system calls with strace.  All of them slow the proxy down, so their
numbers are shares, not speeds; speed is what `python -m tests.bench` measures.
"""

from __future__ import annotations

import argparse
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import load
from tests.bench.contenders import Contender, Setup, proxy_config
from tests.bench.servers import Server
from tests.bench.upstream import Surroundings, surroundings

PROFILED = """
import cProfile, sys
from proxy.cli import main
profile = cProfile.Profile()
try:
    profile.runcall(main, sys.argv[2:])
finally:
    profile.dump_stats(sys.argv[1])
"""


def _command(around: Surroundings, *before: str | Path) -> Contender:
    """Return the proxy as a contender, started by another command line."""

    def command(setup: Setup, port: int) -> list[str | Path]:
        file = around.folder / "proxy.yaml"
        file.write_text(proxy_config(setup, port))
        program = before or (Path(sys.executable).parent / "cloud-run-auth-proxy",)
        return [*program, "run", "--config", file]

    return Contender("profiled", "profiled", command)


def _server(server: Server | None) -> Server:
    assert server is not None
    return server


def calls(around: Surroundings, setup: Setup, flags: argparse.Namespace) -> None:
    """Print the functions that take most time of their own, with calls per request."""
    output = around.folder / "profile"
    contender = _command(around, sys.executable, "-c", PROFILED, output)
    before = around.counts()
    with contender.run(setup) as running:
        _loaded(running.url, flags)
    requests = around.counts().requests - before.requests
    stats = pstats.Stats(str(output))
    rows = sorted(stats.get_stats_profile().func_profiles.items(), key=lambda row: -row[1].tottime)
    print(f"{requests:,} requests\n   µs own  calls  each of one request")
    for name, row in rows[: flags.rows]:
        times = int(row.ncalls.split("/")[0]) / requests
        own = row.tottime / requests * 1e6
        place = f"{Path(row.file_name).name}:{row.line_number}" if row.line_number else ""
        print(f"{own:9.2f} {times:6.2f}  {name} {place}")


def native(around: Surroundings, setup: Setup, flags: argparse.Namespace) -> None:
    """Print perf's report of the symbols that take most time."""
    output = around.folder / "perf.data"
    with _command(around).run(setup) as running:
        pid = str(_server(running.server).pid)
        argv: list[str | Path] = [
            "perf",
            "record",
            "--quiet",
            "-F",
            "999",
            "-g",
            "--pid",
            pid,
            "--output",
            output,
        ]
        _watched([*argv, "--", "sleep", str(flags.seconds)], running.url, flags)
    subprocess.run(
        ["perf", "report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.7",
         "--input", output],
        check=True,
    )  # fmt: skip


def system(around: Surroundings, setup: Setup, flags: argparse.Namespace) -> None:
    """Print strace's table of system calls."""
    output = around.folder / "strace"
    with _command(around).run(setup) as running:
        pid = str(_server(running.server).pid)
        argv: list[str | Path] = [
            "timeout",
            str(flags.seconds),
            "strace",
            "-c",
            "-f",
            "-p",
            pid,
            "-o",
            output,
        ]
        before = around.counts()
        _watched(argv, running.url, flags)
    requests = around.counts().requests - before.requests
    print(f"{requests:,} requests\n{output.read_text()}")


def _loaded(url: str, flags: argparse.Namespace) -> None:
    """Send load for a while."""
    with load.Wrk(f"{url}/json", connections=flags.connections, post=flags.post):
        time.sleep(flags.seconds)


def _watched(argv: list[str | Path], url: str, flags: argparse.Namespace) -> None:
    """Send load for as long as the watching command runs."""
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as watching:
        _loaded(url, flags)
        watching.wait(60)


MODES: dict[str, tuple[str | None, Callable[[Surroundings, Setup, argparse.Namespace], None]]] = {
    "calls": (None, calls),
    "native": ("perf", native),
    "system": ("strace", system),
}


def main() -> int:
    """Profile in one mode; exit code 69 if its program is not installed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--scheme", choices=["tls", "plain"], default="tls")
    parser.add_argument("--routes", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--post", action="store_true", help="POST with a small body")
    flags = parser.parse_args()
    program, mode = MODES[flags.mode]
    if program and shutil.which(program) is None:
        print(f"not installed: {program}", file=sys.stderr)
        return 69
    with tempfile.TemporaryDirectory() as name, surroundings(Path(name)) as around:
        mode(around, Setup(around, flags.scheme, flags.routes), flags)
    return 0


if __name__ == "__main__":
    sys.exit(main())
