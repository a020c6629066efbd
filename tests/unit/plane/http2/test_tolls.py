"""What a peer may cost: so much is free, the next is too much, and who is served earns it back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.plane.http2.standard import Code, ConnectionFault
from proxy.plane.http2.tolls import (
    AT_ONCE,
    FAULT,
    LENIENCY,
    REFUSED_HEAD,
    REFUSED_STREAM,
    TALK,
    Allowance,
    Tolls,
    reset_allowance,
    work_allowance,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def alone(clock: Clock, leniency: float = 1.0) -> Tolls:
    return Tolls(work_allowance(clock, alone=True), leniency=leniency)


def refuses(charge: Callable[[], None]) -> None:
    with pytest.raises(ConnectionFault) as caught:
        charge()
    assert caught.value.code == Code.ENHANCE_YOUR_CALM


def spend(tolls: Tolls, price: float, most: int) -> int:
    """Return how many times a price can be paid, up to `most`."""
    for number in range(most):
        try:
            tolls.charge(price)
        except ConnectionFault:
            return number
    return most


@pytest.mark.parametrize(
    ("price", "at_once", "per_second"),
    [(TALK, 1000, 100), (REFUSED_STREAM, 1000, 100), (REFUSED_HEAD, 200, 20), (FAULT, 100, 10)],
)  # fmt: skip
def test_so_many_are_free_and_so_many_a_second(price: float, at_once: int, per_second: int) -> None:
    clock = Clock()
    tolls = alone(clock)

    assert spend(tolls, price, 2000) == at_once
    refuses(lambda: tolls.charge(price))
    clock.now = 1.0
    assert spend(tolls, price, 2000) == per_second


def test_a_frame_of_ours_earns_a_ping_however_many_they_are() -> None:
    tolls = alone(Clock())

    for _ in range(100_000):
        tolls.sent += 1
        tolls.charge(TALK)


def test_what_was_earned_is_not_hoarded() -> None:
    tolls = alone(Clock())
    tolls.sent += 100_000

    assert spend(tolls, TALK, 2000) == 1000


def test_an_upstream_may_cost_ten_times_as_much() -> None:
    assert spend(alone(Clock(), leniency=LENIENCY), TALK, 20_000) == 10_000


def test_who_comes_again_finds_less() -> None:
    clock = Clock()
    shared = work_allowance(clock)

    paid = [spend(Tolls(shared), TALK, 2000) for _ in range(7)]

    assert paid == [1000, 1000, 1000, 1000, 40, 40, 40]
    clock.now = 5.0
    assert spend(Tolls(shared), TALK, 2000) == 1000


def test_who_pays_nothing_notices_nothing_of_others() -> None:
    clock = Clock()
    shared = work_allowance(clock)
    served = Tolls(shared)
    for _ in range(10):
        spend(Tolls(shared), TALK, 2000)

    for _ in range(10_000):
        served.sent += 1
        served.charge(TALK)
    assert spend(served, TALK, 2000) == 39


def test_what_was_paid_long_ago_does_not_count_when_others_err() -> None:
    clock = Clock()
    shared = work_allowance(clock)
    old = Tolls(shared)
    assert spend(old, TALK, 900) == 900
    clock.now = 100.0
    for _ in range(10):
        spend(Tolls(shared), TALK, 2000)

    assert spend(old, TALK, 2000) == 41


def test_what_frames_have_earned_pays_before_what_all_have_together() -> None:
    """A thousand calls that are answered and given up crosswise, again and again."""
    clock = Clock()
    shared = work_allowance(clock)
    tolls = Tolls(shared)

    for _ in range(20):
        tolls.sent += 2000
        assert spend(tolls, TALK, 1000) == 1000

    assert shared.together is not None
    assert shared.together.balance == 400_000


# --- exchanges that are given up


def give_up(tolls: Tolls, allowance: Allowance, most: int, count: float = 1.0) -> int:
    """Return how many exchanges can be given up unanswered, up to `most`."""
    for number in range(most):
        try:
            tolls.charge_reset(allowance, count)
        except ConnectionFault:
            return number
    return most


@pytest.mark.parametrize("limit", [1, 10, 2000, 100_000])
def test_as_many_are_given_up_as_the_limit_says_and_a_tenth_each_second(limit: int) -> None:
    clock = Clock()
    allowance = reset_allowance(limit, clock)
    tolls = alone(clock)

    assert give_up(tolls, allowance, 2 * limit) == limit
    refuses(lambda: tolls.charge_reset(allowance, 1.0))
    clock.now = 10.0
    assert give_up(tolls, allowance, 2 * limit) == limit
    clock.now = 11.0
    assert give_up(tolls, allowance, 2 * limit) == limit // 10


def test_one_that_is_given_up_as_it_begins_counts_for_eight() -> None:
    clock = Clock()

    assert give_up(alone(clock), reset_allowance(800, clock), 1000, AT_ONCE) == 100


def test_what_is_given_up_takes_nothing_from_what_may_be_said() -> None:
    clock = Clock()
    tolls = alone(clock)
    give_up(tolls, reset_allowance(10, clock), 20)

    assert spend(tolls, TALK, 2000) == 1000


def test_who_gives_up_as_much_as_it_lets_be_answered_pays_nothing() -> None:
    """Half of all calls hedged: each that is answered in a head and trailers pays for another."""
    clock = Clock()
    allowance = reset_allowance(5, clock)
    tolls = alone(clock)

    for _ in range(10_000):
        tolls.sent += 2
        tolls.charge_reset(allowance, 1.0)
    assert allowance.together is not None
    assert allowance.together.balance == 20


def test_who_comes_again_to_give_up_finds_less() -> None:
    clock = Clock()
    allowance = reset_allowance(1000, clock)

    assert [give_up(alone(clock), allowance, 2000) for _ in range(6)] == [1000] * 4 + [40] * 2


def test_another_limit_holds_at_once() -> None:
    clock = Clock()
    tolls = alone(clock)
    assert give_up(tolls, reset_allowance(5, clock), 10) == 5

    assert give_up(tolls, reset_allowance(7, clock), 10) == 7


@pytest.mark.parametrize(("streams", "frames"), [(0, 0), (3, 0), (0, 5), (2, 2)])
def test_window_updates_are_paid_for_by_streams_and_by_what_we_send(
    streams: int, frames: int
) -> None:
    tolls = alone(Clock())
    tolls.opened += streams
    tolls.sent += frames

    for _ in range(1000 + 16 * streams + 8 * frames):
        tolls.charge_update()
    refuses(tolls.charge_update)
