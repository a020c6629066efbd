"""Which protocol an exchange travels by: the route's word, the caller's, and the upstream's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import Limits, Protocol, Upstream
from proxy.plane.stats import Connections
from tests.fakes import tls
from tests.fakes.cutting import cut_after
from tests.fakes.framed import GET, GRPC, POST, FramedUpstream, Seen, frame, setting
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import ScriptedUpstream
from tests.fakes.wired import Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LINES = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n"
)

# Under asyncio's loop the session tickets of TLS 1.3 may still lie unread when the connection
# changes hands: then it is not quiet, and another one is dialled.
ONE_DIAL = pytest.mark.asyncio(loop_factories=["uvloop"])


async def call(world: Wired, *, grpc: bool = False) -> Seen:
    """Ask in HTTP/2, as gRPC does or not."""
    async with await frame_caller(world) as caller:
        if grpc:
            return await caller.ask(1, GRPC, b"\0\0\0\0\0")
        return await caller.ask(1)


# --- over TLS: the upstream says what it speaks


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return tls.ca_file(tmp_path)


@asynccontextmanager
async def over_tls(
    ca_file: Path, alpn: Sequence[str], automatic: bytes | None = None, **keys: Any
) -> AsyncIterator[Wired]:
    """A proxy whose upstream offers `alpn`, but sends lines whatever it has settled on.

    `keys` are the route's.
    """
    async with Wired(automatic=automatic) as world:
        await world.upstream.stop()
        await world.upstream.start(tls.server_context(alpn=alpn))
        await world.serve_tls(ca_file, **keys)
        yield world


@pytest.mark.parametrize("grpc", [False, True])
async def test_a_caller_in_http2_reaches_a_tls_upstream_in_http2(ca_file: Path, grpc: bool) -> None:  # noqa: FBT001 (a parameter)
    upstream = FramedUpstream(automatic=b"ok")
    context = tls.server_context(alpn=tls.HTTP2)
    async with Framed(upstream, tls=context, ca_file=ca_file) as world:
        assert (await call(world, grpc=grpc)).status == 200
        assert upstream.connections[0].seen(1).head[":scheme"] == "https"


@ONE_DIAL
async def test_a_connection_dialled_for_http2_that_speaks_http1_keeps_its_place(
    ca_file: Path,
) -> None:
    """It serves all who wait, one after the other, where there may be no second."""
    async with over_tls(ca_file, tls.HTTP1, OK, limits=Limits(connections=1)) as world:
        async with await frame_caller(world) as caller:
            for stream in (1, 3, 5):
                caller.send_headers(stream, GET, end=True)

            seen = [await caller.finished(stream) for stream in (1, 3, 5)]

        assert [each.status for each in seen] == [200, 200, 200]
        assert len(world.upstream.connections) == 1
        assert world.connections == Connections(idle=1)


async def test_a_tls_upstream_that_settles_on_http2_and_closes_is_no_upstream(
    ca_file: Path,
) -> None:
    """It is not taken for one that speaks only HTTP/1.1: it has said that it does not."""
    async with over_tls(ca_file, tls.HTTP2) as world:
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GET, end=True)
            for _ in range(2):  # A connection that cannot be had is dialled once more.
                upstream = await world.upstream.accept()
                await upstream.until(lambda end=upstream: end.received, "the greeting")  # type: ignore[misc]  # a lambda's default
                upstream.close()
            seen = await caller.finished(1)

        assert (seen.status, seen.reason) == (502, "upstream_connect_failed")
        assert b"closed the connection at once" in seen.body
        assert all(b" HTTP/1.1" not in end.history for end in world.upstream.connections)


@ONE_DIAL
@pytest.mark.parametrize("alpn", [tls.HTTP1, ()], ids=["http/1.1", "no ALPN"])
async def test_a_tls_upstream_that_offers_only_http1_is_translated_for(
    ca_file: Path, alpn: tuple[str, ...]
) -> None:
    async with over_tls(ca_file, alpn, OK) as world:
        first, second = await call(world), await call(world)

        assert (first.status, bytes(first.body), second.status) == (200, b"ok", 200)
        # The connection that told so is not thrown away, and not made again.
        assert len(world.upstream.connections) == 1


async def test_grpc_to_a_tls_upstream_that_offers_only_http1_is_told_why_it_fails(
    ca_file: Path,
) -> None:
    async with over_tls(ca_file, tls.HTTP1, OK) as world:
        for _ in range(2):
            seen = await call(world, grpc=True)

            assert (seen.status, seen.head["grpc-status"]) == (200, "14")
            assert seen.reason == "upstream_connect_failed"
            assert "gRPC needs HTTP/2, which https://localhost" in seen.head["grpc-message"]
        assert world.upstream.requests == []


async def test_what_an_upstream_speaks_is_asked_again_after_a_minute(ca_file: Path) -> None:
    async with over_tls(ca_file, tls.HTTP1, OK) as world:
        await call(world)
        port = world.upstream.port
        await world.upstream.stop()
        redeployed = FramedUpstream(automatic=b"ok")
        await redeployed.start(tls.server_context(alpn=tls.HTTP2), port=port)

        world.pass_time(59.0)
        assert (await call(world, grpc=True)).reason == "upstream_connect_failed"
        world.pass_time(1.0)
        seen = await call(world, grpc=True)

        assert (seen.status, seen.reason) == (200, "")
        await redeployed.stop()


# --- over plain HTTP: prior knowledge, and what comes back


async def test_a_plain_upstream_that_answers_in_http1_is_translated_for() -> None:
    async with Wired(automatic=OK) as world:
        await world.serve()

        first, second = await call(world), await call(world)

        assert (first.status, bytes(first.body), second.status) == (200, b"ok", 200)
        prefaced = [message for message in world.upstream.requests if message.head[:3] == b"PRI"]
        assert len(prefaced) == 1


async def answer_preface(world: Wired, answer: bytes, size: int) -> None:
    """Answer the preface of HTTP/2, the first `size` bytes by themselves."""
    upstream = await world.upstream.accept()
    await upstream.until(lambda: len(upstream.received) > 24, "the preface")
    upstream.received.clear()
    upstream.send(answer[:size])
    await asyncio.sleep(0)
    upstream.send(answer[size:])


@pytest.mark.parametrize("size", [1, 4])
async def test_an_answer_in_http1_is_known_however_it_is_cut(size: int) -> None:
    async with Wired() as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GET, end=True)
            answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            await answer_preface(world, answer, size)

            again = await world.upstream.accept()
            await again.serve(OK)

            assert (await caller.finished(1)).status == 200


# What servers that speak only HTTP/1 answer to `PRI * HTTP/2.0`. Python's http.server, and with it
# Flask's, takes it for HTTP/0.9 and sends a page without a head.
ANSWERS = {
    "a page": b'<!DOCTYPE HTML>\n<html lang="en"><p>Error code: 505</p></html>\n',
    "another page": b"<html><h1>Bad Request</h1></html>",
    "a status line of HTTP/1.0": b"HTTP/1.0 505 HTTP Version Not Supported\r\n\r\n",
    "a status line of HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "a word": b"Bad",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "a frame that is no settings": bytes(3) + b"\x06" + bytes(5),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_an_upstream_whose_first_frame_is_no_settings_is_tried_in_http1(
    answer: bytes, size: int
) -> None:
    async with Wired() as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GET, end=True)
            await answer_preface(world, answer, size)

            await (await world.upstream.accept()).serve(OK)

            assert ((await caller.finished(1)).status, world.refusals) == (200, {})


class _Page(BaseHTTPRequestHandler):
    """A server of Python's own, as Flask's for development is one."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_python_s_own_server_is_reached_by_a_caller_in_http2() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        async with Wired() as world:
            await world.serve(upstream=Upstream("http", "127.0.0.1", server.server_port))

            first, second = await call(world), await call(world)

            assert (first.status, bytes(first.body), second.status) == (200, b"ok", 200)
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


