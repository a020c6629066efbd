"""Debian's Prometheus scrapes a running proxy."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import proxy
from proxy.emulator.service import ProtectedService
from tests.fakes.child import Child, plain_environment
from tests.fakes.proxies import Proxies

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


def free_port() -> int:
    """A port that nobody uses at this moment: Prometheus does not say which one it was given."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Prometheus(Child):
    """Scrapes one target ten times a second."""

    def __init__(self, home: Path, target: str) -> None:
        self._port = free_port()
        config = {
            "global": {"scrape_interval": "100ms", "scrape_timeout": "100ms"},
            "scrape_configs": [
                {"job_name": "cloud-run-auth-proxy", "static_configs": [{"targets": [target]}]}
            ],
        }
        (home / "prometheus.yml").write_text(json.dumps(config))
        super().__init__(
            [
                "prometheus",
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            env=plain_environment(home, {}),
            cwd=home,
        )

    async def ask(self, path: str, **query: str) -> Any:
        """Return the data that the HTTP API answers."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
            return (await answer.json())["data"]

    async def becomes(self, query: str, value: str) -> dict[str, str]:
        """Wait until the query has one result of this value; return its labels."""
        async with asyncio.timeout(20):
            while True:
                result = (await self.ask("query", query=query))["result"]
                if [one["value"][1] for one in result] == [value]:
                    labels: dict[str, str] = result[0]["metric"]
                    return labels
                await asyncio.sleep(0.1)


async def test_prometheus_scrapes_the_proxy_and_sees_what_it_serves(
    proxies: Proxies, service: ProtectedService, tmp_path: Path
) -> None:
    program = await proxies.to(service)
    prometheus = Prometheus(tmp_path, program.admin)
    await prometheus.spawn()
    try:
        await prometheus.line(lambda line: "Server is ready" in line)
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.get(f"{program.url}/x") as answer:
                    assert answer.status == 200
        # A scrape that cannot be read counts as down, in whichever format it came.
        await prometheus.becomes("up", "1")
        requests = await prometheus.becomes("auth_proxy_requests_total", "3")
        build = await prometheus.becomes("auth_proxy_build_info", "1")
        (target,) = (await prometheus.ask("targets"))["activeTargets"]
    finally:
        await prometheus.kill()

    assert (requests["route"], requests["protocol"], requests["code"]) == ("default", "h1", "200")
    assert (build["version"], build["build"]) == (proxy.__version__, proxy.build())
    assert target["lastError"] == ""
