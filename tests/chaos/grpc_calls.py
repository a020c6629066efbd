"""gRPC callers that do many things at once and check every byte that they get, on grpcio.

What a call came to is named as in `traffic`: an error of the proxy's own by its reason, and every
other status but OK, which grpc makes of a connection or stream that ends early, is a cut.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from tests.chaos.traffic import LARGE, PATIENCE
from tests.fakes import leaks
from tests.fakes.grpc_service import OPTIONS, SERVICE, content, request

CUT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}

Call = Callable[[grpc.Channel, random.Random], bool]
"""Makes a call, and returns whether it came to what it should."""


class GrpcCalls:
    """Runs callers, each in a thread with a channel of its own, until it is stopped."""

    def __init__(self, address: str, authority: str, *, callers: int, seed: int) -> None:
        """`authority` chooses the route."""
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []
        self.tokenless: list[tuple[float, float]] = []
        """Not looked at; see `Traffic`."""
        self.slowest = 0.0
        self._address = address
        self._options = (
            *OPTIONS,
            ("grpc.default_authority", authority),
            # A call is one request, and whoever has lost a connection dials at once.
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 100),
        )
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(seed * 1000 + n,)) for n in range(callers)
        ]

    def start(self) -> None:
        """Let the callers call."""
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Let every caller finish what it does, and end."""
        self._stopping.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    @property
    def good(self) -> int:
        """Calls that came to what they should."""
        return self.outcomes["good"]

    @property
    def bad(self) -> dict[str, int]:
        """Everything else, by what happened."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "good"}

    def _run(self, seed: int) -> None:
        choice = random.Random(seed)  # noqa: S311 (repeatable)
        with grpc.insecure_channel(self._address, options=self._options) as channel:
            while not self._stopping.is_set():
                began = time.monotonic()
                outcome = self._one(choice.choice(CALLS), channel, choice)
                with self._lock:
                    self.outcomes[outcome] += 1
                    self.slowest = max(self.slowest, time.monotonic() - began)

    def _one(self, call: Call, channel: grpc.Channel, choice: random.Random) -> str:
        try:
            if not call(channel, choice):
                self.problems.append(f"{call.__name__}: OK, and not what was sent")
        except grpc.RpcError as error:
            return self._outcome(call.__name__, error)
        return "good"

    def _outcome(self, name: str, error: Any) -> str:
        """Return what became of a call that did not end with OK."""
        text = f"{error.details()} {error.initial_metadata()} {error.trailing_metadata()}"
        leaks.look("a gRPC error", text)
        found = re.search(r"x-auth-proxy-error', value='(\w+)'", text)
        if found is not None:
            return f"error {found[1]}"
        if error.details() == "Deadline Exceeded":
            self.problems.append(f"{name}: no end within {PATIENCE} s")
        elif error.code() not in CUT:
            self.problems.append(f"{name}: {error.code()}, {error.details()}")
        return "cut"


def _unary(channel: grpc.Channel, choice: random.Random) -> bool:
    seed, size, given = choice.randrange(1000), choice.randrange(LARGE), choice.randrange(LARGE)
    call = channel.unary_unary(f"{SERVICE}UnaryCall")
    answer = call(request(given, seed=seed, size=size), timeout=PATIENCE)
    return bool(answer == content(size, seed))


def _small(channel: grpc.Channel, choice: random.Random) -> bool:
    call = channel.unary_unary(f"{SERVICE}UnaryCall")
    seed = choice.randrange(1000)
    return bool(call(request(seed=seed, size=20), timeout=PATIENCE) == content(20, seed))


def _down(channel: grpc.Channel, choice: random.Random) -> bool:
    seed = choice.randrange(1000)
    sizes = [choice.randrange(20_000) for _ in range(choice.randrange(20))]
    call = channel.unary_stream(f"{SERVICE}StreamingOutputCall")
    got = list(call(request(seed=seed, sizes=sizes), timeout=PATIENCE))
    return got == [content(size, seed) for size in sizes]


def _up(channel: grpc.Channel, choice: random.Random) -> bool:
    given = [request(choice.randrange(20_000), n=n) for n in range(choice.randrange(1, 20))]
    call = channel.stream_unary(f"{SERVICE}StreamingInputCall")
    return bool(call(iter(given), timeout=PATIENCE) == str(sum(map(len, given))).encode())


def _both(channel: grpc.Channel, choice: random.Random) -> bool:
    """Send each message once the answer to the one before has come."""
    count, seed = choice.randrange(1, 10), choice.randrange(1000)
    answered = threading.Semaphore(1)

    def ask() -> Iterator[bytes]:
        for _ in range(count):
            if not answered.acquire(timeout=PATIENCE):
                return
            yield request(10, sizes=[100], seed=seed)

    call = channel.stream_stream(f"{SERVICE}FullDuplexCall")
    got = []
    try:
        for one in call(ask(), timeout=PATIENCE):
            got.append(one)
            answered.release()
    finally:
        # Whoever still wants to ask may go.
        answered.release(count)
    return got == [content(100, seed)] * count


CALLS: tuple[Call, ...] = (_small, _small, _small, _unary, _down, _up, _both)
