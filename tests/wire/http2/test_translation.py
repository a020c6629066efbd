"""Every version of HTTP into every other: what an upstream says arrives, and has a visible end.

The rows are made of all the ways in which an answer can be framed and all that it can answer.
What has to arrive is computed from the standards alone (RFC 9112, 6.3; RFC 9113, 8.1).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from proxy.config import model
from tests.fakes.cutting import bytewise
from tests.fakes.framed import FramedCaller, FramedUpstream, FramedUpstreamEnd, Pairs
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import Message, RawCaller, UpstreamEnd, first_message
from tests.fakes.wired import Wired

CALLERS = ["HTTP/1.0", "HTTP/1.0 keep-alive", "HTTP/1.1", "HTTP/2"]
IN_LINES = ["1.0 close", "1.0 length", "1.1 length", "1.1 chunked", "1.1 close"]
CLOSING = ["1.0 close", "1.0 length", "1.1 close"]
IN_FRAMES = ["2 head", "2 empty DATA", "2 DATA", "2 trailers", "2 length, trailers"]
METHODS = ["GET", "HEAD", "POST", "EARLY", "UPGRADE"]
"""EARLY is a POST that is answered before its body is whole."""
STATUSES = [103, 200, 204, 205, 206, 304, 401, 413, 500]
"""103 stands for itself with 200 behind it; for an upgrade, for 101."""
SIZES = [0, 1, 100_000]

FIELDS = [("x-a", "1"), ("set-cookie", "a=1"), ("etag", '"e"'), ("set-cookie", "b=2"),
          ("content-type", "text/html")]  # fmt: skip
HINT = ("link", "</a.css>; rel=preload")
TRAILER = ("x-late", "z")
FRAMING = {"content-length", "transfer-encoding", "connection", "trailer"}
LARGE = bytes(range(256)) * 391


@dataclass(frozen=True)
class Row:
    """One exchange: how the upstream frames what."""

    kind: str
    method: str
    status: int
    size: int

    @property
    def body(self) -> bytes:
        return LARGE[: self.size]

    @property
    def sent(self) -> bytes:
        """The request's body."""
        if self.method == "EARLY":
            return b"0123456789"
        return self.body[::-1] if self.method == "POST" else b""

    @property
    def verb(self) -> str:
        """What the request line says."""
        return {"EARLY": "POST", "UPGRADE": "GET"}.get(self.method, self.method)

    @property
    def is_tunnel(self) -> bool:
        return self.method == "UPGRADE" and self.status == 103

    @property
    def final(self) -> int:
        return 200 if self.status == 103 else self.status

    @property
    def is_bodyless(self) -> bool:
        """Whether no body follows whatever the head says (RFC 9110, 6.4.1)."""
        return self.method == "HEAD" or self.final in (204, 304)

    @property
    def announced(self) -> str:
        """What Content-Length says, empty where there is none; on 204 it is not to be believed."""
        says = self.kind in ("1.0 length", "1.1 length", "2 DATA", "2 length, trailers")
        return str(self.size) if says else ""

    @property
    def has_trailer(self) -> bool:
        in_chunks = self.kind == "1.1 chunked" and not self.is_bodyless
        return "trailers" in self.kind or in_chunks


@dataclass
class Received:
    """What a caller got."""

    status: int
    fields: list[tuple[str, str]]
    length: str
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    hints: list[tuple[str, str]] = field(default_factory=list)
    stays: bool = True
    """Whether the connection is for another exchange."""


def rows(caller: str, kind: str, sizes: list[int]) -> Iterator[Row]:
    """Yield what can be: HTTP/2 has no upgrades, HTTP/1.0 no 1xx, a head alone no body."""
    for method, status, size in itertools.product(METHODS, STATUSES, sizes):
        if method == "UPGRADE" and (caller != "HTTP/1.1" or kind in IN_FRAMES):
            continue
        if status == 103 and kind.startswith("1.0"):
            continue
        if kind == "2 head" and size and method != "HEAD" and status not in (204, 304):
            continue
        yield Row(kind, method, status, size)


