"""Which destination an exchange goes to, and what counts against one."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from proxy.config.model import IdentityHeader, Protocol, Upstream
from proxy.errors import (
    BodyTooLarge,
    DownstreamGone,
    Draining,
    HeadersTooLarge,
    InternalError,
    MethodNotAllowed,
    OriginForbidden,
    OutOfMemory,
    Overloaded,
    ProxyError,
    RequestMalformed,
    RouteNotFound,
    TokenTimedOut,
    TokenUnavailable,
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamLacksHttp2,
    UpstreamLoops,
    UpstreamMalformed,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimedOut,
    UpstreamTlsFailed,
    new_event,
)
from proxy.plane.availability import Availability, Standing
from proxy.plane.destination import Destination
from proxy.plane.destinations import Choice, Destinations, is_own_fault, moves_on
from proxy.plane.pools import Pools
from proxy.plane.stats import RouteStats


def refused() -> UpstreamConnectFailed:
    """A dial that failed, one more each time."""
    return UpstreamConnectFailed("refused")


class NoPools:
    """Stands for pools that are never asked."""

    def connectors(self, _: Protocol) -> dict[str, str]:
        return {}


class Route:
    """Destinations ``a``, ``b`` and so on, on a clock of the test's."""

    def __init__(self, names: str = "ab") -> None:
        self.now = 0.0
        self.asked = 0
        self.stats = RouteStats("orders")
        made = [self._destination(name) for name in names]
        self.destinations = Destinations("orders", made, self.stats, self._ask)
        self.all = {each.name: each for each in made}

    def _ask(self) -> None:
        self.asked += 1

    def _destination(self, name: str) -> Destination:
        return Destination(
            "orders",
            Upstream("https", name, 443),
            pools=cast("Pools", NoPools()),
            token_cache=None,
            header=IdentityHeader.SERVERLESS,
            protocol=Protocol.AUTO,
            availability=Availability(lambda: self.now, lambda: 0.5),
        )

    def exchange(self) -> Exchange:
        return Exchange(self)

    def lose(self, names: str) -> None:
        """Have these set aside, one after the other."""
        for name in names:
            for _ in range(3):
                availability = self.all[name].availability
                availability.failed(availability.era, new_event())
            self.now += 0.01

    def standing(self, name: str) -> Standing:
        return self.all[name].availability.standing


class Exchange:
    """What is sent."""

    def __init__(self, route: Route) -> None:
        self.destination = next(iter(route.all.values()))
        self.choice = Choice(route.destinations, self)

    @property
    def at(self) -> str:
        return self.destination.name


VERDICTS: list[tuple[type[ProxyError], bool, bool]] = [
    # failure, counts against it, moves on at once
    (UpstreamConnectFailed, True, True),
    (UpstreamConnectTimedOut, True, True),
    (UpstreamTlsFailed, True, True),
    (UpstreamReset, True, False),
    (UpstreamTimedOut, True, False),
    (TokenUnavailable, True, True),
    (TokenTimedOut, True, True),
    (UpstreamRefused, False, True),
    (UpstreamLacksHttp2, False, True),
    (UpstreamLoops, False, False),
    (UpstreamMalformed, False, False),
    (Overloaded, False, False),
    (DownstreamGone, False, False),
    (Draining, False, False),
    (InternalError, False, False),
    (OutOfMemory, False, False),
    (RequestMalformed, False, False),
    (OriginForbidden, False, False),
    (RouteNotFound, False, False),
    (MethodNotAllowed, False, False),
    (BodyTooLarge, False, False),
    (HeadersTooLarge, False, False),
]


def family(kind: type[ProxyError]) -> set[type[ProxyError]]:
    below = [each for each in kind.__subclasses__() if each.__module__ == kind.__module__]
    return set(below).union(*map(family, below))


def test_there_is_a_verdict_on_every_kind_of_failure() -> None:
    assert {kind for kind, _, _ in VERDICTS} == family(ProxyError)


@pytest.mark.parametrize(("kind", "counts", "moves"), VERDICTS)
def test_what_counts_and_what_moves(kind: type[ProxyError], counts: bool, moves: bool) -> None:  # noqa: FBT001 (columns of the table)
    assert is_own_fault(kind("x")) is counts
    assert moves_on(kind("x")) is moves


def test_the_first_one_is_preferred() -> None:
    assert [Route().exchange().at for _ in range(3)] == ["a"] * 3


def test_the_next_one_takes_over_while_the_first_is_set_aside() -> None:
    route = Route("abc")
    route.lose("a")
    assert [route.exchange().at for _ in range(3)] == ["b"] * 3


