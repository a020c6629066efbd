"""The load: wrk for requests, curl for bodies, plain sockets for connections that do nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import Self

from tests.bench.servers import LOAD_CORE, BenchError, pinned

SCRIPT = Path(__file__).with_name("report.lua")
# Far beyond any turn: a turn ends wrk itself.
LONGEST_SECONDS = 60
POST_BODY = json.dumps({"item": "espresso", "quantity": 2, "note": "x" * 150})


@dataclass(frozen=True, slots=True)
class Latency:
    """What wrk saw from its first request to its last."""

    p50_ms: float
    p99_ms: float


class Wrk:
    """Requests over so many connections, one after the other on each, while the context lasts.

    Leaving it raises `BenchError` if a single one failed: a number with failures in it means
    nothing.
    """

    def __init__(self, url: str, *, connections: int, post: bool = False) -> None:
        argv = [
            "wrk", "--threads", "1", "--connections", str(connections),
            "--duration", f"{LONGEST_SECONDS}s", "--timeout", "10s",
            "--script", str(SCRIPT), url,
        ]  # fmt: skip
        if post:
            argv += ["--", "POST", POST_BODY]
        self._argv = pinned(argv, LOAD_CORE)
        self._process: subprocess.Popen[str] | None = None
        self.latency = Latency(0.0, 0.0)
        """After the end."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._argv, stdout=PIPE, stderr=PIPE, text=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process is not None
        # wrk ends early on this one, with its report.
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BenchError("wrk did not end") from error
        if error is None:
            self.latency = _read_report(out, err)


def _read_report(out: str, err: str) -> Latency:
    last = out.strip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise BenchError(f"wrk failed: {err or out}")
    said = json.loads(last)
    if said["failed"] or not said["requests"]:
        raise BenchError(f"{said['failed']} of {said['requests']} requests failed")
    return Latency(said["p50"] / 1000, said["p99"] / 1000)


def download(url: str, size: int) -> float:
    """Fetch `url`, which must bring so many bytes, and return the seconds it took."""
    return _curl([url], "%{size_download}", size)


def upload(url: str, file: Path, size: int, *, chunked: bool = False) -> float:
    """POST a file, with its length or in chunks, and return the seconds it took."""
    # Without Expect: curl would wait for a 100 from contenders that send none.
    arguments = ["--request", "POST", "--header", "Expect:", "--upload-file", str(file), url]
    if chunked:
        arguments[:0] = ["--header", "Transfer-Encoding: chunked"]
    return _curl(arguments, "%{size_upload}", size)


def _curl(arguments: list[str], measure: str, size: int) -> float:
    argv = [
        "curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "60",
        "--output", "/dev/null", "--write-out", f"{measure} %{{time_total}}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        pinned(argv, LOAD_CORE), capture_output=True, text=True, timeout=70, check=False
    )
    moved, _, seconds = done.stdout.partition(" ")
    # curl counts the chunks' size lines of an upload as well.
    if done.returncode != 0 or int(moved) < size:
        raise BenchError(f"curl {arguments[-1]}: {done.stdout} {done.stderr}")
    return float(seconds)


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Hold so many connections, each of which has had one exchange."""
    request = b"GET /json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            connection.sendall(request)
            if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
                raise BenchError("an exchange on an idle connection failed")
        yield
