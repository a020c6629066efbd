"""Callers that have no host to name: they come through a Unix socket, with real clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.fakes.grpc_service import OPTIONS, SERVICE, GrpcService, request
from tests.fakes.lifelines import OK, scripted, url_of
from tests.fakes.node import NodeServer, run_node
from tests.fakes.proxies import Proxies

# None is what the library says by itself.
AUTHORITIES = [None, "%2Frun%2Fproxy.sock", "/run/proxy.sock", "localhost", "[::]:50051"]


async def start(proxies: Proxies, folder: Path, upstream: str) -> str:
    """Start a proxy on a Unix socket and return its path.

    Of its two routes one is for a host that looks like the end of a socket's path.
    """
    path = f"{folder}/proxy.sock"
    routes = {
        "default": {"upstream": upstream},
        "other": {"upstream": "http://127.0.0.1:9", "host": ["*.sock"]},
    }
    await proxies.run(json.dumps({"listen": f"unix:{path}", "admin": "off", "routes": routes}))
    return path


@pytest.mark.parametrize("authority", [*AUTHORITIES, ""])
async def test_grpcio(proxies: Proxies, tmp_path: Path, authority: str | None) -> None:
    with GrpcService() as service:
        path = await start(proxies, tmp_path, service.url)
        options: list[tuple[str, Any]] = list(OPTIONS)
        if authority is not None:
            options.append(("grpc.default_authority", authority))

        def call() -> int:
            with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
                unary = channel.unary_unary(SERVICE + "UnaryCall")
                return len(unary(request(size=3000), timeout=20))

        assert await asyncio.to_thread(call) == 3000


@pytest.mark.parametrize("authority", AUTHORITIES)
async def test_grpc_js(proxies: Proxies, tmp_path: Path, authority: str | None) -> None:
    async with NodeServer("rpc_server.mjs") as service:
        path = await start(proxies, tmp_path, service.url)
        answer = await run_node(
            "rpc_client.mjs",
            f"unix:{path}",
            "grpc-js",
            "unary",
            env={} if authority is None else {"AUTHORITY": authority},
        )

    assert answer["ok"], answer
    assert "error" not in answer["result"]["unary"]


class _OnPath(http.client.HTTPConnection):
    """Python's own client, which says of a socket what it was given as a host."""

    def connect(self) -> None:
        """Connect to the path in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.host)


async def test_a_client_of_http1_that_names_the_path(proxies: Proxies, tmp_path: Path) -> None:
    async with scripted(OK) as upstream:
        path = await start(proxies, tmp_path, url_of(upstream))

        def call() -> int:
            connection = _OnPath(path)
            connection.request("GET", "/")
            try:
                return connection.getresponse().status
            finally:
                connection.close()

        assert await asyncio.to_thread(call) == 200
        (seen,) = upstream.requests
        assert seen.values("host") == [f"127.0.0.1:{upstream.port}"]
