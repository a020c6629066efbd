"""`token`: one ID token on stdout, and nothing but reasons on stderr."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from google.auth.transport.requests import Request
from google.oauth2.id_token import verify_token

from proxy.emulator.claims import CALLER
from proxy.emulator.faults import Answer, Held
from proxy.emulator.google import CLIENT_ID, TokenServices
from proxy.emulator.metadata import MetadataServer
from tests.fakes.program import A_TOKEN, command

AUDIENCE = "https://orders-123456789012.us-central1.run.app"
CUSTOM = "https://billing.example.com"
_UPSTREAM = {"upstream": AUDIENCE}
NOWHERE = {"GCE_METADATA_HOST": "127.0.0.1:9"}
"""Port 9 (discard) has no listener on this machine."""


def config(folder: Path, **routes: dict[str, Any]) -> str:
    """Write a configuration of these routes and return its name."""
    numbered = {
        name: {"path": f"/{number}", **({} if "service" in route else _UPSTREAM), **route}
        for number, (name, route) in enumerate(routes.items())
    }
    file = folder / "proxy.yaml"
    file.write_text(json.dumps({"routes": numbered}))
    return str(file)


async def claims(*arguments: str, env: dict[str, str]) -> dict[str, Any]:
    done = await command("token", *arguments, "--claims", env=env)
    assert (done.code, done.err) == (0, "")
    assert A_TOKEN.search(done.out) is None
    return dict(json.loads(done.out))


async def test_a_token_for_an_audience_verifies_with_googles_own_library(
    metadata: MetadataServer,
) -> None:
    done = await command("token", AUDIENCE, env=metadata.environ, prints_a_token=True)

    assert (done.code, done.err) == (0, "")
    assert A_TOKEN.fullmatch(done.out.removesuffix("\n"))
    verified = await asyncio.to_thread(
        verify_token, done.out.strip(), Request(), AUDIENCE, metadata.certs_url
    )
    assert verified["email"] == CALLER.email
    assert metadata.asked == {AUDIENCE: 1}


async def test_the_claims_are_printed_instead_of_the_token(metadata: MetadataServer) -> None:
    said = await claims(AUDIENCE, env=metadata.environ)

    assert (said["aud"], said["email"]) == (AUDIENCE, CALLER.email)
    assert said["exp"] - said["iat"] == 3600


async def test_a_route_stands_for_its_audience_and_its_credentials(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    async with TokenServices() as google:
        key = tmp_path / "key.json"
        key.write_text(json.dumps(google.key_file()))
        file = config(
            tmp_path,
            orders={},
            billing={"audience": CUSTOM, "credentials": {"service_account_file": "key.json"}},
            named={"service": "orders"},
        )
        env = metadata.environ

        orders = await claims("orders", "--config", file, env=env)
        billing = await claims("billing", "--config", file, env=env)
        named = await claims("named", "--config", file, env=env)
        # The same token as the proxy would send, although it is asked for by its audience.
        same = await claims(CUSTOM, "--config", file, env=env)

    assert (orders["aud"], orders["email"]) == (AUDIENCE, CALLER.email)
    assert (billing["aud"], billing["email"]) == (CUSTOM, "key@project.iam.gserviceaccount.com")
    assert named["aud"] == AUDIENCE
    assert same["email"] == billing["email"]


async def test_an_audience_of_routes_that_disagree_is_fetched_with_auto(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    async with TokenServices() as google:
        (tmp_path / "key.json").write_text(json.dumps(google.key_file()))
        other = {"credentials": {"service_account_file": "key.json"}}
        file = config(tmp_path, one={"audience": CUSTOM}, two={"audience": CUSTOM, **other})

        said = await claims(CUSTOM, "--config", file, env=metadata.environ)

    assert said["email"] == CALLER.email


async def test_a_word_that_is_no_route_is_an_audience(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    file = config(tmp_path, orders={})
    client = "123-abc.apps.googleusercontent.com"

    assert (await claims(client, env=metadata.environ))["aud"] == client
    assert (await claims(client, "--config", file, env=metadata.environ))["aud"] == client


@pytest.mark.parametrize(
    ("word", "guess"),
    [
        ("order", "; did you mean 'orders'?"),
        ("orders.v3", "; did you mean 'orders.v2'?"),
        ("billing", ""),
    ],
)
async def test_a_mistyped_name_of_a_route_is_no_audience(
    metadata: MetadataServer, tmp_path: Path, word: str, guess: str
) -> None:
    file = config(tmp_path, orders={}, **{"orders.v2": {}})
    told = "and an audience looks like https://billing.example.com"
    done = await command("token", word, "--config", file, env=metadata.environ)

    assert (done.code, done.out) == (64, "")
    assert done.err == f"{word}: no route of {file} has this name, {told}{guess}\n"
    assert not metadata.asked


async def test_a_routes_name_without_configuration_is_no_audience(
    metadata: MetadataServer,
) -> None:
    done = await command("token", "orders", env=metadata.environ)

    assert (done.code, done.out) == (64, "")
    assert done.err.startswith("orders: there is no configuration with a route of this name, and")
    assert not metadata.asked


async def test_a_word_that_a_route_has_as_its_audience_is_one(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    file = config(tmp_path, orders={"audience": "billing"})

    assert (await claims("billing", "--config", file, env=metadata.environ))["aud"] == "billing"


async def test_a_token_is_no_audience(metadata: MetadataServer) -> None:
    done = await command("token", "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", env=metadata.environ)

    assert (done.code, done.out) == (64, "")
    assert done.err.startswith("[a token, not shown]: there is no configuration with a route")


@pytest.mark.parametrize("word", ["", " "])
async def test_an_audience_that_was_forgotten_is_one_line_and_exit_64(word: str) -> None:
    done = await command("token", word)

    assert (done.code, done.out) == (64, "")
    assert done.err == "AUDIENCE|ROUTE: is empty; write what the token is for\n"


async def test_what_a_gcloud_login_cannot_do_is_said_beside_the_token(tmp_path: Path) -> None:
    login = tmp_path / ".config/gcloud/application_default_credentials.json"
    login.parent.mkdir(parents=True)
    async with TokenServices() as google:
        login.write_text(json.dumps(google.login_file()))
        env = google.environ(HOME=str(tmp_path))
        done = await command("token", AUDIENCE, "--claims", env=env)

    assert done.code == 0
    assert json.loads(done.out)["aud"] == CLIENT_ID
    assert done.err == (
        "cloud-run-auth-proxy: the audience cannot be chosen with a gcloud login: "
        f"this token's is {CLIENT_ID}\n"
    )


async def test_a_failure_is_a_line_and_a_hint_and_exit_1() -> None:
    done = await command("token", AUDIENCE, env=NOWHERE)

    assert (done.code, done.out) == (1, "")
    line, hint = done.err.splitlines()
    assert line == (
        "cloud-run-auth-proxy: metadata server at 127.0.0.1:9: "
        "connection refused: nothing listens there"
    )
    assert "`gcloud auth application-default login`" in hint


async def test_something_else_than_a_token_is_not_printed(metadata: MetadataServer) -> None:
    metadata.inject(Answer(status=200, body="<html>hello</html>"))

    done = await command("token", AUDIENCE, env=metadata.environ)

    assert (done.code, done.out) == (1, "")
    assert "no ID token came but status 200, text/html" in done.err


async def test_a_source_that_hangs_is_given_up_after_the_routes_connect_timeout(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    held = asyncio.Event()
    metadata.inject(Held(held))
    file = config(tmp_path, orders={"timeouts": {"connect": "300ms"}})

    done = await command("token", "orders", "--config", file, env=metadata.environ, seconds=10)
    held.set()

    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"cloud-run-auth-proxy: metadata server at {metadata.host}: no answer within 0.3 s\n"
    )


async def test_a_route_that_sends_no_token_has_none_to_print(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    file = config(tmp_path, search={"upstream": "http://127.0.0.1:3001"})

    done = await command("token", "search", "--config", file, env=metadata.environ)

    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[0] == (
        "cloud-run-auth-proxy: route search sends no token (auth: none)"
    )
    assert not metadata.requests


@pytest.mark.parametrize("fault", [Answer(status=404), Answer(status=403)])
async def test_a_service_that_is_not_found_has_no_audience(
    metadata: MetadataServer, tmp_path: Path, fault: Answer
) -> None:
    metadata.inject(fault, times=9)
    file = config(tmp_path, orders={"service": "orders"})

    done = await command("token", "orders", "--config", file, env=metadata.environ)

    assert (done.code, done.out) == (1, "")
    assert "service orders cannot be resolved" in done.err


async def test_a_bad_configuration_is_exit_64_and_a_missing_one_69(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("routes: {a: {}}")

    bad = await command("token", AUDIENCE, "--config", str(file))
    missing = await command("token", AUDIENCE, "--config", "none.yaml")
    nothing = await command("token")

    assert (bad.code, missing.code, nothing.code) == (64, 69, 64)
    assert bad.err.startswith(f"{file}:1:")


# --- access tokens


API = {"upstream": "https://storage.googleapis.com", "auth": "access_token"}
OWN = ("https://www.googleapis.com/auth/devstorage.read_only", "email")


async def scopes_asked(metadata: MetadataServer, *arguments: str) -> list[str]:
    """Run `token`, which prints an access token; return the scopes that were asked for."""
    done = await command("token", *arguments, env=metadata.environ, prints_a_token=True)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("ya29.")
    asked = next(each for each in metadata.requests if each.path.endswith("/token"))
    return asked.query["scopes"].split(",")


@pytest.mark.parametrize(
    ("arguments", "scopes"),
    [
        (("api",), OWN),
        (("api", "--access"), OWN),
        (("api", "--access", "--scopes", "openid"), ("openid",)),
        (("orders", "--access"), ("https://www.googleapis.com/auth/cloud-platform",)),
        (("--access",), ("https://www.googleapis.com/auth/cloud-platform",)),
        (("--access", "--scopes", "openid,email"), ("openid", "email")),
    ],
)
async def test_a_route_or_the_flag_asks_for_an_access_token(
    metadata: MetadataServer, tmp_path: Path, arguments: tuple[str, ...], scopes: tuple[str, ...]
) -> None:
    file = config(tmp_path, api={**API, "scopes": OWN}, orders={})

    assert await scopes_asked(metadata, *arguments, "--config", file) == [*scopes]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("api", "--claims"), "--claims: an access token is opaque and has no claims"),
        (("--access", "--claims"), "--claims: an access token is opaque and has no claims"),
        (("api", "--scopes", "openid"), "--scopes: are those of an access token; add --access"),
        (("--access", "--scopes", "a b"), "--scopes: 'a b' is not a scope"),
        (("--access", "--scopes", ""), "--scopes: '' is not a scope"),
        ((AUDIENCE, "--access"), f"--access: {AUDIENCE} is an audience, which goes with ID tokens"),
        ((), "AUDIENCE|ROUTE: is missing; write what the token is for, or --access"),
    ],
)
async def test_what_does_not_go_together_is_one_line_and_exit_64(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    file = config(tmp_path, api=API, orders={})

    done = await command("token", *arguments, "--config", file, env=NOWHERE)
    assert (done.code, done.out) == (64, "")
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1
