"""Upgrades: after 101 a tunnel of bytes, whatever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import tls
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.wired import Wired

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: a, b\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: b\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: b\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
MEGABYTE = 1024 * 1024


async def tunnel(wired: Wired) -> tuple[RawCaller, UpstreamEnd]:
    """Return both ends of a tunnel."""
    wired.half_open = True
    caller = await wired.caller()
    caller.send(UPGRADE)
    upstream = await wired.upstream.accept()
    await upstream.head()
    upstream.send(SWITCH)
    await caller.take(SWITCHED)
    return caller, upstream


async def test_an_upgrade_is_offered_to_the_upstream_as_it_came(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(UPGRADE)
    upstream = await wired.upstream.accept()

    assert await upstream.head() == (
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Sec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: a, b\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade" % wired.upstream.port
    )


SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_SMUGGLED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: %d" % len(SMUGGLED), SMUGGLED),
        (b"Transfer-Encoding: chunked", CHUNKED_SMUGGLED),
        (b"Transfer-Encoding: chunked", b"0\r\n\r\n"),
    ],
)
async def test_a_request_with_a_body_loses_its_upgrade(
    wired: Wired, method: bytes, framing: bytes, body: bytes
) -> None:
    caller = await wired.caller()
    offer = b"Connection: keep-alive, Upgrade\r\nUpgrade: foo\r\n"
    caller.send(method + b" / HTTP/1.1\r\nHost: a\r\n" + offer + framing + b"\r\n\r\n" + body)
    upstream = await wired.upstream.accept()
    expected = method + b" / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%b" % (wired.upstream.port, framing)
    assert await upstream.head() == expected
    await upstream.take(body)

    # Nobody was offered a switch.
    upstream.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    )
    assert (await caller.answer()).values("x-auth-proxy-error") == ["upstream_malformed"]


async def test_an_empty_body_with_a_length_is_none(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(UPGRADE.removesuffix(b"\r\n") + b"Content-Length: 0\r\n\r\n")
    upstream = await wired.upstream.accept()
    assert (await upstream.head()).endswith(b"\r\nUpgrade: websocket\r\nConnection: Upgrade")


async def test_a_tunnel_passes_bytes_both_ways(wired: Wired) -> None:
    caller, upstream = await tunnel(wired)

    caller.send(b"\x81\x05hello")
    await upstream.take(b"\x81\x05hello")
    upstream.send(b"GET / HTTP/1.1\r\n\r\n\0")
    await caller.take(b"GET / HTTP/1.1\r\n\r\n\0")


async def test_bytes_that_come_with_the_101_reach_the_caller(wired: Wired) -> None:
    wired.half_open = True
    caller = await wired.caller()
    caller.send(UPGRADE)
    upstream = await wired.upstream.accept()
    await upstream.head()

    upstream.send(SWITCH + b"first")
    await caller.take(SWITCHED + b"first")


async def test_bytes_that_come_before_the_101_reach_the_upstream_after_it(wired: Wired) -> None:
    wired.half_open = True
    caller = await wired.caller()
    caller.send(UPGRADE + b"early")
    upstream = await wired.upstream.accept()
    await upstream.head()
    assert upstream.received == b""

    upstream.send(SWITCH)
    await upstream.take(b"early")
    await caller.take(SWITCHED)


async def test_large_messages_pass_both_ways(wired: Wired) -> None:
    caller, upstream = await tunnel(wired)

    data = bytes(range(256)) * (20 * MEGABYTE // 256)
    caller.send(data)
    upstream.send(data)
    assert await upstream.take_size(len(data)) == data
    assert await caller.take_size(len(data)) == data


async def test_a_slow_end_of_a_tunnel_stops_the_other(wired: Wired) -> None:
    caller, upstream = await tunnel(wired)
    upstream.pause()
    for _ in range(64):
        caller.send(bytes(MEGABYTE))
    standing = await wired.standstill(lambda: caller.unsent, 64 * MEGABYTE)
    assert standing > 32 * MEGABYTE

    upstream.resume()
    await upstream.take_size(64 * MEGABYTE)


@pytest.mark.parametrize("first", ["caller", "upstream"])
async def test_each_half_of_a_tunnel_ends_by_itself(wired: Wired, first: str) -> None:
    caller, upstream = await tunnel(wired)
    one, other = (caller, upstream) if first == "caller" else (upstream, caller)

    one.send(b"last words")
    one.finish()
    assert await other.take_all() == b"last words"
    assert wired.route_stats.in_flight == 1
    other.send(b"answer")
    await one.take(b"answer")
    other.finish()
    assert await one.take_all() == b""
    await wired.until(lambda: wired.route_stats.requests["ws", 101] == 1, "the tunnel's end")
    assert wired.refusals == {}


@pytest.mark.parametrize("first", ["caller", "upstream"])
async def test_a_tunnel_that_breaks_at_one_end_breaks_at_the_other(
    wired: Wired, first: str
) -> None:
    caller, upstream = await tunnel(wired)
    one, other = (caller, upstream) if first == "caller" else (upstream, caller)

    one.reset()
    await other.until(lambda: other.ended, "the end")
    await wired.until(lambda: wired.route_stats.in_flight == 0, "the end of the exchange")


async def test_a_silent_tunnel_is_cut_after_the_idle_timeout(wired: Wired) -> None:
    caller, upstream = await tunnel(wired)

    wired.pass_time(299)
    caller.send(b"x")
    await upstream.take(b"x")
    wired.pass_time(299)
    upstream.send(b"y")
    await caller.take(b"y")
    wired.pass_time(299)
    assert not caller.ended
    wired.pass_time(2)
    await caller.until(lambda: caller.ended, "the cut")
    await upstream.until(lambda: upstream.ended, "the cut")
    assert wired.refusals == {"upstream_timed_out": 1}


async def test_a_tunnel_is_cut_when_the_drain_is_over(wired: Wired) -> None:
    caller, upstream = await tunnel(wired)
    wired.plane.drain()
    caller.send(b"x")
    await upstream.take(b"x")

    assert wired.plane.cut() == 1
    await caller.until(lambda: caller.ended, "the cut")
    await upstream.until(lambda: upstream.ended, "the cut")


async def test_a_refused_upgrade_is_a_response_like_any_other(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(UPGRADE)
    upstream = await wired.upstream.accept()
    await upstream.serve(b"HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")

    await caller.take(b"HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")
    caller.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await upstream.request()).start == b"GET /next HTTP/1.1"
    upstream.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    await caller.take(b"HTTP/1.1 204 No Content\r\n\r\n")


async def test_other_protocols_are_tunnelled_too(wired: Wired) -> None:
    wired.half_open = True
    caller = await wired.caller()
    caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: Foo/2\r\n\r\n")
    upstream = await wired.upstream.accept()
    assert (await upstream.head()).endswith(b"\r\nUpgrade: Foo/2\r\nConnection: Upgrade")

    upstream.send(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: foo/2\r\n\r\nhello")
    await caller.take(
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: foo/2\r\n\r\nhello"
    )


async def test_h2c_is_taken_from_what_is_offered(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AAMAAABk\r\nUpgrade: h2c, websocket\r\n\r\n"
    )
    upstream = await wired.upstream.accept()

    assert (await upstream.head()).endswith(b"\r\nUpgrade: websocket\r\nConnection: Upgrade")


async def test_an_upstream_that_ends_a_tunnel_over_tls_ends_it_neatly(tmp_path: Path) -> None:
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller, upstream = await tunnel(wired)

        upstream.send(b"\x88\x02\x03\xe8")
        upstream.close()
        await caller.take(b"\x88\x02\x03\xe8")
        assert await caller.take_all() == b""
        assert not caller.was_reset
        caller.close()
        await wired.until(lambda: wired.route_stats.in_flight == 0, "the end of the exchange")
        assert wired.refusals == {}


async def test_a_caller_that_ends_a_tunnel_over_tls_ends_it_neatly(tmp_path: Path) -> None:
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller, upstream = await tunnel(wired)

        caller.send(b"\x88\x02\x03\xe8")
        caller.finish()
        await upstream.take(b"\x88\x02\x03\xe8")
        assert await upstream.take_all() == b""
        await wired.until(lambda: wired.route_stats.in_flight == 0, "the end of the exchange")
        assert wired.refusals == {}
        assert await caller.take_all() == b""
        assert not caller.was_reset
