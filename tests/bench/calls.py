"""gRPC calls through a contender: what one costs, with so many in flight at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import Self

from tests.bench.grpc_peers import STREAM, UNARY
from tests.bench.servers import LOAD_CORE, BenchError, Server, free_port, pinned
from tests.bench.upstream import Surroundings

IN_FLIGHT = 32
METHODS = {"unary": UNARY, "stream": STREAM}

ROOT = Path(__file__).parents[2]
PEERS = [sys.executable, "-m", "tests.bench.grpc_peers"]

# Seconds of load before a turn counts: connections, windows and tables settle in it.
_WARM_UP = 0.5
_ANSWER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What the caller has done so far."""

    done: int
    p50_ms: float
    """Of the calls since it was last asked."""
    at: float


class Calls:
    """Calls of one method, so many at once, while the context lasts.

    Asking raises `BenchError` once a single one failed.
    """

    def __init__(self, port: int, method: str) -> None:
        argv = [*PEERS, "call", f"127.0.0.1:{port}", METHODS[method], str(IN_FLIGHT)]
        self._argv = pinned(argv, LOAD_CORE)
        self._process: subprocess.Popen[str] | None = None

    def progress(self) -> Progress:
        """Ask what was done."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            raise BenchError(f"a call failed: {process.communicate(timeout=15)[1][-2000:]}")
        return Progress(**json.loads(said))

    def settle(self) -> None:
        """Wait until calls are answered, and a little longer."""
        until = time.perf_counter() + _ANSWER_SECONDS
        while not self.progress().done:
            if time.perf_counter() > until:
                raise BenchError("no call was answered")
            time.sleep(0.05)
        time.sleep(_WARM_UP)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, cwd=ROOT
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process is not None
        try:
            process.communicate(timeout=15)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()
            process.wait()


@contextmanager
def service(around: Surroundings, scheme: str) -> Iterator[Surroundings]:
    """Serve gRPC in the place of nginx; yield the surroundings with its port."""
    port = free_port()
    certificate = [around.folder / "server.pem", around.folder / "server.key"]
    argv: list[str | Path] = [*PEERS, "serve", str(port)]
    if scheme == "tls":
        argv += certificate
    log = around.folder / "grpc.log"
    with Server(argv, core=LOAD_CORE, log=log, cwd=ROOT) as server:
        # Direct calls wait for nothing else.
        server.wait_for_port(port)
        yield replace(around, plain_port=port, tls_port=port)


def token(port: int) -> str:
    """Call until there is an answer; return the identity header that has arrived with it."""
    argv = pinned([*PEERS, "token", f"127.0.0.1:{port}"], LOAD_CORE)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40, check=False, cwd=ROOT)
    if done.returncode:
        raise BenchError(f"no gRPC call is answered: {done.stderr[-2000:]}")
    return done.stdout.strip()
