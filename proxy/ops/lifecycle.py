"""The states of the process, and the three truths that probes ask for.

Knows nothing of listeners, tokens or signals: `server` changes it, everything else reads it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from proxy.clock import Clocks
from proxy.frozen import frozen

_log = logging.getLogger("proxy.lifecycle")


class State(enum.Enum):
    """What the process does; the value is the word that logs, probes and the page use."""

    STARTING = "starting"
    """Listeners are being opened and the first tokens fetched."""
    SERVING = "serving"
    DRAINING = "draining"
    """Asked to end: exchanges are still served, but callers should not send more."""
    STOPPED = "stopped"


TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    # A signal can come before the start has ended: drained where listeners are already open,
    # stopped where they could not be opened.
    State.STARTING: frozenset({State.SERVING, State.DRAINING, State.STOPPED}),
    State.SERVING: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),  # terminal
}


@frozen(kw_only=True)
class Truth:
    """The answer to a probe: yes or no, and why in a few words."""

    holds: bool
    why: str


@frozen(kw_only=True)
class Reload:
    """What became of the last reload; the start counts as one that succeeded."""

    succeeded_at: float
    """Wall clock: since when the configuration in force is so."""
    problem: str = ""
    """Why the last one changed nothing; empty where it succeeded."""


class Lifecycle:
    """One per process; `move_to` is the only writer of the state."""

    __slots__ = ("_clocks", "_reached", "_state", "last_reload", "note", "started_at")

    def __init__(self, clocks: Clocks | None = None) -> None:
        self._clocks = clocks or Clocks()
        self._state = State.STARTING
        self._reached = {state: asyncio.Event() for state in State}
        self._reached[self._state].set()
        self.started_at = self._clocks.steady()
        """Steady clock."""
        self.note = ""
        """What the present state waits for, in a few words, for probes and the page."""
        self.last_reload = Reload(succeeded_at=self._clocks.wall())

    def reloaded(self, problem: str = "") -> None:
        """Note the end of a reload; `problem` is why it changed nothing, if it did not succeed."""
        if problem:
            self.last_reload = replace(self.last_reload, problem=problem)
        else:
            self.last_reload = Reload(succeeded_at=self._clocks.wall())

    def __repr__(self) -> str:
        return f"<Lifecycle {self._state.value}>"

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    @property
    def uptime(self) -> float:
        """Seconds since the process began."""
        return self._clocks.steady() - self.started_at

    def move_to(self, new: State, note: str = "") -> None:
        """Enter a state; AssertionError where the table has no such move: that is a bug."""
        old = self._state
        if new not in TRANSITIONS[old]:
            raise AssertionError(f"cannot move from {old.value} to {new.value}")
        self._state = new
        self.note = note
        self._reached[new].set()
        _log.debug("%s after %.3f s", new.value, self.uptime)

    async def reached(self, state: State) -> None:
        """Wait until the state has been entered once, even if it has been left since."""
        await self._reached[state].wait()

    def has_reached(self, state: State) -> bool:
        """Whether the state has been entered once."""
        return self._reached[state].is_set()

    @property
    def started(self) -> Truth:
        """The startup probe: serving has begun once; it stays true while draining."""
        holds = self.has_reached(State.SERVING)
        return Truth(holds=holds, why="started" if holds else self._why())

    @property
    def ready(self) -> Truth:
        """The readiness probe: new exchanges are welcome."""
        holds = self._state is State.SERVING
        return Truth(holds=holds, why="ready" if holds else self._why())

    @property
    def alive(self) -> Truth:
        """The liveness probe: the event loop runs, which answering shows, and has an end ahead."""
        holds = self._state is not State.STOPPED
        return Truth(holds=holds, why="alive" if holds else self._why())

    def _why(self) -> str:
        return f"{self._state.value}: {self.note}" if self.note else self._state.value
