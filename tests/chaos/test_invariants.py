"""The invariants of the runs of faults can fail: each is shown what it must find."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import pytest

from proxy.emulator.claims import CALLER, id_token_claims
from proxy.emulator.service import ProtectedService
from tests.chaos import invariants, relay
from tests.chaos.grpc_calls import CALLS, GrpcCalls
from tests.chaos.traffic import Traffic
from tests.fakes import grpc_service, sessions
from tests.fakes.child import Child
from tests.fakes.lifelines import GET, OK, between, calling

pytestmark = pytest.mark.skipif(
    os.environ.get("TESTED_BUILD") == "compiled", reason="it is the tests that are tested"
)

NOW = 1_800_000_000.0
NOWHERE = ("127.0.0.1", 0)


def _saw(**outcomes: int) -> Traffic:
    return Traffic(NOWHERE, {}, outcomes=Counter(outcomes))


async def test_what_is_still_under_way_is_found_and_how_often_it_was_counted() -> None:
    async with between() as (upstream, program, caller):
        caller.send(GET)
        end = await upstream.accept()

        assert len(await invariants.still_busy(program, 0.2)) == 2  # in flight, and a connection
        _ = await end.serve(OK)
        await caller.until(lambda: caller.received, "the answer")
        assert await invariants.still_busy(program) == []
        text = await invariants.metrics(program)
        for seen in (_saw(good=1), _saw(good=1, left=1), _saw(refused=9, left=1), _saw(cut=2)):
            assert invariants.miscounted(text, seen.outcomes) == []
        for wrong in (_saw(good=2), _saw(refused=1), _saw(refused=1, **{"error draining": 2})):
            assert len(invariants.miscounted(text, wrong.outcomes)) == 1
        before = await invariants.footprint(program)
        async with AsyncExitStack() as stack:
            for _ in range(invariants.MORE_DESCRIPTORS + 1):
                one = await stack.enter_async_context(calling(program))
                one.send(GET)
                _ = await end.serve(OK)
                await one.until(lambda one=one: one.received, "the answer")  # type: ignore[misc]  # a lambda's default
            after = await invariants.footprint(program)
            assert "descriptors grew" in " ".join(before.grown_to(after))


async def test_a_call_without_a_token_is_found_and_a_post_that_came_twice() -> None:
    async with (
        ProtectedService(clock=lambda: NOW, tls=False) as service,
        sessions.session() as session,
    ):
        claims = id_token_claims(CALLER, service.url, now=NOW, lifetime=60)
        with_token = {"Authorization": f"Bearer {service.keys.sign(claims)}"}
        for method, path in (("GET", "/a"), ("GET", "/a"), ("POST", "/b"), ("POST", "/c")):
            await _call(session, method, service.url + path, with_token)

        assert invariants.wrongly_admitted([service]) == []
        await _call(session, "POST", service.url + "/b", with_token)
        await _call(session, "GET", service.url + "/d", {})
        found = invariants.wrongly_admitted([service])
        assert [each.split(" ")[:2] for each in found] == [["GET", "/d"], ["POST", "/b"]]


async def _call(
    session: aiohttp.ClientSession, method: str, url: str, headers: dict[str, str]
) -> None:
    async with session.request(method, url, headers=headers) as answer:
        await answer.read()


def test_memory_that_grew_is_found_beyond_what_is_allowed() -> None:
    before = invariants.Footprint(rss_bytes=10**8, descriptors=20)
    at = replace(before, rss_bytes=10**8 + invariants.MORE_BYTES)

    assert before.grown_to(at) == []
    assert len(before.grown_to(replace(at, rss_bytes=at.rss_bytes + 1))) == 1


def test_callers_without_faults_of_their_own_are_served_and_do_not_wait() -> None:
    assert invariants.disturbed(replace(_saw(good=1), slowest=2.0), 2.0) == []
    assert len(invariants.disturbed(replace(_saw(good=1), slowest=2.1), 2.0)) == 1
    assert len(invariants.disturbed(_saw(good=1, cut=1), 2.0)) == 1
    assert len(invariants.disturbed(_saw(), 2.0)) == 1


def test_a_call_without_a_token_is_excused_unless_one_that_had_come_was_good() -> None:
    end = NOW + invariants.USE_MARGIN
    tokens = {end: NOW - 5}

    assert invariants.needlessly_tokenless([(NOW - 6, NOW - 1), (NOW - 1, NOW)], tokens) == []
    assert len(invariants.needlessly_tokenless([(NOW - 4, NOW - 1)], tokens)) == 1


async def test_services_note_when_a_token_came_first() -> None:
    seen = invariants.Seen()
    async with (
        ProtectedService(clock=lambda: NOW, tls=False) as service,
        sessions.session() as session,
    ):
        service.requests = seen
        claims = id_token_claims(CALLER, service.url, now=NOW, lifetime=60)
        with_token = {"Authorization": f"Bearer {service.keys.sign(claims)}"}
        await _call(session, "GET", service.url, with_token)
        first = dict(seen.tokens)
        await _call(session, "GET", service.url, with_token)
        await _call(session, "GET", service.url, {})

    assert list(first) == [NOW + 60]
    assert first == seen.tokens
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("field", "problems"), [("x-auth-proxy-error: overloaded", 0), ("x-other: overloaded", 1)]
)
async def test_what_came_before_a_cut_is_compared_unless_it_is_an_error(
    field: str, problems: int
) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _ = await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 503 No\r\n{field}\r\nContent-Length: 900\r\n\r\n?!".encode())
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    address: tuple[str, int] = server.sockets[0].getsockname()
    traffic = Traffic(address, {"large": 1}, callers=1, seed=1)
    traffic.start()
    await asyncio.sleep(0)  # Whoever has begun a call ends it before stopping.
    await traffic.stop()
    server.close()

    assert dict(traffic.outcomes) == {"cut": 1}
    assert len(traffic.problems) == problems


class Starving(Child):
    """A process that, as it says, waited for processors for so long when it is asked in turn."""

    waited: Iterator[float] = iter(())

    def _starved(self) -> float:
        return next(self.waited)


async def test_a_process_is_waited_for_as_long_again_as_it_had_no_processor() -> None:
    child = Starving([sys.executable, "-c", "input()"], env={})
    await child.spawn()
    try:
        child.waited = iter([10.0, 10.2, 10.3, 10.304])
        with pytest.raises(AssertionError, match="did not say so in time"):
            await child.line(lambda _: False, seconds=0.1)

        assert list(child.waited) == []
        child.waited = iter([10.0, 10.004, 20.0])
        with pytest.raises(AssertionError, match="did not say so in time"):
            await child.line(lambda _: False, seconds=0.1)
        assert list(child.waited) == [20.0]
    finally:
        await child.kill()


async def test_nobody_takes_the_port_of_a_relay_at_which_nobody_listens() -> None:
    async with relay.Relay("a relay", NOWHERE, relay.PLAIN, seed=1) as it:
        it._close()

        with pytest.raises(OSError, match="already in use"):
            socket.create_server(it.address)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*it.address)
        await it._listen()
        _, writer = await asyncio.open_connection(*it.address)
        writer.close()


async def test_single_bytes_come_by_the_clock_and_no_longer_than_until_all_is_calm() -> None:
    sent = bytes(400)
    async with relay.Relay("a relay", NOWHERE, relay.PLAIN, seed=1) as it:
        _, writer = await asyncio.open_connection(*it.address)

        assert await it._drip(sent, writer, 60.0) == sent
        it.be(calm=False)
        assert await it._drip(sent, writer, 0.0) == sent
        assert len(await it._drip(sent, writer, 60.0)) == 100
        writer.close()


@pytest.mark.parametrize("echoes", [True, False])
async def test_a_grpc_call_without_its_trailers_is_not_good(
    monkeypatch: pytest.MonkeyPatch, *, echoes: bool
) -> None:
    if not echoes:
        monkeypatch.setattr(grpc_service, "ECHO_TRAILING", "another-name")
    with grpc_service.GrpcService() as service:
        calls = GrpcCalls(service.address, service.address, callers=1, seed=1)
        calls.start()
        async with asyncio.timeout(30):
            while calls.outcomes.total() < len(CALLS):  # noqa: ASYNC110 (callers tell no event)
                await asyncio.sleep(0.01)
        await calls.stop()

    assert calls.bad == {}
    assert len(calls.problems) == (0 if echoes else calls.good)
