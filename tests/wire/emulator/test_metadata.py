"""The emulated metadata server, asked over real sockets by foreign clients."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import requests
from google.auth import exceptions
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from proxy.emulator.claims import CALLER, Instance
from proxy.emulator.faults import Answer, Exchange, Fault, Held, Minted, NoFlavor, Reset
from proxy.emulator.keys import Keys
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.verify import Refusal, verify

AUDIENCE = "https://orders.example"
ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default"
IDENTITY = f"{ACCOUNT}/identity"
FLAVOR = {"Metadata-Flavor": "Google"}


class Now:
    """A wall clock that stands still until it is told."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
async def server(clock: Now) -> AsyncIterator[MetadataServer]:
    async with MetadataServer(clock=clock) as started:
        yield started


@pytest.fixture
async def session(server: MetadataServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{server.host}", headers=FLAVOR) as opened:
        yield opened


async def ask(
    session: aiohttp.ClientSession, path: str = IDENTITY, **query: str
) -> tuple[int, str]:
    if path == IDENTITY and not query:
        query = {"audience": AUDIENCE}
    async with session.get(path, params=query, allow_redirects=False) as response:
        return response.status, await response.text()


def judge(token: str, clock: Now, audience: str = AUDIENCE) -> Any:
    return verify(token, Keys.shared(), [audience], clock())


async def test_every_answer_names_the_server_and_its_flavor(session: aiohttp.ClientSession) -> None:
    for path in ("/", "/computeMetadata/v1/project/project-id", "/nothing", IDENTITY):
        async with session.get(path) as response:
            assert response.headers["Metadata-Flavor"] == "Google"
            assert response.headers["Server"] == "Metadata Server for Serverless"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "computeMetadata/\n"),
        ("/computeMetadata/v1/project/project-id", "emulated-project"),
        ("/computeMetadata/v1/project/numeric-project-id", "123456789012"),
        ("/computeMetadata/v1/instance/region", "projects/123456789012/regions/us-central1"),
        ("/computeMetadata/v1/instance/zone", "projects/123456789012/zones/us-central1-1"),
        ("/computeMetadata/v1/instance/id", "00c61b117c0d4e5f"),
        ("/computeMetadata/v1/instance/", "id\nregion\nservice-accounts/\nzone\n"),
        ("/computeMetadata/v1/instance/service-accounts/", f"default/\n{CALLER.email}/\n"),
        (f"{ACCOUNT}/", "aliases\nemail\nidentity\nscopes\ntoken\n"),
        (f"{ACCOUNT}/email", CALLER.email),
        (f"{ACCOUNT.replace('default', CALLER.email.replace('@', '%40'))}/email", CALLER.email),
        (f"{ACCOUNT}/aliases", "default\n"),
        (f"{ACCOUNT}/scopes", "https://www.googleapis.com/auth/cloud-platform\n"),
        ("/computeMetadata/v1/universe/universe-domain", "googleapis.com"),
    ],
)
async def test_a_key_answers_with_its_text(
    session: aiohttp.ClientSession, path: str, expected: str
) -> None:
    assert await ask(session, path) == (200, expected)


async def test_recursive_gives_json(session: aiohttp.ClientSession) -> None:
    status, text = await ask(session, f"{ACCOUNT}/", recursive="true")

    assert status == 200
    assert json.loads(text) == {
        "aliases": ["default"],
        "email": CALLER.email,
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    }


async def test_a_single_value_may_be_asked_for_as_json(session: aiohttp.ClientSession) -> None:
    assert await ask(session, f"{ACCOUNT}/email", alt="json") == (200, f'"{CALLER.email}"')


async def test_a_directory_without_its_slash_is_redirected(session: aiohttp.ClientSession) -> None:
    async with session.get(f"{ACCOUNT}?recursive=true", allow_redirects=False) as response:
        assert response.status == 301
        assert response.headers["Location"] == f"{ACCOUNT}/?recursive=true"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (IDENTITY, 400),
        (f"{IDENTITY}?audience=", 400),
        ("/computeMetadata/v1/nothing", 404),
        ("/computeMetadata/v1/instance/service-account/default/identity", 404),
        ("/computeMetadata/v1/project/project-id/", 404),
        ("/computeMetadata/v1beta1/instance/id", 404),
    ],
)
async def test_what_is_wrong_or_missing_is_an_error(
    session: aiohttp.ClientSession, path: str, status: int
) -> None:
    async with session.get(path) as response:
        assert response.status == status


@pytest.mark.parametrize(
    "headers",
    [{}, {"Metadata-Flavor": "google"}, {**FLAVOR, "X-Forwarded-For": "10.0.0.1"}],
    ids=["no flavor", "other flavor", "forwarded"],
)
async def test_a_request_that_may_be_a_strangers_is_refused(
    server: MetadataServer, headers: dict[str, str]
) -> None:
    async with (
        aiohttp.ClientSession(f"http://{server.host}") as session,
        session.get(IDENTITY, params={"audience": AUDIENCE}, headers=headers) as response,
    ):
        assert response.status == 403


