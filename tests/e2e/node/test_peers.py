"""The Node peers among themselves, without a proxy: a failure here is theirs, not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.node import NodeServer, run_node


@pytest.fixture
async def service() -> AsyncIterator[NodeServer]:
    async with NodeServer("trpc_server.mjs") as server:
        yield server


async def call(service: NodeServer, scenario: str, *arguments: str) -> Any:
    return await run_node("trpc_client.mjs", f"{service.url}/trpc", scenario, *arguments)


@pytest.mark.parametrize(
    ("scenario", "result"),
    [
        ("query", "Hello, world!"),
        ("mutation", 5),
        ("bytes", 1000),
        ("form", {"title": "grüße", "name": "a b.bin", "size": 1000}),
        ("stream_batch", ["Hello, fast!", "n2", "n1"]),
        ("websocket_query", "Hello, socket!"),
        ("websocket_mutation", 5),
    ],
)
async def test_a_call_brings_its_result(service: NodeServer, scenario: str, result: object) -> None:
    assert await call(service, scenario) == {"ok": True, "result": result}


@pytest.mark.parametrize("scenario", ["subscription", "websocket_subscription"])
async def test_a_subscription_brings_every_event_once(service: NodeServer, scenario: str) -> None:
    answer = await call(service, scenario)

    assert [event["data"] for event in answer["result"]["events"]] == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_an_error_of_a_procedure_arrives_with_its_code(service: NodeServer) -> None:
    answer = await call(service, "fail_in_batch", '{"code": "CONFLICT", "message": "taken"}')

    assert (answer["ok"], answer["error"]["code"], answer["error"]["message"]) == (
        False,
        "CONFLICT",
        "taken",
    )


async def test_an_aborted_call_is_seen_by_the_service(service: NodeServer) -> None:
    await call(service, "abort")

    assert (await call(service, "until_aborted"))["result"] == {"hanging": 1, "aborted": 1}


async def test_superjson_carries_what_json_cannot() -> None:
    async with NodeServer("trpc_server.mjs", "--superjson") as service:
        answer = await call(service, "rich_values", "--superjson")

    assert answer["result"] == {
        "date": True,
        "big": "12345678901234567890n",
        "map": [["a", 1]],
        "set": [1],
    }


async def test_a_script_that_dies_fails_the_test_with_what_it_said() -> None:
    with pytest.raises(AssertionError, match="Cannot find module"):
        async with NodeServer("no_such_script.mjs"):
            pass


async def test_a_scenario_that_does_not_exist_fails_with_those_that_do(service: NodeServer) -> None:
    with pytest.raises(AssertionError, match="no scenario nope; there are query, mutation"):
        await call(service, "nope")
