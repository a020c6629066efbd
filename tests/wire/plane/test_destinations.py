"""A route with two destinations: who serves an exchange, and what is never sent twice."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.config.model import (
    Auth,
    Destination,
    Limits,
    PlatformErrors,
    Retries,
    Timeouts,
    Upstream,
)
from proxy.errors import new_event
from proxy.identity.source import TokenSourceError
from proxy.plane.availability import Standing
from tests.fakes.answers import PLATFORM
from tests.fakes.answers import Answer as PlatformAnswer
from tests.fakes.raw import Message, RawCaller, ScriptedUpstream
from tests.fakes.wired import AUDIENCE, Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OTHER = "https://other.example"
OVER = 1.5
"""Seconds after which a first pause is over."""


class Pair(Wired):
    """A proxy with two upstreams, both in the test's hand."""

    def __init__(self) -> None:
        super().__init__()
        self.second = ScriptedUpstream()
        self.closed_port = 0

    @property
    def names(self) -> tuple[str, str]:
        return f"127.0.0.1:{self.upstream.port}", f"127.0.0.1:{self.second.port}"

    def at(self, port: int, audience: str = AUDIENCE, scheme: Any = "http") -> Destination:
        return Destination(upstream=Upstream(scheme, "127.0.0.1", port), audience=audience)

    async def serve_both(self, **changes: Any) -> None:
        both = (self.at(self.upstream.port), self.at(self.second.port))
        await self.serve(**{"destinations": both, **changes})

    def standings(self) -> list[Standing]:
        return [each.availability.standing for each in self.builder.routes["default"].destinations]

    async def lose(self, caller: RawCaller) -> None:
        """Take the first one away, and have the proxy notice."""
        await self.upstream.stop()
        for _ in range(3):
            assert (await caller.ask(GET)).status == 200
        assert self.standings() == [Standing.SET_ASIDE, Standing.AVAILABLE]

    async def restore(self) -> None:
        await self.upstream.start(port=self.upstream.port)

    async def _stop(self) -> None:
        await super()._stop()
        await self.second.stop()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with Pair() as world:
        await world.second.start()
        await world.serve_both()
        yield world


def by(answer: Message) -> str:
    return answer.value("x-auth-proxy-destination")


# --- moving on where nothing was sent


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_a_refused_dial_moves_on_at_once_whatever_the_method(
    pair: Pair, request_: bytes
) -> None:
    pair.second.automatic = OK
    await pair.upstream.stop()
    caller = await pair.caller()

    answer = await caller.ask(request_)
    assert (answer.status, by(answer)) == (200, pair.names[1])
    (got,) = pair.second.requests
    assert got.raw.partition(b"\r\n\r\n")[2] == request_.partition(b"\r\n\r\n")[2]
    assert got.value("host") == pair.names[1]
    # Once: there is somewhere to go, so nothing is dialled again in vain.
    assert pair.route_stats.all_dials() == {"upstream_connect_failed": 1, "ok": 1}
    assert pair.route_stats.failovers == {"connect_failed": 1}
    assert pair.route_stats.retries == {}


async def test_a_dial_that_hangs_in_tls_costs_connect_once_and_moves_on(pair: Pair) -> None:
    """The first one accepts, and says nothing."""
    pair.second.automatic = OK
    await pair.serve_both(
        destinations=(pair.at(pair.upstream.port, scheme="https"), pair.at(pair.second.port)),
        timeouts=Timeouts(connect=0.2),
    )
    caller = await pair.caller()

    answer = await caller.ask(POST)
    assert (answer.status, by(answer)) == (200, pair.names[1])
    assert pair.route_stats.all_dials() == {"upstream_connect_timed_out": 1, "ok": 1}


async def test_tls_that_fails_moves_on(pair: Pair) -> None:
    pair.second.automatic = OK
    pair.upstream.automatic = b"HTTP/1.1 400 Bad\r\n\r\n"
    await pair.serve_both(
        destinations=(pair.at(pair.upstream.port, scheme="https"), pair.at(pair.second.port))
    )
    caller = await pair.caller()
    caller.send(POST)
    (await pair.upstream.accept()).send(b"HTTP/1.1 400 Bad\r\n\r\n")

    assert by(await caller.answer()) == pair.names[1]
    assert pair.route_stats.failovers == {"tls_failed": 1}