async def test_the_root_is_a_ping_that_needs_no_header(server: MetadataServer) -> None:
    async with (
        aiohttp.ClientSession(f"http://{server.host}") as session,
        session.get("/") as response,
    ):
        assert (response.status, response.headers["Metadata-Flavor"]) == (200, "Google")


async def test_only_get_and_head_are_understood(session: aiohttp.ClientSession) -> None:
    async with session.post(IDENTITY, params={"audience": AUDIENCE}) as response:
        assert response.status == 405
    async with session.head(f"{ACCOUNT}/email") as response:
        assert response.status == 200


async def test_an_instance_without_service_account_has_no_identity(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    server.account = None

    assert (await ask(session))[0] == 404
    assert (await ask(session, f"{ACCOUNT}/token"))[0] == 404
    assert await ask(session, "/computeMetadata/v1/instance/service-accounts/") == (200, "")


async def test_the_place_may_be_another(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    server.instance = Instance(project_number=7, region="europe-west1")

    assert (await ask(session, "/computeMetadata/v1/instance/region"))[1] == (
        "projects/7/regions/europe-west1"
    )


async def test_a_repeated_request_gives_the_same_token(
    server: MetadataServer, session: aiohttp.ClientSession, clock: Now
) -> None:
    first = await ask(session)
    clock.now += 3499
    second = await ask(session)
    clock.now += 1
    third = await ask(session)

    assert first == second != third
    assert server.asked == {AUDIENCE: 3}
    assert server.mint.minted == {AUDIENCE: 2}


async def test_the_full_format_has_the_instance_in_it(
    session: aiohttp.ClientSession, clock: Now
) -> None:
    short = judge((await ask(session))[1], clock)
    full = judge((await ask(session, IDENTITY, audience=AUDIENCE, format="full"))[1], clock)

    assert "google" not in short
    assert full["google"]["compute_engine"]["project_id"] == "emulated-project"


async def test_an_access_token_is_json(session: aiohttp.ClientSession) -> None:
    async with session.get(f"{ACCOUNT}/token") as response:
        token = await response.json()

    assert set(token) == {"access_token", "expires_in", "token_type"}
    assert token["expires_in"] == 3600


async def test_requests_are_recorded_as_they_came(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    await ask(session, IDENTITY, audience="a b+c", format="full")
    (request,) = server.requests

    assert (request.method, request.path) == ("GET", IDENTITY)
    assert request.query == {"audience": "a b+c", "format": "full"}
    assert request.headers["metadata-flavor"] == "Google"
    assert request.audience == "a b+c"


# Faults.


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Answer(status=503), 503),
        (Answer(status=429, headers={"Retry-After": "1"}), 429),
        (Answer(status=200, body="<html>no token</html>"), 200),
        (Answer(status=200, body=b"\xff\x00", content_type="application/octet-stream"), 200),
    ],
)
async def test_a_fixed_answer_replaces_the_next_one_only(
    server: MetadataServer, session: aiohttp.ClientSession, fault: Answer, expected: int
) -> None:
    regular = await ask(session)
    server.inject(fault)
    async with session.get(IDENTITY, params={"audience": AUDIENCE}) as response:
        body = await response.read()

    wanted = fault.body.encode() if isinstance(fault.body, str) else fault.body
    assert (response.status, body) == (expected, wanted)
    assert response.content_type in fault.content_type
    assert set(fault.headers.items()) <= set(response.headers.items())
    assert await ask(session) == regular


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Minted(lifetime=-60), Refusal.EXPIRED),
        (Minted(claims={"aud": "https://other.example"}), Refusal.WRONG_AUDIENCE),
        (Minted(claims={"exp": None}), Refusal.MALFORMED),
    ],
)
async def test_an_odd_token_is_signed_but_refused(
    server: MetadataServer,
    session: aiohttp.ClientSession,
    clock: Now,
    fault: Fault,
    expected: Refusal,
) -> None:
    server.inject(fault)
    status, token = await ask(session)

    assert (status, judge(token, clock)) == (200, expected)


async def test_a_held_answer_waits_for_its_event_and_others_pass(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    held = asyncio.Event()
    server.inject(Held(held), path="identity")
    waiting = asyncio.ensure_future(ask(session))
    await server.requests.reached(1)

    assert (await ask(session, f"{ACCOUNT}/email"))[0] == 200
    assert not waiting.done()
    held.set()
    assert (await waiting)[0] == 200


async def test_a_held_answer_may_end_in_another_fault(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    held = asyncio.Event()
    held.set()
    server.inject(Held(held, then=Answer(status=500)))

    assert (await ask(session))[0] == 500


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", ConnectionResetError),
    ],
)
async def test_a_reset_is_a_reset(
    server: MetadataServer, sent: bytes, expected: type[Exception]
) -> None:
    server.inject(Reset(sent))
    host, port = server.host.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    with pytest.raises(expected):
        await reader.readexactly(len(sent) + 1)
    writer.close()


