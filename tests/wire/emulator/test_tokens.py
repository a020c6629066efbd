"""Google's token services as a client meets them: who may act as whom, and in which words not."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from proxy.emulator import AccessTokens, ApiService, MetadataServer, TokenServices, verify
from proxy.emulator.access import ALL_OF_CLOUD, Grant
from proxy.emulator.claims import CALLER
from proxy.emulator.google import MEMBER, PROVIDER, private_key

NOW = 1_800_000_000.0
ORDERS = "orders@project.iam.gserviceaccount.com"
STEP = "step@project.iam.gserviceaccount.com"
ME = f"serviceAccount:{CALLER.email}"
STORAGE = "https://www.googleapis.com/auth/devstorage.read_only"
ID_TOKEN: dict[str, Any] = {"audience": "https://orders.example", "includeEmail": True}


@pytest.fixture
async def google() -> AsyncIterator[TokenServices]:
    async with TokenServices(clock=lambda: NOW) as services:
        yield services


def mine(google: TokenServices, *scopes: str, until: float = NOW + 1) -> str:
    """Return an access token of the caller's own account."""
    return google.access.issue(Grant(CALLER.email, scopes or (ALL_OF_CLOUD,), until))


async def post(url: str, body: Any, bearer: str = "", **more: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, headers=headers, json=body, **more) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def iam(
    google: TokenServices, method: str, body: Any, bearer: str, account: str = ORDERS
) -> tuple[int, Any]:
    url = f"{google.url}/v1/projects/-/serviceAccounts/{account}:{method}"
    return await post(url, body, bearer)


async def test_who_may_act_as_an_account_gets_its_id_token(google: TokenServices) -> None:
    google.grant(ME, ORDERS)

    status, answer = await iam(google, "generateIdToken", ID_TOKEN, mine(google))

    assert status == 200
    claims = verify(answer["token"], google.keys, [ID_TOKEN["audience"]], NOW)
    assert isinstance(claims, dict)
    assert (claims["email"], claims["exp"]) == (ORDERS, NOW + 3600)


async def test_an_id_token_has_an_email_where_it_is_asked_for(google: TokenServices) -> None:
    google.grant(ME, ORDERS)

    _, answer = await iam(google, "generateIdToken", {"audience": "a"}, mine(google))

    claims = verify(answer["token"], google.keys, ["a"], NOW)
    assert isinstance(claims, dict)
    assert "email" not in claims


async def test_an_impersonated_access_token_opens_an_api_of_its_scope() -> None:
    access = AccessTokens()
    async with (
        MetadataServer(access=access) as metadata,
        TokenServices(access=access) as google,
        ApiService(access, scope=STORAGE) as api,
    ):
        google.grant(ME, ORDERS)
        own = str(metadata.mint.access_token(CALLER)["access_token"])
        status, answer = await iam(google, "generateAccessToken", {"scope": [STORAGE]}, own)
        assert status == 200
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                api.url,
                headers={"Authorization": f"Bearer {answer['accessToken']}"},
                ssl=ssl.create_default_context(cafile=api.ca_file),
            ) as admitted,
        ):
            assert admitted.status == 200

    (request,) = api.admitted
    assert request.claims == {"email": ORDERS}


async def test_each_link_of_a_chain_is_granted_by_the_one_before(google: TokenServices) -> None:
    chain = {**ID_TOKEN, "delegates": [f"projects/-/serviceAccounts/{STEP}"]}
    google.grant(ME, STEP)
    google.accounts.add(ORDERS)
    assert (await iam(google, "generateIdToken", chain, mine(google)))[0] == 403

    google.grant(f"serviceAccount:{STEP}", ORDERS)
    assert (await iam(google, "generateIdToken", chain, mine(google)))[0] == 200
    assert (await iam(google, "generateIdToken", ID_TOKEN, mine(google)))[0] == 403


async def test_a_blob_is_signed_with_the_accounts_key(google: TokenServices) -> None:
    google.grant(ME, ORDERS)
    payload = base64.b64encode(b"to be signed").decode()

    status, answer = await iam(google, "signBlob", {"payload": payload}, mine(google))

    assert status == 200
    blob = base64.b64decode(answer["signedBlob"])
    private_key().public_key().verify(blob, b"to be signed", padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(
    ("method", "body", "status", "word"),
    [
        ("generateIdToken", ID_TOKEN, 403, "iam.serviceAccounts.getOpenIdToken"),
        ("generateAccessToken", {"scope": [STORAGE]}, 403, "iam.serviceAccounts.getAccessToken"),
        ("signBlob", {"payload": ""}, 403, "iam.serviceAccounts.signBlob"),
        ("makeCoffee", {}, 404, "Method not found"),
        ("generateIdToken", {**ID_TOKEN, "delegates": [STEP]}, 400, "delegates"),
    ],
)
async def test_what_nobody_granted_is_refused(
    google: TokenServices, method: str, body: dict[str, Any], status: int, word: str
) -> None:
    google.accounts.add(ORDERS)

    answered, answer = await iam(google, method, body, mine(google))

    assert (answered, answer["error"]["code"]) == (status, status)
    assert word in answer["error"]["message"]


async def test_iam_wants_a_good_token_with_its_scope(google: TokenServices) -> None:
    google.grant(ME, ORDERS)

    async def asked_with(bearer: str) -> int:
        return (await iam(google, "generateIdToken", ID_TOKEN, bearer))[0]

    assert await asked_with("") == 401
    assert await asked_with("ya29.invented") == 401
    assert await asked_with(mine(google, until=NOW)) == 401
    assert await asked_with(mine(google, STORAGE)) == 403
    assert await asked_with(mine(google)) == 200


async def test_sts_exchanges_the_workloads_own_token_alone(google: TokenServices) -> None:
    asked = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": PROVIDER,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "subject_token": google.subject_token,
        "scope": STORAGE,
    }
    status, answer = await post(f"{google.url}/v1/token", asked)
    grant = google.access.of(answer["access_token"])
    assert grant is not None
    assert (status, grant.who, grant.scopes) == (200, MEMBER, (STORAGE,))

    for wrong in ({"subject_token": "a"}, {"audience": "b"}, {"grant_type": "c"}):
        status, answer = await post(f"{google.url}/v1/token", {**asked, **wrong})
        assert (status, list(answer)) == (400, ["error", "error_description"])
    del asked["subject_token"]
    status, answer = await post(f"{google.url}/v1/token", asked)
    assert (status, answer["error"]) == (400, "invalid_request")