async def test_a_token_that_cannot_be_had_moves_on(pair: Pair) -> None:
    """The source refuses the first audience; nothing reaches the first destination."""
    pair.second.automatic = OK
    source, other = pair.tokens.add("https://first.example"), pair.tokens.add(OTHER)
    source.answers = [TokenSourceError("no such audience")]
    first = pair.at(pair.upstream.port, "https://first.example")
    second = pair.at(pair.second.port, OTHER)
    await pair.serve_both(destinations=(first, second), auth=Auth.ID_TOKEN)
    caller = await pair.caller()

    answer = await caller.ask(POST)
    assert (answer.status, by(answer)) == (200, pair.names[1])
    assert pair.second.requests[0].value("x-serverless-authorization") == (
        f"Bearer {other.answers[0]}"
    )
    assert pair.upstream.connections == []
    assert pair.route_stats.failovers == {"token_unavailable": 1}
    destinations = pair.builder.routes["default"].destinations
    for each, outcome in zip(destinations, ("failed", "fetched"), strict=True):
        assert each.token_cache is not None
        assert each.token_cache.stats == {(("default", each.name), outcome): 1}


async def test_without_a_token_for_any_nothing_is_sent(pair: Pair) -> None:
    pair.source.answers = [TokenSourceError("none today")]
    await pair.serve_both(auth=Auth.ID_TOKEN)
    caller = await pair.caller()

    answer = await caller.ask(GET)
    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "token_unavailable")
    assert (pair.upstream.connections, pair.second.connections) == ([], [])


async def test_an_error_says_which_one_was_tried_last(pair: Pair) -> None:
    await pair.upstream.stop()
    await pair.second.stop()
    caller = await pair.caller()

    answer = await caller.ask(GET)
    assert (answer.status, by(answer)) == (502, pair.names[1])
    # The last one is dialled again, as the only one of another route would be.
    assert pair.route_stats.all_dials() == {"upstream_connect_failed": 3}