def test_one_exchange_tries_the_first_again_and_its_answer_brings_it_back() -> None:
    route = Route()
    route.lose("a")
    route.now += 2
    trial = route.exchange()
    assert [trial.at, route.exchange().at] == ["a", "b"]
    trial.choice.answered()
    assert route.exchange().at == "a"


def test_where_all_are_set_aside_the_one_whose_turn_is_next_is_tried() -> None:
    route = Route("abc")
    route.lose("bca")
    assert [route.exchange().at for _ in range(5)] == ["b", "c", "a", "b", "b"]


def test_an_exchange_moves_on_once_for_each() -> None:
    route = Route("abc")
    exchange = route.exchange()
    went = [exchange.at]
    while exchange.choice.moves_on(refused()):
        went.append(exchange.at)
    assert went == ["a", "b", "c"]
    assert exchange.choice.is_last
    assert route.stats.failovers == {"connect_failed": 2}


def test_it_goes_to_one_that_is_set_aside_before_it_gives_up() -> None:
    route = Route("ab")
    route.lose("b")
    exchange = route.exchange()
    assert exchange.choice.moves_on(refused())
    assert exchange.at == "b"
    exchange.choice.answered()
    assert route.standing("b") is Standing.AVAILABLE


def test_what_was_sent_stays_where_it_is() -> None:
    route = Route()
    exchange = route.exchange()
    assert not exchange.choice.moves_on(UpstreamReset("x"))
    assert exchange.at == "a"


def test_a_repeat_goes_to_the_next_and_after_the_last_begins_again() -> None:
    route = Route()
    exchange = route.exchange()
    went = [exchange.at]
    for _ in range(3):
        exchange.choice.next("503")
        went.append(exchange.at)
    assert went == ["a", "b", "a", "b"]
    assert route.stats.failovers == {"503": 3}


def test_a_repeat_where_one_alone_is_resolved_stays_there() -> None:
    route = Route("a")
    exchange = route.exchange()
    exchange.choice.next("503")
    assert exchange.at == "a"
    assert route.stats.failovers == {}


def test_each_exchange_asks_for_what_is_not_resolved() -> None:
    route = Route()
    route.exchange()
    route.exchange()
    assert route.asked == 2


@pytest.mark.parametrize(
    "ended",
    [
        lambda choice: choice.ended(),
        lambda choice: choice.failed(Overloaded("x")),
        lambda choice: choice.failed(UpstreamMalformed("x")),
    ],
    ids=["gone", "overloaded", "malformed"],
)
def test_a_trial_that_ends_without_a_verdict_is_the_next_exchanges(ended: object) -> None:
    route = Route()
    route.lose("a")
    route.now += 2
    trial = route.exchange()
    assert callable(ended)
    ended(trial.choice)
    trial.choice.ended()
    assert route.exchange().at == "a"


def test_a_trial_that_moves_on_is_over() -> None:
    route = Route()
    route.lose("a")
    route.now += 2
    trial = route.exchange()
    assert trial.choice.moves_on(UpstreamRefused("x"))
    assert (trial.at, route.exchange().at) == ("b", "a")


def test_a_verdict_counts_once() -> None:
    route = Route()
    for _ in range(2):
        exchange = route.exchange()
        exchange.choice.failed(refused())
        exchange.choice.failed(refused())
        exchange.choice.ended()
    assert route.standing("a") is Standing.AVAILABLE
    route.exchange().choice.failed(refused())
    assert route.standing("a") is Standing.SET_ASIDE


def test_a_page_of_the_platform_counts_and_an_answer_does_not() -> None:
    route = Route()
    for _ in range(5):
        route.exchange().choice.answered()
    assert route.standing("a") is Standing.AVAILABLE
    for _ in range(3):
        route.exchange().choice.answered(by_platform=True)
    assert route.standing("a") is Standing.SET_ASIDE


def test_what_is_set_aside_and_what_is_back_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "proxy.plane")
    route = Route()
    for _ in range(5):
        route.exchange().choice.failed(refused())
    for _ in range(3):  # Trials in vain.
        route.now += 100
        route.exchange().choice.failed(refused())
    route.now += 100
    route.exchange().choice.answered()
    route.exchange().choice.answered()

    assert [record.getMessage() for record in caplog.records] == [
        "a is set aside: refused",
        "a is available again",
    ]
    assert {record.route for record in caplog.records} == {"orders"}  # type: ignore[attr-defined]  # as `extra` has it
