"""What is measured.  A case is a turn that one contender takes; turns alternate, see `run`.

A turn yields samples by the name of their measure.  Names end in their unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.bench import calls, load
from tests.bench.contenders import Contender, Running, Setup
from tests.bench.machine import Others
from tests.bench.servers import BenchError, Server
from tests.bench.upstream import Surroundings

Samples = dict[str, float]

MIB = 1024 * 1024
PROXIES = ("proxy", "pure", "envoy", "nginx", "go")
EVERYBODY = ("direct", *PROXIES)
RIVALS = ("proxy", "pure", "envoy")

CONNECTIONS = (1, 16, 64, 256, 1024)
ROUTES = (1, 100, 1000)
WORKERS = (1, 2)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on each number."""

    rounds: int = 7
    sweep_rounds: int = 3
    seconds: float = 1.5
    """Of one turn under steady load."""
    body_bytes: int = 300_000_000
    idle_connections: int = 1000
    repeats: int = 40
    """How many disturbed turns may be taken again, of about three seconds each."""


QUICK = Effort(rounds=2, sweep_rounds=1, seconds=0.6, body_bytes=100_000_000, repeats=10)

# Share of the machine that others may use before a turn counts as disturbed: beyond this the
# same contender's turns differ by a tenth and more.
DISTURBED = 0.05

# Load is steady when the service has got no connection for this long; 1,024 handshakes take
# a slow contender some seconds.
QUIET_SECONDS = 0.25
SETTLE_SECONDS = 15.0


Turn = Callable[[Contender, Surroundings, Effort], Samples]


@dataclass(frozen=True, slots=True)
class Case:
    """A turn, who takes it, and how often."""

    name: str
    help: str
    contenders: tuple[str, ...]
    turn: Turn
    sweep: bool = False
    """Whether one turn covers a whole row of settings; fewer rounds are enough."""


def _server(running: Running) -> Server:
    if running.server is None:
        raise BenchError("direct calls have no process of their own")
    return running.server


@dataclass(frozen=True, slots=True)
class Steady:
    """A stretch of time under load, after the connections were made."""

    per_second: float
    cpu_us: float | None
    """CPU time of the contender for one request; None for direct calls."""
    latency: load.Latency
    busiest_us: float = 0.0
    """The part of it that its busiest process had."""


def _settle(around: Surroundings) -> None:
    """Wait until the service gets no more connections: TLS handshakes would count as load."""
    deadline = time.perf_counter() + SETTLE_SECONDS
    known, since = -1, 0.0
    while (counts := around.counts()).at < deadline:
        # Every question is a connection of its own.
        if counts.connections - known > 1:
            since = counts.at
        elif counts.at - since > QUIET_SECONDS:
            return
        known = counts.connections
        time.sleep(0.05)
    raise BenchError("the contender goes on making connections under steady load")


def _under_load(
    running: Running,
    around: Surroundings,
    effort: Effort,
    *,
    connections: int = 64,
    post: bool = False,
) -> Steady:
    """Measure a stretch of steady load: what the service has served, and what that cost."""
    with load.Wrk(f"{running.url}/json", connections=connections, post=post) as wrk:
        _settle(around)
        before, used = around.counts(), _cpu_seconds_of_each(running)
        time.sleep(effort.seconds)
        after, now = around.counts(), _cpu_seconds_of_each(running)
    requests, seconds = after.requests - before.requests - 1, after.at - before.at
    spent = [now[pid] - used.get(pid, 0.0) for pid in now]
    cpu = sum(spent) / requests * 1e6 if running.server else None
    busiest = max(spent, default=0.0) / requests * 1e6
    return Steady(requests / seconds, cpu, wrk.latency, busiest)


def _cpu_seconds_of_each(running: Running) -> dict[int, float]:
    return running.server.cpu_seconds_of_each() if running.server else {}


def _cpu_seconds(running: Running) -> float:
    return running.server.usage().cpu_seconds if running.server else 0.0