async def test_settings_that_come_byte_by_byte_are_settings() -> None:
    upstream = FramedUpstream(automatic=b"ok")
    upstream.greets = False
    async with Framed(upstream) as world:
        caller = await world.frames()
        caller.send_headers(1, GET, end=True)
        end = await upstream.accept()

        for byte in frame("SETTINGS", 0, 0, setting(3, 7)):
            end.send(bytes((byte,)))
            await asyncio.sleep(0)

        assert (await caller.finished(1)).status == 200


async def test_a_tls_upstream_that_breaks_its_word_to_speak_http2_is_at_fault(
    ca_file: Path,
) -> None:
    async with over_tls(ca_file, tls.HTTP2) as world, await frame_caller(world) as caller:
        caller.send_headers(1, GET, end=True)
        for _ in range(2):  # A connection that cannot be had is dialled once more.
            upstream = await world.upstream.accept()
            upstream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        assert (await caller.finished(1)).reason == "upstream_connect_failed"


async def test_a_plain_upstream_that_hangs_up_on_http2_is_tried_in_http1() -> None:
    async with Wired() as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GET, end=True)
            (await world.upstream.accept()).close()
            await (await world.upstream.accept()).serve(OK)

            assert (await caller.finished(1)).status == 200


@pytest.mark.parametrize("how", ["answers", "hangs up"])
async def test_grpc_to_a_plain_upstream_without_http2_is_told_why_it_fails(how: str) -> None:
    async with Wired(automatic=OK if how == "answers" else None) as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GRPC)
            caller.send_data(1, b"\0\0\0\0\0", end=True)
            if how == "hangs up":
                # A connection that cannot be had is dialled once more.
                (await world.upstream.accept()).close()
                (await world.upstream.accept()).close()

            seen = await caller.finished(1)

            assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_connect_failed")
            assert "gRPC needs HTTP/2" in seen.head["grpc-message"]


