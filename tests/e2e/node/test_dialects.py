"""The proxy's own failures as the clients of many languages understand them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from proxy.dialects.base import sentence
from proxy.emulator.faults import Answer
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from proxy.errors import REASONS
from tests.fakes.calling import CONNECT, TRPC, TRPC_KEYS, TWIRP_CODES, expected_code
from tests.fakes.failing import ANSWERED, DETAIL, Failing
from tests.fakes.node import run_node
from tests.fakes.proxies import Proxies

TWIRP = ["twirp", "twirp json"]
JSONRPC = ["jsonrpc call", "jsonrpc two calls"]


async def told(
    url: str, scenario: str, *options: str, reasons: list[str] = ANSWERED
) -> dict[str, dict[str, Any]]:
    """Return what a client is told, for each of the reasons."""
    answer = await run_node("errors_client.mjs", url, scenario, json.dumps(reasons), *options)
    assert answer["ok"], answer
    found: dict[str, dict[str, Any]] = answer["result"]
    assert list(found) == reasons
    return found


def message(reason: str) -> str:
    return sentence(REASONS[reason](DETAIL))


@pytest.mark.parametrize("scenario", CONNECT)
async def test_a_client_of_connect_grpc_and_grpc_web_is_told_code_message_and_reason(
    scenario: str,
) -> None:
    async with Failing() as failing:
        found = await told(failing.url, scenario)

    assert found == {
        reason: {
            "code": expected_code(reason).title().replace("_", ""),
            "message": message(reason),
            "reason": reason,
        }
        for reason in ANSWERED
    }


@pytest.mark.parametrize("transformer", [(), ("--superjson",)], ids=["plain", "superjson"])
@pytest.mark.parametrize("scenario", TRPC)
async def test_a_trpc_client_is_told_key_message_status_and_reason(
    scenario: str, transformer: tuple[str, ...]
) -> None:
    async with Failing() as failing:
        found = await told(failing.url, scenario, *transformer)

    assert found == {
        reason: {
            "code": TRPC_KEYS[REASONS[reason].status][0],
            "message": message(reason),
            "reason": reason,
            "status": REASONS[reason].status,
        }
        for reason in ANSWERED
    }


@pytest.mark.parametrize("scenario", TWIRP)
async def test_a_twirp_client_is_told_code_message_and_reason(scenario: str) -> None:
    async with Failing() as failing:
        found = await told(failing.url, scenario)

    assert found == {
        reason: {
            "code": TWIRP_CODES.get(reason, expected_code(reason).lower()),
            "message": message(reason),
            "reason": reason,
        }
        for reason in ANSWERED
    }


@pytest.mark.parametrize("scenario", [*CONNECT, *TRPC, *TWIRP, *JSONRPC])
async def test_every_client_is_told_by_the_command_that_there_is_no_token(
    metadata: MetadataServer, proxies: Proxies, service: ProtectedService, scenario: str
) -> None:
    metadata.inject(Answer(status=500), times=math.inf)
    proxy = await proxies.to(service, route={"timeouts": {"connect": "300ms"}})

    found = await told(proxy.url, scenario, reasons=["token_unavailable"])

    said = found["token_unavailable"]
    assert said["reason"] == "token_unavailable"
    assert said["message"].startswith("No token could be obtained")
    assert service.requests == []


@pytest.mark.parametrize("scenario", JSONRPC)
async def test_a_json_rpc_client_finds_the_call_that_failed(
    metadata: MetadataServer, proxies: Proxies, scenario: str
) -> None:
    async with ProtectedService(metadata.keys) as service:
        proxy = await proxies.to(service)
    # The service has gone: nobody listens there any more.

    found = await told(proxy.url, scenario, reasons=["upstream_connect_failed"])

    said = found["upstream_connect_failed"]
    assert (said["code"], said["status"]) == (-32000, 502)
    assert said["reason"] == "upstream_connect_failed"
