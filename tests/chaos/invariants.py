"""What must hold after a run of faults, whatever they were.

Each function returns what does not hold, in words, so that a run can show all of it at once.
What callers get and see is judged where they read it, by `Traffic`; tokens in outputs are searched
by `tests.fakes.leaks`.

1. What began has ended: gauges are at zero, and each call that was answered was counted once.
2. Nothing came to a service without a valid token for it, and no POST came twice.
3. What callers got is whole, or visibly cut.
4. Memory and descriptors are where they were.
5. Who had a token that was good did not fail for want of one.
6. Callers whom no fault concerned noticed nothing.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proxy.emulator.records import Records
from proxy.emulator.service import ServiceRequest
from tests.chaos.traffic import UNSEEN
from tests.fakes import proc
from tests.fakes.program import Program

SETTLE_SECONDS = 20.0
"""How long what is under way may take to end once all callers have: longer than any timeout."""

MORE_BYTES = 24 * 1024 * 1024
"""What memory may grow by in a run: freed blocks are kept, and pools are as large as they were."""

MORE_DESCRIPTORS = 2
"""A connection to the metadata server that is kept, and the one that reads the metrics."""

USE_MARGIN = 30.0
"""Seconds before their end from which on tokens are not used."""

_BUSY = re.compile(
    r"^auth_proxy_(?:in_flight\{.*|upstream_connections\{.*state=\"(?:busy|dialling)\".*) [^0].*$",
    re.MULTILINE,
)


UNANSWERED = ("silence", "silence to an upload", "refused")
"""What no call comes to that reaches the proxy undisturbed: whatever happens behind it is told."""

UNSENT = (
    *UNANSWERED,
    "error upstream_connect_failed",
    "error upstream_connect_timed_out",
    "error upstream_tls_failed",
)
"""The same, and what a call fails with of which nothing was sent."""

ENDS_CALLS = frozenset({"cut", *UNANSWERED})
"""How calls end whose process ends."""

REASONS = {
    "of the front",
    "request_malformed",
    "draining",
    "overloaded",
    "token_unavailable",
    "token_timed_out",
    "upstream_connect_failed",
    "upstream_connect_timed_out",
    "upstream_tls_failed",
    "upstream_reset",
    "upstream_timed_out",
    "upstream_malformed",
}
"""The proxy's own errors that faults of others may lead to."""

_A_BUG = re.compile(r"Traceback|never retrieved|never awaited|Exception in callback|internal_error")


async def metrics(program: Program) -> str:
    """Return the metrics as text."""
    return (await program.admin_answer("/metrics")).decode()


def total(text: str, name: str, label: str = "") -> float:
    """Return the sum of a metric's values, of those whose labels contain `label`."""
    found = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
    return sum(float(value) for labels, value in found if label in labels)


async def still_busy(program: Program, seconds: float = SETTLE_SECONDS) -> list[str]:
    """Wait until nothing is in flight, as the proxy counts it; return what still is."""
    end = time.monotonic() + seconds
    while busy := _BUSY.findall(await metrics(program)):
        if time.monotonic() > end:
            break
    return [f"still under way: {each}" for each in busy]


@dataclass(frozen=True)
class Footprint:
    """What a program's processes hold together while nothing is in flight."""

    rss_bytes: int
    descriptors: int
    """Without those of idle upstream connections, of which a pool keeps as many as were needed."""
    processes: int = 1

    def grown_to(self, after: Footprint) -> list[str]:
        """Return what `after` has too much of."""
        found = []
        if after.rss_bytes > self.rss_bytes + MORE_BYTES * self.processes:
            found.append(f"memory grew from {self.rss_bytes:,} to {after.rss_bytes:,} bytes")
        if after.descriptors > self.descriptors + MORE_DESCRIPTORS * self.processes:
            found.append(f"descriptors grew from {self.descriptors} to {after.descriptors}")
        return found


class Callers(Protocol):
    """Those who call one route, and what they saw."""

    slowest: float

    @property
    def good(self) -> int: ...
    @property
    def bad(self) -> dict[str, int]: ...


