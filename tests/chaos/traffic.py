"""Callers that do many things at once and check every byte that they get.

What a caller may see is known beforehand, so that each answer is one of: good; an error that the
proxy made; cut, and then a prefix of what was sent; silence, where the connection ended before
a byte of the answer; refused, where there was none.  Anything else is a `problem`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests.chaos.app import PIECE, body, event
from tests.fakes import leaks
from tests.fakes.program import A_TOKEN

LARGE = 300_000
"""Bytes that no buffer on the way holds at once."""

PATIENCE = 30.0
"""Seconds for one answer: a call that takes longer hangs."""

Action = Callable[["Caller"], Awaitable[None]]


UPLOADS = itertools.count()
"""No two uploads of a run have the same target: one that came twice was sent twice."""


class Silence(Exception):
    """The connection ended before a byte of the answer."""

    outcome = "silence"


class UploadSilence(Silence):
    """The same while a body was sent: a reset may have taken the answer along (RFC 9112, 9.6)."""

    outcome = "silence to an upload"


UNSEEN = (Silence.outcome, UploadSilence.outcome, "refused", "left", "cut")
"""Calls that the proxy may not have seen, or not counted before it was asked."""


TOKENLESS = ("error token_unavailable", "error token_timed_out")


class Cut(Exception):
    """The connection ended within the answer."""

    def __init__(self, got: bytes) -> None:
        """`got` is what had come of the body."""
        super().__init__()
        self.got = got


@dataclass
class Answer:
    """A whole response."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        """Which error of the proxy's own it is, if it is one."""
        return self.fields.get("x-auth-proxy-error")


