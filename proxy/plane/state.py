"""Where an exchange is, and where it may go from there."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.IntEnum):
    """Where an exchange is."""

    ADMITTED = 0
    WAITING = 1
    """For a place, a token, a connection, or the pause before a repeat."""
    ATTEMPTING = 2
    """The request travels; no final head came back."""
    HOLDING = 3
    """An error came back that may be the platform's: that, and what follows, is being found out."""
    RELAYING = 4
    """The response is on its way to the caller: a failure can only cut."""
    TUNNELLING = 5
    FINISHED = 6


# Plain names for the hot path: to look up a member of an enum's class takes 0.1 µs in
# CPython 3.11, and an exchange looks twenty times.
ADMITTED: Final[State] = State.ADMITTED
WAITING: Final[State] = State.WAITING
ATTEMPTING: Final[State] = State.ATTEMPTING
HOLDING: Final[State] = State.HOLDING
RELAYING: Final[State] = State.RELAYING
TUNNELLING: Final[State] = State.TUNNELLING
FINISHED: Final[State] = State.FINISHED

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.ADMITTED: frozenset({State.WAITING, State.ATTEMPTING, State.FINISHED}),
    State.WAITING: frozenset({State.ATTEMPTING, State.FINISHED}),
    State.ATTEMPTING: frozenset(
        {State.WAITING, State.HOLDING, State.RELAYING, State.TUNNELLING, State.FINISHED}
    ),
    State.HOLDING: frozenset({State.WAITING, State.RELAYING, State.FINISHED}),
    State.RELAYING: frozenset({State.FINISHED}),
    State.TUNNELLING: frozenset({State.FINISHED}),
    State.FINISHED: frozenset(),  # terminal
}

# The same by number: hashing an enum's member twice per move would cost more than the move.
ALLOWED: Final[tuple[tuple[bool, ...], ...]] = tuple(
    tuple(new in TRANSITIONS[old] for new in State) for old in State
)
