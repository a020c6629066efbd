"""The table of states, pair by pair."""

from __future__ import annotations

import itertools

import pytest

from proxy.identity.cache import TRANSITIONS, Event, State, after

PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_leads_where_the_table_says_or_crashes(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert after(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(AssertionError, match=f"{event.value} cannot happen in {state.value}"):
            after(state, event)


def test_a_fetch_begins_only_where_none_is_running() -> None:
    begins = {state for state, event in TRANSITIONS if event is Event.START}

    assert begins == {state for state in State if not state.is_fetching}


def test_a_fetch_ends_only_where_one_is_running() -> None:
    for ending in Event.ACCEPT, Event.FAIL:
        ends = {state for state, event in TRANSITIONS if event is ending}

        assert ends == {state for state in State if state.is_fetching}


def test_starting_and_failing_take_no_token_away() -> None:
    for (state, event), then in TRANSITIONS.items():
        if event in (Event.START, Event.FAIL):
            assert then.has_token == state.has_token


def test_only_a_lapse_takes_a_token_away() -> None:
    losing = {
        event for (state, event), then in TRANSITIONS.items() if state.has_token > then.has_token
    }

    assert losing == {Event.LAPSE}


def test_a_lapse_is_possible_wherever_there_is_a_token_and_revival_wherever_there_is_none() -> None:
    for state in State:
        assert ((state, Event.LAPSE) in TRANSITIONS) == state.has_token
        assert ((state, Event.REVIVE) in TRANSITIONS) == (not state.has_token)