@dataclass
class Traffic:
    """Runs callers until it is stopped, and keeps what they saw."""

    address: tuple[str, int]
    actions: Mapping[str, int]
    """How often each is done, as weights; the names are those of `ACTIONS`."""
    callers: int = 16
    seed: int = 0
    prefix: str = ""
    """What paths begin with: it chooses the route."""
    slowest: float = 0.0
    """Seconds that the slowest call took."""
    pause: float = 0.0
    """Seconds between two calls of one caller."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """By what happened; ``error REASON`` for the proxy's own."""
    first_trouble: dict[str, float] = field(default_factory=dict)
    """When (steady clock) an outcome was seen first."""
    problems: list[str] = field(default_factory=list)
    tokenless: list[tuple[float, float]] = field(default_factory=list)
    """From when to when (Unix seconds) calls were under way that the proxy had no token for."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        """Let the callers call."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(Caller(self, random.Random(self.seed * 1000 + n)).run())  # noqa: S311 (repeatable)
            for n in range(self.callers)
        ]

    async def stop(self) -> None:
        """Let every caller finish what it does, and end."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    @property
    def is_stopping(self) -> bool:
        """Whether callers shall begin nothing more."""
        return self._stopping.is_set()

    def saw(self, outcome: str) -> None:
        """Count what one call came to."""
        self.outcomes[outcome] += 1
        self.first_trouble.setdefault(outcome, time.monotonic())

    def first(self, outcome: str) -> float:
        """When an outcome was seen first; infinity for never."""
        return self.first_trouble.get(outcome, float("inf"))

    @property
    def good(self) -> int:
        """Calls that came to what they should."""
        return self.outcomes["good"]

    @property
    def bad(self) -> dict[str, int]:
        """Everything else, by what happened."""
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "good"}


class Caller:
    """One app: calls one after the other, mostly over a connection that it keeps."""

    def __init__(self, traffic: Traffic, choice: random.Random) -> None:
        self.choice = choice
        self._traffic = traffic
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._began_at = 0.0

    async def run(self) -> None:
        names, weights = list(self._traffic.actions), list(self._traffic.actions.values())
        while not self._traffic.is_stopping:
            (name,) = self.choice.choices(names, weights)
            await self._do(name)
            if self._traffic.pause:
                await asyncio.sleep(self._traffic.pause)
        self.hang_up()

    async def _do(self, name: str) -> None:
        traffic = self._traffic
        began = time.monotonic()
        self._began_at = time.time()  # noqa: TID251 (as tokens have it)
        try:
            async with asyncio.timeout(PATIENCE):
                await ACTIONS[name](self)
        except Silence as silence:
            traffic.saw(silence.outcome)
            self.hang_up()
        except Cut:
            traffic.saw("cut")
            self.hang_up()
        except TimeoutError:
            traffic.problems.append(f"{name}: no end within {PATIENCE} s")
            self.hang_up()
        except OSError:
            traffic.saw("refused")
            self.hang_up()
            # A listener that is gone must not make this a busy loop.
            await asyncio.sleep(0.01)
        traffic.slowest = max(traffic.slowest, time.monotonic() - began)

    # --- the connection

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the kept connection, or a new one.  Raises OSError if there is none to be had."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._traffic.address)
        return self._reader, self._writer

    def hang_up(self) -> None:
        """Close the connection, with a reset where something is under way."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    # --- one exchange

    async def ask(
        self, method: str, path: str, given: bytes = b"", *, chunked: bool = False
    ) -> Answer:
        """Send a request and read its answer."""
        await self.send_head(method, path, given, chunked=chunked)
        _, writer = await self.connection()
        try:
            for piece in _pieces(given, chunked=chunked):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # The answer may have come before the request was whole.
        try:
            return await self.answer()
        except Silence:
            raise UploadSilence if given else Silence from None

    async def send_head(
        self,
        method: str,
        path: str,
        given: bytes = b"",
        *,
        chunked: bool = False,
        more: str = "",
        version: str = "1.1",
    ) -> None:
        """Begin a request."""
        _, writer = await self.connection()
        framing = ""
        if chunked:
            framing = "Transfer-Encoding: chunked\r\n"
        elif given:
            framing = f"Content-Length: {len(given)}\r\n"
        target = self._traffic.prefix + path
        head = f"{method} {target} HTTP/{version}\r\nHost: localhost\r\n{framing}{more}\r\n"
        writer.write(head.encode())

    async def answer(self) -> Answer:
        """Read one answer.  Raises `Silence` or `Cut`."""
        reader, _ = await self.connection()
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
            raise (Cut(b"") if partial else Silence) from None
        leaks.look("the head of an answer", head)
        lines = head.split("\r\n")[:-2]
        pairs = (line.partition(":") for line in lines[1:])
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        try:
            answer = Answer(int(lines[0].split()[1]), fields, await _body(reader, fields))
        except Cut:
            if "x-auth-proxy-error" in fields:
                raise Cut(b"") from None  # An error's text is no part of what was asked for.
            raise
        if fields.get("connection", "") == "close":
            self.hang_up()
        return answer

    def judge(self, answer: Answer, expected: bytes) -> None:
        """Take note of a whole answer."""
        if answer.reason is not None:
            self.saw_error(answer)
        elif answer.status != 200:
            self.problem(f"status {answer.status}: {answer.body[:200]!r}")
        elif answer.body != expected:
            self.problem(f"{len(answer.body)} bytes that are not the {len(expected)} expected")
        else:
            self._traffic.saw("good")

    def judge_cut(self, cut: Cut, expected: bytes) -> None:
        """Take note of an answer that broke off."""
        if not expected.startswith(cut.got):
            self.problem(f"a cut answer that is no prefix: {cut.got[:300]!r}")
        elif len(cut.got) == len(expected) and expected:
            # All bytes, and still no end: allowed, since chunks need one of their own.
            pass

    def saw_error(self, answer: Answer) -> None:
        """Take note of an error of the proxy's own."""
        text = answer.body.decode("utf-8", "replace") + repr(answer.fields)
        leaks.look("an error of the proxy's own", text)
        if A_TOKEN.search(text):
            self.problem("a token in an error of the proxy's own")
        self.saw(f"error {answer.reason}")

    def saw(self, outcome: str) -> None:
        """Take note of something else."""
        if outcome in TOKENLESS:
            now = time.time()  # noqa: TID251 (as tokens have it)
            self._traffic.tokenless.append((self._began_at, now))
        self._traffic.saw(outcome)

    def problem(self, text: str) -> None:
        """Take note of what must never be."""
        self._traffic.problems.append(text)


