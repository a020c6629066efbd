"""The proxy's own failures as bytes: well framed, bodiless where they must be, and secretless."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.config.model import Auth, ErrorFormat
from proxy.errors import REASONS
from proxy.identity.source import TokenSourceError
from tests.fakes.cutting import Cuts, bytewise, whole
from tests.fakes.failing import ANSWERED, Failing
from tests.fakes.raw import Message, RawCaller
from tests.fakes.wired import Wired

SECRET = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJhIn0.c2VjcmV0"

# What a caller of each language sends: the path behind the reason, and fields.
CALLERS = {
    "problem": ("/x", "Accept: */*"),
    "trpc": ("/trpc/a.b?batch=1&input=%7B%7D", "Accept: */*"),
    "connect": ("/a.B/C", "Content-Type: application/json\r\nConnect-Protocol-Version: 1"),
    "connect stream": ("/a.B/C", "Content-Type: application/connect+json"),
    "grpc_web": ("/a.B/C", "Content-Type: application/grpc-web+proto"),
    "grpc_web text": ("/a.B/C", "Content-Type: application/grpc-web-text"),
    "twirp": ("/twirp/a.B/C", "Content-Type: application/json"),
    "jsonrpc": ("/rpc", "Content-Type: application/json-rpc"),
}
TYPES = {
    "problem": "application/problem+json",
    "trpc": "application/json",
    "connect": "application/json",
    "connect stream": "application/connect+json",
    "grpc_web": "application/grpc-web+proto",
    "grpc_web text": "application/grpc-web-text",
    "twirp": "application/json",
    "jsonrpc": "application/json",
}
ALWAYS_OK = ("connect stream", "grpc_web", "grpc_web text")


def request(
    language: str, reason: str, *, method: str = "POST", version: str = "1.1", more: str = ""
) -> bytes:
    path, fields = CALLERS[language]
    length = "Content-Length: 0\r\n" if method == "POST" else ""
    head = f"{method} /{reason}{path} HTTP/{version}\r\nHost: a\r\n{fields}\r\n{length}{more}\r\n"
    return head.encode()


def expected_status(language: str, reason: str) -> int:
    return 200 if language in ALWAYS_OK else REASONS[reason].status


@asynccontextmanager
async def calling(failing: Failing) -> AsyncIterator[RawCaller]:
    """Connect to a listener on which everything fails."""
    address = failing.address
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(RawCaller, address.host, address.port)
    async with caller:
        yield caller


@pytest.fixture
async def caller() -> AsyncIterator[RawCaller]:
    async with Failing() as failing, calling(failing) as caller:
        yield caller


@pytest.mark.parametrize("language", CALLERS)
async def test_every_reason_is_told_on_one_connection(caller: RawCaller, language: str) -> None:
    for reason in ANSWERED:
        answer = await caller.ask(request(language, reason))

        assert answer.status == expected_status(language, reason), reason
        assert answer.value("x-auth-proxy-error") == reason
        assert answer.value("content-type") == TYPES[language]
        assert answer.value("cache-control") == "no-store"
        assert int(answer.value("content-length")) == len(answer.body) > 0


@pytest.mark.parametrize("language", CALLERS)
async def test_the_answer_to_head_has_no_body(caller: RawCaller, language: str) -> None:
    for reason in ("token_unavailable", "route_not_found"):
        answer = await caller.ask(request(language, reason, method="HEAD"))

        assert answer.body == b""
        assert int(answer.value("content-length")) > 0
        assert answer.value("x-auth-proxy-error") == reason
    # Had a body come, this would not be answered by a response of its own.
    assert (await caller.ask(request(language, "draining"))).body != b""


@pytest.mark.parametrize("language", CALLERS)
async def test_a_refused_upgrade_is_an_ordinary_answer(caller: RawCaller, language: str) -> None:
    more = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    )

    answer = await caller.ask(request(language, "token_timed_out", method="GET", more=more))

    assert answer.status == expected_status(language, "token_timed_out")
    assert answer.value("x-auth-proxy-error") == "token_timed_out"
    assert answer.values("upgrade") == []
    assert len(answer.body) > 0


@pytest.mark.parametrize("language", CALLERS)
async def test_a_caller_of_http_1_0_is_told_and_left(caller: RawCaller, language: str) -> None:
    answer = await caller.ask(request(language, "upstream_reset", version="1.0"))

    assert answer.value("x-auth-proxy-error") == "upstream_reset"
    assert await caller.take_all() == b""


async def test_the_language_of_the_route_wins_over_the_callers() -> None:
    async with Failing() as failing, calling(failing) as caller:
        failing.language = ErrorFormat.TWIRP

        answer = await caller.ask(request("trpc", "overloaded"))

    assert json.loads(answer.body)["code"] == "resource_exhausted"


async def test_grpc_without_http_2_is_told_in_an_answer_that_ends(caller: RawCaller) -> None:
    for reason in ("draining", "overloaded"):
        answer = await caller.ask(
            f"POST /{reason}/a.B/C HTTP/1.1\r\nHost: a\r\n"
            "Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n".encode()
        )

        assert (answer.status, answer.body) == (200, b"")
        assert answer.value("content-length") == "0"
        assert answer.value("x-auth-proxy-error") == reason


# --- JSON-RPC: the body says what an answer belongs to


@pytest.fixture
async def wired() -> AsyncIterator[Wired]:
    """A proxy whose upstream has gone: every call fails when its body has been read."""
    async with Wired() as world:
        await world.serve()
        await world.upstream.stop()
        yield world


def post(body: bytes, *, fields: str = "Content-Type: application/json") -> bytes:
    head = f"POST /rpc HTTP/1.1\r\nHost: a\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def call_of(size: int = 0, number: object = 7) -> bytes:
    """Return a call, filled up to `size` bytes."""
    call = {"jsonrpc": "2.0", "method": "m", "id": number, "params": [""]}
    call["params"] = ["x" * (size - len(json.dumps(call)))]
    return json.dumps(call).encode()


async def answer_to(wired: Wired, data: bytes) -> tuple[Message, Any]:
    """Send bytes on a connection of their own; return the answer and what its body says."""
    async with await wired.connect() as caller:
        answer = await caller.ask(data)
    return answer, json.loads(answer.body)


@pytest.mark.parametrize("cuts", [whole, bytewise], ids=["whole", "bytewise"])
async def test_a_json_rpc_call_is_named_by_its_id(wired: Wired, cuts: Cuts) -> None:
    wired.cut_requests = cuts

    answer, said = await answer_to(wired, post(call_of(number="a-1")))

    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_connect_failed")
    assert (said["id"], said["error"]["code"]) == ("a-1", -32000)


async def test_a_chunked_call_is_named_by_its_id(wired: Wired) -> None:
    body = call_of()
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"

    _, said = await answer_to(wired, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

    assert said["id"] == 7


async def test_each_call_of_a_batch_is_named_by_its_id(wired: Wired) -> None:
    body = b"[%b, %b]" % (call_of(number=1), call_of(number=2))

    _, said = await answer_to(wired, post(body))

    assert [one["id"] for one in said] == [1, 2]


LIMIT = 64 * 1024


@pytest.mark.parametrize(("size", "number"), [(LIMIT - 1, 7), (LIMIT, 7), (LIMIT + 1, None)])
async def test_a_long_call_has_no_name(wired: Wired, size: int, number: int | None) -> None:
    data = post(call_of(size), fields="Content-Type: application/json-rpc")

    _, said = await answer_to(wired, data)

    assert said["id"] == number


async def test_a_call_that_was_not_read_whole_has_no_name() -> None:
    async with Wired() as wired:
        await wired.serve(auth=Auth.ID_TOKEN)
        wired.source.answers = [TokenSourceError("no metadata server")]
        data = post(call_of(), fields="Content-Type: application/json-rpc")
        async with await wired.connect() as caller:
            caller.send(data[:-1])
            answer = await caller.answer()

    assert answer.value("x-auth-proxy-error") == "token_unavailable"
    assert json.loads(answer.body)["id"] is None


async def test_a_call_that_was_sent_and_not_answered_is_named_by_its_id() -> None:
    async with Wired() as wired:
        await wired.serve()
        async with await wired.connect() as caller:
            caller.send(post(call_of()))
            upstream = await wired.upstream.accept()
            await upstream.request()
            upstream.reset()
            answer = await caller.answer()

    assert answer.value("x-auth-proxy-error") == "upstream_reset"
    assert json.loads(answer.body)["id"] == 7


# --- nothing secret


@pytest.mark.parametrize("language", CALLERS)
async def test_no_token_comes_back(language: str) -> None:
    _, fields = CALLERS[language]
    async with Wired() as wired:
        await wired.serve(auth=Auth.ID_TOKEN)
        token = wired.source.answers[0]
        assert isinstance(token, str)
        async with await wired.connect() as caller:
            body = SECRET.encode()
            caller.send(
                f"POST /x?key={SECRET} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
                f"Authorization: Bearer {SECRET}\r\nCookie: a={SECRET}\r\n"
                f"X-Serverless-Authorization: Bearer {SECRET}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            upstream = await wired.upstream.accept()
            seen = await upstream.request()
            upstream.reset()
            answer = await caller.answer()

    assert token.encode() in seen.raw
    assert answer.value("x-auth-proxy-error") == "upstream_reset"
    assert SECRET.encode() not in answer.raw
    assert token.encode() not in answer.raw
