"""A tRPC caller and a tRPC service that never heard of ID tokens, with the proxy between them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from proxy.emulator.faults import Answer
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.node import NodeServer, run_node
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies


@dataclass(frozen=True)
class Way:
    """From the caller's URL to the service, through the proxy and the protected front."""

    proxy: Program
    front: ProtectedService

    async def call(self, scenario: str, *arguments: str) -> Any:
        """Perform a scenario of trpc_client.mjs and return what it reports."""
        return await run_node("trpc_client.mjs", f"{self.proxy.url}/trpc", scenario, *arguments)


@pytest.fixture
async def way(metadata: MetadataServer, proxies: Proxies) -> AsyncIterator[Way]:
    async with (
        NodeServer("trpc_server.mjs") as app,
        ProtectedService(metadata.keys, app=app.address) as front,
    ):
        yield Way(await proxies.to(front), front)


@pytest.fixture
async def superjson_way(metadata: MetadataServer, proxies: Proxies) -> AsyncIterator[Way]:
    async with (
        NodeServer("trpc_server.mjs", "--superjson") as app,
        ProtectedService(metadata.keys, app=app.address) as front,
    ):
        yield Way(await proxies.to(front), front)


@pytest.mark.parametrize(
    ("scenario", "result"),
    [
        ("query", "Hello, world!"),
        ("mutation", 5),
        ("bytes", 1000),
        ("form", {"title": "grüße", "name": "a b.bin", "size": 1000}),
        ("stream_batch", ["Hello, fast!", "n2", "n1"]),
    ],
)
async def test_a_call_brings_the_result_that_it_brings_without_a_proxy(
    way: Way, scenario: str, result: object
) -> None:
    assert await way.call(scenario) == {"ok": True, "result": result}


async def test_every_call_reaches_the_service_with_a_verified_identity(way: Way) -> None:
    await way.call("batch")

    assert [request.status for request in way.front.requests] == [None] * 2
    assert {request.claims["aud"] for request in way.front.admitted if request.claims} == {
        way.front.url
    }


async def test_a_batch_of_thirty_kilobytes_of_url_arrives_byte_for_byte(way: Way) -> None:
    answer = await way.call("batch", '{"calls": 330}')

    assert len(answer["result"]) == 331
    [target] = [request.target for request in way.front.admitted if request.method == "GET"]
    assert 30_000 <= len(target) <= 60_000
    assert "%27" in target
    assert "%C3%BC" in target


async def test_each_call_of_a_mixed_batch_keeps_its_own_outcome(way: Way) -> None:
    answer = await way.call("mixed_batch")

    greeting, failure = answer["result"]
    assert greeting == "Hello, world!"
    assert (failure["status"], failure["code"], failure["message"]) == (207, "CONFLICT", "taken")


async def test_an_error_of_a_procedure_is_the_services_own(way: Way) -> None:
    answer = await way.call("fail", '{"code": "FORBIDDEN", "message": "not yours"}')

    error = answer["error"]
    assert (error["code"], error["message"]) == ("FORBIDDEN", "not yours")
    assert "reason" not in error


async def test_pieces_of_a_streamed_answer_arrive_one_by_one(way: Way) -> None:
    # The service sends a piece when the caller has the one before: kept back, it never comes.
    assert await way.call("stream") == {"ok": True, "result": [3, 2, 1]}


@pytest.mark.parametrize("scenario", ["subscription", "websocket_subscription"])
async def test_a_subscription_brings_every_event_as_it_happens(way: Way, scenario: str) -> None:
    answer = await way.call(scenario)

    events = answer["result"]["events"]
    assert [(event["id"], event["data"]["n"]) for event in events] == [("1", 1), ("2", 2), ("3", 3)]


@pytest.mark.parametrize(
    ("scenario", "result"), [("websocket_query", "Hello, socket!"), ("websocket_mutation", 5)]
)
async def test_calls_travel_over_a_websocket(way: Way, scenario: str, result: object) -> None:
    assert await way.call(scenario) == {"ok": True, "result": result}


async def test_a_call_that_its_caller_gives_up_is_given_up_by_the_service(way: Way) -> None:
    await way.call("abort")

    assert (await way.call("until_aborted"))["result"] == {"hanging": 1, "aborted": 1}


async def test_superjson_passes_untouched(superjson_way: Way) -> None:
    answer = await superjson_way.call("rich_values", "--superjson")

    assert answer["result"]["date"] is True
    assert answer["result"]["big"] == "12345678901234567890n"


@pytest.fixture
async def tokenless(metadata: MetadataServer, proxies: Proxies) -> AsyncIterator[Way]:
    """No token from the start on; callers wait for one until ``timeouts.connect`` has passed."""
    metadata.inject(Answer(status=500), times=math.inf)
    async with ProtectedService(metadata.keys) as front:
        yield Way(await proxies.to(front, route={"timeouts": {"connect": "300ms"}}), front)


@pytest.mark.parametrize("transformer", [(), ("--superjson",)])
async def test_without_a_token_the_caller_sees_a_trpc_error_and_the_service_nothing(
    tokenless: Way, transformer: tuple[str, ...]
) -> None:
    for scenario in ("query", "mutation", "batch", "stream", "form"):
        answer = await tokenless.call(scenario, *transformer)

        assert answer["ok"] is False, scenario
        assert answer["error"]["reason"] == "token_unavailable", scenario
        assert answer["error"]["code"] == "SERVICE_UNAVAILABLE", scenario
        assert answer["error"]["httpStatus"] == 503, scenario
    assert tokenless.front.requests == []
