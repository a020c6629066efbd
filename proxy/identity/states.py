"""The life of one cached token as a table: every state, every event, every legal move.

| state | a usable token | a fetch running | callers |
|---|---|---|---|
| none | no | no | start a fetch and wait for it |
| fetching | no | yes | wait for it |
| good | yes | no | are served |
| refreshing | yes | yes | are served |
| backing off | no | not before a set time | get the last error, or wait for the next attempt |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where a cache stands; the values are words of ``/status``."""

    NONE = "none"
    FETCHING = "fetching"
    GOOD = "good"
    REFRESHING = "refreshing"
    BACKING_OFF = "backing_off"

    @property
    def has_token(self) -> bool:
        """Whether there is a token that may be used."""
        return self is State.GOOD or self is State.REFRESHING

    @property
    def is_fetching(self) -> bool:
        """Whether a fetch is running."""
        return self is State.FETCHING or self is State.REFRESHING


class Event(Enum):
    """What can happen to a cache."""

    START = "start"
    """A fetch begins."""
    ACCEPT = "accept"
    """It brought a token."""
    FAIL = "fail"
    """It brought none."""
    LAPSE = "lapse"
    """The token may no longer be used: its time has come."""
    HOLD = "hold"
    """It lapsed while refreshes were failing, so the next attempt has to wait."""
    REVIVE = "revive"
    """The token may be used again: the wall clock was set back."""


TRANSITIONS: Mapping[tuple[State, Event], State] = {
    (State.NONE, Event.START): State.FETCHING,
    (State.NONE, Event.HOLD): State.BACKING_OFF,
    (State.NONE, Event.REVIVE): State.GOOD,
    (State.FETCHING, Event.ACCEPT): State.GOOD,
    (State.FETCHING, Event.FAIL): State.BACKING_OFF,
    (State.FETCHING, Event.REVIVE): State.REFRESHING,
    (State.GOOD, Event.START): State.REFRESHING,
    (State.GOOD, Event.LAPSE): State.NONE,
    (State.REFRESHING, Event.ACCEPT): State.GOOD,
    # A failed refresh never displaces a token that is still good.
    (State.REFRESHING, Event.FAIL): State.GOOD,
    (State.REFRESHING, Event.LAPSE): State.FETCHING,
    (State.BACKING_OFF, Event.START): State.FETCHING,
    (State.BACKING_OFF, Event.REVIVE): State.GOOD,
}
"""Every pair that is missing here is impossible; meeting one is a bug and crashes."""


def after(state: State, event: Event) -> State:
    """Return the state that follows; raise AssertionError where the table has no entry."""
    if (state, event) not in TRANSITIONS:
        raise AssertionError(f"{event.value} cannot happen in {state.value}")
    return TRANSITIONS[state, event]
