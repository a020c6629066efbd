"""Google's APIs by the clients that applications use, which know nothing of tokens here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from proxy.emulator.api import ApiService
from proxy.emulator.metadata import MetadataServer
from tests.fakes import tls
from tests.fakes.apis import CloudApis, PubSub
from tests.fakes.node import run_node
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies

HERE = ["127.0.0.1", "localhost"]
ROUTE = {"auth": "access_token", "access_token_hosts": HERE}
ELSEWHERE = {
    # Whatever the libraries would find on a developer's machine must not be what works.
    "METADATA_SERVER_DETECTION": "none",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent",
}


@pytest.fixture
async def apis() -> AsyncIterator[CloudApis]:
    async with CloudApis() as apis:
        yield apis


@pytest.fixture
async def api(apis: CloudApis, metadata: MetadataServer) -> AsyncIterator[ApiService]:
    """The emulated APIs, which take the tokens of `metadata` alone."""
    async with ApiService(metadata.mint.access, app=apis.address) as api:
        yield api


async def through(program: Program, what: str) -> Any:
    """Run a client that calls through a proxy."""
    return await run_node("cloud_client.mjs", what, program.url, env=ELSEWHERE, seconds=90)


async def test_gemini_streams_to_a_plain_fetch(
    api: ApiService, apis: CloudApis, proxies: Proxies
) -> None:
    program = await proxies.to(api, route=ROUTE)

    assert await through(program, "vertex") == {"status": 200, "text": "all is fine"}
    assert apis.first_seen.is_set()


async def test_an_anthropic_client_leaves_authentication_to_the_proxy(
    api: ApiService, proxies: Proxies
) -> None:
    program = await proxies.to(api, route=ROUTE)

    assert await through(program, "anthropic") == {"whole": "hello", "streamed": "hello"}
    assert all(request.status is None for request in api.requests)


async def test_cloud_storage_keeps_50_mb_and_gives_them_back(
    api: ApiService, apis: CloudApis, proxies: Proxies
) -> None:
    program = await proxies.to(api, route=ROUTE)

    assert await through(program, "storage") == {"size": 50 * 1024 * 1024, "same": True}
    assert len(apis.objects["large"]) == 50 * 1024 * 1024


async def test_firestore_is_called_over_rest(
    api: ApiService, apis: CloudApis, proxies: Proxies
) -> None:
    program = await proxies.to(api, route=ROUTE)

    document = {"fields": {"total": {"integerValue": "7"}}}
    assert await through(program, "firestore") == document
    assert apis.documents == {"a": document}


async def test_pubsub_is_published_to_over_an_insecure_grpc_channel(
    metadata: MetadataServer, proxies: Proxies, tmp_path: Path
) -> None:
    leaf = tls.authority().issue_cert("localhost")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])
    with PubSub(metadata.mint.access, credentials) as pubsub:
        route = {**ROUTE, "upstream": pubsub.url, "ca_file": str(tls.ca_file(tmp_path))}
        config = {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "routes": {"pubsub": route},
        }
        program = await proxies.run(json.dumps(config))

        assert await through(program, "pubsub") == {"id": "7"}
    (request,) = pubsub.published
    assert b"projects/p/topics/orders" in request
    assert b"hello" in request


async def test_a_revoked_token_is_replaced_before_the_client_sees_a_401(
    api: ApiService, metadata: MetadataServer, proxies: Proxies
) -> None:
    program = await proxies.to(api, route=ROUTE)
    await through(program, "firestore")
    metadata.mint.access.revoke()

    assert (await through(program, "firestore"))["fields"]["total"]["integerValue"] == "7"
    assert [request.status for request in api.requests] == [None, None, 401, None, None]