def _throughput(scheme: str, contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    with contender.run(Setup(around, scheme)) as running:
        samples: Samples = {}
        if running.server is not None:
            samples["start_ms"] = running.start_ms
            samples["idle_rss_mib"] = running.server.usage().rss_bytes / MIB
        seen = _under_load(running, around, effort)
    samples[f"{scheme}_per_s"] = seen.per_second
    if seen.cpu_us is not None:
        samples[f"{scheme}_cpu_us"] = seen.cpu_us
    return samples


def _latency(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    with contender.run(Setup(around)) as running:
        seen = _under_load(running, around, effort, connections=1)
    return {"p50_ms": seen.latency.p50_ms, "p99_ms": seen.latency.p99_ms}


def _post(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    with contender.run(Setup(around)) as running:
        seen = _under_load(running, around, effort, post=True)
    return {"post_per_s": seen.per_second, "post_cpu_us": seen.cpu_us or 0.0}


def _bodies(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    size = effort.body_bytes
    blob = around.make_blob(size)
    with contender.run(Setup(around)) as running:
        server, url = _server(running), running.url
        down = _moved(server, "download", size, partial(load.download, f"{url}/blob", size))
        up = _moved(server, "upload", size, partial(load.upload, f"{url}/sink", blob, size))
    return down | up


def _chunked(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    size = effort.body_bytes
    blob = around.make_blob(size)
    with contender.run(Setup(around)) as running:
        server, url = _server(running), running.url
        down = partial(load.download, f"{url}/chunks", size)
        up = partial(load.upload, f"{url}/sink", blob, size, chunked=True)
        return _moved(server, "chunked_download", size, down) | _moved(
            server, "chunked_upload", size, up
        )


def _moved(server: Server, name: str, size: int, move: Callable[[], float]) -> Samples:
    """Move a body and say what that cost: `move` does it and returns the seconds it took."""
    server.forget_peak()
    before = server.usage().cpu_seconds
    seconds = move()
    after = server.usage()
    return {
        f"{name}_mb_per_s": size / 1e6 / seconds,
        f"{name}_cpu_s_per_gb": (after.cpu_seconds - before) / (size / 1e9),
        f"{name}_peak_mib": after.peak_bytes / MIB,
    }


def _idle(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    count = effort.idle_connections
    with contender.run(Setup(around)) as running:
        server = _server(running)
        empty = server.usage()
        with load.idle_connections(running.port, count):
            before = server.usage()
            time.sleep(effort.seconds)
            after = server.usage()
    return {
        "idle_kib_per_connection": (after.rss_bytes - empty.rss_bytes) / 1024 / count,
        "idle_cpu_ms_per_s": (after.cpu_seconds - before.cpu_seconds) * 1000 / effort.seconds,
    }


def _connections(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    samples: Samples = {}
    with contender.run(Setup(around)) as running:
        for count in CONNECTIONS:
            seen = _under_load(running, around, effort, connections=count)
            samples[f"connections_{count}_per_s"] = seen.per_second
            samples[f"connections_{count}_cpu_us"] = seen.cpu_us or 0.0
    return samples


def _routes(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    samples: Samples = {}
    for count in ROUTES:
        with contender.run(Setup(around, routes=count)) as running:
            seen = _under_load(running, around, effort)
        samples[f"routes_{count}_per_s"] = seen.per_second
        samples[f"routes_{count}_cpu_us"] = seen.cpu_us or 0.0
    return samples


def _workers(contender: Contender, around: Surroundings, effort: Effort) -> Samples:
    """Measure what the busiest process spends for each request that all of them serve.

    As many cores of their own would serve as many more as that is less: load and upstream need
    cores, too, so that two workers cannot be given two of them on a small machine.
    """
    samples: Samples = {}
    for count in WORKERS:
        with contender.run(Setup(around, workers=count)) as running:
            seen = _under_load(running, around, effort)
        samples[f"workers_{count}_busiest_us"] = seen.busiest_us
    return samples


def _grpc(
    scheme: str,
    methods: tuple[str, ...],
    contender: Contender,
    around: Surroundings,
    effort: Effort,
) -> Samples:
    samples: Samples = {}
    with (
        calls.service(around, scheme) as served,
        contender.run(Setup(served, scheme, grpc=True)) as running,
    ):
        for method in methods:
            name = f"grpc_{scheme}_{method}"
            with calls.Calls(running.port, method) as load_of_calls:
                load_of_calls.settle()
                before, spent = load_of_calls.progress(), _cpu_seconds(running)
                time.sleep(effort.seconds)
                after, spent = load_of_calls.progress(), _cpu_seconds(running) - spent
            done = after.done - before.done
            samples[f"{name}_per_s"] = done / (after.at - before.at)
            samples[f"{name}_p50_ms"] = after.p50_ms
            if running.server is not None:
                samples[f"{name}_cpu_us"] = spent / done * 1e6
    return samples


CASES: tuple[Case, ...] = (
    Case(
        "tls",
        "requests/s at 64 connections, TLS to the upstream; CPU, start, idle memory",
        (*EVERYBODY, "go_h2"),
        partial(_throughput, "tls"),
    ),
    Case(
        "plain",
        "requests/s at 64 connections, plain HTTP to the upstream",
        EVERYBODY,
        partial(_throughput, "plain"),
    ),
    Case("latency", "median latency at 1 connection", (*EVERYBODY, "go_h2"), _latency),
    Case("post", "requests/s of POSTs with a small body", PROXIES, _post),
    Case("bodies", "a large download and upload: CPU per GB, peak memory", PROXIES, _bodies),
    Case("chunked", "the same in chunks, whose length nobody is told", PROXIES, _chunked),
    Case(
        "grpc",
        "gRPC at 32 calls in flight: unary, and streams of 100 messages; plain HTTP/2 upstream",
        ("direct", *RIVALS, "nginx"),
        partial(_grpc, "plain", ("unary", "stream")),
    ),
    Case(
        "grpc_tls",
        "gRPC unary at 32 calls in flight, TLS to the upstream",
        (*RIVALS, "nginx"),
        partial(_grpc, "tls", ("unary",)),
    ),
    Case("idle", "1,000 idle connections: memory, CPU", PROXIES, _idle, sweep=True),
    Case("connections", "requests/s at 1 to 1,024 connections", RIVALS, _connections, sweep=True),
    Case("routes", "requests/s with 1 to 1,000 routes", RIVALS, _routes, sweep=True),
    Case("workers", "CPU of the busiest of 1 and 2 workers", ("proxy",), _workers, sweep=True),
)


@dataclass(slots=True)
class Patience:
    """How many turns of a run may be taken again."""

    left: int

    def spend(self) -> bool:
        """Use up one, and return whether there was one."""
        self.left -= 1
        return self.left >= 0


def turns(
    case: Case,
    present: list[Contender],
    around: Surroundings,
    effort: Effort,
    patience: Patience,
) -> Iterator[tuple[int, Contender, Samples]]:
    """Take the case's turns one by one: round, contender, samples.

    Contenders alternate and each round begins with another one, so that a slow moment of
    the machine hits everybody alike.  A turn that others disturbed is taken again, as long
    as `patience` lasts; how much they used is one of the samples.
    """
    taking = [contender for contender in present if contender.name in case.contenders]
    rounds = effort.sweep_rounds if case.sweep else effort.rounds
    for number in range(rounds):
        shift = number % len(taking)
        for contender in taking[shift:] + taking[:shift]:
            while True:
                with Others() as others:
                    samples = case.turn(contender, around, effort)
                if others.share < DISTURBED or not patience.spend():
                    break
            yield number, contender, samples | {"others_share": others.share}
