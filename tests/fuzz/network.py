"""What strangers send over sockets, through the real listener and the real codecs of both sides.

Each execution has a proxy of its own (`Wired`), which must be quiet afterwards: nothing in flight,
no connection left, no failed callback, no bug logged.  What it keeps is looked at in each turn
(`kept`), and each frame that it sends to either side is judged by h2 (`tests.fakes.judge`).
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Iterator, Sequence

import h11
from httptools import HttpRequestParser

from proxy.config.model import Address, Admin, Auth, Config, Protocol
from proxy.ops.admin import AdminServer, AdminView
from proxy.ops.lifecycle import Lifecycle
from proxy.ops.numbers import Numbers
from proxy.ops.status import Status
from proxy.plane.stats import Stats
from tests.fakes import leaks
from tests.fakes.framed import (
    END_HEADERS,
    END_STREAM,
    GET,
    GRPC,
    KINDS,
    POST,
    WIDE,
    FramedCaller,
    FramedEnd,
    FramedUpstream,
    frame,
)
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import End, check_answers, first_message
from tests.fakes.wired import Wired
from tests.fuzz.kept import Watch

_PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = bytes(70_000)
"""Longer than the windows that a connection begins with."""
LONG_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
_IDENTITY = re.compile(rb"(?i)\r\nx-serverless-authorization: bearer (\S+)(?=\r\n)")


# --- HTTP/1.1 and whatever else a listener is sent


async def requests(data: bytes) -> None:
    """Send bytes to the listener: all that goes on is framed, read alike by others, and ours."""
    async with Wired() as wired, Watch(wired):
        await wired.serve(auth=Auth.ID_TOKEN, protocol=Protocol.H1)
        wired.upstream.automatic = ANSWER
        await _ask_for(wired, data, wired.upstream.connections)
        for end in wired.upstream.connections:
            _check_sent(bytes(end.history), wired.source.answers)
    assert leaks.take() == []


async def requests_to_frames(data: bytes) -> None:
    """Send bytes to the listener of an upstream that speaks HTTP/2, which h2 judges."""
    upstream = FramedUpstream(automatic=b"ok")
    async with Framed(upstream, auth=Auth.ID_TOKEN, protocol=Protocol.H2) as framed, Watch(framed):
        await _ask_for(framed, data, upstream.connections)
        _check_streams(upstream, framed.source.answers)
    assert leaks.take() == []


async def _ask_for(wired: Wired, data: bytes, upstreams: Sequence[End]) -> None:
    """Send bytes as a caller that is known, and leave once nothing happens any more."""
    async with await wired.connect() as first:
        await first.ask(_PLAIN)  # Now there are a token and a connection at hand.
    async with await wired.connect() as caller:
        caller.send(data)
        # A caller that goes away takes its exchanges along.
        await wired.standstill(
            lambda: sum(len(end.history) for end in (caller, *upstreams)), unlike=-1
        )
        if not caller.ended:
            caller.finish()
        await caller.take_all()


def _check_sent(data: bytes, tokens: object) -> None:
    """Fail unless each whole request has one identity header, ours, and others read it alike."""
    while (message := first_message(data)) is not None:
        found = _IDENTITY.findall(message.head + b"\r\n")
        assert [token.decode() for token in found] == tokens, message.head
        assert _read_by_h11(message.raw) == _read_by_llhttp(message.raw) == message.body
        data = data[len(message.raw) :]


def _read_by_h11(data: bytes) -> bytes:
    """Return the body of the one request that `data` is."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Request | h11.Data), (event, data)
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert connection.trailing_data[0] == b"", data
    return body


class _Body:
    """Collects what llhttp reads."""

    def __init__(self) -> None:
        self.data = b""
        self.ends = 0

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.ends += 1


def _read_by_llhttp(data: bytes) -> bytes:
    body = _Body()
    # It knows a list of methods, we pass on any token (RFC 9110, 9.1).
    HttpRequestParser(body).feed_data(re.sub(rb"[^ ]+", b"POST", data, count=1))
    assert body.ends == 1, data
    return body.data


_METHODS = (b"GET", b"HEAD", b"POST")


