"""`python -m tests.bench.count`: how many instructions one exchange takes, counted by callgrind.

Seconds differ from one minute to the next on a busy machine; instructions of the same program for
the same work do not.  The whole program is counted in user space: the interpreter, llhttp, uvloop,
what it calls of the C library and OpenSSL; not the kernel.  A warm proxy is asked for exchanges,
one after the other on one connection, in several turns; the median of those turns counts, since
what a thread or a timer does now and then falls into one of them.

A start is counted from the first instruction to the first authenticated answer.

    make count                       count, and compare with the figures that are kept
    make count COMPILED=1            the same of the compiled program, which has figures of its own
    make count ARGS="h1 --keep"      count one case, and keep its figure

Exit code 1 where a count is more than 5 % above the figure that is kept, 69 without valgrind.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamEnded, StreamReset

from tests.bench.calls import ROOT
from tests.bench.contenders import Setup, environment, proxy_config
from tests.bench.grpc_peers import MESSAGE, UNARY
from tests.bench.servers import BenchError, free_port
from tests.bench.upstream import Surroundings, surroundings

# As it is installed beside this interpreter, whatever lies in the current directory.
PROGRAM = [sys.executable, "-P", "-m", "proxy"]

KEPT = Path(__file__).parent / "results" / "instructions.json"
TOLERANCE = 0.05

# A start under valgrind takes some forty times as long as without.
_START_SECONDS = 180.0
# The first of them fill caches, specialise byte code and grow memory.
_WARM_UP = 400
_TURNS, _EXCHANGES = 5, 150

_MESSAGE = len(MESSAGE).to_bytes(5, "big") + MESSAGE
_REQUEST = [
    (":method", "POST"), (":scheme", "http"), (":path", UNARY), (":authority", "localhost:8081"),
    ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "grpc-go/1.80.0"),
]  # fmt: skip
_RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
_TRAILERS = [("grpc-status", "0"), ("grpc-message", "")]

Ask = Callable[[int], None]
"""Makes so many exchanges, one after the other."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is counted."""

    name: str
    help: str
    caller: Callable[[int], Any]
    """Makes the context of an `Ask`, given the proxy's port."""
    scheme: str = "plain"
    grpc: bool = False
    is_start: bool = False
    """Whether the first exchange is counted, with all that comes before it."""


@contextmanager
def _http1(port: int) -> Iterator[Ask]:
    """Ask with the head of wrk, on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)

    def ask(number: int) -> None:
        for _ in range(number):
            connection.request("GET", "/json")
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK or not answer.read():
                raise BenchError(f"the proxy answered {answer.status}")

    try:
        yield ask
    finally:
        connection.close()


@contextmanager
def _grpc(port: int) -> Iterator[Ask]:
    """Make unary calls over one connection, each of which leaves in one piece.

    grpcio's own pieces depend on how its threads are scheduled, and so would the counts.
    """
    with socket.create_connection(("127.0.0.1", port), _START_SECONDS) as sock:
        connection = H2Connection(H2Configuration(client_side=True))
        connection.initiate_connection()
        connection.increment_flow_control_window(2**30)
        sock.sendall(connection.data_to_send())

        def ask(number: int) -> None:
            for _ in range(number):
                stream = connection.get_next_available_stream_id()
                connection.send_headers(stream, _REQUEST)
                connection.send_data(stream, _MESSAGE, end_stream=True)
                sock.sendall(connection.data_to_send())
                _await_end(sock, connection, stream)

        yield ask


def _await_end(sock: socket.socket, connection: H2Connection, stream: int) -> None:
    while True:
        for event in connection.receive_data(sock.recv(65536)):
            if isinstance(event, ResponseReceived) and (b":status", b"200") not in event.headers:
                raise BenchError(f"the proxy answered {event.headers}")
            if isinstance(event, StreamReset | ConnectionTerminated):
                raise BenchError(f"the proxy ended a call: {event}")
            if isinstance(event, StreamEnded) and event.stream_id == stream:
                return


@contextmanager
def _service() -> Iterator[int]:
    """Serve unary calls, each answered in one piece; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # Without it the thread would go on waiting.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _serve(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_answer, args=(sock,), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    connection.increment_flow_control_window(2**30)
    with sock:
        sock.sendall(connection.data_to_send())
        while data := sock.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, StreamEnded):
                    connection.send_headers(event.stream_id, _RESPONSE)
                    connection.send_data(event.stream_id, _MESSAGE)
                    connection.send_headers(event.stream_id, _TRAILERS, end_stream=True)
            sock.sendall(connection.data_to_send())


