"""Both ends of the wire in raw bytes: a caller that sends them, an upstream that a test scripts.

Everything that arrives is kept, in order.  Waiting is always for something to arrive: a wait
that is not answered within `PATIENCE` fails the test and shows what came instead.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

import h11
from httptools import HttpResponseParser

from tests.fakes import leaks

PATIENCE = 5.0  # Seconds: only a failing test waits that long.

_HEAD_END = b"\r\n\r\n"
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


class End(asyncio.Protocol):
    """One end of a TCP connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        """What came and was not taken by the test yet."""
        self.history = bytearray()
        """All that ever came."""
        self.at_eof = False
        self.error: Exception | None = None
        self.closed = False
        self._news: asyncio.Event = asyncio.Event()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)

    # --- the loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.history += data
        self._news.set()

    def eof_received(self) -> bool:
        self.at_eof = True
        self._news.set()
        # The test says when this end closes. (TLS cannot stay half open.)
        return self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.closed = True
        self._news.set()

    # --- the test's side

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def finish(self) -> None:
        """Send FIN."""
        self._transport.write_eof()

    def close(self) -> None:
        self._transport.close()

    def reset(self) -> None:
        """Send RST."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def unsent(self) -> int:
        """Bytes that wait in this process because the far end does not read."""
        return self._transport.get_write_buffer_size()

    async def until(self, done: Callable[[], object], what: str) -> None:
        """Wait until `done` is true; it is asked whenever something has come."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}; {self.state}") from None

    @property
    def state(self) -> str:
        """What has come, in words."""
        end = "reset" if self.error else "closed" if self.closed else "FIN" if self.at_eof else ""
        return f"what came: {bytes(self.received)!r} {end}"

    async def take(self, expected: bytes) -> None:
        """Wait for exactly these bytes, and remove them."""

        def differs() -> bool:
            size = min(len(expected), len(self.received))
            return len(self.received) >= len(expected) or self.received[:size] != expected[:size]

        await self.until(lambda: differs() or self.ended, repr(expected))
        assert bytes(self.received[: len(expected)]) == expected, self.state
        del self.received[: len(expected)]

    async def take_size(self, size: int) -> bytes:
        """Wait for `size` bytes and remove them."""
        await self.until(lambda: len(self.received) >= size or self.ended, f"{size} bytes")
        assert len(self.received) >= size, self.state
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    async def take_all(self) -> bytes:
        """Wait for the far end's FIN or RST, and return what came before."""
        await self.until(lambda: self.ended, "the end of the connection")
        data = bytes(self.received)
        self.received.clear()
        return data

    @property
    def ended(self) -> bool:
        return self.at_eof or self.closed

    @property
    def was_reset(self) -> bool:
        """Whether the end was an RST."""
        return self.closed and isinstance(self.error, ConnectionResetError)


