"""Node's HTTP callers and Node's server notice nothing of the proxy between them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.fakes.node import run_node
from tests.fakes.ways import Ways


@pytest.fixture
async def url(ways: Ways) -> str:
    return await ways.to("http_server.mjs")


async def call(url: str, scenario: str, **given: Any) -> Any:
    """Perform a scenario of http_client.mjs and return its result; fails where it failed."""
    answer = await run_node("http_client.mjs", url, scenario, json.dumps(given))
    assert answer["ok"], answer
    return answer["result"]


async def seen(url: str, query: str = "") -> Any:
    return json.loads((await call(url, "request", path=f"/seen{query}"))["text"])


async def test_a_target_arrives_byte_for_byte(url: str) -> None:
    target = "/a%2Fb/%27/;x=1/,?q=%20+%2B&q=2&=&e=é%C3%A9".replace("é", "%E9")

    answer = await call(url, "request", path=target)

    assert json.loads(answer["text"])["url"] == target


async def test_repeated_fields_keep_their_order_spelling_and_number(url: str) -> None:
    headers = {"X-One": ["1", "2, 3"], "x-TWO": "b", "Cookie": "a=1; b=2"}

    answer = await call(url, "request", headers=headers)

    arrived = json.loads(answer["text"])["headers"]
    ours = [part for pair in zip(arrived[::2], arrived[1::2], strict=True)
            if pair[0].lower() in ("x-one", "x-two", "cookie") for part in pair]  # fmt: skip
    assert ours == ["X-One", "1", "X-One", "2, 3", "x-TWO", "b", "Cookie", "a=1; b=2"]


async def test_a_body_of_unknown_length_flows_as_it_is_sent(url: str) -> None:
    # The caller sends a piece when the service has the one before: kept back, it never comes.
    answer = await call(url, "upload", pieces=3)

    arrived = json.loads(answer["text"])
    expected = b"piece 0\npiece 1\npiece 2\n"
    assert (arrived["bytes"], arrived["sha256"]) == (24, hashlib.sha256(expected).hexdigest())


async def test_pipelined_requests_are_answered_in_their_order(url: str) -> None:
    assert await call(url, "pipeline", count=5) == [f"/echo/{n}" for n in range(5)]


@pytest.mark.parametrize(("path", "events"), [("/body", ["100", "200"]), ("/refuse", ["417"])])
async def test_it_is_the_service_that_says_continue(url: str, path: str, events: list[str]) -> None:
    assert await call(url, "expect_continue", path=path) == events
    assert (await seen(url))["continued"] == 1


async def test_an_early_hint_comes_before_the_answer(url: str) -> None:
    assert await call(url, "informational") == [[103, "</style.css>; rel=preload"], [200]]


async def test_trailers_arrive(url: str) -> None:
    answer = await call(url, "request", path="/trailers")

    assert (answer["text"], answer["trailers"]) == ("body", {"x-checksum": "abc"})


async def test_cookies_are_not_merged(url: str) -> None:
    answer = await call(url, "request", path="/cookies")

    assert answer["headers"]["set-cookie"] == ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]


async def test_a_compressed_body_stays_compressed(url: str) -> None:
    raw = await call(url, "request", path="/gzip")
    read = await call(url, "fetch", path="/gzip")

    assert (raw["headers"]["content-encoding"], raw["bytes"] < 100) == ("gzip", True)
    assert read["text"] == "compressed " * 100


async def test_a_redirect_is_for_the_caller_to_follow(url: str) -> None:
    answer = await call(url, "fetch", path="/redirect")

    assert (answer["status"], answer["location"]) == (302, "/elsewhere?x=%2F")


@pytest.mark.parametrize("code", [204, 304, 404, 500])
async def test_a_status_without_a_body_leaves_the_connection_in_order(url: str, code: int) -> None:
    answer = await call(url, "request", path=f"/status?code={code}")

    assert (answer["status"], answer["bytes"]) == (code, 0)


async def test_a_head_request_has_no_body(url: str) -> None:
    answer = await call(url, "request", path="/gzip", method="HEAD")

    assert (answer["headers"]["content-encoding"], answer["bytes"]) == ("gzip", 0)


async def test_events_arrive_as_they_happen_and_the_stream_resumes(url: str) -> None:
    # The service sends an event when the caller has the one before: kept back, it never comes.
    answer = await call(url, "events", path="/events?count=3", take=5)

    events = answer["events"]
    assert [event["data"] for event in events] == ["1", "2", "3", "4", "5"]
    assert answer["opened"] == 2


@pytest.mark.parametrize("path", ["/endless", "/events"])
async def test_a_caller_that_goes_away_ends_the_work_of_the_service(url: str, path: str) -> None:
    await call(url, "give_up", path=path)
    if path == "/events":
        # The service notices when it has something to send.
        await call(url, "request", path="/step", method="POST")

    assert (await seen(url, "?cut=1"))["cut"] == 1


async def test_a_body_that_breaks_off_does_not_look_complete(url: str) -> None:
    answer = await run_node("http_client.mjs", url, "request", '{"path": "/broken"}')

    assert (answer["ok"], answer["error"]["code"]) == (False, "UND_ERR_SOCKET")


async def test_an_answer_that_comes_before_the_body_was_sent_arrives(url: str) -> None:
    answer = await call(url, "request", path="/early", method="POST", body="x" * 100_000)

    assert (answer["status"], answer["text"]) == (413, "too much")