async def footprint(program: Program) -> Footprint:
    """Measure a program, and its workers if it has some, with nothing in flight."""
    idle = total(await metrics(program), "auth_proxy_upstream_connections", 'state="idle"')
    pids = [program.pid, *proc.children(program.pid)]
    descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    return Footprint(sum(map(proc.rss_bytes, pids)), descriptors - int(idle), len(pids))


async def grown(program: Program, before: Footprint, seconds: float = 5.0) -> list[str]:
    """Wait until a program holds no more than before; return what it holds too much of."""
    end = time.monotonic() + seconds
    while found := before.grown_to(await footprint(program)):
        if time.monotonic() > end:
            break
    return found


def miscounted(
    text: str, outcomes: Counter[str], route: str = "default", before: str = ""
) -> list[str]:
    """Compare what the metrics have counted since `before` with what all callers of a route saw.

    A call that ended without an answer may not have reached the proxy: it counts at most once.
    A request that no parser accepts belongs to no route.
    """
    name, label = "auth_proxy_requests_total", f'route="{route}"'
    counted = int(total(text, name, label) - total(before, name, label))
    foreign = outcomes["error request_malformed"]
    most = sum(outcomes.values()) - outcomes["refused"] - foreign
    least = sum(outcomes.values()) - sum(outcomes[each] for each in UNSEEN) - foreign
    if least <= counted <= most:
        return []
    return [f"{route}: {counted} counted of {least} answered and {most} begun calls"]


class Service(Protocol):
    """Whoever notes what came."""

    @property
    def requests(self) -> Sequence[ServiceRequest]: ...


def wrongly_admitted(services: Iterable[Service]) -> list[str]:
    """Return what came to a service without a valid token, and what came twice and must not."""
    found = []
    for service in services:
        refused = [seen for seen in service.requests if seen.claims is None]
        found += [f"{seen.method} {seen.target} came with {seen.refusal}" for seen in refused]
        posts = Counter(seen.target for seen in service.requests if seen.method == "POST")
        found += [f"POST {target} came {n} times" for target, n in posts.items() if n > 1]
    return found


class Seen(Records[ServiceRequest]):
    """The requests of a service, and which ID tokens they had from when on."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[float, float] = {}
        """When a token came first, by its expiry; both in Unix seconds."""

    def add(self, record: ServiceRequest) -> None:
        super().add(record)
        if record.claims is not None and "exp" in record.claims:
            self.tokens.setdefault(float(record.claims["exp"]), time.time())  # noqa: TID251 (as tokens have it)


def needlessly_tokenless(
    calls: Iterable[tuple[float, float]], tokens: Mapping[float, float]
) -> list[str]:
    """Return the calls that failed for want of a token while one was good that had come before.

    `calls` are as in `Traffic.tokenless`, `tokens` as in `Seen.tokens`.
    """
    return [
        f"without a token although one was good for {expiry - ended:.1f} s more"
        for began, ended in calls
        for expiry, seen_at in tokens.items()
        if seen_at < began and ended < expiry - USE_MARGIN - 0.1
    ]


def inexplicable(outcomes: Counter[str]) -> list[str]:
    """Return the errors that no fault of others explains."""
    errors = (each for each in outcomes if each.startswith("error "))
    return [f"{outcomes[each]} times {each}" for each in errors if each[6:] not in REASONS]


def complaints(program: Program) -> list[str]:
    """Return what in the log is the program's own fault."""
    return [f"in the log: {line[:300]}" for line in program.lines if _A_BUG.search(line)]


def disturbed(traffic: Callers, seconds: float) -> list[str]:
    """Return what callers without faults of their own had to notice; none may wait so long."""
    found = [f"undisturbed callers saw {n} times {what}" for what, n in traffic.bad.items()]
    if not traffic.good:
        found.append("undisturbed callers were not served")
    if traffic.slowest > seconds:
        found.append(f"an undisturbed caller waited {traffic.slowest:.1f} s")
    return found
