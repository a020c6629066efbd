"""The emulated front relays exactly what it gets, and ends connections as it should."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from proxy.emulator.faults import reset
from proxy.emulator.front import DISCARD_LIMIT
from proxy.emulator.peer import HEAD_LIMIT
from tests.fakes.emulated import BEARER, STRIPPED, app, call, get, message, protected

OK = message("HTTP/1.1 200 OK", "Content-Length: 2", body=b"ok")


class Script:
    """An app that reads up to `until`, writes `answer`, and closes once told or left."""

    def __init__(self, until: bytes, answer: bytes, *, stay: bool = True) -> None:
        self.seen = b""
        self.rest = b""
        self.left = asyncio.Event()
        self._until = until
        self._answer = answer
        self._stay = stay

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen = await reader.readuntil(self._until)
        writer.write(self._answer)
        await writer.drain()
        if self._stay:
            try:
                self.rest = await reader.read()
            except ConnectionResetError:
                self.rest = b"reset"
            self.left.set()
        else:
            writer.close()
            await writer.wait_closed()


async def test_an_admitted_request_is_relayed_byte_for_byte_but_for_the_signature() -> None:
    raw = message(
        "POST //a/../b%2f?x=\xe4 HTTP/1.1",
        "hOST:  x",
        "Transfer-Encoding: chunked",
        BEARER,
        "Connection: keep-alive, X-A",
        "X-A: \xe4",
        "Trailer: X",
        body=b"1;e=1\r\na\r\n00\r\nX: y\r\n\r\n",
    )
    script = Script(b"X: y\r\n\r\n", OK)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        assert await caller.ask(raw) == (200, b"ok")

    assert script.seen == raw.replace(BEARER.encode(), STRIPPED.encode())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 fine\r\ncontent-LENGTH:2\r\nx:  y \r\n\r\nok",
        b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x\r\nok\r\n0\r\nT: 1\r\n\r\n",
    ],
)
async def test_a_response_is_relayed_byte_for_byte_and_the_connection_kept(answer: bytes) -> None:
    script = Script(b"\r\n\r\n", answer)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        for _ in range(2):
            caller.send(get(BEARER))
            assert await caller.reader.readexactly(len(answer)) == answer

    assert len(to.admitted) == 2


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with protected() as to, call(to) as caller:
        caller.send(get(BEARER, target="/1") + get(target="/2") + get(BEARER, target="/3"))
        statuses = [(await caller.response())[0] for _ in range(3)]

    assert statuses == [200, 403, 200]
    assert [request.target for request in to.requests] == ["/1", "/2", "/3"]


async def test_a_response_may_begin_before_the_request_has_ended() -> None:
    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not (chunk := await reader.readuntil(b"\r\n")).startswith(b"0"):
            writer.write(chunk + await reader.readuntil(b"\r\n"))
        writer.write(chunk + await reader.readuntil(b"\r\n"))
        await reader.read()

    async with app(mirror) as address, protected(app=address) as to, call(to) as caller:
        caller.send(message("POST / HTTP/1.1", BEARER, "Transfer-Encoding: chunked"))
        await caller.head()
        for piece in (b"1\r\na\r\n", b"2\r\nbc\r\n", b"0\r\n\r\n"):
            caller.send(piece)
            assert await caller.reader.readexactly(len(piece)) == piece
        caller.send(get())
        assert (await caller.response())[0] == 403


@pytest.mark.parametrize(
    "request_",
    [
        get(BEARER, "Connection: close"),
        get(BEARER).replace(b"HTTP/1.1", b"HTTP/1.0"),
        get("Connection: close"),
    ],
)
async def test_a_caller_that_wants_no_more_is_left(request_: bytes) -> None:
    async with protected() as to, call(to) as caller:
        await caller.ask(request_)

        assert await caller.reader.read() == b""


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 200 OK\r\n\r\n", b"until the close"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", b"ok"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"),
    ],
)
async def test_an_app_that_closes_after_its_response_closes_the_caller_neatly(
    head: str, body: bytes
) -> None:
    answer = head.encode() + body
    script = Script(b"\r\n\r\n", answer, stay=False)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        caller.send(get(BEARER))

        assert await caller.reader.read() == answer


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf!!",
    ],
)
async def test_an_app_that_breaks_off_cuts_the_caller_with_a_reset(answer: bytes) -> None:
    script = Script(b"\r\n\r\n", answer, stay=False)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        caller.send(get(BEARER))
        await caller.reader.readuntil(b"half")

        with pytest.raises(ConnectionResetError):
            await caller.reader.read()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/3 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad\r\n\r\n",
    ],
)
async def test_an_app_without_a_response_is_unavailable(answer: bytes) -> None:
    script = Script(b"\r\n\r\n", answer, stay=False)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        status, body = await caller.ask(get(BEARER))

        assert (status, b"<title>503 Server Error</title>" in body) == (503, True)
        assert await caller.reader.read() == b""


async def test_no_app_at_all_is_unavailable_and_the_connection_kept() -> None:
    listening = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    address = listening.sockets[0].getsockname()
    listening.close()
    await listening.wait_closed()

    async with protected(app=address) as to, call(to) as caller:
        statuses = [(await caller.ask(get(BEARER)))[0] for _ in range(2)]

    assert statuses == [503, 503]


async def test_a_caller_that_goes_away_ends_the_apps_work() -> None:
    script = Script(b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nbegun")
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        caller.send(get(BEARER))
        await caller.reader.readuntil(b"begun")
        caller.writer.close()
        await script.left.wait()

    assert script.rest == b"reset"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", message("POST / HTTP/1.1", "Host: x")[:-2]])
async def test_a_caller_that_breaks_off_before_its_request_disturbs_nobody(sent: bytes) -> None:
    async with protected() as to, call(to) as caller, call(to) as other:
        caller.send(sent)
        await other.ask(get())
        reset(caller.writer.transport)
        assert (await other.ask(get(BEARER)))[0] == 200

    assert len(to.requests) == 2


async def test_a_caller_that_resets_in_the_middle_of_a_response_ends_the_apps_work() -> None:
    stopped = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            stopped.set()

    async with app(endless) as address, protected(app=address) as to, call(to) as caller:
        caller.send(get(BEARER))
        await caller.reader.readexactly(65536)
        reset(caller.writer.transport)

        await stopped.wait()


async def test_a_caller_that_leaves_the_echos_stream_fails_nothing() -> None:
    async def no_pause(_line: int) -> None:
        await asyncio.sleep(0)

    async with protected(pause=no_pause) as to:
        async with call(to) as caller:
            caller.send(get(BEARER, target="/stream?lines=100000"))
            await caller.reader.readuntil(b"line 9 of 100000\n")
            reset(caller.writer.transport)
        async with call(to) as caller:
            assert (await caller.ask(get(BEARER)))[0] == 200


async def test_more_requests_than_are_read_ahead_wait_for_their_turn() -> None:
    released = asyncio.Event()
    big = get(f"X: {'x' * 200_000}")

    async def pause(_line: int) -> None:
        await released.wait()

    async with protected(pause=pause) as to, call(to) as caller:
        caller.send(get(BEARER, target="/stream?lines=2") + big * 2)
        await caller.reader.readuntil(b"line 1 of 2\n")
        released.set()
        await caller.reader.readuntil(b"0\r\n\r\n")
        statuses = [(await caller.response())[0] for _ in range(2)]

    assert statuses == [403, 403]


async def test_an_app_may_answer_and_leave_in_the_middle_of_an_upload() -> None:
    answer = message("HTTP/1.1 413 Too Large", "Content-Length: 0", "Connection: close")
    script = Script(b"\r\n\r\n", answer, stay=False)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        caller.send(message("POST / HTTP/1.1", BEARER, "Content-Length: 1000"))
        head = await caller.head()
        caller.send(b"x" * 1000)

        assert head[0] == "HTTP/1.1 413 Too Large"
        assert await caller.reader.read() == b""


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"hello\r\n\r\n",
        message("POST / HTTP/1.1", BEARER, "Content-Length: 1", "Transfer-Encoding: chunked"),
    ],
)
async def test_a_malformed_request_is_refused_before_anybody_sees_it(raw: bytes) -> None:
    async with protected() as to, call(to) as caller:
        status, _ = await caller.ask(raw)

        assert (status, to.requests) == (400, [])
        assert await caller.reader.read() == b""


async def test_a_malformed_chunk_is_refused_while_nothing_has_been_answered() -> None:
    script = Script(b"\r\n\r\n", b"")
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        head = message("POST / HTTP/1.1", BEARER, "Transfer-Encoding: chunked")
        status, _ = await caller.ask(head + b"zz\r\n")

    assert status == 400
    assert b"zz" not in script.seen + script.rest


async def test_a_head_has_a_limit() -> None:
    def head(size: int) -> bytes:
        return get(BEARER, f"X: {'x' * (size - len(get(BEARER, 'X: ')))}")

    async with protected() as to:
        for size in (HEAD_LIMIT - 1, HEAD_LIMIT):
            async with call(to) as caller:
                assert len(head(size)) == size
                assert (await caller.ask(head(size)))[0] == 200
        async with call(to) as caller:
            # Never ends: what counts is what arrived without an end in sight.
            status, _ = await caller.ask(get()[:-2] + b"X: " + b"x" * HEAD_LIMIT)
            assert status == 400


# Bodies of refused requests.


@pytest.mark.parametrize("size", [1, DISCARD_LIMIT])
async def test_a_refused_body_is_read_so_that_the_connection_can_be_kept(size: int) -> None:
    async with protected() as to, call(to) as caller:
        refused = await caller.ask(message("POST / HTTP/1.1", f"Content-Length: {size}"))
        caller.send(b"x" * size)
        admitted = await caller.ask(get(BEARER))

    assert (refused[0], admitted[0]) == (403, 200)


async def test_a_refused_body_beyond_the_limit_is_not_read_to_its_end() -> None:
    async with protected() as to, call(to) as caller:
        size = 4 * DISCARD_LIMIT
        assert (await caller.ask(message("POST / HTTP/1.1", f"Content-Length: {size}")))[0] == 403
        caller.send(b"x" * size)
        with pytest.raises(ConnectionError):
            await caller.reader.read()


async def test_a_refused_body_that_breaks_its_framing_ends_the_connection() -> None:
    async with protected() as to, call(to) as caller:
        head = message("POST / HTTP/1.1", "Transfer-Encoding: chunked")
        status, _ = await caller.ask(head + b"zz\r\n")

        assert status == 403
        assert await caller.reader.read() == b""


async def test_a_refused_body_that_never_comes_ends_with_its_caller() -> None:
    async with protected() as to, call(to) as caller:
        await caller.ask(message("POST / HTTP/1.1", "Content-Length: 5"))
        caller.writer.write_eof()

        assert await caller.reader.read() == b""


async def test_whoever_expects_a_100_and_is_refused_loses_the_connection() -> None:
    async with protected() as to, call(to) as caller:
        raw = message("POST / HTTP/1.1", "Content-Length: 5", "Expect: 100-continue")
        status, _ = await caller.ask(raw)

        assert status == 403
        assert await caller.reader.read() == b""


async def test_the_apps_100_reaches_the_caller() -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await reader.readexactly(5) == b"hello"
        writer.write(OK)
        await reader.read()

    async with app(patient) as address, protected(app=address) as to, call(to) as caller:
        raw = message("POST / HTTP/1.1", BEARER, "Content-Length: 5", "Expect: 100-continue")
        caller.send(raw)
        assert await caller.head() == ["HTTP/1.1 100 Continue"]
        assert await caller.ask(b"hello") == (200, b"ok")


# Tunnels.

UPGRADE = get(BEARER, "Connection: Upgrade", "Upgrade: websocket")
SWITCHED = message("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")


@pytest.mark.parametrize("tls", [False, True])
async def test_an_upgrade_becomes_a_tunnel_both_ways(*, tls: bool) -> None:
    ended = asyncio.Event()

    async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED + b"hello")
        while data := await reader.read(100):
            writer.write(data.upper())
        ended.set()

    async with app(upgraded) as address, protected(app=address, tls=tls) as to:
        context = ssl.create_default_context(cafile=to.ca_file) if tls else None
        async with call(to, context, "localhost" if tls else None) as caller:
            caller.send(UPGRADE + b"early\0")
            await caller.head()
            assert await caller.reader.readexactly(11) == b"helloEARLY\0"
            for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5):
                caller.send(data)
                assert await caller.reader.readexactly(len(data)) == data.upper()
        await ended.wait()


@pytest.mark.parametrize("answer", [SWITCHED + b"last words"])
async def test_an_app_that_ends_a_tunnel_ends_it_for_the_caller(answer: bytes) -> None:
    script = Script(b"\r\n\r\n", answer, stay=False)
    async with app(script) as address, protected(app=address) as to, call(to) as caller:
        caller.send(UPGRADE)

        assert await caller.reader.read() == answer


async def test_an_app_that_resets_a_tunnel_resets_the_caller() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED)
        await reader.readexactly(1)
        reset(writer.transport)

    async with app(breaks) as address, protected(app=address) as to, call(to) as caller:
        caller.send(UPGRADE)
        await caller.head()
        caller.send(b"!")

        with pytest.raises(ConnectionResetError):
            await caller.reader.read()


async def test_a_refused_upgrade_is_an_ordinary_response() -> None:
    async with protected() as to, call(to) as caller:
        assert (await caller.ask(get("Connection: Upgrade", "Upgrade: websocket")))[0] == 403
        assert (await caller.ask(get(BEARER)))[0] == 200


# Stopping.


async def test_stopping_cuts_what_is_open_and_the_port_can_be_opened_again() -> None:
    script = Script(b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nbegun")
    async with app(script) as address:
        to = await protected(app=address).start()
        async with call(to) as busy, call(to) as idle:
            busy.send(get(BEARER))
            await busy.reader.readuntil(b"begun")
            url = to.url
            await to.stop()

            assert await idle.reader.read() == b""
            with pytest.raises(ConnectionResetError):
                await busy.reader.read()
        async with to, call(to) as again:
            assert to.url == url
            assert (await again.ask(get()))[0] == 403


async def test_a_front_that_breaks_fails_the_test() -> None:
    def broken() -> float:
        raise RuntimeError("no time")

    to = await protected(clock=broken).start()
    async with call(to) as caller:
        caller.send(get(BEARER))
        await caller.reader.read()

    with pytest.raises(ExceptionGroup, match="the protected service failed"):
        await to.stop()
