"""Upstreams behind an egress proxy: real tunnels, what is spoken inside, and proxies that fail."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from proxy.config.model import Address, Destination, Protocol, Timeouts, Upstream
from proxy.config.proxies import Egress, HttpProxy
from proxy.errors import ProxyError, UpstreamConnectFailed, UpstreamConnectTimedOut
from proxy.plane.dial import Dialler
from proxy.resolver import Resolver
from proxy.unreached import CHECK_PROXY, CHECK_SOCKET
from tests.fakes import tls
from tests.fakes.egress import ForwardProxy, needs_tinyproxy, tinyproxy
from tests.fakes.framed import FramedUpstream
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import PATIENCE, ScriptedUpstream, UpstreamEnd
from tests.fakes.wired import Wired

NAME = "orders.example"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
async def forward() -> AsyncIterator[ForwardProxy]:
    async with ForwardProxy().serving() as proxy:
        yield proxy


def through(port: int, authorization: str = "") -> Egress:
    proxy = HttpProxy("127.0.0.1", port, authorization)
    return Egress(proxy, proxy)


async def serve_named(wired: Wired, egress: Egress, ca_file: Path, **changes: object) -> None:
    upstream = Upstream("https", NAME, wired.upstream.port)
    await wired.serve(upstream=upstream, ca_file=ca_file, egress_proxy=egress, **changes)


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return tls.ca_file(tmp_path)


# --- what is spoken inside


async def test_tls_is_spoken_through_the_tunnel_and_verified_against_the_upstreams_name(
    forward: ForwardProxy, ca_file: Path
) -> None:
    async with Wired(automatic=OK, tls=tls.server_context(NAME)) as wired:
        await serve_named(wired, through(forward.port), ca_file)
        caller = await wired.caller()
        for _ in range(3):
            assert (await caller.ask(GET)).status == 200

        assert wired.upstream.requests[0].value("host") == f"{NAME}:{wired.upstream.port}"
    assert forward.targets == [f"{NAME}:{wired.upstream.port}"]
    assert b"authorization" not in forward.heads[0].lower().encode()


async def test_a_certificate_for_another_name_is_not_accepted_inside_either(
    forward: ForwardProxy, ca_file: Path
) -> None:
    async with Wired(automatic=OK, tls=tls.server_context("other.example")) as wired:
        await serve_named(wired, through(forward.port), ca_file)
        caller = await wired.caller()
        answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_tls_failed")
    assert f"through the egress proxy http://127.0.0.1:{forward.port}".encode() in answer.body
    assert b"inspects TLS" in answer.body


async def test_plain_http_is_tunnelled_too(forward: ForwardProxy) -> None:
    async with Wired(automatic=OK) as wired:
        upstream = Upstream("http", NAME, wired.upstream.port)
        await wired.serve(upstream=upstream, egress_proxy=through(forward.port))
        caller = await wired.caller()
        assert (await caller.ask(GET)).body == b"ok"

    assert forward.targets == [f"{NAME}:{wired.upstream.port}"]


async def test_http2_is_spoken_through_the_tunnel(forward: ForwardProxy, ca_file: Path) -> None:
    upstream = FramedUpstream(automatic=b"ok")
    context = tls.server_context(NAME, alpn=tls.HTTP2)
    async with Framed(upstream, tls=context, ca_file=ca_file) as world:
        named = Upstream("https", NAME, upstream.port)
        await world.serve(upstream=named, egress_proxy=through(forward.port))
        async with await frame_caller(world) as caller:
            for stream in (1, 3, 5):
                assert (await caller.ask(stream)).status == 200
        assert len(upstream.connections) == 1
    assert len(forward.heads) == 1


async def test_a_large_body_passes_both_ways(forward: ForwardProxy, ca_file: Path) -> None:
    body = os.urandom(4 << 20)
    head = b"Content-Length: %d\r\n\r\n" % len(body)
    async with Wired(tls=tls.server_context(NAME)) as wired:
        await serve_named(wired, through(forward.port), ca_file)
        caller = await wired.caller()
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + body)
        upstream = await wired.upstream.accept()
        assert (await upstream.serve(b"HTTP/1.1 200 OK\r\n" + head + body)).body == body
        assert (await caller.answer()).body == body


async def test_an_upgrade_is_a_tunnel_in_the_tunnel(forward: ForwardProxy, ca_file: Path) -> None:
    async with Wired(tls=tls.server_context(NAME)) as wired:
        await serve_named(wired, through(forward.port), ca_file)
        caller = await wired.caller()
        caller.send(UPGRADE)
        upstream = await wired.upstream.accept()
        await upstream.head()
        upstream.send(SWITCHED + b"frames")
        await caller.until(lambda: b"frames" in caller.received, "the first frames")
        caller.send(b"back")
        await upstream.take(b"back")
        upstream.close()
        await caller.take_all()


# --- what comes behind the head belongs to the tunnel


@pytest.mark.parametrize("cut", [len(OPENED), len(OPENED) - 1, len(OPENED) + 3])
async def test_an_upstream_that_speaks_first_is_heard(cut: int) -> None:
    """An HTTP/2 server may send SETTINGS at once; they can come with the proxy's own head."""
    settings = b"\0\0\0\4\0\0\0\0\0"
    async with Wired() as wired:
        upstream = Upstream("http", NAME, 80)
        egress = through(wired.upstream.port)
        await wired.serve(upstream=upstream, egress_proxy=egress, protocol=Protocol.H2)
        caller = await wired.caller()
        caller.send(GET)
        proxy = await wired.upstream.accept()
        assert (await proxy.head()).startswith(b"CONNECT orders.example:80 HTTP/1.1\r\n")
        said = OPENED + settings
        proxy.send(said[:cut])
        await wired.plane_turn()
        proxy.send(said[cut:])
        await proxy.until(lambda: b"\0\0\0\4\1" in proxy.received, "our acknowledgement")
        assert proxy.received.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        proxy.close()
        assert (await caller.answer()).status == 502


