"""gRPC in Go on both sides: it measures the bandwidth by a PING for each DATA that comes."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.fakes import golang
from tests.fakes.proxies import Proxies

SOURCE = Path(__file__).parent / "go"

CALLS = 3000
"""Each costs a few pings; a thousand are taken from anybody."""


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, or a skipped test where it cannot be built."""
    folder = tmp_path_factory.mktemp("go")
    golang.build("build", "-o", folder / "peers", ".", folder=folder, at=SOURCE)
    return folder / "peers"


@pytest.mark.timeout(240)  # It may have to be built.
async def test_no_call_fails_and_a_stream_goes_on(proxies: Proxies, peers: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    service = await asyncio.create_subprocess_exec(peers, "serve", stdin=pipe, stdout=pipe)
    assert service.stdin is not None
    assert service.stdout is not None
    try:
        port = int(await service.stdout.readline())
        route = {"upstream": f"http://127.0.0.1:{port}"}
        proxy = await proxies.run(
            json.dumps({"listen": "127.0.0.1:0", "admin": "off", "routes": {"default": route}})
        )

        caller = await asyncio.create_subprocess_exec(
            peers, "call", proxy.listeners[0], str(CALLS), "2", stdout=pipe
        )
        async with asyncio.timeout(100):
            said, _ = await caller.communicate()
    finally:
        service.stdin.close()
        await service.wait()

    seen = json.loads(said)
    assert seen["failures"] == []
    assert seen["calls"] == CALLS
    assert seen["messages"] > 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("authority", ["", "%2Frun%2Fproxy.sock", "/run/proxy.sock"])
async def test_a_unix_socket_is_called_whatever_stands_for_its_name(
    proxies: Proxies, peers: Path, tmp_path: Path, authority: str
) -> None:
    """By itself the library says ``localhost``."""
    pipe = asyncio.subprocess.PIPE
    service = await asyncio.create_subprocess_exec(peers, "serve", stdin=pipe, stdout=pipe)
    assert service.stdin is not None
    assert service.stdout is not None
    try:
        port = int(await service.stdout.readline())
        routes = {
            "default": {"upstream": f"http://127.0.0.1:{port}"},
            "other": {"upstream": "http://127.0.0.1:9", "host": ["*.sock"]},
        }
        listen = f"unix:{tmp_path}/proxy.sock"
        await proxies.run(json.dumps({"listen": listen, "admin": "off", "routes": routes}))
        env = os.environ | {"AUTHORITY": authority}
        caller = await asyncio.create_subprocess_exec(
            peers, "call", listen, "3", "0.1", stdout=pipe, env=env
        )
        async with asyncio.timeout(60):
            said, _ = await caller.communicate()
    finally:
        service.stdin.close()
        await service.wait()

    seen = json.loads(said)
    assert (seen["calls"], seen["failures"]) == (3, [])
