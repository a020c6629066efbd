"""Every kind of Google credentials against a token endpoint, STS and IAM over sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.auth.transport.requests import Request
from google.oauth2.id_token import verify_token

from proxy.clock import Clocks
from proxy.config.model import (
    AutoCredentials,
    Credentials,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    ServiceAccountFile,
    TokenFile,
)
from proxy.config.proxies import Egress, HttpProxy
from proxy.emulator.access import AccessTokens
from proxy.emulator.claims import CALLER
from proxy.emulator.faults import Held
from proxy.emulator.google import (
    AWS,
    CLIENT_ID,
    MEMBER,
    POOL,
    WORKFORCE_MEMBER,
    TokenServices,
    pem,
    private_key,
)
from proxy.emulator.metadata import MetadataServer
from proxy.errors import TokenUnavailable
from proxy.identity.access_token import AccessToken, Scopes, Wanted
from proxy.identity.cache import TokenCache
from proxy.identity.caches import TokenCaches
from proxy.identity.googleauth.transport import BoundedRequest
from proxy.identity.source import CLOUD_PLATFORM, TokenSourceError
from proxy.identity.target import Means
from proxy.identity.token import Token
from proxy.unreached import CHECK_PROXY
from tests.fakes.egress import ForwardProxy
from tests.fakes.raw_server import raw_server
from tests.fakes.steering import jitter
from tests.fakes.tls import ca_file, server_context

AUDIENCE = "https://orders-abc123-uc.a.run.app"
KEY = "key@project.iam.gserviceaccount.com"
ORDERS = "orders@project.iam.gserviceaccount.com"
STEP = "step@project.iam.gserviceaccount.com"
METADATA = f"serviceAccount:{CALLER.email}"


class World:
    """Google, a metadata server, and a machine with files and an environment."""

    def __init__(self, google: TokenServices, metadata: MetadataServer, folder: Path) -> None:
        self.google = google
        self.metadata = metadata
        self.folder = folder
        self.environ = google.environ(HOME=str(folder), **metadata.environ)
        self.subject = self.file("subject", google.subject_token)
        self._opened: list[TokenCaches] = []

    def file(self, name: str, content: Any) -> Path:
        """Write a file, as JSON unless it is text."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def login(self, content: Any = None) -> Path:
        """Write the file of `gcloud auth application-default login`."""
        name = ".config/gcloud/application_default_credentials.json"
        return self.file(name, self.google.login_file() if content is None else content)

    def named(self, content: Any) -> Credentials:
        """Name a file with this content in GOOGLE_APPLICATION_CREDENTIALS."""
        self.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(self.file("named.json", content))
        return AutoCredentials()

    def key(self, content: Any = None) -> ServiceAccountFile:
        """Configure a key file with this content."""
        content = self.google.key_file() if content is None else content
        return ServiceAccountFile(self.file("key.json", content))

    def cache(
        self,
        credentials: Credentials,
        wanted: Wanted = AUDIENCE,
        egress: Egress | None = None,
    ) -> TokenCache:
        """Return a cache as a started proxy has it."""
        tokens = TokenCaches(clocks=Clocks(), jitter=jitter(), environ=self.environ)
        self._opened.append(tokens)
        return tokens.cache(credentials, wanted, egress)

    async def fetch(self, credentials: Credentials) -> Token:
        """Return a token for the audience."""
        return await self.cache(credentials).get("orders", 30)

    async def access(self, credentials: Credentials, scopes: tuple[str, ...]) -> AccessToken:
        """Return an access token with these scopes."""
        token = await self.cache(credentials, Scopes(scopes)).get("orders", 30)
        assert isinstance(token, AccessToken)
        return token

    async def refusal(self, credentials: Credentials) -> TokenUnavailable:
        """Return the error of one attempt; it quotes no secret."""
        error = await self.cache(credentials).prefetch("orders")
        assert error is not None
        assert_nothing_secret(f"{error.detail} {error.hint}")
        return error

    async def verify(self, token: Token) -> dict[str, Any]:
        """Return what Google's own verifier reads in the token."""
        url = f"{self.google.url}/oauth2/v1/certs"
        audience = token.claims["aud"]
        return dict(await asyncio.to_thread(verify_token, token.value, Request(), audience, url))

    async def close(self) -> None:
        for tokens in self._opened:
            await tokens.close()


NAME = "oauth2.example"