async def test_nothing_of_the_request_is_sent_before_the_tunnel_is_open() -> None:
    async with Wired() as wired:
        upstream = Upstream("http", NAME, 80)
        await wired.serve(
            upstream=upstream, egress_proxy=through(wired.upstream.port, "Basic eA==")
        )
        caller = await wired.caller()
        caller.send(GET)
        proxy = await wired.upstream.accept()
        head = await proxy.head()
        assert b"\r\nProxy-Authorization: Basic eA==\r\n" in head + b"\r\n"
        await wired.standstill(lambda: len(proxy.history))
        assert proxy.received == b""
        proxy.send(OPENED)
        request = await proxy.serve(OK)
        assert b"proxy-authorization" not in request.raw.lower()
        assert (await caller.answer()).status == 200


# --- proxies that fail


async def failure(answer: bytes | None, *, timeout: float = PATIENCE) -> ProxyError:
    """Dial through a proxy that sends this and closes; None: it closes at once."""
    proxy = ScriptedUpstream()
    await proxy.start()
    dialler = Dialler(
        Upstream("https", NAME, 443),
        None,
        Resolver(),
        proxy=HttpProxy("127.0.0.1", proxy.port, "Basic aHVudGVyMg=="),
    )
    dialling = asyncio.ensure_future(dialler.dial(asyncio.Protocol, timeout))
    end = await proxy.accept()
    if answer is not None:
        await end.head()
        end.send(answer)
    end.finish()
    with pytest.raises(ProxyError) as raised:
        await dialling
    await end.until(lambda: end.ended, "the end of the connection")
    await proxy.stop()
    assert "aHVudGVyMg" not in raised.value.detail + str(raised.value.hint)
    assert not raised.value.sent_upstream
    return raised.value


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (None, "closed the connection without an answer"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection without an answer"),
        (b"220 mail.example ESMTP\r\n", "answered is not HTTP/1.1"),
        (
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n",
            "does not accept the credentials",
        ),
        (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", "does not let connections to orders"),
        (b"HTTP/1.1 502 No\r\n\r\n", "could not connect to orders.example:443"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (17 << 10), "more than 16384 bytes of head"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_whose_fault_it_is(
    answer: bytes | None, detail: str
) -> None:
    error = await failure(answer)

    assert isinstance(error, UpstreamConnectFailed)
    assert "egress proxy http://127.0.0.1:" in error.detail
    assert detail in error.detail


async def test_an_end_right_behind_the_head_is_the_upstreams() -> None:
    error = await failure(OPENED)

    assert "The TLS handshake with https://orders.example (through the egress" in error.detail


async def test_a_proxy_that_hangs_has_no_longer_than_any_dial() -> None:
    async with Wired() as wired:
        upstream = Upstream("https", NAME, 443)
        egress = through(wired.upstream.port)
        await wired.serve(upstream=upstream, egress_proxy=egress, timeouts=Timeouts(connect=0.05))
        caller = await wired.caller()
        caller.send(GET)
        proxy = await wired.upstream.accept()
        answer = await caller.answer()
        await proxy.take_all()

    assert answer.value("x-auth-proxy-error") == "upstream_connect_timed_out"
    assert b"(at the egress proxy: waiting for its answer)" in answer.body


async def test_an_upstream_that_hangs_in_tls_is_not_the_proxys_fault() -> None:
    proxy = ScriptedUpstream()
    await proxy.start()
    dialler = Dialler(
        Upstream("https", NAME, 443), None, Resolver(), proxy=HttpProxy("127.0.0.1", proxy.port)
    )
    dialling = asyncio.ensure_future(dialler.dial(asyncio.Protocol, 0.2))
    end = await proxy.accept()
    await end.head()
    end.send(OPENED)
    with pytest.raises(UpstreamConnectTimedOut, match=r"\(the TLS handshake\)"):
        await dialling
    await end.take_all()
    await proxy.stop()


async def test_a_proxy_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    upstream = Upstream("https", NAME, 443)
    dialler = Dialler(upstream, None, Resolver(), proxy=HttpProxy("127.0.0.1", port))
    with pytest.raises(UpstreamConnectFailed) as raised:
        await dialler.dial(asyncio.Protocol, PATIENCE)

    assert raised.value.detail == (
        f"The egress proxy http://127.0.0.1:{port} cannot be connected: "
        "connection refused: nothing listens there."
    )
    assert raised.value.hint == CHECK_PROXY


async def test_a_proxy_whose_name_does_not_resolve_is_told() -> None:
    def look_up(host: str) -> list[object]:
        assert host == "proxy.example"
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver = Resolver(look_up=look_up)  # type: ignore[arg-type]  # it never returns
    dialler = Dialler(
        Upstream("https", NAME, 443), None, resolver, proxy=HttpProxy("proxy.example", 3128)
    )
    with pytest.raises(UpstreamConnectFailed) as raised:
        await dialler.dial(asyncio.Protocol, PATIENCE)

    assert raised.value.detail == (
        "The egress proxy http://proxy.example:3128 cannot be connected: "
        "Name or service not known: the name does not exist."
    )
    assert raised.value.hint == CHECK_PROXY


async def test_a_caller_that_goes_away_while_the_proxy_thinks_leaves_nothing_behind() -> None:
    async with Wired() as wired:
        upstream = Upstream("https", NAME, 443)
        await wired.serve(upstream=upstream, egress_proxy=through(wired.upstream.port))
        async with await wired.connect() as caller:
            caller.send(GET)
            proxy = await wired.upstream.accept()
            await proxy.head()
        await proxy.take_all()


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 on this machine")
async def test_a_proxy_and_an_upstream_may_be_ipv6_addresses(ca_file: Path) -> None:
    try:
        serving = ForwardProxy().serving("::1")
        forward = await serving.__aenter__()
    except OSError:
        pytest.skip("loopback has no IPv6 address")
    try:
        async with Wired(automatic=OK, tls=tls.server_context("2001:db8::1")) as wired:
            upstream = Upstream("https", "2001:db8::1", wired.upstream.port)
            proxy = HttpProxy("::1", forward.port)
            await wired.serve(upstream=upstream, ca_file=ca_file, egress_proxy=Egress(proxy, proxy))
            caller = await wired.caller()
            assert (await caller.ask(GET)).status == 200
        assert forward.targets == [f"[2001:db8::1]:{wired.upstream.port}"]
    finally:
        await serving.__aexit__(None, None, None)


# --- pools


async def test_connections_belong_to_the_proxy_they_go_through(
    forward: ForwardProxy, ca_file: Path
) -> None:
    async with ForwardProxy().serving() as other:
        async with Wired(automatic=OK, tls=tls.server_context(NAME)) as wired:
            caller = await wired.caller()
            for egress in (
                through(forward.port),
                through(forward.port),
                through(other.port),
                through(other.port, "Basic eA=="),
            ):
                await serve_named(wired, egress, ca_file)
                assert (await caller.ask(GET)).status == 200
            assert len(wired.upstream.connections) == 3
        assert (len(forward.heads), len(other.heads)) == (1, 2)


async def test_an_upstream_on_this_machine_is_dialled_directly(forward: ForwardProxy) -> None:
    async with Wired(automatic=OK) as wired:
        await wired.serve(egress_proxy=through(forward.port))
        caller = await wired.caller()
        assert (await caller.ask(GET)).status == 200
    assert forward.heads == []


# --- a proxy of Debian's


@needs_tinyproxy
async def test_tinyproxy_opens_tunnels(
    forward: ForwardProxy, ca_file: Path, tmp_path: Path
) -> None:
    async with (
        tinyproxy(tmp_path, behind=forward) as port,
        Wired(automatic=OK, tls=tls.server_context(NAME)) as wired,
    ):
        await serve_named(wired, through(port), ca_file)
        caller = await wired.caller()
        for _ in range(3):
            assert (await caller.ask(GET)).status == 200
        assert len(wired.upstream.connections) == 1
    assert forward.targets == [f"{NAME}:{wired.upstream.port}"]


@needs_tinyproxy
@pytest.mark.parametrize(
    ("line", "authorization", "detail"),
    [
        ("BasicAuth user hunter2", "", "asks for credentials (407)"),
        ("BasicAuth user hunter2", "Basic dXNlcjp3cm9uZw==", "credentials"),
        ("BasicAuth user hunter2", "Basic dXNlcjpodW50ZXIy", ""),
        ("ConnectPort 1", "", "does not let connections to"),
    ],
)
async def test_what_tinyproxy_refuses_is_explained(
    line: str,
    authorization: str,
    detail: str,
    forward: ForwardProxy,
    ca_file: Path,
    tmp_path: Path,
) -> None:
    async with (
        tinyproxy(tmp_path, line, behind=forward) as port,
        Wired(automatic=OK, tls=tls.server_context(NAME)) as wired,
    ):
        await serve_named(wired, through(port, authorization), ca_file)
        caller = await wired.caller()
        answer = await caller.ask(GET)

    if not detail:
        assert answer.status == 200
        return
    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_connect_failed")
    assert detail.encode() in answer.body
    assert forward.heads == []


# --- another address


async def test_another_address_is_dialled_and_the_upstreams_name_verified(ca_file: Path) -> None:
    async with Wired(automatic=OK, tls=tls.server_context(NAME)) as wired:
        await serve_at(wired, Address("127.0.0.1", wired.upstream.port), ca_file)
        caller = await wired.caller()
        assert (await caller.ask(GET)).status == 200
        assert wired.upstream.requests[0].value("host") == NAME


async def test_whoever_is_at_another_address_has_to_be_the_upstream(ca_file: Path) -> None:
    async with Wired(automatic=OK, tls=tls.server_context("localhost", "127.0.0.1")) as wired:
        place = Address("127.0.0.1", wired.upstream.port)
        await serve_at(wired, place, ca_file)
        caller = await wired.caller()
        answer = await caller.ask(GET)

        assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_tls_failed")
        assert f"https://{NAME} (at {place})".encode() in answer.body
        assert wired.upstream.requests == []


@pytest.mark.parametrize("secure", [True, False])
async def test_a_unix_socket_is_dialled(
    secure: bool,  # noqa: FBT001 (a row)
    ca_file: Path,
    tmp_path: Path,
) -> None:
    socket_file = tmp_path / "socket"
    loop = asyncio.get_running_loop()
    upstream = ScriptedUpstream(OK)
    context = tls.server_context(NAME) if secure else None
    server = await loop.create_unix_server(
        lambda: UpstreamEnd(upstream), str(socket_file), ssl=context
    )
    async with Wired() as wired:
        await serve_at(
            wired, Address(path=str(socket_file)), ca_file, scheme="https" if secure else "http"
        )
        caller = await wired.caller()
        for _ in range(3):
            assert (await caller.ask(GET)).status == 200
        assert len(upstream.connections) == 1
        assert upstream.requests[0].value("host") == NAME
    server.close()
    await upstream.stop()


async def test_a_unix_socket_that_is_not_there_is_told(ca_file: Path, tmp_path: Path) -> None:
    place = Address(path=str(tmp_path / "gone"))
    async with Wired() as wired:
        await serve_at(wired, place, ca_file)
        caller = await wired.caller()
        answer = await caller.ask(GET)

    assert answer.value("x-auth-proxy-error") == "upstream_connect_failed"
    said = f"There is no socket {place}, where https://{NAME} is dialled (no such file)."
    assert json.loads(answer.body)["detail"] == said
    assert json.loads(answer.body)["hint"] == CHECK_SOCKET


async def test_another_address_is_asked_for_through_the_proxy(
    forward: ForwardProxy, ca_file: Path
) -> None:
    async with Wired(automatic=OK, tls=tls.server_context(NAME)) as wired:
        place = Address("192.0.2.5", wired.upstream.port)
        await serve_at(wired, place, ca_file, egress_proxy=through(forward.port))
        caller = await wired.caller()
        assert (await caller.ask(GET)).status == 200
    assert forward.targets == [str(place)]


async def test_connections_belong_to_the_address_that_was_dialled(ca_file: Path) -> None:
    async with Wired(automatic=OK, tls=tls.server_context(NAME)) as wired:
        caller = await wired.caller()
        for host in ("127.0.0.1", "127.0.0.1", "localhost"):
            await serve_at(wired, Address(host, wired.upstream.port), ca_file)
            assert (await caller.ask(GET)).status == 200
        assert len(wired.upstream.connections) == 2


async def serve_at(
    wired: Wired,
    place: Address,
    ca_file: Path,
    *,
    scheme: Literal["http", "https"] = "https",
    **changes: object,
) -> None:
    upstream = Upstream(scheme, NAME, 443 if scheme == "https" else 80)
    destination = Destination(upstream=upstream, connect_to=place)
    await wired.serve(destinations=(destination,), ca_file=ca_file, **changes)
