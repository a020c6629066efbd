"""Which protocol an exchange travels by: the route's word, the caller's, and the upstream's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.config.model import Protocol
from tests.fakes import tls
from tests.fakes.framed import GET, GRPC, POST, FramedUpstream, Seen
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import ScriptedUpstream
from tests.fakes.wired import Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LINES = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n"
)


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


@pytest.mark.parametrize("grpc", [False, True])
async def test_a_caller_in_http2_reaches_a_tls_upstream_in_http2(ca_file: Path, grpc: bool) -> None:  # noqa: FBT001 (a parameter)
    upstream = FramedUpstream(automatic=b"ok")
    context = tls.server_context(alpn=tls.HTTP2)
    async with Framed(upstream, tls=context, ca_file=ca_file) as world:
        assert (await call(world, grpc=grpc)).status == 200
        assert upstream.connections[0].seen(1).head[":scheme"] == "https"


@pytest.mark.parametrize("alpn", [tls.HTTP1, ()], ids=["http/1.1", "no ALPN"])
async def test_a_tls_upstream_that_offers_only_http1_is_translated_for(
    ca_file: Path, alpn: tuple[str, ...]
) -> None:
    async with Wired(automatic=OK) as world:
        await world.upstream.stop()
        await world.upstream.start(tls.server_context(alpn=alpn))
        await world.serve_tls(ca_file)

        first, second = await call(world), await call(world)

        assert (first.status, bytes(first.body), second.status) == (200, b"ok", 200)
        # The connection that told so is not thrown away, and not made again.
        assert len(world.upstream.connections) == 1


async def test_grpc_to_a_tls_upstream_that_offers_only_http1_is_told_why_it_fails(
    ca_file: Path,
) -> None:
    async with Wired(automatic=OK) as world:
        await world.upstream.stop()
        await world.upstream.start(tls.server_context(alpn=tls.HTTP1))
        await world.serve_tls(ca_file)

        for _ in range(2):
            seen = await call(world, grpc=True)

            assert (seen.status, seen.head["grpc-status"]) == (200, "14")
            assert seen.reason == "upstream_connect_failed"
            assert "gRPC needs HTTP/2, which https://localhost" in seen.head["grpc-message"]
        assert world.upstream.requests == []


async def test_what_an_upstream_speaks_is_asked_again_after_a_minute(ca_file: Path) -> None:
    async with Wired(automatic=OK) as world:
        await world.upstream.stop()
        await world.upstream.start(tls.server_context(alpn=tls.HTTP1))
        await world.serve_tls(ca_file)
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


@pytest.mark.parametrize("size", [1, 4])
async def test_an_answer_in_http1_is_known_however_it_is_cut(size: int) -> None:
    async with Wired() as world:
        await world.serve()
        async with await frame_caller(world) as caller:
            caller.send_headers(1, GET, end=True)
            upstream = await world.upstream.accept()
            await upstream.until(lambda: len(upstream.received) > 24, "the preface")
            upstream.received.clear()
            answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            upstream.send(answer[:size])
            await asyncio.sleep(0)
            upstream.send(answer[size:])

            again = await world.upstream.accept()
            await again.serve(OK)

            assert (await caller.finished(1)).status == 200


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
            for _ in range(2):
                upstream = await world.upstream.accept()
                upstream.send(b"220 mail.example ESMTP ready\r\n")

            seen = await caller.finished(1)

            assert (seen.head["grpc-status"], seen.reason) == ("14", "upstream_connect_failed")


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