@dataclass(frozen=True, slots=True)
class Message:
    """One HTTP/1.1 message as it was on the wire."""

    raw: bytes
    head: bytes
    """Without the empty line."""
    body: bytes
    """Chunks put together."""
    trailers: bytes = b""

    @property
    def start(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def values(self, name: str) -> list[str]:
        """Return the values of a field, in order."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        found = (line.partition(":") for line in lines)
        return [value.strip() for key, _, value in found if key.lower() == name.lower()]

    def value(self, name: str) -> str:
        """Return the value of a field that stands in the message once."""
        (value,) = self.values(name)
        return value


def first_message(data: bytes, *, bodyless: bool = False) -> Message | None:
    """Return the message that `data` begins with, or None as long as it is not whole.

    Reads only what the proxy may write: one Content-Length in digits, or chunks without
    extensions.  A response without either is never whole.  `bodyless` is for the answer to HEAD.
    """
    end = data.find(_HEAD_END)
    if end < 0:
        return None
    head, start = data[:end], end + len(_HEAD_END)
    lines = head.lower().split(b"\r\n")
    chunked = b"transfer-encoding: chunked" in lines
    length = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
    no_body = bodyless or re.match(rb"HTTP/1\.1 (1\d\d|204|304) ", head) is not None
    if not (no_body or chunked or length) and head.startswith(b"HTTP/"):
        return None  # RFC 9112, 6.3: only the end of the connection ends it.
    if no_body or not (chunked or length):
        return Message(data[:start], head, b"")
    if chunked:
        assert not length, head
        return _chunked_message(data, head, start)
    (size,) = map(int, length)
    whole = data[: start + size]
    return Message(whole, head, whole[start:]) if len(data) >= start + size else None


def check_answers(data: bytes, method: bytes, *, failed: bool) -> None:
    """Fail unless h11 and llhttp read one answer and then the refusal, or a cut where it failed."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, body = 0, b""
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
    except h11.RemoteProtocolError:
        assert failed, data
        return
    rest = connection.trailing_data[0]
    if method != b"HEAD":  # llhttp cannot be told what the request was.
        assert _Answers().read(data.removesuffix(rest)) == [(status, body)], data
    if failed and not rest:
        return  # A 204 whose stream does not end, say: whole for this caller, and cut behind it.
    answer = first_message(rest)
    assert answer is not None, data
    assert answer.values("x-auth-proxy-error") == ["origin_forbidden"], data
    assert answer.raw == rest, data


class _Answers:
    """Collects what llhttp reads."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body = b""
        self._final: list[tuple[int, bytes]] = []

    def read(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return status and body of each answer that is final and whole."""
        self._parser.feed_data(data)
        return self._final

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._final.append((status, self._body))


def _chunked_message(data: bytes, head: bytes, at: int) -> Message | None:
    body = b""
    while (found := _CHUNK.match(data, at)) is not None:
        size, at = int(found[1], 16), found.end()
        if size == 0:
            end = data.find(_HEAD_END, at - 2)
            if end < 0:
                return None
            return Message(data[: end + 4], head, body, data[at:end])
        body += data[at : at + size]
        at += size
        if data[at : at + 2] != b"\r\n":
            assert len(data) < at + 2, data[at - 20 :]
            return None
        at += 2
    assert b"\r\n" not in data[at:], data[at:]
    return None


# What the proxy adds to every request (`proxy.plane.guard.LoopGuard`). Each test would have to name
# it; tests/wire/plane/test_loops.py looks at it as it came, in `UpstreamEnd.history`.
_MARK = re.compile(rb"\r\nx-auth-proxy-via: [0-9a-f]{16}(?=\r\n)")


def _unmarked(message: Message) -> Message:
    """Return a request without the marks of routes that it has come through."""
    head = _MARK.sub(b"", message.head + b"\r\n").removesuffix(b"\r\n")
    return replace(message, head=head, raw=head + message.raw[len(message.head) :])


class RawCaller(End):
    """A connection to the proxy; no token may be in what it answers."""

    async def answer(self, *, bodyless: bool = False) -> Message:
        """Wait for a whole response that frames itself, and remove it."""
        await self.until(
            lambda: first_message(bytes(self.received), bodyless=bodyless) or self.ended,
            "a whole response",
        )
        message = first_message(bytes(self.received), bodyless=bodyless)
        assert message is not None, self.state
        del self.received[: len(message.raw)]
        return message

    async def refusal(self, status: int, reason: str) -> Message:
        """Wait for an error that the proxy made, after which it must close the connection."""
        message = await self.answer()
        assert (message.status, message.values("x-auth-proxy-error")) == (status, [reason])
        assert message.value("connection") == "close"
        assert await self.take_all() == b""
        return message

    async def ask(self, request: bytes) -> Message:
        """Send a request and wait for its response."""
        self.send(request)
        return await self.answer(bodyless=request.startswith(b"HEAD "))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.abort()
        await self.until(lambda: self.closed, "the end of this connection")
        leaks.look("what a caller was answered", bytes(self.history))


class UpstreamEnd(End):
    """A connection that the proxy opened to the scripted upstream."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        super().__init__()
        self._upstream = upstream
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream.accepted(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._upstream.heard(self)

    async def request(self) -> Message:
        """Wait for a whole request and remove it."""
        await self.until(
            lambda: first_message(bytes(self.received)) or self.ended, "a whole request"
        )
        message = first_message(bytes(self.received))
        assert message is not None, self.state
        del self.received[: len(message.raw)]
        return _unmarked(message)

    async def head(self) -> bytes:
        """Wait for the head of a request, and remove it; its body may be under way."""
        await self.until(lambda: _HEAD_END in self.received or self.ended, "the head of a request")
        head, found, _ = bytes(self.received).partition(_HEAD_END)
        assert found, self.state
        del self.received[: len(head) + len(found)]
        return _MARK.sub(b"", head + b"\r\n").removesuffix(b"\r\n")

    async def serve(self, answer: bytes) -> Message:
        """Wait for a whole request and answer it."""
        message = await self.request()
        self.send(answer)
        return message


E = TypeVar("E", bound=End)


class Listening(Generic[E]):
    """A server that hands each connection to the test, as the end that `make` makes of it."""

    def __init__(self, make: Callable[[], E]) -> None:
        self.connections: list[E] = []
        self.port = 0
        self._make = make
        self._waiting: asyncio.Queue[E] = asyncio.Queue()
        self._server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._make, "127.0.0.1", port, ssl=tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self.connections:
            end._transport.abort()
            # Not an end's own `until`, which fails with what it has noted of the proxy.
            await End.until(end, lambda end=end: end.closed, "the end of a connection")  # type: ignore[misc]  # a lambda's default

    async def accept(self) -> E:
        """Wait for the next connection that the proxy opens."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._waiting.get()
        except TimeoutError:
            raise AssertionError("no connection came to the upstream") from None

    def accepted(self, end: E) -> None:
        self.connections.append(end)
        self._waiting.put_nowait(end)


class ScriptedUpstream(Listening[UpstreamEnd]):
    """A server that does what a test tells it, connection by connection.

    With `automatic` set, it answers every whole request with these bytes at once.
    """

    def __init__(self, automatic: bytes | None = None) -> None:
        super().__init__(lambda: UpstreamEnd(self))
        self.automatic = automatic
        self.requests: list[Message] = []
        """What was answered automatically, in order."""

    def heard(self, end: UpstreamEnd) -> None:
        while self.automatic is not None:
            message = first_message(bytes(end.received))
            if message is None:
                return
            del end.received[: len(message.raw)]
            self.requests.append(_unmarked(message))
            end.answered += 1
            end.send(self.automatic)