def _pieces(data: bytes, *, chunked: bool) -> list[bytes]:
    pieces = [data[n : n + PIECE] for n in range(0, len(data), PIECE)]
    if not chunked:
        return pieces
    return [*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]


async def _body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> bytes:
    """Read a body in its framing.  Raises `Cut` with what came of it."""
    got = bytearray()
    try:
        if fields.get("transfer-encoding") != "chunked":
            await _take(reader, int(fields.get("content-length", "0")), got)
            return bytes(got)
        while size := int(re.split(rb"[;\r]", await reader.readuntil(b"\r\n"))[0], 16):
            await _take(reader, size, got)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        raise Cut(bytes(got)) from None
    return bytes(got)


async def _take(reader: asyncio.StreamReader, size: int, into: bytearray) -> None:
    while size:
        data = await reader.read(min(size, PIECE))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        into += data
        size -= len(data)


# --- what callers do


def _download(word: str, most: int) -> Action:
    async def download(caller: Caller) -> None:
        seed, size = caller.choice.randrange(1000), caller.choice.randrange(most)
        expected = body(seed, size)
        try:
            caller.judge(await caller.ask("GET", f"/{word}/{seed}/{size}"), expected)
        except Cut as cut:
            caller.judge_cut(cut, expected)
            raise

    return download


def _upload(most: int, *, chunked: bool) -> Action:
    async def upload(caller: Caller) -> None:
        seed, size = caller.choice.randrange(1000), caller.choice.randrange(1, most)
        given = body(seed, size)
        path = f"/upload/{seed}/{size}?{next(UPLOADS)}"
        answer = await caller.ask("POST", path, given, chunked=chunked)
        caller.judge(answer, str(size).encode())
        if answer.reason is not None:
            caller.hang_up()  # The request may not have been sent whole.

    return upload


async def _chat(caller: Caller) -> None:
    caller.hang_up()
    await caller.send_head("GET", "/chat", more="Connection: Upgrade\r\nUpgrade: chat\r\n")
    reader, writer = await caller.connection()
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        raise Silence from None
    if not head.startswith(b"HTTP/1.1 101"):
        found = re.search(rb"x-auth-proxy-error: (\w+)", head)
        if found is None:
            caller.problem(f"no upgrade: {head!r}")
        else:
            caller.saw(f"error {found[1].decode()}")
        caller.hang_up()
        return
    try:
        for _ in range(caller.choice.randrange(5)):
            said = body(caller.choice.randrange(1000), caller.choice.randrange(1, PIECE))
            writer.write(said)
            if await reader.readexactly(len(said)) != said:
                caller.problem("an echo that differs")
        writer.write_eof()
        if await reader.read() != b"":
            caller.problem("more than an echo")
        caller.saw("good")
    except (asyncio.IncompleteReadError, OSError):
        # write_eof on what was reset says ENOTCONN, which is no ConnectionError.
        raise Cut(b"") from None
    finally:
        caller.hang_up()


async def _events(caller: Caller) -> None:
    seed, count = caller.choice.randrange(1000), caller.choice.randrange(30)
    expected = b"".join(event(seed, number) for number in range(count))
    try:
        caller.judge(await caller.ask("GET", f"/events/{seed}/{count}"), expected)
    except Cut as cut:
        caller.judge_cut(cut, expected)
        raise


