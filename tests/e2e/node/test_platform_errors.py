"""Pages of Google's front end as the clients of many languages understand them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.fakes import leaks
from tests.fakes.calling import CONNECT, TRPC
from tests.fakes.front_end import FrontEnd
from tests.fakes.node import run_node
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies

# Status → gRPC's code, and tRPC's key.
CODES = {
    401: ("UNAUTHENTICATED", "UNAUTHORIZED"),
    403: ("PERMISSION_DENIED", "FORBIDDEN"),
    404: ("UNIMPLEMENTED", "NOT_FOUND"),
    429: ("UNAVAILABLE", "TOO_MANY_REQUESTS"),
    500: ("UNKNOWN", "INTERNAL_SERVER_ERROR"),
    502: ("UNAVAILABLE", "BAD_GATEWAY"),
    503: ("UNAVAILABLE", "SERVICE_UNAVAILABLE"),
    504: ("UNAVAILABLE", "GATEWAY_TIMEOUT"),
}
OTHERS = ["twirp", "twirp json", "jsonrpc call", "jsonrpc two calls"]


@pytest.fixture
async def front_end() -> AsyncIterator[FrontEnd]:
    async with FrontEnd() as server:
        yield server


def config(front_end: FrontEnd, path: str = "", **route: Any) -> str:
    """Return a configuration with one route; without `path`, callers name the status in theirs."""
    default = {"upstream": front_end.url + path, "auth": "id_token", **route}
    return json.dumps(
        {"listen": "127.0.0.1:0", "admin": "off", "routes": {"default": default}},
    )


async def told(url: str, scenario: str, *options: str) -> dict[str, dict[str, Any]]:
    """Return what a client is told, for each status."""
    statuses = json.dumps([str(status) for status in CODES])
    answer = await run_node("errors_client.mjs", url, scenario, statuses, *options)
    assert answer["ok"], answer
    found: dict[str, dict[str, Any]] = answer["result"]
    assert list(found) == [str(status) for status in CODES]
    return found


def check(said: dict[str, Any], status: str) -> None:
    assert f"Google's front end answered {status} in place of the service: " in said["message"]
    assert "gcloud run services " in said["message"]
    assert said["message"].endswith(f"[upstream_{status}]")


@pytest.mark.parametrize("scenario", CONNECT)
async def test_a_client_of_connect_grpc_and_grpc_web_is_told(
    front_end: FrontEnd, proxies: Proxies, scenario: str
) -> None:
    proxy = await proxies.run(config(front_end))

    for status, said in (await told(proxy.url, scenario)).items():
        check(said, status)
        code = CODES[int(status)][0].title().replace("_", "")
        assert (said["code"], said["reason"]) == (code, status)


@pytest.mark.parametrize("transformer", [(), ("--superjson",)], ids=["plain", "superjson"])
@pytest.mark.parametrize("scenario", TRPC)
async def test_a_trpc_client_is_told(
    front_end: FrontEnd, proxies: Proxies, scenario: str, transformer: tuple[str, ...]
) -> None:
    proxy = await proxies.run(config(front_end))

    for status, said in (await told(proxy.url, scenario, *transformer)).items():
        check(said, status)
        key = CODES[int(status)][1]
        assert (said["code"], said["status"], said["reason"]) == (key, int(status), status)


async def test_a_trpc_client_is_told_nothing_where_pages_pass(
    front_end: FrontEnd, proxies: Proxies
) -> None:
    proxy = await proxies.run(config(front_end, platform_errors="pass"))

    found = await told(proxy.url, "trpc query")
    assert found["403"]["message"].startswith("Unexpected token '<'")


async def test_a_trpc_subscription_fails_with_the_status(
    front_end: FrontEnd, proxies: Proxies
) -> None:
    proxy = await proxies.run(config(front_end))

    for status, said in (await told(proxy.url, "trpc subscription")).items():
        assert status in json.dumps(said), said


@pytest.mark.parametrize("scenario", OTHERS)
async def test_a_client_of_twirp_and_json_rpc_is_told(
    front_end: FrontEnd, proxies: Proxies, scenario: str
) -> None:
    proxy = await proxies.run(config(front_end))

    for status, said in (await told(proxy.url, scenario)).items():
        check(said, status)
        assert said["reason"] == f"upstream_{status}"


@pytest.mark.parametrize("status", CODES)
async def test_grpcio_is_told(front_end: FrontEnd, proxies: Proxies, status: int) -> None:
    proxy = await proxies.run(config(front_end, f"/{status}"))

    error = await asyncio.to_thread(call, proxy)

    assert error.code().name == CODES[status][0]
    check({"message": error.details()}, str(status))
    fields = dict(error.trailing_metadata() or error.initial_metadata())
    assert fields["x-auth-proxy-platform-error"] == str(status)


def call(proxy: Program) -> grpc.RpcError:
    """Make a call with grpcio that must fail, and return how."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(proxy.listeners[0], options=options) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/test.Echo/Unary")(b"", timeout=20)
        leaks.look("what gRPC was answered", repr(failed.value.details()))
        return failed.value


@pytest.mark.parametrize("client", ["grpc-js", "connect-http1"])
@pytest.mark.parametrize("status", [401, 403, 503])
async def test_grpc_js_is_told(
    front_end: FrontEnd, proxies: Proxies, status: int, client: str
) -> None:
    proxy = await proxies.run(config(front_end, f"/{status}"))

    answer = await run_node("rpc_client.mjs", proxy.url, client, "unary", "down")

    assert answer["ok"], answer
    for scenario in ("unary", "down"):
        error = answer["result"][scenario]["error"]
        check(error, str(status))
        assert error["code"] == CODES[status][0].title().replace("_", "")