CASES: Final = (
    Case("h1", "GET with a small answer, HTTP/1.1 to HTTP/1.1", _http1),
    Case("h1_tls", "the same with TLS to the upstream", _http1, scheme="tls"),
    Case("grpc", "a unary gRPC call, HTTP/2 to HTTP/2", _grpc, grpc=True),
    Case("start", "the start, to the first answer over TLS", _http1, scheme="tls", is_start=True),
)


class Counted:
    """The proxy under callgrind."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._folder = folder
        self._process = process
        self._dumps = 0

    def dump(self) -> int:
        """Return the instructions since the last dump."""
        done = subprocess.run(
            ["callgrind_control", "--dump", str(self._process.pid)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        self._dumps += 1
        file = self._folder / f"callgrind.{self._dumps}"
        if done.returncode or not file.exists():
            raise BenchError(f"callgrind made no dump: {done.stdout}{done.stderr}")
        found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(), re.MULTILINE)
        if found is None:
            raise BenchError(f"callgrind's dump has no total: {file}")
        return int(found[1])


@contextmanager
def _counted(around: Surroundings, setup: Setup, port: int) -> Iterator[Counted]:
    """Run the proxy under callgrind."""
    folder = Path(tempfile.mkdtemp(dir=around.folder))
    config = folder / "proxy.yaml"
    document = json.loads(proxy_config(setup, port))
    # The first token and the first connection take forty times as long, too.
    document["defaults"] = {"timeouts": {"connect": f"{_START_SECONDS:g}s"}}
    config.write_text(json.dumps(document))
    argv = [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind",
        "--quiet", *PROGRAM, "run", "--config", str(config),
    ]  # fmt: skip
    # One seed, so that tables of strings are laid out alike in each run.
    env = environment(around) | {"PYTHONHASHSEED": "0"}
    log = folder / "log"
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, env=env) as process:
        try:
            _wait(process, port, log)
            yield Counted(folder, process)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.perf_counter() + _START_SECONDS
    while process.poll() is None and time.perf_counter() < deadline:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise BenchError(f"the proxy did not start:\n{log.read_text(errors='replace')[-2000:]}")


def count(case: Case, around: Surroundings) -> int:
    """Return the instructions of one exchange, or of the start and the first one."""
    if case.is_start:
        # An installed program has its byte code at hand.
        subprocess.run([sys.executable, "-m", "compileall", "-q", ROOT / "proxy"], check=True)
    if case.grpc:
        with _service() as port:
            return _count(case, replace(around, plain_port=port))
    return _count(case, around)


def _count(case: Case, around: Surroundings) -> int:
    port = free_port()
    setup = Setup(around, case.scheme, grpc=case.grpc)
    with _counted(around, setup, port) as proxy, case.caller(port) as ask:
        if case.is_start:
            ask(1)
            return proxy.dump()
        ask(_WARM_UP)
        proxy.dump()
        totals = []
        for _ in range(_TURNS):
            ask(_EXCHANGES)
            totals.append(proxy.dump())
        return round(statistics.median(totals) / _EXCHANGES)


def _build() -> str:
    """Return what the program that is counted calls itself: pure or compiled."""
    said = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1].strip("()")


def _kept() -> dict[str, dict[str, int]]:
    """Return the figures that are kept, by build and case."""
    kept: dict[str, dict[str, int]] = json.loads(KEPT.read_text())
    return kept


def report(counts: dict[str, int], kept: dict[str, int]) -> bool:
    """Print the counts beside what is kept; return whether none has grown too much."""
    fine = True
    for name, counted in counts.items():
        before = kept.get(name)
        change = f"{counted / before - 1:+.1%} of {before:,}" if before else "nothing is kept"
        print(f"{name:8} {counted:>11,} instructions  ({change})")
        fine = fine and (before is None or counted <= before * (1 + TOLERANCE))
    return fine


def main(given: list[str] | None = None) -> int:
    """Count; see the module for exit codes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.count",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [case.name for case in CASES]
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(names)}")
    parser.add_argument("--keep", action="store_true", help="keep the counts as the figures")
    flags = parser.parse_args(given)
    if unknown := set(flags.cases) - set(names):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if shutil.which("valgrind") is None:
        print("not installed: valgrind", file=sys.stderr)
        return 69
    with tempfile.TemporaryDirectory(prefix="count-") as name, surroundings(Path(name)) as around:
        chosen = [case for case in CASES if not flags.cases or case.name in flags.cases]
        counts = {case.name: count(case, around) for case in chosen}
    kept, build = _kept(), _build()
    print(f"{build}:")
    fine = report(counts, kept[build])
    if flags.keep:
        kept[build] |= counts
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if fine or flags.keep else 1


if __name__ == "__main__":
    sys.exit(main())
