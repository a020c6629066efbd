"""What a peer may cost: so much is free, the next is too much, and who is served earns it back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.plane.http2.standard import Code, ConnectionFault
from proxy.plane.http2.tolls import (
    FAULT,
    GIVEN_UP,
    GIVEN_UP_AT_ONCE,
    LENIENCY,
    REFUSED_HEAD,
    REFUSED_STREAM,
    TALK,
    Tolls,
    shared_by_all,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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
    [(TALK, 1000, 100), (GIVEN_UP, 1250, 125), (REFUSED_STREAM, 1000, 100),
     (GIVEN_UP_AT_ONCE, 250, 25), (REFUSED_HEAD, 200, 20), (FAULT, 100, 10)],
)  # fmt: skip
def test_so_many_are_free_and_so_many_a_second(price: float, at_once: int, per_second: int) -> None:
    clock = Clock()
    tolls = Tolls(clock)

    assert spend(tolls, price, 2000) == at_once
    refuses(lambda: tolls.charge(price))
    clock.now = 1.0
    assert spend(tolls, price, 2000) == per_second


def test_a_frame_of_ours_earns_a_ping_however_many_they_are() -> None:
    tolls = Tolls(Clock())

    for _ in range(100_000):
        tolls.sent += 1
        tolls.charge(TALK)


def test_what_was_earned_is_not_hoarded() -> None:
    tolls = Tolls(Clock())
    tolls.sent += 100_000

    assert spend(tolls, TALK, 2000) == 1000


def test_who_gives_up_as_much_as_it_lets_be_answered_pays_nothing() -> None:
    """Half of all calls hedged: each that is answered in a head and trailers pays for another."""
    tolls = Tolls(Clock())

    for _ in range(10_000):
        tolls.sent += 2
        tolls.charge(GIVEN_UP)


def test_an_upstream_may_cost_ten_times_as_much() -> None:
    assert spend(Tolls(Clock(), leniency=LENIENCY), TALK, 20_000) == 10_000


def test_who_comes_again_finds_less() -> None:
    clock = Clock()
    shared = shared_by_all(clock)

    paid = [spend(Tolls(clock, shared), TALK, 2000) for _ in range(7)]

    assert paid == [1000, 1000, 1000, 1000, 40, 40, 40]
    clock.now = 5.0
    assert spend(Tolls(clock, shared), TALK, 2000) == 1000


def test_who_pays_nothing_notices_nothing_of_others() -> None:
    clock = Clock()
    shared = shared_by_all(clock)
    served = Tolls(clock, shared)
    for _ in range(10):
        spend(Tolls(clock, shared), TALK, 2000)

    for _ in range(10_000):
        served.sent += 1
        served.charge(TALK)
    assert spend(served, TALK, 2000) == 39


def test_what_was_paid_long_ago_does_not_count_when_others_err() -> None:
    clock = Clock()
    shared = shared_by_all(clock)
    old = Tolls(clock, shared)
    assert spend(old, TALK, 900) == 900
    clock.now = 100.0
    for _ in range(10):
        spend(Tolls(clock, shared), TALK, 2000)

    assert spend(old, TALK, 2000) == 41


@pytest.mark.parametrize(("streams", "frames"), [(0, 0), (3, 0), (0, 5), (2, 2)])
def test_window_updates_are_paid_for_by_streams_and_by_what_we_send(
    streams: int, frames: int
) -> None:
    tolls = Tolls(Clock())
    tolls.opened += streams
    tolls.sent += frames

    for _ in range(1000 + 16 * streams + 8 * frames):
        tolls.charge_update()
    refuses(tolls.charge_update)
