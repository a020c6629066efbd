"""The identity header over HTTP/2: one, ours, and repeated with another where it was refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.config.model import Auth, IdentityHeader
from proxy.identity.source import TokenSourceError
from tests.fakes.framed import GRPC, FramedUpstreamEnd, Pairs
from tests.fakes.framed_world import Framed

MESSAGE = b"\0\0\0\0\x03abc"
HEADER = "x-serverless-authorization"
REFUSED: Pairs = (
    (":status", "401"),
    (
        "www-authenticate",
        'Bearer error="invalid_token", error_description="The access token could not be verified"',
    ),
    ("content-type", "text/html"),
)


@pytest.fixture
async def framed() -> AsyncIterator[Framed]:
    """A proxy that sends ID tokens."""
    async with Framed(auth=Auth.ID_TOKEN) as world:
        yield world


def tokens_on(upstream: FramedUpstreamEnd, stream: int, name: str = HEADER) -> list[str]:
    return [value for key, value in upstream.seen(stream).pairs if key == name]


async def test_a_call_carries_the_token_once_whatever_the_caller_sends(framed: Framed) -> None:
    caller = await framed.frames()
    theirs = ((HEADER, "Bearer theirs"), ("x_serverless-authorization", "Bearer theirs"))

    caller.send_headers(1, (*GRPC, *theirs))
    caller.send_data(1, MESSAGE, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    assert tokens_on(upstream, 1) == [f"Bearer {framed.source.answers[0]}"]
    assert tokens_on(upstream, 1, "x_serverless-authorization") == []
    upstream.answer(1)
    await caller.finished(1)


async def test_an_identity_header_of_another_name_moves_the_caller_s_own(framed: Framed) -> None:
    await framed.serve(header=IdentityHeader.AUTHORIZATION)
    caller = await framed.frames()

    caller.send_headers(1, (*GRPC, ("authorization", "Bearer theirs")), end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    assert tokens_on(upstream, 1, "authorization") == [f"Bearer {framed.source.answers[0]}"]
    assert tokens_on(upstream, 1, "x-forwarded-authorization") == ["Bearer theirs"]
    upstream.answer(1)
    await caller.finished(1)


async def test_a_call_whose_token_was_refused_is_repeated_with_another(framed: Framed) -> None:
    first, second = framed.source.token(), framed.source.token()
    framed.source.answers = [first, second]
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    caller.send_data(1, MESSAGE, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    assert tokens_on(upstream, 1) == [f"Bearer {first}"]

    upstream.answer(1, b"<html>refused</html>", REFUSED)
    again = await upstream.request(3)

    assert tokens_on(upstream, 3) == [f"Bearer {second}"]
    assert bytes(again.body) == MESSAGE
    upstream.answer(3)
    assert (await caller.finished(1)).status == 200
    assert framed.route_stats.retries == {"token_refused": 1}


async def test_a_refusal_that_another_token_would_not_change_passes_through(
    framed: Framed,
) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    caller.send_data(1, MESSAGE, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.answer(1, b"<html>refused</html>", REFUSED)

    seen = await caller.finished(1)
    assert (seen.status, bytes(seen.body)) == (401, b"<html>refused</html>")
    assert seen.reason == ""


async def test_a_token_that_repeats_is_compressed(framed: Framed) -> None:
    framed.framed.automatic = b"ok"
    caller = await framed.frames()
    sizes = []
    for stream in (1, 3, 5, 7):
        before = len(framed.framed.connections[0].history) if framed.framed.connections else 0
        await caller.ask(stream, GRPC, MESSAGE)
        sizes.append(len(framed.framed.connections[0].history) - before)

    assert sizes[0] > len(str(framed.source.answers[0]))
    assert sizes[3] < 100


async def test_without_a_token_nothing_is_sent(framed: Framed) -> None:
    framed.source.answers = [TokenSourceError("the metadata server is not there")]
    caller = await framed.frames()

    seen = await caller.ask(1, GRPC, MESSAGE)

    assert (seen.head["grpc-status"], seen.reason) == ("14", "token_unavailable")
    assert framed.framed.connections == []
