"""Plain calls on localhost that reach a private service: the first promise, end to end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.config.loading import parse
from proxy.emulator.faults import Answer, Fault, Held, Minted, Reset
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from proxy.identity.metadata import ATTEMPTS
from proxy.server import Server
from tests.fakes import sessions
from tests.fakes.child import Done, plain_environment, run
from tests.fakes.lifelines import document, scripted
from tests.fakes.proxies import Proxies, config_for

MEGABYTE = 1_000_000
ROOM = 20 * MEGABYTE
"""Bytes by which a large body may let the process grow."""


async def curl(*arguments: str) -> Done:
    """Run curl to its end."""
    return await run(["curl", "-sS", *arguments], env=plain_environment(Path(), {}))


async def test_a_call_by_curl_arrives_with_a_token_for_the_service(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service)

    done = await curl("--fail-with-body", f"{proxy.url}/a/b%2Fc?x=%27&x=2")

    assert done.code == 0, done.err
    (seen,) = service.admitted
    assert seen.target == "/a/b%2Fc?x=%27&x=2"
    assert seen.claims is not None
    assert seen.claims["aud"] == service.url


async def test_curl_that_follows_a_redirect_comes_through_the_proxy_again(
    proxies: Proxies,
) -> None:
    async with scripted() as upstream:
        location = f"http://127.0.0.1:{upstream.port}/base/there?a=b"
        upstream.automatic = (
            f"HTTP/1.1 307 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        route = {
            "upstream": f"http://127.0.0.1:{upstream.port}/base",
            "path": "/orders",
            "strip_path": True,
            "rewrite_redirects": True,
            "set_headers": {"x-came": "through the proxy"},
        }
        proxy = await proxies.run(document(upstream, route=route))

        done = await curl("-L", "--max-redirs", "1", f"{proxy.url}/orders/here")

        assert "redirects" in done.err  # It would have gone on.
        assert [seen.start.split()[1] for seen in upstream.requests] == [
            b"/base/here",
            b"/base/there?a=b",
        ]
        assert all(seen.values("x-came") for seen in upstream.requests)


async def test_the_service_refuses_the_same_call_without_the_proxy(
    service: ProtectedService,
) -> None:
    done = await curl("-w", "%{http_code}", "--cacert", str(service.ca_file), service.url)

    assert done.out.endswith("403"), done.err


async def test_a_service_is_called_by_its_url_alone(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.run(
        None,
        service.url,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        env={"SSL_CERT_FILE": str(service.ca_file)},
    )

    async with sessions.session() as session, session.get(proxy.url) as response:
        assert response.status == 200


async def test_500_first_calls_at_once_cause_one_request_to_the_metadata_server(
    metadata: MetadataServer, proxies: Proxies, service: ProtectedService
) -> None:
    # Without this the token would be there before the first call.  The failure is one that may
    # pass, so that calls wait for the next fetch; after a 404 they would fail until that may begin.
    for _ in range(ATTEMPTS):
        metadata.inject(Answer(status=503))
    proxy = await proxies.to(service)
    before = len(metadata.requests)
    held = asyncio.Event()
    metadata.inject(Held(held))

    connector = aiohttp.TCPConnector(limit=0)
    async with sessions.session(connector=connector) as session:
        calls = [asyncio.ensure_future(_status(session, f"{proxy.url}/{n}")) for n in range(500)]
        await metadata.requests.reached(before + 1)
        held.set()
        statuses = await asyncio.gather(*calls)

    assert statuses == [200] * 500
    assert len(metadata.requests) == before + 1
    assert len(service.admitted) == 500


async def _status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize(
    ("fault", "status", "reason", "says"),
    [
        (Reset(), 503, "token_unavailable", "metadata server"),
        (Answer(status=200), 503, "token_unavailable", "html"),
        (Answer(status=404), 503, "token_unavailable", "service account"),
        (
            Answer(status=200, headers={"Metadata-Flavor": "Portal"}),
            503,
            "token_unavailable",
            "without Metadata-Flavor: Google",
        ),
    ],
    ids=["reset", "html", "404", "another-server"],
)
async def test_without_a_token_nothing_is_sent_and_the_answer_says_why(
    metadata: MetadataServer,
    proxies: Proxies,
    service: ProtectedService,
    fault: Fault,
    status: int,
    reason: str,
    says: str,
) -> None:
    # Too short to be used: without this the token would be there before the first call.
    metadata.inject(Minted(lifetime=10))
    proxy = await proxies.to(service, route={"timeouts": {"connect": "300ms"}})
    metadata.inject(fault, times=math.inf)

    async with sessions.session() as session, session.post(proxy.url, data=b"x") as response:
        problem = await response.json()

    assert (response.status, response.headers["x-auth-proxy-error"]) == (status, reason)
    assert response.content_type == "application/problem+json"
    assert says.lower() in (problem["detail"] + problem["hint"]).lower()
    assert problem["route"] == "default"
    assert not service.requests, "something reached the upstream"


async def test_a_metadata_server_that_is_slow_is_named_and_nothing_is_sent(
    metadata: MetadataServer, service: ProtectedService
) -> None:
    text = config_for(service, route={"timeouts": {"connect": "200ms"}}, admin="off")
    server = Server(parse(text, source="test", env={}), metadata.environ)
    held = asyncio.Event()
    metadata.inject(Held(held))
    start = asyncio.ensure_future(server.start())
    await metadata.requests.reached(1)

    async with (
        sessions.session() as session,
        session.get(f"http://{server.addresses[0]}") as response,
    ):
        problem = await response.json()

    assert (response.status, problem["reason"]) == (504, "token_timed_out")
    assert "metadata server" in problem["detail"]
    assert not service.requests
    held.set()
    await start
    await server.stop()


async def test_a_metadata_server_that_is_down_is_named_and_nothing_is_sent(
    proxies: Proxies, service: ProtectedService
) -> None:
    # Port 9 (discard) has no listener on this machine.
    nowhere = {"GCE_METADATA_HOST": "127.0.0.1:9"}
    proxy = await proxies.to(service, route={"timeouts": {"connect": "300ms"}}, env=nowhere)

    async with sessions.session() as session, session.get(proxy.url) as response:
        problem = await response.json()

    assert (response.status, problem["reason"]) == (503, "token_unavailable")
    assert "127.0.0.1:9" in problem["detail"]
    assert not service.requests


async def test_a_large_upload_needs_no_memory(metadata: MetadataServer, proxies: Proxies) -> None:
    async with _counter() as app, ProtectedService(metadata.keys, app=app) as front:
        proxy = await proxies.to(front)
        async with sessions.session() as session:
            await _upload(session, proxy.url, MEGABYTE)
            before = proxy.rss_bytes()
            proxy.forget_peak()
            received = await _upload(session, proxy.url, 100 * MEGABYTE)
        grown = proxy.peak_bytes() - before

    assert received == 100 * MEGABYTE
    assert grown < ROOM


async def test_a_large_download_needs_no_memory(metadata: MetadataServer, proxies: Proxies) -> None:
    async with _counter() as app, ProtectedService(metadata.keys, app=app) as front:
        proxy = await proxies.to(front)
        async with sessions.session() as session:
            await _download(session, proxy.url, MEGABYTE)
            before = proxy.rss_bytes()
            proxy.forget_peak()
            received = await _download(session, proxy.url, 100 * MEGABYTE)
        grown = proxy.peak_bytes() - before

    assert received == 100 * MEGABYTE
    assert grown < ROOM


async def _upload(session: aiohttp.ClientSession, url: str, size: int) -> int:
    async def body() -> AsyncIterator[bytes]:
        piece = bytes(100_000)
        for _ in range(size // len(piece)):
            yield piece

    async with session.post(url, data=body()) as response:
        return int(await response.text())


async def _download(session: aiohttp.ClientSession, url: str, size: int) -> int:
    received = 0
    async with session.get(f"{url}/{size}") as response:
        async for piece in response.content.iter_any():
            received += len(piece)
    return received


@asynccontextmanager
async def _counter() -> AsyncIterator[tuple[str, int]]:
    """An app that answers a POST with the size of its body, and GET /N with N bytes."""

    async def post(request: web.Request) -> web.Response:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        return web.Response(text=str(size))

    async def get(request: web.Request) -> web.StreamResponse:
        size = int(request.match_info["size"])
        response = web.StreamResponse()
        response.content_length = size
        await response.prepare(request)
        for _ in range(size // 100_000):
            await response.write(bytes(100_000))
        return response

    app = web.Application()
    app.add_routes([web.post("/", post), web.get("/{size}", get)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield ("127.0.0.1", int(runner.addresses[0][1]))
    finally:
        await runner.cleanup()
