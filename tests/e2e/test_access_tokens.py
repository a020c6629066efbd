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
API = {"auth": "access_token", "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"]}
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


async def test_the_log_says_at_the_start_what_the_tokens_of_each_route_are_for(
    proxies: Proxies,
) -> None:
    routes = {
        "api": {"path": "/api", "upstream": "https://storage.googleapis.com", **API},
        "orders": {"path": "/orders", "upstream": "https://orders.example"},
        "local": {"path": "/local", "upstream": "http://127.0.0.1:1"},
    }
    text = json.dumps({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "routes": routes})
    program = await proxies.run(text)

    serving = await program.record(message="serving")
    rows = {row["name"]: row for row in serving["routes"]}
    told = ("auth", "audience", "scopes", "credentials")
    assert {name: [row.get(key) for key in told] for name, row in rows.items()} == {
        "api": ["access_token", None, API["scopes"], "auto"],
        "orders": ["id_token", "https://orders.example", None, "auto"],
        "local": ["none", None, None, None],
    }


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
