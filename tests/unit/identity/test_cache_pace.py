"""Pauses between fetches, below, at and above their bounds."""

from __future__ import annotations

import pytest

from proxy.identity.cache import PAUSE, REFUSALS, REFUSED_PAUSE, Pace
from tests.fakes.steering import Time, jitter


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pace(time: Time) -> Pace:
    return Pace(time.clocks.steady, jitter())


def test_at_first_nothing_has_to_wait(pace: Pace) -> None:
    assert pace.wait() < 0


def test_pauses_after_failures_stay_between_100_ms_and_30_s_for_ever(pace: Pace) -> None:
    waits = []
    for _ in range(2000):
        pace.failed()
        waits.append(pace.wait())

    assert all(0.1 <= wait <= 30 for wait in waits)
    assert 0.1 <= waits[0] <= 0.2
    assert min(waits[9:]) >= 15


def test_a_success_starts_the_pauses_from_the_beginning(pace: Pace) -> None:
    for _ in range(9):
        pace.failed()
    pace.succeeded(3570)
    pace.failed()

    assert pace.wait() <= 0.2


@pytest.mark.parametrize(("usable", "least", "most"), [(3570, *PAUSE), (30, 10, 15), (6, 3, 3)])
def test_a_refresh_pauses_but_never_longer_than_half_of_what_is_left(
    pace: Pace, usable: float, least: float, most: float
) -> None:
    for _ in range(100):
        pace.succeeded(usable)

        assert least <= pace.wait() <= most


def test_a_token_that_came_back_is_left_alone_for_30_s(pace: Pace, time: Time) -> None:
    pace.succeeded(3570)
    pace.came_back()

    assert pace.wait() == REFUSED_PAUSE
    time.sleep(30)
    assert pace.wait() == 0


def test_so_many_refused_tokens_are_replaced_in_a_row_and_no_more(pace: Pace, time: Time) -> None:
    replaced = []
    for _ in range(REFUSALS + 3):
        replaced.append(pace.may_replace())
        time.sleep(0.5)

    assert replaced == [True] * REFUSALS + [False] * 3


def test_refused_tokens_are_replaced_again_after_30_s(pace: Pace, time: Time) -> None:
    while pace.may_replace():
        pass
    time.sleep(29.99)
    assert not pace.may_replace()
    time.sleep(0.01)
    assert pace.may_replace()
