"""The states of the process and what the probes are told."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from proxy.clock import Clocks
from proxy.ops.lifecycle import TRANSITIONS, Lifecycle, State

STARTING, SERVING, DRAINING, STOPPED = State

PATHS = {
    STARTING: (),
    SERVING: (SERVING,),
    DRAINING: (SERVING, DRAINING),
    STOPPED: (SERVING, DRAINING, STOPPED),
}


def lifecycle_in(state: State) -> Lifecycle:
    lifecycle = Lifecycle()
    for step in PATHS[state]:
        lifecycle.move_to(step)
    return lifecycle


@pytest.mark.parametrize(("old", "new"), [*itertools.product(State, State)])
def test_a_move_is_made_if_the_table_has_it_and_is_a_bug_otherwise(old: State, new: State) -> None:
    lifecycle = lifecycle_in(old)

    if new in TRANSITIONS[old]:
        lifecycle.move_to(new)

        assert lifecycle.state is new
    else:
        with pytest.raises(AssertionError, match=f"cannot move from {old.value} to {new.value}"):
            lifecycle.move_to(new)

        assert lifecycle.state is old


def test_stopped_is_terminal() -> None:
    assert TRANSITIONS[STOPPED] == frozenset()


@pytest.mark.parametrize(
    ("state", "truths"),
    [
        (STARTING, {"alive"}),
        (SERVING, {"started", "ready", "alive"}),
        (DRAINING, {"started", "alive"}),
        (STOPPED, {"started"}),
    ],
)
def test_the_three_probes_have_three_truths(state: State, truths: set[str]) -> None:
    lifecycle = lifecycle_in(state)

    probes = (lifecycle.started, lifecycle.ready, lifecycle.alive)

    assert {truth.why for truth in probes if truth.holds} == truths


def test_a_process_that_drains_before_it_served_has_not_started() -> None:
    lifecycle = Lifecycle()
    lifecycle.move_to(DRAINING)

    assert not lifecycle.started.holds
    assert lifecycle.started.why == "draining"


def test_a_probe_that_fails_says_what_is_waited_for() -> None:
    lifecycle = Lifecycle()
    lifecycle.note = "fetching the first tokens"

    assert lifecycle.ready.why == "starting: fetching the first tokens"

    lifecycle.move_to(SERVING)

    assert lifecycle.ready.why == "ready"

    lifecycle.move_to(DRAINING, "3 exchanges in flight")

    assert lifecycle.ready.why == "draining: 3 exchanges in flight"


async def test_whoever_waits_for_a_state_goes_on_when_it_is_entered() -> None:
    lifecycle = Lifecycle()
    waiter = asyncio.ensure_future(lifecycle.reached(DRAINING))
    lifecycle.move_to(SERVING)
    await asyncio.sleep(0)

    assert not waiter.done()

    lifecycle.move_to(DRAINING)
    lifecycle.move_to(STOPPED)
    await waiter

    assert lifecycle.has_reached(DRAINING)


def test_uptime_is_measured_on_the_steady_clock() -> None:
    now = 100.0
    lifecycle = Lifecycle(Clocks(wall=lambda: 1e9, steady=lambda: now))
    now = 107.5

    assert lifecycle.uptime == 7.5


def test_repr_says_the_state() -> None:
    assert repr(lifecycle_in(DRAINING)) == "<Lifecycle draining>"
