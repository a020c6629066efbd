"""Sums over several processes, and the way there."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, fields, replace
from enum import Enum

import pytest

from proxy.ops.metrics import render
from proxy.ops.numbers import (
    Numbers,
    TokenMetrics,
    TokenView,
    add_up,
    counted,
    dump,
    load,
    token_view,
)
from proxy.plane.stats import Connections, DestinationStats, Histogram, RouteStats, Stats
from tests.unit.ops.builders import RELOAD, RESET, busy_numbers


def test_two_processes_count_twice_as_much() -> None:
    total = add_up([busy_numbers((1,)), busy_numbers((2,))])
    orders = total.stats.route("orders")

    assert orders.requests["h1", 200] == 180
    assert orders.errors["upstream_reset"] == 10
    assert orders.retries["reset"] == 4
    assert orders.dials["ok"] == 8
    assert (orders.in_flight, orders.request_bytes, orders.response_bytes) == (6, 2000, 4000)
    assert orders.connections() == Connections(idle=2, busy=4, dialling=6, waiting=8)
    assert orders.duration.count == 8
    assert orders.duration.sum == pytest.approx(8000.043)
    assert orders.upstream_head.count == 2
    assert total.fetches.fetches["orders", "failed"] == 2
    assert total.fetches.seconds.count == 4
    assert total.pids == (1, 2)


def test_adding_up_changes_no_part() -> None:
    part = busy_numbers()
    add_up([part, part])

    assert part.stats.route("orders").requests["h1", 200] == 90
    assert part.stats.route("orders").duration.count == 4


def test_nothing_adds_up_to_nothing() -> None:
    assert add_up([]).stats.routes == {}


def test_failures_are_in_order_of_time_and_bounded() -> None:
    early, late = Stats(), Stats()
    late.failures.extend(replace(RESET, at=100.0 + number) for number in range(40))
    early.failures.extend(replace(RESET, at=float(number)) for number in range(40))

    failures = add_up([Numbers(stats=late), Numbers(stats=early)]).stats.failures

    assert [failure.at for failure in failures] == [
        *(float(number) for number in range(30, 40)),
        *(100.0 + number for number in range(40)),
    ]


GOOD = TokenView(state="good", expires_at=2000.0, account="a@x")
SOON = TokenView(state="refreshing", expires_at=1000.0, account="a@x")
FAILED = TokenView(state="backing_off", error="no answer", hint="Ask it.", failed_at=500.0)
UNASKED = TokenView(state="none")


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        ([GOOD], GOOD),
        ([GOOD, SOON], SOON),
        ([SOON, GOOD], SOON),
        ([UNASKED, GOOD], GOOD),
        ([UNASKED, UNASKED], UNASKED),
        ([FAILED, UNASKED], FAILED),
        (
            [GOOD, FAILED],
            replace(GOOD, error=FAILED.error, hint=FAILED.hint, failed_at=FAILED.failed_at),
        ),
    ],
)
def test_of_tokens_the_first_to_expire_is_shown_with_the_last_error(
    tokens: list[TokenView], shown: TokenView
) -> None:
    parts = [Numbers(stats=Stats(), tokens={"orders": token}) for token in tokens]

    assert add_up(parts).tokens == {"orders": shown}


def test_fetches_are_counted_by_route_and_outcome() -> None:
    metrics = TokenMetrics()
    metrics.on_fetch("orders", "fetched", 0.1)
    metrics.on_fetch("orders", "fetched", 0.3)
    metrics.on_fetch("billing", "failed", 5.0)

    assert metrics.fetches == {("orders", "fetched"): 2, ("billing", "failed"): 1}
    assert (metrics.seconds.count, metrics.seconds.sum) == (3, 5.4)


class _State(Enum):
    GOOD = "good"


@dataclass
class _Error:
    detail: str = "metadata server: no answer"
    hint: str | None = None
    at: float = 500.0


class _Source:
    def describe(self) -> str:
        return "the metadata server"


@dataclass
class _Cache:
    state: _State = _State.GOOD
    expires_at: float | None = 2000.0
    email: str | None = None
    last_error: _Error | None = None
    source: _Source = _Source()  # noqa: RUF009 (has no state)


def test_a_cache_shows_everything_but_its_token() -> None:
    cache = _Cache(email="a@x", last_error=_Error(hint="Ask it."))

    assert token_view(cache) == TokenView(
        state="good",
        expires_at=2000.0,
        account="a@x",
        source="the metadata server",
        error="metadata server: no answer",
        hint="Ask it.",
        failed_at=500.0,
    )


def test_a_cache_without_trouble_has_no_error() -> None:
    assert token_view(_Cache()) == TokenView(
        state="good", expires_at=2000.0, source="the metadata server"
    )
    assert token_view(_Cache(last_error=_Error())).hint == ""


def test_what_arrives_renders_as_what_was_sent() -> None:
    sent = busy_numbers()

    arrived = load(dump(sent))

    assert render(arrived, RELOAD) == render(sent, RELOAD)
    assert arrived.tokens == sent.tokens
    assert arrived.stats.failures == sent.stats.failures


def test_pids_and_the_bound_of_failures_survive() -> None:
    arrived = load(dump(busy_numbers((7, 8))))

    assert arrived.pids == (7, 8)
    assert arrived.stats.failures.maxlen == Stats().failures.maxlen


def test_it_is_one_line() -> None:
    assert len(dump(busy_numbers()).splitlines()) == 1


def test_nothing_survives_too() -> None:
    arrived = load(dump(Numbers(stats=Stats(), pids=())))

    assert (arrived.stats.routes, arrived.tokens, arrived.pids) == ({}, {}, ())


def lost_destination() -> DestinationStats:
    """Return a destination's numbers, every field of which says something."""
    made = DestinationStats("a.run.app")
    made.processes = 2
    made.available = lambda: 1
    made.dials["ok"] = 3
    made.connections = lambda: Connections(1, 2, 3, 4)
    return made