def expected(row: Row, caller: str) -> Received:
    """Return what has to arrive."""
    is_bodyless = row.is_bodyless
    body = b"" if is_bodyless else row.body
    # RFC 9110, 8.6: no length on 204.
    got = Received(row.final, FIELDS, row.announced if row.final != 204 else "", body)
    is_1_0 = caller.startswith("HTTP/1.0")
    if row.status == 103 and not is_1_0:
        got.hints = [HINT]
    if caller != "HTTP/2" and row.kind == "2 head" and not is_bodyless:
        got.length = "0"  # Nothing else would tell an HTTP/1.1 caller.
    has_length = is_bodyless or got.length != ""
    if row.has_trailer and (caller == "HTTP/2" or (caller == "HTTP/1.1" and not has_length)):
        got.trailers = [TRAILER]
    got.stays = not is_1_0 or (has_length and "keep-alive" in caller)
    return got


# --- upstreams


class Answers(Protocol):
    """An upstream that answers the next request as a row says."""

    def prepare(self, row: Row) -> None:
        """Have the next request answered so."""

    async def serve(self) -> None:
        """See that the request comes and is answered."""

    def body(self) -> bytes:
        """Return the body of the last request that was whole."""


class InLines:
    """An upstream that speaks HTTP/1.0 or HTTP/1.1."""

    def __init__(self, world: Wired) -> None:
        self._upstream = world.upstream
        self._world = world
        self._row = Row("", "", 0, 0)
        self._count = 0

    def prepare(self, row: Row) -> None:
        self._row = row
        self._count = len(self._upstream.requests) + 1
        self._upstream.automatic = None if row.method == "EARLY" else lines_of(row)

    async def serve(self) -> None:
        if self._row.method == "EARLY":
            end = await self._headed()
            end.received.clear()
            end.send(lines_of(self._row))
        else:
            seen = self._upstream.requests
            await self._world.until(lambda: len(seen) == self._count, "the request")
            end = self._upstream.connections[-1]
        if self._row.kind in CLOSING and not self._row.is_tunnel:
            # After an early answer the rest of the request would make the kernel send RST.
            (end.finish if self._row.method == "EARLY" else end.close)()

    async def _headed(self) -> UpstreamEnd:
        """Return the connection on which a head has come."""
        ends = self._upstream.connections
        found: list[UpstreamEnd] = []

        def look() -> bool:
            found[:] = [end for end in ends if b"\r\n\r\n" in end.received and not end.ended]
            return bool(found)

        await self._world.until(look, "the head")
        return found[-1]

    def body(self) -> bytes:
        return self._upstream.requests[-1].body


def lines_of(row: Row) -> bytes:
    """Return an answer in lines."""
    if row.is_tunnel:
        return b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    version, _, framing = row.kind.partition(" ")
    lines = [f"HTTP/{version} {row.final} X", *(f"{name}: {value}" for name, value in FIELDS)]
    body = b"" if row.is_bodyless else row.body
    if row.announced:
        lines.append(f"Content-Length: {row.announced}")
    elif framing == "close" and version == "1.1":
        lines.append("Connection: close")
    elif framing == "chunked" and row.final != 204:
        lines.append("Transfer-Encoding: chunked")
        if not row.is_bodyless:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = chunk + b"0\r\n%b\r\n\r\n" % ": ".join(TRAILER).encode()
    early = f"HTTP/1.1 103 X\r\n{HINT[0]}: {HINT[1]}\r\n\r\n" if row.status == 103 else ""
    return early.encode() + "\r\n".join([*lines, "", ""]).encode() + body


class InFrames(FramedUpstream):
    """An upstream that speaks HTTP/2."""

    def __init__(self) -> None:
        super().__init__()
        self._row = Row("", "", 0, 0)
        self._done: set[tuple[int, int]] = set()
        self._last = b""

    def prepare(self, row: Row) -> None:
        self._row = row

    def heard(self, end: FramedUpstreamEnd) -> None:
        for stream, seen in end.streams.items():
            is_due = seen.pairs if self._row.method == "EARLY" else seen.ended
            if is_due and not seen.reset and (id(end), stream) not in self._done:
                self._done.add((id(end), stream))
                self._last = bytes(seen.body)
                frames_of(self._row, end, stream)

    async def serve(self) -> None:
        """Do nothing more: `heard` has."""

    def body(self) -> bytes:
        return self._last


