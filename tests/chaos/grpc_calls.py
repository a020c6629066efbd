"""gRPC callers that do many things at once and check every byte that they get, on grpcio.

What a call came to is named as in `traffic`: an error of the proxy's own by its reason, and every
other status but OK, which grpc makes of a connection or stream that ends early, is a cut.  With OK,
and with a status that the service was asked for, its trailers have to come, too.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc

from tests.chaos.traffic import LARGE, PATIENCE
from tests.fakes import leaks
from tests.fakes.grpc_service import ECHO_TRAILING, OPTIONS, SERVICE, content, request

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
            threading.Thread(target=self._run, args=(seed * 1000 + n,), daemon=True)
            for n in range(callers)
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
                self.problems.append(f"{call.__name__}: not what was sent, or without its trailers")
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
        if "failed to connect" in (error.details() or ""):
            time.sleep(0.01)  # A listener that is gone must not make this a busy loop.
            return "refused"
        if error.details() == "Deadline Exceeded":
            self.problems.append(f"{name}: no end within {PATIENCE} s")
        elif error.code() not in CUT:
            self.problems.append(f"{name}: {error.code()}, {error.details()}")
        return "cut"


def _sending(choice: random.Random) -> dict[str, Any]:
    """Return what each call is made with: how long it may take, and what its trailers echo."""
    return {"timeout": PATIENCE, "metadata": ((ECHO_TRAILING, choice.randbytes(20)),)}


def _told(call: Any, sent: Mapping[str, Any]) -> bool:
    """Tell whether the trailers of a call that has ended are those of the service."""
    return all(pair in list(call.trailing_metadata() or ()) for pair in sent["metadata"])


def _unary(channel: grpc.Channel, choice: random.Random) -> bool:
    return _ask_for(channel, choice, choice.randrange(LARGE), given=choice.randrange(LARGE))


def _small(channel: grpc.Channel, choice: random.Random) -> bool:
    return _ask_for(channel, choice, 20, given=0)


def _ask_for(channel: grpc.Channel, choice: random.Random, size: int, *, given: int) -> bool:
    seed, sent = choice.randrange(1000), _sending(choice)
    ask = channel.unary_unary(f"{SERVICE}UnaryCall")
    answer, call = ask.with_call(request(given, seed=seed, size=size), **sent)
    return bool(answer == content(size, seed) and _told(call, sent))


def _refused(channel: grpc.Channel, choice: random.Random) -> bool:
    """Have the service answer with a status of its own, whose message is beyond ASCII."""
    sent, message = _sending(choice), f"nothing for {choice.randrange(1000)} \N{EURO SIGN}, 100 %"
    code = grpc.StatusCode.NOT_FOUND
    try:
        ask = channel.unary_unary(f"{SERVICE}UnaryCall")
        ask(request(code=code.value[0], message=message), **sent)
    except grpc.RpcError as error:
        told: Any = error
        if told.code() is not code or "x-auth-proxy-error" in dict(told.trailing_metadata() or ()):
            raise
        return bool(told.details() == message and _told(told, sent))
    return False


def _down(channel: grpc.Channel, choice: random.Random) -> bool:
    seed, sent = choice.randrange(1000), _sending(choice)
    sizes = [choice.randrange(20_000) for _ in range(choice.randrange(20))]
    call = channel.unary_stream(f"{SERVICE}StreamingOutputCall")(
        request(seed=seed, sizes=sizes), **sent
    )
    return list(call) == [content(size, seed) for size in sizes] and _told(call, sent)


def _up(channel: grpc.Channel, choice: random.Random) -> bool:
    given = [request(choice.randrange(20_000), n=n) for n in range(choice.randrange(1, 20))]
    sent = _sending(choice)
    ask = channel.stream_unary(f"{SERVICE}StreamingInputCall")
    answer, call = ask.with_call(iter(given), **sent)
    return bool(answer == str(sum(map(len, given))).encode() and _told(call, sent))


def _both(channel: grpc.Channel, choice: random.Random) -> bool:
    """Send each message once the answer to the one before has come."""
    count, seed, sent = choice.randrange(1, 10), choice.randrange(1000), _sending(choice)
    answered = threading.Semaphore(1)

    def ask() -> Iterator[bytes]:
        for _ in range(count):
            if not answered.acquire(timeout=PATIENCE):
                return
            yield request(10, sizes=[100], seed=seed)

    call = channel.stream_stream(f"{SERVICE}FullDuplexCall")(ask(), **sent)
    got = []
    try:
        for one in call:
            got.append(one)
            answered.release()
    finally:
        # Whoever still wants to ask may go.
        answered.release(count)
    return got == [content(100, seed)] * count and _told(call, sent)


CALLS: tuple[Call, ...] = (_small, _small, _small, _unary, _down, _up, _both, _refused)