def test_a_destinations_numbers_are_added_up_and_sent() -> None:
    stats = Stats()
    stats.route("orders").destinations["a.run.app"] = lost_destination()
    view = TokenView(state="good", expires_at=5.0)
    numbers = Numbers(stats=stats, destination_tokens={"orders": {"a.run.app": view}}, pids=())

    both = add_up([numbers, load(dump(numbers))])
    found = both.stats.routes["orders"].destinations["a.run.app"]
    assert (found.processes, found.available(), found.dials) == (4, 2, {"ok": 6})
    assert found.connections() == Connections(2, 4, 6, 8)
    assert both.destination_tokens == {"orders": {"a.run.app": view}}
    # The parts are as they were.
    assert stats.routes["orders"].destinations["a.run.app"].processes == 2


def observe(owner: RouteStats | TokenMetrics, name: str) -> None:
    """Count something in the field `name`, whatever is counted there."""
    match getattr(owner, name):
        case Counter() as counter:
            # By the labels that it has: a pair of them, or one.
            pairs = {"requests": ("h1", 200), "fetches": ("orders", "fetched")}
            counter[pairs.get(name, "reset")] += 3
        case Histogram() as histogram:
            histogram.observe(0.25)
        case int():
            setattr(owner, name, 7)
        case dict() as destinations:
            destinations["a.run.app"] = lost_destination()
        case _:
            setattr(owner, name, lambda: Connections(1, 2, 3, 4))


def one_field(name: str) -> Numbers:
    """Return numbers in which something is counted in one field."""
    stats, fetches = Stats(), TokenMetrics()
    route = stats.route("orders")
    observe(route if name in set(counted(route)) else fetches, name)
    return Numbers(stats=stats, fetches=fetches, pids=())


FIELDS = [*counted(RouteStats("")), *counted(TokenMetrics())]


@pytest.mark.parametrize("name", FIELDS)
def test_whatever_is_counted_is_a_metric_added_up_and_sent_because_it_is_a_field(name: str) -> None:
    quiet = Stats()
    quiet.route("orders")
    once = one_field(name)

    assert render(once, RELOAD) != render(Numbers(stats=quiet, pids=()), RELOAD)
    assert render(load(dump(once)), RELOAD) == render(once, RELOAD)
    assert render(add_up([once]), RELOAD) == render(once, RELOAD)
    assert render(add_up([once, once]), RELOAD) != render(once, RELOAD)


def test_every_part_of_the_numbers_is_sent() -> None:
    sent = json.loads(dump(busy_numbers()))

    assert set(sent) == {field.name for field in fields(Numbers)}
    assert set(sent["stats"]) == set(vars(Stats()))