async def test_an_upstream_that_speaks_something_else_is_told_apart() -> None:
    async with Wired() as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GRPC)
            (await world.upstream.accept()).send(b"220 mail.example ESMTP ready\r\n")

            seen = await caller.finished(1)

            assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_connect_failed")
            assert "gRPC needs HTTP/2" in seen.head["grpc-message"]


# --- what the route says


async def test_a_route_can_speak_http2_for_a_caller_that_does_not() -> None:
    async with Framed(FramedUpstream(automatic=b"ok"), protocol=Protocol.H2) as world:
        caller = await world.caller()

        answer = await caller.ask(LINES)

        assert (answer.status, answer.body) == (200, b"ok")
        assert world.framed.connections[0].seen(1).head[":path"] == "/"


async def test_a_route_can_speak_http1_for_a_caller_that_speaks_http2(wired: Wired) -> None:
    assert (await call(wired)).status == 200
    assert [message.start for message in wired.upstream.requests] == [b"GET / HTTP/1.1"]


async def test_grpc_on_a_route_that_speaks_http1_is_told_why_it_fails(wired: Wired) -> None:
    seen = await call(wired, grpc=True)

    assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_connect_failed")
    assert "protocol: h1" in seen.head["grpc-message"]
    assert wired.upstream.requests == []


async def test_an_upgrade_travels_in_http1_on_a_route_that_speaks_http2() -> None:
    async with Wired() as world:
        await world.serve(protocol=Protocol.H2)
        caller = await world.caller()
        caller.send(UPGRADE)
        upstream = await world.upstream.accept()
        assert (await upstream.head()).startswith(b"GET /ws HTTP/1.1")
        upstream.send(
            b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await caller.until(lambda: b"\r\n\r\n" in caller.received, "the switch")
        caller.received.clear()

        caller.send(b"ping")
        await upstream.take(b"ping")
        upstream.send(b"pong")
        await caller.take(b"pong")
        upstream.close()
        assert await caller.take_all() == b""


async def test_callers_of_both_protocols_share_a_listener(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    lines = ScriptedUpstream(OK)
    caller = await framed.caller()
    caller.send(LINES)

    assert (await call(framed)).status == 200
    await framed.until(lambda: len(framed.framed.connections) == 2, "a connection of each kind")
    plain = next(end for end in framed.framed.connections if not end.streams)
    await plain.until(lambda: plain.received.endswith(b"\r\n\r\n"), "a request in lines")
    plain.send(lines.automatic or b"")
    assert (await caller.answer()).status == 200
    assert set(framed.route_stats.requests) == {("h1", 200), ("h2", 200)}


async def test_a_post_whose_upstream_is_found_out_meanwhile_keeps_its_body() -> None:
    async with Wired(automatic=OK) as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            seen = await caller.ask(1, POST, b"body" * 1000)

            assert seen.status == 200
            assert world.upstream.requests[-1].body == b"body" * 1000


# --- an upstream that speaks only HTTP/2


GREETINGS = {
    "settings": frame("SETTINGS", 0, 0, setting(3, 100)),
    "no settings": frame("SETTINGS"),
    "settings that end like a head": frame("SETTINGS", 0, 0, setting(0x0D0A, 0x0D0A0D0A)),
    "a farewell": frame("GOAWAY", 0, 0, bytes(3) + b"\x01" + bytes(4)),
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
@pytest.mark.parametrize("cut", [1, 4, 1000])
async def test_a_caller_in_http1_before_an_upstream_in_http2_is_told_of_the_key(
    greeting: bytes, cut: int
) -> None:
    async with Wired() as world:
        await world.serve()
        world.cut_responses(cut_after([cut]))
        caller = await world.caller()
        caller.send(LINES)
        upstream = await world.upstream.accept()
        await upstream.head()

        upstream.send(greeting)

        answer = await caller.answer()
        assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_malformed")
        assert b"`protocol: h2`" in answer.body


async def test_bytes_that_only_begin_like_a_frame_are_no_hint_of_http2() -> None:
    async with Wired() as world:
        await world.serve()
        caller = await world.caller()
        caller.send(LINES)
        upstream = await world.upstream.accept()
        await upstream.head()

        upstream.send(bytes(9))

        answer = await caller.answer()
        assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_malformed")
        assert b"protocol: h2" not in answer.body


async def test_a_tls_upstream_that_refuses_http1_by_an_alert_is_told_of_the_key(
    ca_file: Path,
) -> None:
    async with Wired() as world:
        await world.serve_tls(ca_file)
        caller = await world.caller()
        caller.send(LINES)
        for _ in range(2):  # A connection that cannot be had is dialled once more.
            upstream = await world.upstream.accept()
            await upstream.until(lambda end=upstream: end.received, "a greeting")  # type: ignore[misc]  # a lambda's default
            upstream.received.clear()
            upstream.send(b"\x15\x03\x03\x00\x02\x02\x78")  # RFC 7301, 3.2: fatal, 120.
            if (await world.standstill(lambda: len(caller.received))) > 0:
                break

        answer = await caller.answer()
        assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_tls_failed")
        assert b"`protocol: h2`" in answer.body
