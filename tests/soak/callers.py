"""Those who call during a soak: what each did, how it ended, and whether that was to be expected.

Calls over HTTP/1.1 are those of `tests.chaos.traffic`; WebSockets and streams of events are
aiohttp's, gRPC is grpcio's.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web

from tests.chaos.traffic import Traffic
from tests.fakes import sessions
from tests.fakes.grpc_service import OPTIONS, SERVICE, request

EVENTS = 20
"""Events of a stream."""
SAID = 20
"""Messages of a WebSocket that does not stay."""
PATIENCE = 30.0
"""Seconds for one call: a call that takes longer hangs."""


@dataclass
class Ledger:
    """How calls ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """By kind of caller and what it came to."""
    problems: list[str] = field(default_factory=list)
    """What must never be."""
    lost: list[tuple[str, float]] = field(default_factory=list)
    """What only the failure of a region explains, and when it was seen (steady clock)."""

    def ended(self, kind: str, outcome: str = "good") -> None:
        """Count a call that ended as it should."""
        self.outcomes[f"{kind}: {outcome}"] += 1

    def problem(self, text: str) -> None:
        """Note what must never be; the first hundred tell enough."""
        if len(self.problems) < 100:
            self.problems.append(text)

    @property
    def calls(self) -> int:
        """That have ended so far."""
        return self.outcomes.total()


class Noted(Traffic):
    """Callers over HTTP/1.1 whose outcomes go into a ledger.

    `expected` are outcomes besides a good answer, `disturbed` those that a lost region explains.
    """

    def __init__(
        self,
        ledger: Ledger,
        kind: str,
        *about: Any,
        expected: frozenset[str] = frozenset(),
        disturbed: frozenset[str] = frozenset(),
        **more: Any,
    ) -> None:
        """`about` and `more` are those of `Traffic`."""
        super().__init__(*about, **more)
        self._ledger = ledger
        self._kind = kind
        self._expected = expected | {"good"}
        self._disturbed = disturbed

    def saw(self, outcome: str) -> None:
        """Count what one call came to."""
        if outcome in self._expected:
            self._ledger.ended(self._kind, outcome)
        elif outcome in self._disturbed:
            self._ledger.ended(self._kind, f"{outcome}, a region was lost")
            self._ledger.lost.append((f"{self._kind}: {outcome}", time.monotonic()))
        else:
            self._ledger.problem(f"{self._kind}: {outcome}")


