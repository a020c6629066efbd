"""When a destination is set aside, tried again and back: the table, and its clock."""

from __future__ import annotations

import itertools

import pytest

from proxy.errors import new_event
from proxy.plane.availability import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_FAILURES,
    TRANSITIONS,
    Availability,
    Event,
    Standing,
)


class Bench:
    """One destination's state, with a clock and a jitter that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.random = 0.5
        self.state = Availability(lambda: self.now, lambda: self.random)

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.state.failed(self.state.era, new_event())

    def lose(self) -> None:
        """Have it set aside."""
        self.fail(MOST_FAILURES)
        assert self.standing() is Standing.SET_ASIDE

    def standing(self) -> Standing:
        return self.state.standing

    @property
    def pause(self) -> float:
        return self.state.due_at - self.now

    def try_in_vain(self) -> float:
        """Let the pause pass, fail the trial; return the next pause."""
        self.now = self.state.due_at
        assert self.state.chosen()
        self.fail()
        return self.pause


def test_the_table_has_a_row_for_whatever_can_happen() -> None:
    assert set(TRANSITIONS) == set(itertools.product(Standing, Event))


def test_only_a_success_brings_a_destination_back() -> None:
    back = {
        event
        for (before, event), then in TRANSITIONS.items()
        if before is not Standing.AVAILABLE and then is Standing.AVAILABLE
    }
    assert back == {Event.SUCCEEDED}


@pytest.mark.parametrize(
    ("failures", "standing"),
    [(2, Standing.AVAILABLE), (3, Standing.SET_ASIDE), (4, Standing.SET_ASIDE)],
)
def test_three_failures_in_a_row_set_it_aside(failures: int, standing: Standing) -> None:
    bench = Bench()
    for _ in range(failures):
        bench.state.failed(0, new_event())
    assert bench.standing() is standing


@pytest.mark.parametrize(("events", "standing"), [(2, Standing.AVAILABLE), (3, Standing.SET_ASIDE)])
def test_what_many_exchanges_were_told_of_is_one_failure(events: int, standing: Standing) -> None:
    bench = Bench()
    for event in range(events):
        for _ in range(5):
            bench.state.failed(0, event)
    assert bench.standing() is standing


def test_a_success_begins_the_row_again() -> None:
    bench = Bench()
    bench.fail(2)
    bench.state.succeeded(0)
    bench.fail(2)
    assert bench.state.is_open
    bench.fail()
    assert not bench.state.is_open


@pytest.mark.parametrize(("later", "is_open"), [(0.999, False), (1.0, True), (1.001, True)])
def test_it_may_be_tried_after_a_second(later: float, is_open: bool) -> None:  # noqa: FBT001 (a column of the table)
    bench = Bench()
    bench.lose()
    bench.now += later * FIRST_PAUSE
    assert bench.state.is_open is is_open


def test_the_pause_is_doubled_up_to_a_minute() -> None:
    bench = Bench()
    bench.lose()
    pauses = [bench.pause, *(bench.try_in_vain() for _ in range(8))]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert max(pauses) == pytest.approx(LONGEST_PAUSE)


@pytest.mark.parametrize(("random", "pause"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_the_pause_has_jitter(random: float, pause: float) -> None:
    bench = Bench()
    bench.random = random
    bench.lose()
    assert bench.pause == pytest.approx(pause)


def test_a_destination_that_is_back_has_forgotten_its_pauses() -> None:
    bench = Bench()
    bench.lose()
    bench.try_in_vain()
    bench.now = bench.state.due_at
    assert bench.state.chosen()
    bench.state.succeeded(bench.state.era)
    bench.fail(2)
    assert bench.state.is_open
    bench.fail()
    assert bench.pause == pytest.approx(FIRST_PAUSE)


def test_one_exchange_tries_it() -> None:
    bench = Bench()
    bench.lose()
    bench.now += 10
    assert bench.state.chosen()
    assert bench.standing() is Standing.ON_TRIAL
    assert bench.state.chosen() is False


def test_a_trial_without_a_verdict_is_the_next_ones() -> None:
    bench = Bench()
    bench.lose()
    bench.now += 10
    bench.state.chosen()
    bench.state.undecided(bench.state.era)
    assert bench.state.is_open
    assert bench.state.chosen()


def test_one_failure_ends_a_trial() -> None:
    bench = Bench()
    bench.lose()
    bench.now += 10
    bench.state.chosen()
    bench.fail()
    assert bench.standing() is Standing.SET_ASIDE
    assert not bench.state.is_open


def test_what_was_under_way_when_it_was_set_aside_has_no_say() -> None:
    bench = Bench()
    early = bench.state.era
    bench.lose()
    bench.state.succeeded(early)
    assert bench.standing() is Standing.SET_ASIDE
    due_at = bench.state.due_at
    bench.state.failed(early, new_event())
    assert bench.state.due_at == due_at

    bench.now += 10
    bench.state.chosen()
    bench.state.undecided(early)
    bench.state.failed(early, new_event())
    assert bench.standing() is Standing.ON_TRIAL


def test_the_clock_that_stood_still_is_no_verdict() -> None:
    """After a freeze the pause is over, and one exchange tries it: no more."""
    bench = Bench()
    bench.lose()
    bench.now += 86_400
    assert bench.state.chosen()
    assert not bench.state.is_open
