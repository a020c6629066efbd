"""The Compose file with the emulator: its services as processes, in its own order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.child import Child, plain_environment, run
from tests.fakes.program import free_ports

COMPOSE = Path(__file__).parents[2] / "deploy" / "compose"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / "emulator.yaml").read_text())[
    "services"
]

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("TESTED_BUILD") == "compiled", reason="it is the Compose file that is tested"
    ),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


class Container:
    """One service of the file as a process, on ports of this test.

    `words` maps what the file says to what holds here: paths and ports.
    """

    def __init__(self, name: str, home: Path, words: dict[str, str], env: dict[str, str]) -> None:
        self._service = SERVICES[name]
        self._words = words
        given = self._service.get("environment", {})
        given = {key: self.here(each) for key, each in given.items()}
        self.env = plain_environment(home, given | env)
        argv = [*self._service["entrypoint"], *map(self.here, self._service["command"])]
        self.child = Child(argv, env=self.env, cwd=home)

    def here(self, text: str) -> str:
        for said, holds in self._words.items():
            text = text.replace(said, holds)
        return text

    async def becomes_healthy(self) -> None:
        """Ask as the file's health check does until it succeeds."""
        how, *check = self._service["healthcheck"]["test"]
        assert how == "CMD"
        async with asyncio.timeout(30):
            while (await run([*map(self.here, check)], env=self.env)).code:
                assert self.child.running, self.child.output


async def test_an_app_gets_through_the_proxy_to_the_emulated_service(tmp_path: Path) -> None:
    front, metadata, listen, admin = free_ports(4)
    words = {
        "/shared": str(tmp_path),
        "cloud-run-auth-proxy emulator": "cloud-run-auth-proxy emulator"
        f" --listen localhost:{front} --metadata localhost:{metadata}",
        "localhost:8081": f"localhost:{listen}",
    }
    [mounted] = (each for each in SERVICES["auth-proxy"]["volumes"] if "proxy.yaml" in each)
    env = {
        "AUTH_PROXY_CONFIG": str(COMPOSE / mounted.split(":")[0]),
        "AUTH_PROXY_LISTEN": f"localhost:{listen}",
        "AUTH_PROXY_ADMIN": f"localhost:{admin}",
        "ORDERS_URL": f"https://localhost:{front}",
    }
    containers = [
        Container("emulator", tmp_path, words, {}),
        Container("auth-proxy", tmp_path, words, env),
    ]
    try:
        for each in containers:
            await each.child.spawn()
            await each.becomes_healthy()
        curl = ["curl", *map(containers[0].here, SERVICES["app"]["command"])]
        called = await run(curl, env=plain_environment(tmp_path, {}))
        for each in reversed(containers):
            each.child.signal(signal.SIGTERM)
            assert await each.child.exit_code() == 0, each.child.output
    finally:
        for each in containers:
            await each.child.kill()

    assert called.out.startswith("HTTP/1.1 200 OK\r\n"), called
    # What echoes shows the token's claims: it was for the service.
    assert f'"aud": "https://localhost:{front}"' in called.out, called.out