def frames_of(row: Row, end: FramedUpstreamEnd, stream: int) -> None:
    """Send an answer in frames."""
    body = b"" if row.is_bodyless else row.body
    if row.status == 103:
        end.send_headers(stream, ((":status", "103"), HINT))
    length = [("content-length", row.announced)] if row.announced else []
    empty_data = row.kind == "2 empty DATA" or (row.kind == "2 DATA" and not body)
    end.send_headers(
        stream, ((":status", str(row.final)), *FIELDS, *length), end=row.kind == "2 head"
    )
    if body:
        end.send_data(stream, body, end=row.kind == "2 DATA")
    if empty_data:
        end.send_data(stream, b"", end=True)
    if row.has_trailer:
        end.send_headers(stream, (TRAILER,), end=True)


# --- callers


class Lines:
    """A caller that speaks HTTP/1.x, on one connection as long as it is kept."""

    def __init__(self, world: Wired, version: str) -> None:
        self._world = world
        self._version, _, self._keep_alive = version.partition(" ")
        self._open: RawCaller | None = None

    async def ask(self, row: Row) -> None:
        caller = self._open
        if caller is None:
            caller = self._open = await self._world.caller()
        assert not caller.ended
        lines = [f"{row.verb} / {self._version}", "Host: a"]
        if row.method == "UPGRADE":
            lines += ["Connection: Upgrade", "Upgrade: websocket"]
        elif self._keep_alive:
            lines.append("Connection: keep-alive")
        if row.verb == "POST":
            lines.append(f"Content-Length: {len(row.sent)}")
        body = row.sent[:5] if row.method == "EARLY" else row.sent
        caller.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def receive(self, row: Row) -> Received:
        caller = self._open
        assert caller is not None
        hints: list[tuple[str, str]] = []
        while True:
            message = await self._message(caller, bodyless=row.is_bodyless)
            if message.status != 103:
                break
            hints += fields_of(message.head)
        stays = "close" not in message.values("connection")
        if self._version == "HTTP/1.0":
            stays = message.values("connection") == ["keep-alive"]
        if not stays:
            assert await caller.take_all() == b""
            assert not caller.was_reset
            self._open = None
        elif row.method == "EARLY":
            caller.send(row.sent[5:])
        assert caller.received == b""
        found = fields_of(message.head)
        return Received(
            message.status,
            [pair for pair in found if pair[0] not in FRAMING],
            ",".join(value for name, value in found if name == "content-length"),
            message.body,
            fields_of(b"\r\n" + message.trailers),
            hints,
            stays,
        )

    async def _message(self, caller: RawCaller, *, bodyless: bool) -> Message:
        """Return the next message; one that only the end delimits is whole with a FIN."""

        def whole() -> Message | None:
            return first_message(bytes(caller.received), bodyless=bodyless)

        await caller.until(lambda: whole() or caller.ended, "a response")
        message = whole()
        if message is None:
            head, _, body = bytes(caller.received).partition(b"\r\n\r\n")
            assert b"\r\nConnection: close" in head
            message = Message(bytes(caller.received), head, body)
        del caller.received[: len(message.raw)]
        return message

    async def tunnel(self) -> None:
        """See that bytes pass both ways after a 101, and then the end."""
        caller, self._open = self._open, None
        assert caller is not None
        assert (await caller.answer()).status == 101
        upstream = self._world.upstream.connections[-1]
        caller.send(b"ping")
        await upstream.take(b"ping")
        upstream.send(b"pong")
        upstream.finish()
        assert await caller.take_all() == b"pong"
        caller.finish()
        await upstream.take_all()
        upstream.close()

    def give_up(self) -> None:
        if self._open is not None:
            self._open.reset()
            self._open = None


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """Return the fields of a head, or of trailers behind an empty line."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(": ") for line in lines if line)
    return [(name.lower(), value) for name, _, value in pairs]


class Frames:
    """A caller that speaks HTTP/2, on one connection."""

    def __init__(self, caller: FramedCaller) -> None:
        self._caller = caller
        self._stream = -1

    async def ask(self, row: Row) -> None:
        self._stream += 2
        pairs: Pairs = (
            (":method", row.verb), (":scheme", "http"), (":path", "/"), (":authority", "a"),
        )  # fmt: skip
        self._caller.send_headers(self._stream, pairs, end=row.verb != "POST")
        if row.method == "EARLY":
            self._caller.send_data(self._stream, row.sent[:5])
        elif row.method == "POST":
            self._caller.send_data(self._stream, row.sent, end=True)

    async def receive(self, row: Row) -> Received:
        seen = await self._caller.finished(self._stream)
        assert seen.ended
        if row.method == "EARLY":
            # It may cross the reset that says that nobody needs it (RFC 9113, 8.1).
            self._caller.send_data(self._stream, row.sent[5:], end=True)
        else:
            assert seen.reset == ""
        names = [name for name, _ in seen.pairs]
        assert "connection" not in names
        assert "transfer-encoding" not in names
        return Received(
            seen.status,
            [pair for pair in seen.pairs[1:] if pair[0] not in FRAMING],
            ",".join(value for name, value in seen.pairs if name == "content-length"),
            bytes(seen.body),
            seen.trailers,
            [pair for hint in seen.informational for pair in list(hint.items())[1:]],
            not (self._caller.ended or self._caller.goaways),
        )

    async def tunnel(self) -> None:
        """HTTP/2 has none."""
        raise AssertionError

    def give_up(self) -> None:
        """Go on: streams fail each by itself."""


# --- the matrix


@dataclass
class Ends:
    """A caller and an upstream with the proxy between them."""

    caller: Lines | Frames
    upstream: Answers
    connections: Callable[[], int]


async def opened(stack: AsyncExitStack, caller: str, kind: str, cuts: Any) -> Ends:
    """Start all three; `cuts` is how what is read comes, None for segments as they are."""
    framed = InFrames()
    world = Framed(framed) if kind in IN_FRAMES else Wired()
    if cuts is not None:
        world.cut_requests = cuts
        world.cut_responses(cuts)
    await stack.enter_async_context(world)
    protocol = model.Protocol.H2 if kind in IN_FRAMES else model.Protocol.H1
    # A 401 to a token is looked at before it is passed on.
    await world.serve(protocol=protocol, auth=model.Auth.ID_TOKEN)
    upstream: Answers = framed if kind in IN_FRAMES else InLines(world)
    ends = framed.connections if kind in IN_FRAMES else world.upstream.connections
    if caller == "HTTP/2":
        frames = await stack.enter_async_context(await frame_caller(world))
        return Ends(Frames(frames), upstream, lambda: len(ends))
    return Ends(Lines(world, caller), upstream, lambda: len(ends))


async def outcome(ends: Ends, row: Row, caller: str) -> str:
    """Make one exchange; return what went wrong, empty for nothing."""
    ends.upstream.prepare(row)
    try:
        await ends.caller.ask(row)
        if row.is_tunnel:
            await ends.caller.tunnel()
            return ""
        await ends.upstream.serve()
        got = await ends.caller.receive(row)
        assert row.method == "EARLY" or ends.upstream.body() == row.sent
    except AssertionError as error:
        ends.caller.give_up()
        return f"{row}: {str(error)[:300]}"
    due = expected(row, caller)
    wrong = [name for name in vars(due) if getattr(due, name) != getattr(got, name)]
    return ", ".join(f"{row}: {name} is {str(getattr(got, name))[:100]}" for name in wrong)


@pytest.mark.parametrize("arrival", ["whole", "byte by byte"])
@pytest.mark.parametrize("kind", [*IN_LINES, *IN_FRAMES])
@pytest.mark.parametrize("caller", CALLERS)
async def test_what_an_upstream_says_arrives_and_ends(caller: str, kind: str, arrival: str) -> None:
    sizes = SIZES if arrival == "whole" else SIZES[:2]
    due = list(rows(caller, kind, sizes))
    async with AsyncExitStack() as stack:
        cuts = None if arrival == "whole" else bytewise
        ends = await opened(stack, caller, kind, cuts)
        failures = []
        for row in due:
            failure = await outcome(ends, row, caller)
            failures += [failure] if failure else []
            if len(failures) > 5:
                break

        assert failures == []
        # The upstream's connections are used again exactly when they may be: not behind an end,
        # nor after an answer that came before the request was written.
        spent = [
            row.is_tunnel or kind in CLOSING or (row.method == "EARLY" and kind in IN_LINES)
            for row in due
        ]
        assert ends.connections() == sum(spent) + (not spent[-1])
