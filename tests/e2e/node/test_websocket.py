"""WebSocket callers and a WebSocket service notice nothing of the proxy between them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.node import run_node
from tests.fakes.ways import Ways


@pytest.fixture
async def url(ways: Ways) -> str:
    return await ways.to("ws_server.mjs")


async def call(url: str, scenario: str, **given: Any) -> Any:
    """Perform a scenario of ws_client.mjs and return its result; fails where it failed."""
    answer = await run_node("ws_client.mjs", url, scenario, json.dumps(given))
    assert answer["ok"], answer
    return answer["result"]


async def test_a_message_comes_back(url: str) -> None:
    assert await call(url, "echo", text="grüße") == "grüße"


async def test_a_message_of_twenty_megabytes_comes_back_unchanged(url: str) -> None:
    assert await call(url, "large", size=20_000_000) is True


async def test_subprotocol_and_extension_are_agreed_between_the_ends(url: str) -> None:
    assert await call(url, "negotiated") == {
        "protocol": "echo.v2",
        "extensions": "permessage-deflate",
    }


async def test_a_ping_is_answered(url: str) -> None:
    assert await call(url, "ping") == "are you there"


@pytest.mark.parametrize("code", [1000, 1011, 4001])
async def test_a_closing_code_and_its_reason_arrive(url: str, code: int) -> None:
    assert await call(url, "closed_by_service", code=code) == {
        "code": code,
        "reason": "as you wish",
    }


async def test_a_connection_that_breaks_has_no_closing_code(url: str) -> None:
    # RFC 6455, 7.1.5: 1006 stands for a connection that ended without a closing handshake.
    assert await call(url, "broken_by_service") == 1006