async def test_a_large_upload_whose_first_destination_refuses_arrives_whole(pair: Pair) -> None:
    await pair.upstream.stop()
    size = 40 << 20
    caller = await pair.caller()
    caller.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    piece = bytes(range(256)) * 4096
    for _ in range(size // len(piece)):
        caller.send(piece)

    upstream = await pair.second.accept()
    await upstream.head()
    for _ in range(size // len(piece)):
        assert await upstream.take_size(len(piece)) == piece
    upstream.send(OK)
    assert by(await caller.answer()) == pair.names[1]


# --- what was sent


async def test_a_post_that_was_sent_is_not_sent_elsewhere(pair: Pair) -> None:
    await pair.serve_both(retries=Retries(attempts=3, backoff=0.0))
    caller = await pair.caller()
    caller.send(POST)
    upstream = await pair.upstream.accept()
    await upstream.request()
    upstream.reset()

    answer = await caller.answer()
    assert (answer.value("x-auth-proxy-error"), by(answer)) == ("upstream_reset", pair.names[0])
    assert pair.second.connections == []


async def test_a_get_that_was_sent_is_repeated_elsewhere_only_as_retries_allow(pair: Pair) -> None:
    caller = await pair.caller()
    for attempts, status, name in (1, 502, pair.names[0]), (2, 200, pair.names[1]):
        await pair.serve_both(retries=Retries(attempts=attempts, backoff=0.0))
        caller.send(GET)
        upstream = await pair.upstream.accept()
        await upstream.request()
        upstream.reset()
        if attempts > 1:
            await (await pair.second.accept()).serve(OK)
        answer = await caller.answer()
        assert (answer.status, by(answer)) == (status, name)
    assert pair.route_stats.failovers == {"reset": 1}


async def test_an_answer_that_the_policy_repeats_is_asked_for_elsewhere(pair: Pair) -> None:
    pair.upstream.automatic = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    pair.second.automatic = OK
    await pair.serve_both(retries=Retries(attempts=2, backoff=0.0))
    caller = await pair.caller()

    assert by(await caller.ask(GET)) == pair.names[1]
    assert pair.standings() == [Standing.AVAILABLE] * 2


async def test_a_body_beyond_what_was_kept_does_not_move(pair: Pair) -> None:
    policy = Retries(attempts=2, backoff=0.0, max_body=4)
    await pair.serve_both(retries=policy)
    caller = await pair.caller()
    caller.send(POST.replace(b"POST", b"PUT"))
    upstream = await pair.upstream.accept()
    await upstream.request()
    upstream.reset()

    assert (await caller.answer()).status == 502
    assert pair.second.connections == []


async def test_a_connection_that_had_died_is_replaced_at_the_same_destination(pair: Pair) -> None:
    pair.second.automatic = OK
    caller = await pair.caller()
    caller.send(GET)
    upstream = await pair.upstream.accept()
    await upstream.serve(OK)
    await caller.answer()
    caller.send(GET)
    await upstream.request()
    upstream.reset()

    await (await pair.upstream.accept()).serve(OK)
    assert by(await caller.answer()) == pair.names[0]
    assert pair.second.connections == []


# --- set aside, on trial, back


async def test_three_failures_set_it_aside_and_one_exchange_brings_it_back(pair: Pair) -> None:
    pair.upstream.automatic = pair.second.automatic = OK
    caller = await pair.caller()
    await pair.lose(caller)
    dials = pair.route_stats.all_dials()
    await pair.restore()

    assert by(await caller.ask(GET)) == pair.names[1]
    assert pair.route_stats.all_dials() == dials
    pair.pass_time(OVER)
    assert by(await caller.ask(GET)) == pair.names[0]
    assert pair.standings() == [Standing.AVAILABLE] * 2


async def test_one_exchange_alone_is_on_trial(pair: Pair) -> None:
    pair.second.automatic = OK
    caller, other = await pair.caller(), await pair.caller()
    await pair.lose(caller)
    await pair.restore()
    pair.pass_time(OVER)

    caller.send(GET)
    upstream = await pair.upstream.accept()
    await upstream.request()
    assert by(await other.ask(GET)) == pair.names[1]
    upstream.send(OK)
    assert by(await caller.answer()) == pair.names[0]


async def test_a_trial_whose_caller_goes_away_is_the_next_exchanges(pair: Pair) -> None:
    pair.second.automatic = OK
    caller, other = await pair.caller(), await pair.caller()
    await pair.lose(caller)
    await pair.restore()
    pair.pass_time(OVER)
    caller.send(GET)
    upstream = await pair.upstream.accept()
    await upstream.request()
    caller.close()
    await upstream.take_all()

    other.send(GET)
    await (await pair.upstream.accept()).serve(OK)
    assert by(await other.answer()) == pair.names[0]


async def test_one_that_flaps_is_given_longer_and_longer(pair: Pair) -> None:
    pair.second.automatic = OK
    caller = await pair.caller()
    await pair.lose(caller)
    tried = []
    for _ in range(12):
        pair.pass_time(1.0)
        before = pair.route_stats.all_dials()["upstream_connect_failed"]
        assert by(await caller.ask(GET)) == pair.names[1]
        tried.append(pair.route_stats.all_dials()["upstream_connect_failed"] - before)
    # The pauses are 1, 2, 4, 8 s.
    assert [second for second, dials in enumerate(tried, 1) if dials] == [1, 3, 7]


async def test_a_response_that_does_not_come_in_time_counts(pair: Pair) -> None:
    await pair.serve_both(timeouts=Timeouts(response=30))
    caller = await pair.caller()
    for _ in range(3):
        caller.send(GET)
        await (await pair.upstream.accept()).request()
        pair.pass_time(30)
        answer = await caller.answer()
        assert (answer.value("x-auth-proxy-error"), by(answer)) == (
            "upstream_timed_out",
            pair.names[0],
        )
    assert pair.standings() == [Standing.SET_ASIDE, Standing.AVAILABLE]


async def test_an_upload_that_its_caller_leaves_unfinished_counts_for_nothing(pair: Pair) -> None:
    await pair.serve_both(timeouts=Timeouts(idle=30))
    for _ in range(4):
        caller = await pair.caller()
        caller.send(POST[:-1])
        await (await pair.upstream.accept()).head()
        pair.pass_time(30)
        assert (await caller.answer()).status == 504
    assert pair.standings() == [Standing.AVAILABLE] * 2


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_the_applications_answers_are_successes(pair: Pair, status: int) -> None:
    pair.upstream.automatic = (
        b"HTTP/1.1 %d No\r\nServer: Google Frontend\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}" % status
    )
    caller = await pair.caller()
    for _ in range(4):
        answer = await caller.ask(GET)
        assert (answer.status, by(answer)) == (status, pair.names[0])
    assert pair.standings() == [Standing.AVAILABLE] * 2


@pytest.mark.parametrize("page", PLATFORM, ids=str)
async def test_outages_that_the_front_end_tells_of_set_a_destination_aside(
    pair: Pair, page: PlatformAnswer
) -> None:
    pair.upstream.automatic = page.wire
    pair.second.automatic = OK
    caller = await pair.caller()
    for _ in range(3):
        answer = await caller.ask(GET)
        assert (answer.status, by(answer), answer.body) == (
            page.status,
            pair.names[0],
            page.body,
        )

    counts = page.status in (502, 503, 504)
    assert pair.standings()[0] is (Standing.SET_ASIDE if counts else Standing.AVAILABLE)
    assert by(await caller.ask(GET)) == pair.names[1 if counts else 0]


async def test_an_outage_counts_where_the_policy_repeats_it_too(pair: Pair) -> None:
    page = next(each for each in PLATFORM if each.name == "instance failed")
    pair.upstream.automatic = page.wire
    pair.second.automatic = OK
    await pair.serve_both(retries=Retries(attempts=2, backoff=0.0))
    caller = await pair.caller()
    for _ in range(3):
        assert by(await caller.ask(GET)) == pair.names[1]

    assert pair.standings()[0] is Standing.SET_ASIDE
    assert pair.route_stats.failovers == {"503": 3}


async def test_an_explanation_says_which_destination_it_is_about(pair: Pair) -> None:
    page = next(each for each in PLATFORM if each.status == 403)
    pair.upstream.automatic = page.wire
    caller = await pair.caller()

    answer = await caller.ask(GET.replace(b"GET /", b"GET /trpc/a"))
    assert answer.value("x-auth-proxy-platform-error") == "403"
    assert by(answer) == pair.names[0]


async def test_nothing_is_refused_because_all_are_set_aside(pair: Pair) -> None:
    caller = await pair.caller()
    await pair.upstream.stop()
    await pair.second.stop()
    for _ in range(4):
        assert (await caller.ask(GET)).status == 502
    assert pair.standings() == [Standing.SET_ASIDE] * 2

    await pair.restore()
    pair.upstream.automatic = OK
    answer = await caller.ask(GET)
    assert (answer.status, by(answer)) == (200, pair.names[0])


async def test_a_limit_of_one_destination_is_no_failure_of_its_own(pair: Pair) -> None:
    """It is shed, as where there is one destination: the other is no second pool."""
    await pair.serve_both(limits=Limits(connections=1), timeouts=Timeouts(connect=0.05))
    busy, other = await pair.caller(), await pair.caller()
    busy.send(GET)
    upstream = await pair.upstream.accept()
    await upstream.request()
    for _ in range(4):
        answer = await other.ask(GET)
        assert answer.value("x-auth-proxy-error") == "overloaded"
    assert pair.standings() == [Standing.AVAILABLE] * 2
    upstream.send(OK)
    await busy.answer()


# --- reloads, tunnels, the field


async def test_a_reload_keeps_what_is_set_aside(pair: Pair) -> None:
    pair.second.automatic = OK
    caller = await pair.caller()
    await pair.lose(caller)
    await pair.serve_both(strip_path=True)

    assert pair.standings() == [Standing.SET_ASIDE, Standing.AVAILABLE]
    (lost, kept) = pair.builder.routes["default"].destinations
    third = ScriptedUpstream(OK)
    await third.start()
    await pair.serve_both(destinations=(pair.at(third.port), pair.at(pair.upstream.port)))
    assert pair.standings() == [Standing.AVAILABLE, Standing.SET_ASIDE]
    assert pair.builder.routes["default"].destinations[1].availability is lost.availability
    assert kept.availability.standing is Standing.AVAILABLE
    assert by(await caller.ask(GET)) == f"127.0.0.1:{third.port}"
    await third.stop()


async def test_an_upgrade_goes_to_the_second(pair: Pair) -> None:
    await pair.upstream.stop()
    caller = await pair.caller()
    caller.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )
    upstream = await pair.second.accept()
    await upstream.head()
    upstream.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    await caller.until(lambda: b"\r\n\r\n" in caller.received, "the 101")
    assert f"x-auth-proxy-destination: {pair.names[1]}".encode() in caller.received
    caller.received.clear()
    caller.send(b"there")
    await upstream.take(b"there")
    upstream.send(b"back")
    await caller.take(b"back")
    upstream.close()
    await caller.take_all()


async def test_a_route_with_one_destination_says_nothing_of_it(pair: Pair) -> None:
    pair.upstream.automatic = OK
    await pair.serve()
    caller = await pair.caller()
    await caller.ask(GET)
    caller.send(GET)
    await caller.take(OK)


async def test_the_upstreams_own_word_on_it_is_not_passed_on(pair: Pair) -> None:
    lie = b"\r\nX-Auth-Proxy-Destination: elsewhere\r\n\r\n"
    pair.upstream.automatic = OK.replace(b"\r\n\r\n", lie)
    caller = await pair.caller()
    assert by(await caller.ask(GET)) == pair.names[0]


async def test_two_at_one_host_are_told_apart(pair: Pair) -> None:
    pair.upstream.automatic = OK
    first = pair.at(pair.upstream.port)
    assert first.upstream is not None
    based = dataclasses.replace(first, upstream=dataclasses.replace(first.upstream, base="/b"))
    await pair.serve_both(destinations=(based, first))
    caller = await pair.caller()
    assert by(await caller.ask(GET)) == f"http://{pair.names[0]}/b"


async def test_exchanges_at_once_lose_nothing_when_the_first_one_goes(pair: Pair) -> None:
    pair.second.automatic = OK
    callers = [await pair.caller() for _ in range(40)]
    await pair.upstream.stop()
    answers = await asyncio.gather(*[caller.ask(POST) for caller in callers])

    assert {answer.status for answer in answers} == {200}
    assert len(pair.second.requests) == len(callers)


# --- numbers


async def test_each_destination_is_counted_by_itself(pair: Pair) -> None:
    pair.second.automatic = OK
    caller = await pair.caller()
    await pair.lose(caller)

    first, second = (pair.route_stats.destinations[name] for name in pair.names)
    assert (first.available(), second.available()) == (0, 1)
    assert (first.dials, second.dials) == ({"upstream_connect_failed": 3}, {"ok": 1})
    assert (first.connections().idle, second.connections().idle) == (0, 1)
    assert pair.route_stats.connections().idle == 1
    assert pair.route_stats.dials == {}


async def test_numbers_follow_a_route_that_gets_a_second_destination_and_loses_it(
    pair: Pair,
) -> None:
    pair.upstream.automatic = OK
    caller = await pair.caller()
    await pair.serve()
    await caller.ask(GET)
    assert (pair.route_stats.dials, pair.route_stats.destinations) == ({"ok": 1}, {})

    await pair.serve_both()
    await caller.ask(GET)  # By the connection that was kept.
    await pair.serve_both(strip_path=True)
    first = pair.route_stats.destinations[pair.names[0]]
    assert (first.dials, first.connections().idle) == ({}, 1)
    pair.upstream.connections[0].close()
    await pair.upstream.connections[0].take_all()
    await pair.until(lambda: not first.connections().idle, "the end of the connection")
    await caller.ask(GET)
    assert (first.dials, pair.route_stats.dials) == ({"ok": 1}, {"ok": 1})

    await pair.serve()
    assert pair.route_stats.destinations == {}
    assert pair.connections.idle == 1


async def test_a_page_is_explained_for_the_destination_that_it_came_from(pair: Pair) -> None:
    pair.tokens.add("https://first.example")
    pair.tokens.add(OTHER)
    await pair.upstream.stop()
    pair.second.automatic = next(each for each in PLATFORM if each.status == 403).wire
    await pair.serve_both(
        destinations=(
            pair.at(pair.upstream.port, "https://first.example"),
            pair.at(pair.second.port, OTHER),
        ),
        auth=Auth.ID_TOKEN,
        platform_errors=PlatformErrors.EXPLAIN,
    )
    caller = await pair.caller()

    answer = await caller.ask(GET)
    assert (answer.status, by(answer)) == (403, pair.names[1])
    assert OTHER in answer.body.decode()
    assert "first.example" not in answer.body.decode()


async def test_an_applications_answer_that_the_policy_repeats_ends_a_row_of_failures(
    pair: Pair,
) -> None:
    """It is alive, whatever it says."""
    pair.second.automatic = OK
    caller = await pair.caller()
    upstream = pair.builder.routes["default"].destinations[0]
    for _ in range(2):
        upstream.availability.failed(0, new_event())
    pair.upstream.automatic = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    await pair.serve_both(retries=Retries(attempts=2, backoff=0.0))
    assert by(await caller.ask(GET)) == pair.names[1]
    upstream.availability.failed(0, new_event())
    assert pair.standings() == [Standing.AVAILABLE] * 2