async def _old(caller: Caller) -> None:
    """Ask in HTTP/1.0: the end of the connection ends the answer, and only a reset cuts it."""
    caller.hang_up()
    seed, size = caller.choice.randrange(1000), caller.choice.randrange(LARGE)
    expected, got = body(seed, size), bytearray()
    await caller.send_head("GET", f"/chunks/{seed}/{size}", version="1.0")
    reader, _ = await caller.connection()
    try:
        while data := await reader.read(PIECE):
            got += data
    except ConnectionError:
        raise (Cut(b"") if got else Silence) from None
    if not got:
        raise Silence
    head, _, rest = bytes(got).partition(b"\r\n\r\n")
    found = re.search(rb"x-auth-proxy-error: (\w+)", head)
    if found is not None:
        caller.saw(f"error {found[1].decode()}")
    elif rest == expected:
        caller.saw("good")
    else:
        caller.problem(f"{len(rest)} of {len(expected)} bytes, ended neatly, after {head!r}")
    caller.hang_up()


async def _leave_early(caller: Caller) -> None:
    """Ask for much, read a little, and go away."""
    seed = caller.choice.randrange(1000)
    await caller.send_head("GET", f"/bytes/{seed}/{LARGE}")
    reader, _ = await caller.connection()
    try:
        await reader.read(caller.choice.randrange(1, PIECE))
    except ConnectionError:
        raise Silence from None
    caller.hang_up()
    caller.saw("left")


async def _leave_an_upload(caller: Caller) -> None:
    given = body(0, LARGE)
    await caller.send_head("POST", f"/upload/0/{LARGE}?{next(UPLOADS)}", given)
    _, writer = await caller.connection()
    writer.write(given[: caller.choice.randrange(LARGE)])
    caller.hang_up()
    caller.saw("left")


async def _half_a_head(caller: Caller) -> None:
    caller.hang_up()
    _, writer = await caller.connection()
    writer.write(b"GET / HTTP/1.1\r\nHos")
    caller.hang_up()
    caller.saw("left")


async def _ask_for_nonsense(caller: Caller) -> None:
    caller.hang_up()
    await caller.send_head("GET", "/bytes/0/1", more="Content-Length: 1, 2\r\n")
    answer = await caller.answer()
    if answer.reason != "request_malformed":
        caller.problem(f"nonsense was answered with {answer.status}")
    caller.saw_error(answer)


def _trouble(word: str) -> Action:
    """Ask the app to be in trouble: an error of the proxy's, or a cut."""

    async def ask(caller: Caller) -> None:
        seed, size = caller.choice.randrange(1000), caller.choice.randrange(2, LARGE)
        expected = body(seed, size)
        try:
            answer = await caller.ask("GET", f"/{word}/{seed}/{size}")
        except Cut as cut:
            caller.judge_cut(cut, expected)
            raise
        if answer.reason is not None:
            caller.saw_error(answer)
        elif answer.status >= 500:
            caller.saw("error of the front")
        else:
            caller.problem(f"{word} was answered with {answer.status}")

    return ask


ACTIONS: Mapping[str, Action] = {
    "small": _download("bytes", 1000),
    "large": _download("bytes", LARGE),
    "chunks": _download("chunks", LARGE),
    "until the end": _download("end", LARGE),
    "events": _events,
    "old": _old,
    "small upload": _upload(1000, chunked=False),
    "upload": _upload(LARGE, chunked=False),
    "upload in chunks": _upload(LARGE, chunked=True),
    "chat": _chat,
    "leave early": _leave_early,
    "leave an upload": _leave_an_upload,
    "half a head": _half_a_head,
    "nonsense": _ask_for_nonsense,
    "reset": _trouble("reset"),
    "cut": _trouble("cut"),
    "stall": _trouble("stall"),
    "garbage": _trouble("garbage"),
}

WELL_BEHAVED: Mapping[str, int] = {
    "small": 30,
    "large": 4,
    "chunks": 4,
    "upload": 4,
    "upload in chunks": 4,
    "chat": 2,
}

TROUBLE: Mapping[str, int] = {
    **WELL_BEHAVED,
    "leave early": 3,
    "leave an upload": 3,
    "half a head": 2,
    "nonsense": 2,
    "reset": 2,
    "cut": 3,
    "stall": 1,
    "garbage": 2,
}