@asynccontextmanager
async def tls_front(name: str, port: int) -> AsyncIterator[int]:
    """End TLS under `name`, and pass everything on to a port of loopback; yield the front's."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        back.write(await reader.readuntil(b"\r\n\r\n"))
        copying = asyncio.ensure_future(_copy(reader, back))
        await _copy(there, writer)
        copying.cancel()
        back.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(name))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


def assert_nothing_secret(text: str) -> None:
    """Fail if the text has a token, a key, or part of one."""
    assert not re.search(r"ey[JI]\w|ya29\.\w|1//|PRIVATE KEY|MII\w{9}|client-secret", text), text


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    access = AccessTokens()
    async with (
        TokenServices(access=access) as google,
        MetadataServer(access=access) as metadata,
    ):
        world = World(google, metadata, tmp_path)
        yield world
        await world.close()


# --- what comes


def key_file(world: World) -> Credentials:
    return world.key()


def impersonation_with_a_key(world: World) -> Credentials:
    world.google.grant(f"serviceAccount:{KEY}", ORDERS)
    return Impersonate(ORDERS, (), world.key())


def impersonation_with_delegates(world: World) -> Credentials:
    world.google.grant(f"serviceAccount:{KEY}", STEP)
    world.google.grant(f"serviceAccount:{STEP}", ORDERS)
    return Impersonate(ORDERS, (STEP,), world.key())


def impersonation_with_a_login(world: World) -> Credentials:
    world.login()
    world.google.grant("user:dev@example.com", ORDERS)
    return Impersonate(ORDERS, (), GcloudCredentials())


def impersonation_with_the_metadata_server(world: World) -> Credentials:
    world.google.grant(METADATA, ORDERS)
    return Impersonate(ORDERS, (), MetadataCredentials())


def impersonation_with_what_there_is(world: World) -> Credentials:
    return Impersonate(ORDERS, (), impersonation_with_the_metadata_server(world).source)  # type: ignore[union-attr] # it is an Impersonate


def impersonation_of_one_by_another(world: World) -> Credentials:
    world.google.grant(f"serviceAccount:{KEY}", STEP)
    world.google.grant(f"serviceAccount:{STEP}", ORDERS)
    return Impersonate(ORDERS, (), Impersonate(STEP, (), world.key()))


def named_key_file(world: World) -> Credentials:
    return world.named(world.google.key_file(ORDERS))


def federation_with_a_file(world: World) -> Credentials:
    world.google.grant(MEMBER, ORDERS)
    return world.named(world.google.federated_file(world.subject, ORDERS))


def federation_and_configured_impersonation(world: World) -> Credentials:
    world.google.grant(MEMBER, ORDERS)
    world.named(world.google.federated_file(world.subject))
    return Impersonate(ORDERS)


def federation_with_a_program(world: World) -> Credentials:
    world.google.grant(MEMBER, ORDERS)
    info = world.google.federated_file(world.subject, ORDERS)
    url = f"{world.google.url}/subject"
    world.google.answer(200, {"id_token": world.google.subject_token})
    info["credential_source"] = {
        "url": url,
        "format": {"type": "json", "subject_token_field_name": "id_token"},
    }
    return world.named(info)


def federation_with_an_executable(world: World) -> Credentials:
    world.google.grant(MEMBER, ORDERS)
    answer = {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": world.google.subject_token,
        "expiration_time": 4_000_000_000,
    }
    program = world.file("program", f"#!/bin/sh\ncat <<'END'\n{json.dumps(answer)}\nEND\n")
    program.chmod(0o700)
    info = world.google.federated_file(world.subject, ORDERS)
    info["credential_source"] = {"executable": {"command": str(program), "timeout_millis": 5000}}
    return world.named(info)


def federation_with_aws(world: World) -> Credentials:
    world.google.grant(MEMBER, ORDERS)
    info = world.google.federated_file(world.subject, ORDERS)
    info["subject_token_type"] = AWS
    info["credential_source"] = {
        "environment_id": "aws1",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=Get",
    }
    return world.named(info)


def impersonation_with_a_workforce_login(world: World) -> Credentials:
    world.google.grant(WORKFORCE_MEMBER, ORDERS)
    world.login(world.google.workforce_file())
    return Impersonate(ORDERS, (), GcloudCredentials())


def impersonation_with_an_impersonating_login(world: World) -> Credentials:
    world.google.grant("user:dev@example.com", STEP)
    world.google.grant(f"serviceAccount:{STEP}", ORDERS)
    world.login(world.google.impersonated_file(world.google.login_file(), STEP))
    return Impersonate(ORDERS, (), GcloudCredentials())


def impersonating_login(world: World) -> Credentials:
    world.google.grant("user:dev@example.com", ORDERS)
    return world.named(world.google.impersonated_file(world.google.login_file(), ORDERS))


def impersonating_login_with_delegates(world: World) -> Credentials:
    world.google.grant("user:dev@example.com", STEP)
    world.google.grant(f"serviceAccount:{STEP}", ORDERS)
    world.login(world.google.impersonated_file(world.google.login_file(), ORDERS, STEP))
    return GcloudCredentials()


KINDS: list[tuple[Callable[[World], Credentials], str]] = [
    (key_file, KEY),
    (impersonation_with_a_key, ORDERS),
    (impersonation_with_delegates, ORDERS),
    (impersonation_with_a_login, ORDERS),
    (impersonation_with_the_metadata_server, ORDERS),
    (impersonation_with_what_there_is, ORDERS),
    (impersonation_of_one_by_another, ORDERS),
    (named_key_file, ORDERS),
    (federation_with_a_file, ORDERS),
    (federation_and_configured_impersonation, ORDERS),
    (federation_with_a_program, ORDERS),
    (federation_with_an_executable, ORDERS),
    (federation_with_aws, ORDERS),
    (impersonation_with_a_workforce_login, ORDERS),
    (impersonation_with_an_impersonating_login, ORDERS),
    (impersonating_login, ORDERS),
    (impersonating_login_with_delegates, ORDERS),
]


@pytest.mark.parametrize(("kind", "email"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
async def test_googles_own_verifier_accepts_the_token_of_every_kind_of_credentials(
    world: World,
    kind: Callable[[World], Credentials],
    email: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # google-auth itself reads these.
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEMULATED")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "emulated")
    world.google.accounts.add(email)
    credentials = kind(world)

    token = await world.fetch(credentials)

    assert (token.email, token.claims["aud"]) == (email, AUDIENCE)
    assert (await world.verify(token))["email"] == email


async def test_a_gcloud_logins_own_audience_is_accepted_and_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.login()
    world.google.lifetime = 31.5
    cache = world.cache(GcloudCredentials())

    with caplog.at_level(logging.WARNING):
        first = await cache.get("orders", 30)
        await cache.another(first, "orders", 30)
        second = await cache.get("orders", 30)

    assert sum(cache.stats.values()) == 2
    assert (await world.verify(second))["aud"] == CLIENT_ID
    assert second.email == "dev@example.com"
    [record] = caplog.records
    assert f"gcloud's own audience instead of {AUDIENCE}" in record.getMessage()


async def test_a_gcloud_logins_token_for_another_client_is_refused(world: World) -> None:
    world.login()
    token = world.google.id_token("dev@example.com", "another-client.example")
    world.google.answer(200, {"access_token": "ya29.x", "expires_in": 9, "id_token": token})

    error = await world.refusal(GcloudCredentials())
    assert "another-client" in error.detail


# --- which credentials


async def test_a_named_file_comes_first_then_the_login_then_the_metadata_server(
    world: World,
) -> None:
    assert (await world.fetch(AutoCredentials())).email == CALLER.email

    world.login()
    assert (await world.fetch(AutoCredentials())).email == "dev@example.com"

    assert (await world.fetch(world.named(world.google.key_file()))).email == KEY


async def test_a_login_that_appears_later_is_taken_for_the_next_token(world: World) -> None:
    cache = world.cache(AutoCredentials())
    token = await cache.get("orders", 30)
    assert cache.source.describe() == f"metadata server at {world.metadata.host}"
    world.login()

    other = await cache.another(token, "orders", 30)
    assert other is not None
    assert other.email == "dev@example.com"
    assert "application_default_credentials.json" in cache.source.describe()


async def test_gclouds_folder_may_be_elsewhere(world: World) -> None:
    world.file("elsewhere/application_default_credentials.json", world.google.key_file())
    world.environ["CLOUDSDK_CONFIG"] = str(world.folder / "elsewhere")

    assert (await world.fetch(AutoCredentials())).email == KEY


async def test_a_key_that_is_exchanged_is_taken_for_the_next_token(world: World) -> None:
    cache = world.cache(world.key())
    token = await cache.get("orders", 30)
    world.google.accounts.add(ORDERS)
    world.key(world.google.key_file(ORDERS))

    other = await cache.another(token, "orders", 30)
    assert other is not None
    assert other.email == ORDERS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_a_key_file_may_have_a_byte_order_mark(world: World, encoding: str) -> None:
    credentials = world.key()
    credentials.path.write_text(credentials.path.read_text(), encoding=encoding)

    assert (await world.fetch(credentials)).email == KEY


async def test_the_account_is_known_where_the_credentials_tell_it(world: World) -> None:
    world.login()
    expected: list[tuple[Credentials, str | None]] = [
        (world.key(), KEY),
        (Impersonate(ORDERS), ORDERS),
        (MetadataCredentials(), CALLER.email),
        (GcloudCredentials(), None),
        (TokenFile(world.subject), None),
        (ServiceAccountFile(world.folder / "missing"), None),
    ]
    for credentials, account in expected:
        assert await world.cache(credentials).source.account() == account

    world.named(world.google.federated_file(world.subject, ORDERS))
    assert await world.cache(AutoCredentials()).source.account() == ORDERS


# --- what is asked


async def test_an_impersonated_token_is_asked_for_with_the_email(world: World) -> None:
    await world.fetch(impersonation_with_delegates(world))

    request = world.google.requests[-1]
    assert request.path == f"/v1/projects/-/serviceAccounts/{ORDERS}:generateIdToken"
    assert request.body == {
        "audience": AUDIENCE,
        "includeEmail": True,
        "delegates": [f"projects/-/serviceAccounts/{STEP}"],
    }


async def test_a_logins_calls_are_counted_on_its_quota_project(world: World) -> None:
    await world.fetch(impersonation_with_a_login(world))

    assert world.google.requests[-1].headers["X-Goog-User-Project"] == "quota"


def counted_on(world: World) -> list[str | None]:
    """Return on which project each call of the IAM API so far was to count."""
    return [
        request.headers.get("X-Goog-User-Project")
        for request in world.google.requests
        if request.path.startswith("/v1/projects/")
    ]


def with_quota(info: dict[str, Any], project: object = "top") -> dict[str, Any]:
    return {**info, "quota_project_id": project}


def login_that_impersonates(world: World) -> Credentials:
    world.google.grant("user:dev@example.com", ORDERS)
    info = world.google.impersonated_file(world.google.login_file(), ORDERS)
    return world.named(with_quota(info))


def login_that_impersonates_on_the_way(world: World) -> Credentials:
    world.google.grant("user:dev@example.com", STEP)
    world.google.grant(f"serviceAccount:{STEP}", ORDERS)
    world.login(with_quota(world.google.impersonated_file(world.google.login_file(), STEP)))
    return Impersonate(ORDERS, (), GcloudCredentials())


def federation_with_quota(world: World) -> Credentials:
    world.google.grant(MEMBER, ORDERS)
    return world.named(with_quota(world.google.federated_file(world.subject, ORDERS)))


def key_with_quota(world: World) -> Credentials:
    world.google.grant(f"serviceAccount:{KEY}", ORDERS)
    return Impersonate(ORDERS, (), world.key(with_quota(world.google.key_file())))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (login_that_impersonates, ["top"]),
        (login_that_impersonates_on_the_way, ["top", "top"]),
        (federation_with_quota, ["top"]),
        (key_with_quota, ["top"]),
        (impersonation_with_a_login, ["quota"]),
        (impersonating_login, ["quota"]),
        (impersonation_with_a_key, [None]),
        (impersonation_with_the_metadata_server, [None]),
        (impersonation_of_one_by_another, [None, None]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_calls_count_on_the_files_project_or_on_the_environments(
    world: World, kind: Callable[[World], Credentials], expected: list[str | None]
) -> None:
    await world.fetch(kind(world))
    assert counted_on(world) == expected

    world.google.requests.clear()
    world.environ["GOOGLE_CLOUD_QUOTA_PROJECT"] = "example.com:other-42"
    await world.fetch(kind(world))
    assert counted_on(world) == ["example.com:other-42"] * len(expected)


@pytest.mark.parametrize("project", ["a b", "a\r\nX-Evil: 1", "Prøject", ["a"], "x" * 101])
async def test_a_quota_project_that_is_none_is_told(world: World, project: object) -> None:
    world.google.grant("user:dev@example.com", ORDERS)
    info = world.google.impersonated_file(world.google.login_file(), ORDERS)
    error = await world.refusal(world.named(with_quota(info, project)))

    assert error.detail.endswith("the quota project is not a project ID")
    assert "quota_project_id" in (error.hint or "")
    assert counted_on(world) == []


async def test_a_federated_workload_asks_with_its_own_token_not_with_the_accounts(
    world: World,
) -> None:
    await world.fetch(federation_with_a_file(world))

    assert [request.path for request in world.google.requests] == [
        "/v1/token",
        f"/v1/projects/-/serviceAccounts/{ORDERS}:generateIdToken",
    ]


async def test_at_most_four_tokens_are_fetched_at_once_from_one_source(world: World) -> None:
    tokens = TokenCaches(clocks=Clocks(), jitter=jitter(), environ=world.environ)
    caches = [tokens.cache(MetadataCredentials(), f"https://{n}.example") for n in range(30)]
    answer = asyncio.Event()
    world.metadata.inject(Held(answer), times=30)
    calls = [asyncio.get_running_loop().create_task(cache.get("orders", 30)) for cache in caches]
    await world.metadata.requests.reached(4)
    answer.set()
    await asyncio.gather(*calls)
    await tokens.close()

    assert world.metadata.in_flight.peak == 4
    assert sum(world.metadata.asked.values()) == 30


# --- what is said


Prepare = Callable[[World], Credentials]


def missing_key_file(world: World) -> Credentials:
    return ServiceAccountFile(world.folder / "missing.json")


def key_file_that_is_a_folder(world: World) -> Credentials:
    return ServiceAccountFile(world.folder)


def missing_named_file(world: World) -> Credentials:
    world.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(world.folder / "missing.json")
    return AutoCredentials()


def missing_login(world: World) -> Credentials:
    del world
    return GcloudCredentials()


def key_file_of_another_kind(world: World) -> Credentials:
    return world.key(world.google.login_file())


def key_file_that_is_no_json(world: World) -> Credentials:
    return world.key(pem_text())


def pem_text() -> str:
    return pem(private_key())


def key_file_that_is_a_list(world: World) -> Credentials:
    return world.key([world.google.key_file()])


def key_file_without_key(world: World) -> Credentials:
    info = world.google.key_file()
    del info["private_key"], info["client_email"]
    return world.key(info)


def key_file_with_a_broken_key(world: World) -> Credentials:
    return world.key(world.google.key_file() | {"private_key": pem_text()[:400]})


def key_of_a_deleted_account(world: World) -> Credentials:
    world.google.accounts.clear()
    return world.key()


def deleted_key(world: World) -> Credentials:
    world.google.answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Sig…"})
    return world.key()


def key_on_a_machine_with_a_wrong_clock(world: World) -> Credentials:
    world.google.answer(
        400,
        {
            "error": "invalid_grant",
            "error_description": "Invalid JWT: Token must be a short-lived token (60 minutes) and "
            "in a reasonable timeframe. Check your iat and exp values in the JWT claim.",
        },
    )
    return world.key()


def revoked_login(world: World) -> Credentials:
    world.google.refresh_tokens.clear()
    world.login()
    return GcloudCredentials()


def login_of_another_client(world: World) -> Credentials:
    world.login(world.google.login_file() | {"client_id": "gone"})
    return GcloudCredentials()


def login_that_needs_a_second_factor(world: World) -> Credentials:
    world.google.answer(400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"})
    world.login()
    return GcloudCredentials()


def login_without_openid(world: World) -> Credentials:
    world.google.scopes.clear()
    world.login()
    return GcloudCredentials()


def impersonation_without_permission(world: World) -> Credentials:
    world.google.accounts.add(ORDERS)
    return Impersonate(ORDERS, (), world.key())


def impersonation_without_permission_on_the_delegate(world: World) -> Credentials:
    world.google.accounts |= {STEP, ORDERS}
    return Impersonate(ORDERS, (STEP,), world.key())


def impersonation_of_nobody(world: World) -> Credentials:
    return Impersonate("nobody@project.iam.gserviceaccount.com", (), world.key())


def impersonation_where_the_api_is_off(world: World) -> Credentials:
    credentials = impersonation_with_the_metadata_server(world)
    world.google.answer(
        403,
        {
            "error": {
                "message": "IAM Service Account Credentials API has not been used in project 42 "
                "before or it is disabled. Enable it by visiting https://console…"
            }
        },
    )
    return credentials


def impersonation_while_iam_is_down(world: World) -> Credentials:
    credentials = impersonation_with_the_metadata_server(world)
    world.google.answer(503, "<html>Try again later</html>", "text/html")
    return credentials


def impersonation_where_iam_sends_nonsense(world: World) -> Credentials:
    credentials = impersonation_with_the_metadata_server(world)
    world.google.answer(200, {"accessToken": "ya29.secret"})
    return credentials


def impersonation_where_iam_sends_no_json(world: World) -> Credentials:
    credentials = impersonation_with_the_metadata_server(world)
    world.google.answer(200, "ya29.secret", "text/plain")
    return credentials


def impersonation_with_a_stale_access_token(world: World) -> Credentials:
    credentials = impersonation_with_the_metadata_server(world)
    world.google.access = AccessTokens()
    return credentials


def impersonation_with_a_token_file(world: World) -> Credentials:
    return Impersonate(ORDERS, (), TokenFile(world.subject))


def federation_without_permission(world: World) -> Credentials:
    world.google.accounts.add(ORDERS)
    return world.named(world.google.federated_file(world.subject, ORDERS))


def federation_without_account(world: World) -> Credentials:
    return world.named(world.google.federated_file(world.subject))


def federation_with_an_odd_account(world: World) -> Credentials:
    info = world.google.federated_file(world.subject)
    info["service_account_impersonation_url"] = "https://iamcredentials.googleapis.com/orders"
    return world.named(info)


def federation_that_sts_refuses(world: World) -> Credentials:
    world.file("subject", "a token of somebody else's")
    return federation_with_a_file(world)


def federation_whose_subject_is_missing(world: World) -> Credentials:
    world.subject.unlink()
    return federation_with_a_file(world)


def federation_with_a_broken_source(world: World) -> Credentials:
    info = world.google.federated_file(world.subject, ORDERS) | {"credential_source": {"f": 1}}
    return world.named(info)


def workforce_login(world: World) -> Credentials:
    return world.named({"type": "external_account_authorized_user"})


def unknown_kind(world: World) -> Credentials:
    return world.named({"type": "gdch_service_account"})


def nested_nonsense(world: World) -> Credentials:
    return world.named(world.google.impersonated_file({}, ORDERS) | {"source_credentials": "x"})


def token_endpoint_that_sends_nonsense(world: World) -> Credentials:
    world.google.answer(200, ["ya29.secret"])
    return world.key()


def token_endpoint_that_sends_no_jwt(world: World) -> Credentials:
    world.google.answer(200, {"id_token": "ya29.secret"})
    return world.key()


def token_endpoint_that_redirects(world: World) -> Credentials:
    elsewhere = f"{world.google.url}/v1/oauthtoken"
    world.google.answer(307, "moved", "text/plain", Location=elsewhere)
    return world.key()


def token_endpoint_that_refuses_connections(world: World) -> Credentials:
    return world.key(world.google.key_file() | {"token_uri": "http://127.0.0.1:1/token"})


def token_endpoint_without_dns(world: World) -> Credentials:
    return world.key(world.google.key_file() | {"token_uri": "http://nowhere.invalid/token"})


FAILURES: list[tuple[Prepare, str, str]] = [
    (missing_key_file, "missing.json: it does not exist", "service_account_file"),
    (key_file_that_is_a_folder, "it cannot be read: Is a directory", ""),
    (missing_named_file, "missing.json: it does not exist", "GOOGLE_APPLICATION_CREDENTIALS"),
    (missing_login, "it does not exist", "`gcloud auth application-default login`"),
    (key_file_of_another_kind, "its type is 'authorized_user', not 'serv", "credentials: auto"),
    (key_file_that_is_no_json, "it is not a JSON object", "Create"),
    (key_file_that_is_a_list, "it is not a JSON object", "Create"),
    (
        key_file_without_key,
        "it lacks client_email and private_key",
        "Create the key again: `gcloud iam service-accounts keys create",
    ),
    (key_file_with_a_broken_key, "its private_key is not a PEM key", "Line breaks"),
    (key_of_a_deleted_account, "invalid_grant: .*account not found", f"--iam-account={KEY}"),
    (deleted_key, "invalid_grant: Invalid JWT Sig", "gcloud iam service-accounts keys create"),
    (key_on_a_machine_with_a_wrong_clock, "reasonable timeframe", "clock"),
    (revoked_login, "expired or revoked", "gcloud auth application-default login"),
    (login_of_another_client, "invalid_client", "gcloud auth application-default login"),
    (login_that_needs_a_second_factor, "Reauthentication", "gcloud auth application-default"),
    (login_without_openid, "lacks the scope openid", "gcloud auth application-default login"),
    (
        impersonation_without_permission,
        f"serviceAccount:{KEY} may not act as {ORDERS}: Permission 'iam.serviceAccounts.getOpen",
        f"binding {ORDERS} --member=serviceAccount:{KEY} --role=roles/iam.serviceAccountOpenId",
    ),
    (
        impersonation_without_permission_on_the_delegate,
        "may not act as",
        f"binding {STEP} --member=serviceAccount:{KEY} --role=roles/iam.serviceAccountToken",
    ),
    (impersonation_of_nobody, "there is no service account nobody@", "service-accounts list"),
    (impersonation_where_the_api_is_off, "API is off", "gcloud services enable iamcredentials"),
    (impersonation_while_iam_is_down, "status 503: '<html>Try again later</html>'", ""),
    (impersonation_where_iam_sends_nonsense, "IAM answered without a token", ""),
    (impersonation_where_iam_sends_no_json, "without a token: one word of 11 characters", ""),
    (impersonation_with_a_stale_access_token, "IAM does not accept the access token", ""),
    (impersonation_with_a_token_file, "it has no access tokens", "Use another source"),
    (
        federation_without_permission,
        f"principalSet:{POOL}/\\* may not act as {ORDERS}",
        f"--member='principalSet:{POOL}/\\*' --role=roles/iam.workloadIdentityUser",
    ),
    (federation_without_account, "names no service account", "create-cred-config"),
    (federation_with_an_odd_account, "names no service account", ":generateAccessToken"),
    (federation_that_sts_refuses, "does not match the expected", "providers describe provider"),
    (federation_whose_subject_is_missing, "subject' was not found", "its own token"),
    (federation_with_a_broken_source, "Missing credential_source", "^`cloud-run"),
    (workforce_login, "a workforce login has no ID tokens", "impersonate"),
    (unknown_kind, "its type is 'gdch_service_account'", "Use a service account key"),
    (nested_nonsense, "its source_credentials is not an object", ""),
    (token_endpoint_that_sends_nonsense, "could not be understood", ""),
    (token_endpoint_that_sends_no_jwt, "Wrong number of segments|not an ID token|underst", ""),
    (token_endpoint_that_redirects, "moved", "^`cloud-run-auth-proxy doctor`"),
    (
        token_endpoint_that_refuses_connections,
        "127.0.0.1:1 cannot be reached: connection refused: nothing listens there",
        "egress",
    ),
    (token_endpoint_without_dns, "nowhere.invalid cannot .*: the name does not exist", "egress"),
]


@pytest.mark.parametrize(
    ("prepare", "detail", "hint"), FAILURES, ids=[prepare.__name__ for prepare, *_ in FAILURES]
)
async def test_each_failure_is_one_sentence_and_what_to_do(
    world: World, prepare: Prepare, detail: str, hint: str
) -> None:
    error = await world.refusal(prepare(world))

    assert re.search(detail, error.detail), error.detail
    assert re.search(hint, error.hint), error.hint
    assert "\n" not in error.detail
    assert len(error.detail) < 500


async def test_a_secret_does_not_follow_a_redirect(world: World) -> None:
    await world.refusal(token_endpoint_that_redirects(world))

    assert [request.path for request in world.google.requests] == ["/token"]


async def test_a_passing_trouble_of_googles_is_worth_waiting_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", pauses.append)
    for _ in range(3):  # google-auth tries three times by itself.
        world.google.answer(503, {"error": "backend", "error_description": "try again"})
    cache = world.cache(world.key())

    assert (await cache.get("orders", 30)).email == KEY
    assert cache.stats == {("orders", "failed"): 1, ("orders", "fetched"): 1}
    assert len(pauses) == 2


async def test_a_call_that_does_not_end_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    monkeypatch.setattr("proxy.identity.google_source.ANSWER_WITHIN", 0.0)
    monkeypatch.setattr("proxy.identity.google_source.GRACE", 0.01)
    monkeypatch.setattr("proxy.identity.google_source._id_token", lambda *_: stuck.wait(5))
    cache = world.cache(world.key())

    error = await cache.prefetch("orders")
    stuck.set()

    assert error is not None
    assert error.detail.endswith("no answer within 0 s")
    assert cache.stats == {("orders", "timed_out"): 1}


async def test_a_server_that_does_not_answer_is_named() -> None:
    async with raw_server(hold=True) as server:
        url = f"http://127.0.0.1:{server.port}/token"

        def ask() -> None:
            with BoundedRequest(Means(time.monotonic, Egress()), 0.05) as request:
                request(url, method="POST")

        with pytest.raises(TokenSourceError) as failure:
            await asyncio.to_thread(ask)

    assert failure.value.detail == f"127.0.0.1:{server.port} did not answer within 0 s"
    assert failure.value.slow


def test_nothing_is_sent_after_the_deadline() -> None:
    now = [100.0]
    with BoundedRequest(Means(lambda: now[0], Egress()), 15) as request:
        now[0] = 115.0
        with pytest.raises(TokenSourceError, match=r"oauth2\.example did not answer within 15 s"):
            request("https://oauth2.example/token")


async def test_a_certificate_that_cannot_be_verified_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
    port = server.sockets[0].getsockname()[1]

    def ask() -> None:
        with BoundedRequest(Means(time.monotonic, Egress()), 5) as request:
            request(f"https://127.0.0.1:{port}/token")

    with pytest.raises(TokenSourceError) as failure:
        await asyncio.to_thread(ask)
    server.close()
    await server.wait_closed()

    assert failure.value.detail == f"TLS to 127.0.0.1:{port} cannot be verified"
    assert "REQUESTS_CA_BUNDLE" in (failure.value.hint or "")


async def test_a_port_that_speaks_no_tls_is_told(world: World) -> None:
    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(complain, "127.0.0.1", 0)
    place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    info = world.google.key_file() | {"token_uri": f"https://{place}/token"}

    error = await world.refusal(world.key(info))
    assert f"What listens at {place} does not speak TLS" in error.detail
    server.close()


async def test_a_missing_ca_bundle_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.folder / "missing.pem"))
    info = world.google.key_file() | {"token_uri": "https://127.0.0.1:1/token"}

    error = await world.refusal(world.key(info))
    assert "missing.pem" in error.detail
    assert "REQUESTS_CA_BUNDLE" in error.hint


async def test_a_proxy_that_is_not_there_is_told(world: World) -> None:
    world.environ["HTTPS_PROXY"] = "http://127.0.0.1:1"
    info = world.google.key_file() | {"token_uri": "https://oauth2.example/token"}

    error = await world.refusal(world.key(info))

    said = "the egress proxy cannot be reached: connection refused: nothing listens there"
    assert said in error.detail
    assert error.hint == CHECK_PROXY


async def test_a_proxy_that_lets_nothing_through_is_told(world: World) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    world.environ["HTTPS_PROXY"] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    info = world.google.key_file() | {"token_uri": "https://oauth2.example/token"}

    error = await world.refusal(world.key(info))
    assert "the egress proxy does not let requests to oauth2.example through" in error.detail
    server.close()


async def test_googles_apis_are_called_through_the_routes_egress_proxy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by no variable that requests would read itself."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    port = int(world.google.url.rpartition(":")[2])
    async with ForwardProxy().serving() as forward, tls_front(NAME, port) as front:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file(world.folder)))
        info = world.google.key_file() | {"token_uri": f"https://{NAME}:{front}/token"}
        proxy = HttpProxy("127.0.0.1", forward.port, "Basic dXNlcjpodW50ZXIy")
        cache = world.cache(world.key(info), egress=Egress(proxy, proxy))
        token = await cache.get("orders", 30)

    assert token.email == KEY
    assert forward.targets == [f"{NAME}:{front}"]
    assert "\r\nProxy-Authorization: Basic dXNlcjpodW50ZXIy\r\n" in forward.heads[0]


async def test_googles_apis_are_called_directly_where_the_egress_proxy_is_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    info = world.google.key_file() | {"token_uri": "https://oauth2.invalid/token"}
    error = await world.cache(world.key(info), egress=Egress()).prefetch("orders")

    assert error is not None
    assert "oauth2.invalid" in error.detail
    assert "proxy" not in error.detail


def test_one_cache_is_for_one_way_and_credentials_without_calls_have_one_way(
    world: World,
) -> None:
    proxy = HttpProxy("127.0.0.1", 1)
    through, direct = Egress(proxy, proxy), Egress()
    tokens = TokenCaches(clocks=Clocks(), jitter=jitter(), environ=world.environ)

    for credentials, is_one in ((world.key(), False), (MetadataCredentials(), True)):
        caches = [tokens.cache(credentials, AUDIENCE, each) for each in (through, direct)]
        assert (caches[0] is caches[1]) == is_one
        assert tokens.cache(credentials, AUDIENCE, through) is caches[0]


async def test_unreadable_files_are_explained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = world.key()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, who may read everything.
    monkeypatch.setattr("proxy.identity.files._open", refuse)
    error = await world.refusal(credentials)

    assert "it may not be read by this process" in error.detail
    assert "ls -l" in error.hint


async def test_credentials_of_a_netrc_do_not_replace_the_access_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = world.file("netrc", "machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert (await world.fetch(impersonation_with_a_key(world))).email == ORDERS


# --- access tokens


STORAGE = ("https://www.googleapis.com/auth/devstorage.read_only", "email")


def metadata_server(world: World) -> Credentials:
    del world
    return MetadataCredentials()


def federation_alone(world: World) -> Credentials:
    return world.named(world.google.federated_file(world.subject))


@pytest.mark.parametrize(
    ("build", "member"),
    [
        (key_file, f"serviceAccount:{KEY}"),
        (impersonation_with_a_key, f"serviceAccount:{ORDERS}"),
        (impersonation_with_delegates, f"serviceAccount:{ORDERS}"),
        (impersonation_with_a_login, f"serviceAccount:{ORDERS}"),
        (impersonation_with_the_metadata_server, f"serviceAccount:{ORDERS}"),
        (impersonation_of_one_by_another, f"serviceAccount:{ORDERS}"),
        (federation_with_a_file, f"serviceAccount:{ORDERS}"),
        (federation_alone, MEMBER),
    ],
)
async def test_each_kind_of_credentials_brings_an_access_token_with_the_scopes(
    world: World, build: Callable[[World], Credentials], member: str
) -> None:
    token = await world.access(build(world), STORAGE)

    grant = world.google.access.of(token.value)
    assert grant is not None
    assert (grant.who, grant.scopes) == (member, STORAGE)
    assert token.expires_at == pytest.approx(Clocks().wall() + 3600, abs=30)
    assert token.email == (member.partition(":")[2] if "@" in member else None)
    assert token.quota_project == ""


async def test_a_login_has_scopes_of_its_own_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.login()

    with caplog.at_level(logging.WARNING):
        token = await world.access(GcloudCredentials(), STORAGE)
        again = await world.access(GcloudCredentials(), CLOUD_PLATFORM)

    grant = world.google.access.of(token.value)
    assert grant is not None
    assert grant.who == "user:dev@example.com"
    assert token.fixed_scopes
    assert again.fixed_scopes
    assert token.quota_project == "quota"
    (told,) = [record.getMessage() for record in caplog.records]
    assert "have the scopes that it was made with" in told


async def test_a_workforce_login_has_access_tokens(world: World) -> None:
    token = await world.access(world.named(world.google.workforce_file()), CLOUD_PLATFORM)

    grant = world.google.access.of(token.value)
    assert grant is not None
    assert grant.who == WORKFORCE_MEMBER
    assert (token.fixed_scopes, token.email) == (True, None)


@pytest.mark.parametrize("build", [metadata_server, key_file, impersonation_with_a_key])
async def test_the_environment_names_the_project_that_pays(
    world: World, build: Callable[[World], Credentials]
) -> None:
    world.environ["GOOGLE_CLOUD_QUOTA_PROJECT"] = "payer"

    assert (await world.access(build(world), STORAGE)).quota_project == "payer"


@pytest.mark.parametrize("ahead", [-7200.0, 0.0, 7200.0])
async def test_the_time_of_an_impersonated_token_is_told_by_googles_clock(
    world: World, ahead: float
) -> None:
    world.google.ahead = ahead

    token = await world.access(impersonation_with_a_key(world), STORAGE)
    assert token.expires_at == pytest.approx(Clocks().wall() + 3600, abs=30)


@pytest.mark.parametrize("expires", ["", "soon", 3600, None, "2030-01-01T00:00:00"])
async def test_an_impersonated_token_without_time_is_not_used(world: World, expires: Any) -> None:
    credentials = impersonation_with_a_key(world)
    world.google.answer(200, {"access_token": "ya29.x", "expires_in": 3599})
    world.google.answer(200, {"accessToken": "ya29.y", "expireTime": expires})

    error = await world.cache(credentials, Scopes(STORAGE)).prefetch("orders")
    assert error is not None
    assert error.detail.endswith("the access token has no usable expires_in")


async def test_a_token_file_has_no_access_token(world: World) -> None:
    cache = world.cache(TokenFile(world.file("token", "x")), Scopes(STORAGE))

    error = await cache.prefetch("orders")
    assert error is not None
    assert error.detail.endswith("it has no access tokens")


async def test_an_audience_and_scopes_have_caches_of_their_own(world: World) -> None:
    tokens = TokenCaches(clocks=Clocks(), jitter=jitter(), environ=world.environ)
    credentials = world.key()

    assert tokens.cache(credentials, Scopes(STORAGE)) is tokens.cache(credentials, Scopes(STORAGE))
    assert tokens.cache(credentials, AUDIENCE) is not tokens.cache(credentials, Scopes(STORAGE))
    assert tokens.source(credentials) is tokens.cache(credentials, Scopes(("other",))).source
    await tokens.close()


@pytest.mark.parametrize("told", [{}, {"token_type": "N_A"}, {"token_type": None}])
@pytest.mark.parametrize("build", [key_file, federation_alone])
async def test_a_token_of_another_type_than_bearer_is_not_used(
    world: World, build: Callable[[World], Credentials], told: dict[str, Any]
) -> None:
    credentials = build(world)
    answer = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token", **told}
    world.google.answer(200, {"access_token": "ya29.x", "expires_in": 3599, **answer})

    error = await world.cache(credentials, Scopes(STORAGE)).prefetch("orders")
    assert error is not None
    assert "token_type is" in error.detail