class Callers(ABC):
    """So many that do the same again and again, with a pause between, until they are stopped."""

    kind: str

    def __init__(self, ledger: Ledger, number: int, pause: float) -> None:
        self.ledger = ledger
        self._number = number
        self._pause = pause
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Let them call."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._run(number), name=f"{self.kind} {number}")
            for number in range(self._number)
        ]

    async def stop(self) -> None:
        """Let each end what it does."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def _run(self, number: int) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.call(number)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is what the run looks for)
                self.ledger.problem(f"{self.kind}: {error!r}")
            await asyncio.sleep(self._pause)

    @abstractmethod
    async def call(self, number: int) -> None:
        """Make one call, as the caller of this number; note its end, or raise what went wrong."""


class LiveCallers(Callers):
    """aiohttp: WebSockets and streams of events, in turns."""

    kind = "live"

    def __init__(
        self, ledger: Ledger, session: aiohttp.ClientSession, url: str, number: int, pause: float
    ) -> None:
        """`session` is one of `sessions.session`."""
        super().__init__(ledger, number, pause)
        self._session = session
        self._url = url
        self._calls = 0

    async def call(self, number: int) -> None:  # noqa: ARG002 (all do the same)
        """Open one of either kind, and hear it to its end."""
        self._calls += 1
        if self._calls % 2:
            await self._socket()
        else:
            await self._stream()

    async def _socket(self) -> None:
        async with self._session.ws_connect(f"{self._url}/live/socket") as socket:
            for number in range(SAID):
                said = bytes([number]) * (1 + 997 * number)
                await socket.send_bytes(said)
                if await socket.receive_bytes() != said:
                    raise AssertionError("a WebSocket did not echo")
        self.ledger.ended("WebSocket")

    async def _stream(self) -> None:
        async with self._session.get(f"{self._url}/live/events") as answer:
            got = await answer.read()
        if got != b"".join(map(event, range(EVENTS))):
            raise AssertionError(f"a stream of events brought {len(got)} bytes")
        self.ledger.ended("stream of events")


class GrpcCallers(Callers):
    """grpcio: calls of all four kinds, calls that fail, and calls that are given up."""

    kind = "gRPC"

    def __init__(self, ledger: Ledger, channel: Any, number: int, pause: float) -> None:
        """`channel` is grpc.aio's; `open_channel` makes one."""
        super().__init__(ledger, number, pause)
        self._unary = channel.unary_unary(f"{SERVICE}UnaryCall")
        self._output = channel.unary_stream(f"{SERVICE}StreamingOutputCall")
        self._input = channel.stream_unary(f"{SERVICE}StreamingInputCall")
        self._duplex = channel.stream_stream(f"{SERVICE}FullDuplexCall")
        self._ways: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._ask, self._listen, self._tell, self._converse, self._err, self._wait, self._leave,
        ]  # fmt: skip
        self._choice = random.Random(number)  # noqa: S311 (repeatable)

    async def call(self, number: int) -> None:  # noqa: ARG002 (all do the same)
        """Make a call of one kind."""
        way = self._choice.choice(self._ways)
        await way()
        self.ledger.ended(f"gRPC {way.__name__.strip('_')}")

    async def _ask(self) -> None:
        size = self._choice.randrange(50_000)
        answer = await self._unary(request(size, size=size))
        _expect(len(answer), size)

    async def _listen(self) -> None:
        got = [len(one) async for one in self._output(request(sizes=[100] * 30))]
        _expect(got, [100] * 30)

    async def _tell(self) -> None:
        async def messages() -> Any:
            for _ in range(30):
                yield bytes(1000)

        _expect(await self._input(messages()), b"30000")

    async def _converse(self) -> None:
        call = self._duplex()
        for size in (1, 1000, 10_000):
            await call.write(request(sizes=[size]))
            _expect(len(await call.read()), size)
        await call.done_writing()
        _expect(await call.read(), grpc.aio.EOF)

    async def _err(self) -> None:
        await self._fail(request(code=9, message="as asked"), grpc.StatusCode.FAILED_PRECONDITION)

    async def _wait(self) -> None:
        """Let the deadline end a call."""
        await self._fail(request(sleep=20), grpc.StatusCode.DEADLINE_EXCEEDED, timeout=0.1)

    async def _leave(self) -> None:
        """Give a stream up once it has begun."""
        call = self._output(request(sizes=[10], sleep=20))
        _expect(len(await call.read()), 10)
        call.cancel()

    async def _fail(self, given: bytes, code: grpc.StatusCode, **more: Any) -> None:
        try:
            await self._unary(given, **more)
        except grpc.aio.AioRpcError as error:
            _expect(error.code(), code)
        else:
            raise AssertionError("a call did not fail")


def open_channel(address: str) -> Any:
    """Return a channel of grpc.aio, to be entered and left as a context."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def open_session() -> aiohttp.ClientSession:
    """Return what `LiveCallers` call with."""
    return sessions.session()


def _expect(got: object, expected: object) -> None:
    if got != expected:
        raise AssertionError(f"{got!r} instead of {expected!r}")


# --- what the live callers call


def event(number: int) -> bytes:
    """Return an event of the stream."""
    return b"data: %d\n\n" % number


async def live(asked: web.Request) -> web.StreamResponse:
    """Serve ``/live/socket``, an echo, and ``/live/events``, a stream of `EVENTS`."""
    if asked.path == "/live/socket":
        socket = web.WebSocketResponse()
        await socket.prepare(asked)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await stream.prepare(asked)
    for number in range(EVENTS):
        await stream.write(event(number))
        # A stream is no stream without pauses.
        await asyncio.sleep(0.01)
    return stream