async def test_another_server_has_no_flavor(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    server.inject(NoFlavor())
    async with session.get(IDENTITY, params={"audience": AUDIENCE}) as response:
        assert response.status == 200
        assert "Metadata-Flavor" not in response.headers


async def test_faults_are_used_up_in_their_order_and_by_path(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    server.inject(Answer(status=500), times=2, path="identity")
    server.inject(Answer(status=429), path="identity")
    statuses = [(await ask(session, f"{ACCOUNT}/email"))[0]]
    statuses += [(await ask(session))[0] for _ in range(4)]

    assert statuses == [200, 500, 500, 429, 200]


async def test_a_fault_may_last_until_it_is_cleared(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    server.inject(Answer(status=500), times=math.inf)
    broken = [(await ask(session))[0] for _ in range(3)]
    server.clear_faults()

    assert broken == [500, 500, 500]
    assert (await ask(session))[0] == 200


async def test_concurrency_is_counted_by_audience(
    server: MetadataServer, session: aiohttp.ClientSession
) -> None:
    held = asyncio.Event()
    server.inject(Held(held), times=3)
    waiting = [
        asyncio.ensure_future(ask(session, IDENTITY, audience=audience))
        for audience in ("one", "one", "two")
    ]
    await server.requests.reached(3)
    during = server.in_flight.total
    held.set()
    await asyncio.gather(*waiting)

    assert during == 3
    assert (server.in_flight.total, server.in_flight.peak) == (0, 3)
    assert server.in_flight.peak_by_key == {"one": 2, "two": 1}


async def test_a_fault_that_breaks_fails_the_test() -> None:
    class Broken:
        async def respond(self, exchange: Exchange) -> aiohttp.web.StreamResponse:
            raise RuntimeError(exchange.request.path)

    server = await MetadataServer().start()
    server.inject(Broken())
    async with aiohttp.ClientSession(f"http://{server.host}", headers=FLAVOR) as session:
        assert (await ask(session, "/"))[0] == 500

    with pytest.raises(ExceptionGroup, match="emulated server failed"):
        await server.stop()


async def test_stopping_does_not_wait_for_a_held_answer() -> None:
    async with (
        MetadataServer() as server,
        aiohttp.ClientSession(f"http://{server.host}", headers=FLAVOR) as session,
    ):
        server.inject(Held(asyncio.Event()))
        waiting = asyncio.ensure_future(ask(session))
        await server.requests.reached(1)
        await server.stop()
        with pytest.raises(aiohttp.ClientError):
            await waiting

    assert server.in_flight.total == 0


async def test_a_server_that_comes_back_has_its_old_port() -> None:
    server = await MetadataServer().start()
    host = server.host
    await server.stop()
    async with server:
        assert server.host == host


# Google's own library as the client.


@pytest.mark.parametrize("form", ["certs_url", "jwks_url"])
async def test_googles_library_verifies_our_tokens(form: str) -> None:
    async with (
        MetadataServer() as server,
        aiohttp.ClientSession(f"http://{server.host}", headers=FLAVOR) as session,
    ):
        token = (await ask(session))[1]
        claims = await asyncio.to_thread(google_verifies, token, getattr(server, form))

    assert (claims["aud"], claims["email"]) == (AUDIENCE, CALLER.email)


async def test_googles_library_refuses_a_strangers_token() -> None:
    async with MetadataServer() as server:
        token = Keys().sign({"aud": AUDIENCE, "iat": 0, "exp": 9e9})

        with pytest.raises((ValueError, exceptions.GoogleAuthError)):
            await asyncio.to_thread(google_verifies, token, server.certs_url)


def google_verifies(token: str, certs_url: str) -> Any:
    with requests.Session() as session:
        return id_token.verify_token(token, Request(session), AUDIENCE, certs_url)


GOOGLE_FETCHES = """
import sys, json
import google.auth
from google.auth import compute_engine
from google.auth.transport.requests import Request
from google.oauth2 import id_token
credentials = compute_engine.IDTokenCredentials(
    Request(), sys.argv[1], use_metadata_identity_endpoint=True)
credentials.refresh(Request())
found, project = google.auth.default()
found.refresh(Request())
print(json.dumps({
    "token": credentials.token,
    "email": credentials.service_account_email,
    "any": id_token.fetch_id_token(Request(), sys.argv[1]),
    "project": project,
    "access": found.token,
    "universe": found.universe_domain,
}))
"""


async def test_googles_library_finds_the_server_and_gets_its_tokens() -> None:
    async with MetadataServer() as server:
        # The library reads GCE_METADATA_HOST once, when it is imported.
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", GOOGLE_FETCHES, AUDIENCE),
            env={**server.environ, "HOME": "/nonexistent", "PATH": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
        assert child.returncode == 0, err.decode()
        got = json.loads(out)
        claims = await asyncio.to_thread(google_verifies, got["token"], server.certs_url)

    assert claims["google"]["compute_engine"]["zone"] == "us-central1-1"
    assert got["any"] == got["token"]
    assert (got["email"], got["project"]) == (CALLER.email, "emulated-project")
    assert (got["access"][:5], got["universe"]) == ("ya29.", "googleapis.com")
    assert server.requests[0].path == f"{ACCOUNT}/", "the account is asked for before its token"
