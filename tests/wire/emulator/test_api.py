"""The emulated API of Google's: which access tokens it takes, and how it refuses the others."""

from __future__ import annotations

import json
import ssl

import pytest

from proxy.emulator.access import ALL_OF_CLOUD, AccessTokens, Grant
from proxy.emulator.api import ApiService
from proxy.emulator.claims import CALLER
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.minting import Mint
from tests.fakes.emulated import KEYS, NOW, Caller, call, get

STORAGE = "https://www.googleapis.com/auth/devstorage.read_only"
OPENID = "openid"


def token(access: AccessTokens, *scopes: str, expires_at: float = NOW + 1) -> str:
    return f"Authorization: Bearer {access.issue(Grant(CALLER.email, scopes, expires_at))}"


async def refusal(caller: Caller, *lines: str) -> tuple[int, str, str]:
    """Ask; return the status, and the API's own status and reason."""
    status, body = await caller.ask(get(*lines))
    error = json.loads(body)["error"]
    assert error["code"] == status
    return status, error["status"], error["details"][0]["reason"]


@pytest.mark.parametrize("scopes", [(ALL_OF_CLOUD,), (STORAGE,), (OPENID, STORAGE)])
async def test_a_token_with_the_scope_passes_as_it_came(scopes: tuple[str, ...]) -> None:
    access = AccessTokens()
    line = token(access, *scopes)
    async with (
        ApiService(access, scope=STORAGE, clock=lambda: NOW) as api,
        call(api, _trusting(api), "localhost") as caller,
    ):
        caller.send(get(line))
        head = await caller.head()

    assert head[0] == "HTTP/1.1 200 OK"
    (request,) = api.admitted
    assert request.claims == {"email": CALLER.email}
    assert request.header("authorization") == [line.partition(": ")[2]]


async def test_any_other_is_refused_with_a_reason() -> None:
    access = AccessTokens()
    good = token(access, ALL_OF_CLOUD)
    async with (
        ApiService(access, scope=STORAGE, clock=lambda: NOW) as api,
        call(api, _trusting(api), "localhost") as caller,
    ):
        asked = {
            "none": await refusal(caller),
            "unknown": await refusal(caller, "Authorization: Bearer ya29.unknown"),
            "basic": await refusal(caller, "Authorization: Basic eDp5"),
            "several": await refusal(caller, good, good),
            "elsewhere": await refusal(caller, good.replace("Auth", "X-Serverless-Auth")),
            "expired": await refusal(caller, token(access, ALL_OF_CLOUD, expires_at=NOW)),
            "narrow": await refusal(caller, token(access, OPENID)),
        }
        access.revoke()
        asked["revoked"] = await refusal(caller, good)

    unknown = (401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED")
    missing = (401, "UNAUTHENTICATED", "CREDENTIALS_MISSING")
    assert asked == {
        "none": missing,
        "unknown": unknown,
        "basic": unknown,
        "several": unknown,
        "elsewhere": missing,
        "expired": (401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"),
        "narrow": (403, "PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
        "revoked": unknown,
    }
    assert api.admitted == []
    assert len(api.requests) == len(asked)


def test_the_metadata_server_issues_a_token_for_each_set_of_scopes() -> None:
    access = AccessTokens()
    mint = Mint(KEYS, lambda: NOW, 3600.0, 100.0, access)
    narrow, broad = (
        str(mint.access_token(CALLER, each)["access_token"]) for each in [(OPENID,), ()]
    )

    assert narrow != broad
    assert access.of(narrow) == Grant(CALLER.email, (OPENID,), NOW + 3600)
    assert access.of(broad) == Grant(CALLER.email, CALLER.scopes, NOW + 3600)
    assert mint.access_token(CALLER, (OPENID,))["access_token"] == narrow
    access.revoke()
    assert mint.access_token(CALLER, (OPENID,))["access_token"] != narrow


async def test_both_share_what_was_issued() -> None:
    access = AccessTokens()
    async with MetadataServer(access=access) as metadata:
        assert metadata.mint.access is access


def _trusting(api: ApiService) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(api.ca_file))
