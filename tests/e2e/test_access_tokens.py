"""The installed command with a route to one of Google's APIs: started, examined, looked at."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from proxy.emulator.api import ApiService
from proxy.emulator.claims import CALLER
from proxy.emulator.metadata import MetadataServer
from tests.fakes.program import Program, command
from tests.fakes.proxies import Proxies, config_for

HERE = {"auth": "access_token", "access_token_hosts": ["127.0.0.1"]}
CLOUD = "https://www.googleapis.com/auth/cloud-platform"


async def admin(program: Program, path: str) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{program.admin_url}{path}") as response,
    ):
        return await response.text()


async def test_one_url_and_a_flag_are_enough(metadata: MetadataServer, proxies: Proxies) -> None:
    arguments = ["--auth", "access_token", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    program = await proxies.run(None, "https://storage.googleapis.com", *arguments)

    (route,) = json.loads(await admin(program, "/status"))["routes"]
    assert (route["auth"], route["scopes"], route["header"]) == (
        "access_token",
        [CLOUD],
        "Authorization",
    )
    assert route["audience"] is None
    assert [r.query.get("scopes") for r in metadata.requests if r.path.endswith("/token")] == [
        CLOUD
    ]


async def test_another_url_with_that_flag_is_refused() -> None:
    done = await command("run", "https://orders.example", "--auth", "access_token", env={})

    assert done.code == 64
    assert done.err.startswith("URL: an access token is for Google's APIs (*.googleapis.com)")


async def test_status_and_metrics_tell_of_the_token_but_not_the_token(
    metadata: MetadataServer, proxies: Proxies
) -> None:
    async with ApiService(metadata.mint.access) as api:
        program = await proxies.to(api, route=HERE)
        async with aiohttp.ClientSession() as session, session.get(program.url) as response:
            assert response.status == 200

        (route,) = json.loads(await admin(program, "/status"))["routes"]
        assert (route["token"]["state"], route["token"]["account"]) == ("good", CALLER.email)
        assert 3500 < route["token"]["expires_in_seconds"] <= 3600
        fetched = 'auth_proxy_token_fetches_total{outcome="fetched",route="default"} 1.0'
        assert fetched in (await admin(program, "/metrics")).replace(
            'route="default",outcome="fetched"', 'outcome="fetched",route="default"'
        )


@pytest.mark.parametrize(
    ("scopes", "code", "reason"), [([CLOUD], 0, None), (["openid"], 1, "scope_insufficient")]
)
async def test_doctor_asks_with_the_access_token(
    metadata: MetadataServer, tmp_path: Path, scopes: list[str], code: int, reason: str | None
) -> None:
    file = tmp_path / "proxy.yaml"
    async with ApiService(metadata.mint.access) as api:
        file.write_text(config_for(api, route={**HERE, "scopes": scopes}))
        done = await command(
            "doctor", "--config", str(file), "--format", "json", env=metadata.environ
        )

    assert done.code == code
    (route,) = json.loads(done.out)["routes"]
    steps = {step["step"]: step for step in route["steps"]}
    assert route["scopes"] == scopes
    assert steps["token"]["facts"]["scopes"] == scopes
    assert steps["token"]["facts"]["email"] == CALLER.email
    assert steps["request"]["reason"] == reason
    assert "ya29." not in done.out + done.err