async def responses(data: bytes) -> None:
    """Answer a caller with bytes: what reaches it is whole and says where it ends, or is cut.

    The first byte says who calls, and by which method.
    """
    chosen, data = data[:1] or b"\0", data[1:]
    method = _METHODS[(chosen[0] & 0x7F) % len(_METHODS)]
    if chosen[0] & 0x80:
        await _to_frames(method, data)
        return
    async with Wired() as wired, Watch(wired):
        await wired.serve(auth=Auth.ID_TOKEN)
        caller = await wired.caller()
        caller.send(method + b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        upstream = await wired.upstream.accept()
        await upstream.head()
        upstream.send(data)
        upstream.finish()
        await wired.until(lambda: wired.route_stats.in_flight == 0, "the end of the exchange")
        failed = bool(wired.refusals)
        # It tells whether the answer before has ended where it said.
        caller.send(b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: b\r\n\r\n")
        check_answers(await caller.take_all(), method, failed=failed)
    assert leaks.take() == []


async def _to_frames(method: bytes, data: bytes) -> None:
    """Answer a caller that speaks HTTP/2 from an upstream that speaks HTTP/1.1."""
    async with Wired() as wired, Watch(wired):
        await wired.serve(auth=Auth.ID_TOKEN, protocol=Protocol.H1)
        async with await frame_caller(wired) as caller:
            caller.send_headers(1, ((":method", method.decode()), *GET[1:]), end=True)
            upstream = await wired.upstream.accept()
            await upstream.head()
            upstream.send(data)
            upstream.finish()
            await caller.finished(1)
            await _still_there(caller)
    assert leaks.take() == []


# --- HTTP/2

_HEADS: Sequence[Sequence[tuple[str, str]]] = (
    GET, POST, GRPC, (("x-a", "1"),), ((":status", "200"),), ((":status", "103"),), (),
    ((":status", "200"), ("content-length", "3")), ((":status", "204"),), ((":status", "101"),),
    (*POST, ("content-length", "2")), (*GET, ("x-serverless-authorization", "Bearer x")),
    ((":method", "CONNECT"), (":authority", "a:1")), (("grpc-status", "0"),),
)  # fmt: skip
_STREAMS = (0, 1, 1, 3, 3, 5, 7, 2, WIDE)
_WINDOWS = ((WIDE, WIDE), (WIDE, 65_535), (65_535, WIDE), (1000, WIDE), (0, 65_535))
"""What a stream and a connection take at first."""
_HEAD = len(KINDS)
_WAIT = _HEAD + 1
_TURNS = 60
"""Of the loop, in which what was sent gets through the proxy and back."""
_MARK = b"the mark"


def _steps(end: FramedEnd, data: bytes) -> Iterator[bytes]:
    """Read `data` as frames: kind, stream, flags, length and payload, each of the first a byte.

    The kind behind the last is HEADERS with a block that is encoded as it should be; the payload's
    first byte says which, so that what is found is more than errors of HPACK.  The one behind that
    is no frame, but time for an answer: it comes out as no bytes.
    """
    while len(data) > 3:
        kind, stream, flags, size = data[:4]
        payload, data = data[4 : 4 + size], data[4 + size :]
        kind %= _WAIT + 1
        if kind == _WAIT:
            yield b""
            continue
        if kind == _HEAD:
            head = _HEADS[payload[0] % len(_HEADS)] if payload else ()
            kind, payload = KINDS["HEADERS"], end.encode(head)
            flags = flags & END_STREAM | END_HEADERS
        elif kind == KINDS["WINDOW_UPDATE"] and size == 1:
            payload = struct.pack(">I", payload[0] << 23 if payload else 0)
        yield frame(kind, _STREAMS[stream % len(_STREAMS)], flags, payload)


async def _play(end: FramedEnd, data: bytes) -> None:
    """Send what `data` says, as long as the proxy keeps the connection, and wait for its end."""
    for step in (*_steps(end, data), frame("PING", 0, 0, _MARK)):
        if not step:
            await _let_pass()
        elif not end.ended:
            end.send(step)
    await end.until(lambda: end.ended or _MARK in end.pongs, "the answer to a ping, or the end")


async def _let_pass() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def _still_there(caller: FramedCaller) -> None:
    """Fail unless the proxy goes on serving this connection."""
    caller.send_frame("PING", 0, 0, _MARK)
    await caller.until(lambda: _MARK in caller.pongs, "the answer to a ping")
    assert caller.goaways == []


async def frames(data: bytes) -> None:
    """Send frames to the listener; the first byte says what the upstream speaks, and the windows.

    Another caller, who was there before, is served as ever afterwards.
    """
    chosen, data = data[:1] or b"\0", data[1:]
    windows = _WINDOWS[(chosen[0] & 7) % len(_WINDOWS)]
    if chosen >= b"\x80":
        async with Wired() as wired, Watch(wired):
            await wired.serve(auth=Auth.ID_TOKEN, protocol=Protocol.H1)
            wired.upstream.automatic = LONG_ANSWER
            await _frames_to(wired, data, *windows)
            for end in wired.upstream.connections:
                _check_sent(bytes(end.history), wired.source.answers)
    else:
        upstream = FramedUpstream(automatic=BODY)
        async with Framed(upstream, auth=Auth.ID_TOKEN) as framed, Watch(framed):
            await _frames_to(framed, data, *windows)
            _check_streams(upstream, framed.source.answers)
    assert leaks.take() == []


async def _frames_to(wired: Wired, data: bytes, window: int, connection_window: int) -> None:
    async with await frame_caller(wired) as other:
        await other.ask(1)  # Now there are a token and a connection at hand.
        caller = await frame_caller(wired, window=window, connection_window=connection_window)
        async with caller:
            await _play(caller, data)
        assert (await other.ask(3)).status == 200


def _check_streams(upstream: FramedUpstream, tokens: object) -> None:
    """Fail unless each request has one identity header, and that is ours."""
    for end in upstream.connections:
        assert end.faults == [], end.faults
        for seen in end.streams.values():
            found = [value for name, value in seen.pairs if name == "x-serverless-authorization"]
            assert not seen.pairs or [each.removeprefix("Bearer ") for each in found] == tokens


async def upstream_frames(data: bytes) -> None:
    """Answer two callers in frames; the first byte says what they speak, and the windows.

    One of them sends a body, which the frames that come may let pass, or not.
    """
    chosen, data = data[:1] or b"\0", data[1:]
    window, connection_window = _WINDOWS[(chosen[0] & 7) % len(_WINDOWS)]
    upstream = FramedUpstream(window=window, connection_window=connection_window)
    async with Framed(upstream, auth=Auth.ID_TOKEN, protocol=Protocol.H2) as framed, Watch(framed):
        if chosen >= b"\x80":
            await _frames_to_http1(framed, data)
        else:
            async with await frame_caller(framed) as caller:
                caller.send_headers(1, GET, end=True)
                caller.send_headers(3, POST)
                caller.send_data(3, BODY)
                end = await framed.framed.accept()
                await end.until(lambda: len(end.streams) == 2, "two requests")
                await _play(end, data)
                # A third request, which the upstream may not want on that connection.
                caller.send_headers(5, GET, end=True)
                await _still_there(caller)
                await _let_pass()
        _check_streams(upstream, framed.source.answers)
    assert leaks.take() == []


async def _frames_to_http1(framed: Framed, data: bytes) -> None:
    caller = await framed.caller()
    caller.send(_PLAIN)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.streams, "a request")
    await _play(upstream, data)
    upstream.close()
    await framed.until(lambda: framed.route_stats.in_flight == 0, "the end of the exchange")
    failed = bool(framed.refusals)
    caller.send(b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: b\r\n\r\n")
    check_answers(await caller.take_all(), b"GET", failed=failed)


# --- the admin listener


async def admin(data: bytes) -> None:
    """Send bytes to the admin listener, which may be asked to quit; it answers others as ever."""
    lifecycle, config = Lifecycle(), Config(routes=())
    numbers = Numbers(stats=Stats())
    quits: list[None] = []

    async def ask() -> Numbers:
        return numbers

    status = Status(lifecycle, lambda: config, lambda: config.listeners)
    view = AdminView(
        lifecycle=lifecycle, numbers=ask, status=status, quit=lambda: quits.append(None)
    )
    server = AdminServer(Admin(listen=Address("127.0.0.1", 0), quit=True), view)
    address = await server.start()
    try:
        await _ask(address, data)
        answer = await _ask(address, b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert not quits or b"POST" in data
    finally:
        await server.stop()


async def _ask(address: Address, data: bytes) -> bytes:
    """Send bytes and FIN, and return all that comes."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""  # It was refused before all of it was read.
    finally:
        writer.close()
