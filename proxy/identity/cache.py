"""The one policy by which tokens of both kinds are fetched, kept, refreshed and given out.

Knows no protocol: a `TokenSource` fetches, `fetch` runs it, this decides when.  Its promises:

- at most one fetch runs, however many callers wait, and a caller that leaves cancels nobody;
- a token is given out until 30 s before its expiry (``exp``, or after ``expires_in``), judged
  by the wall clock at each use, because timers stall when Cloud Run withdraws the CPU between
  requests;
- from 3 min 45 s before that it is refreshed while it is still served, and no failed
  refresh displaces it;
- after a failure callers get the error at once, or wait if the next attempt is near enough;
- a token that the platform refused is given out until a different one has come;
- nothing is fetched while nobody asks.

Everything runs on one event loop, so the state needs no locks: it changes only between awaits.

| state | a usable token | a fetch running | callers |
|---|---|---|---|
| none | no | no | start a fetch and wait for it |
| fetching | no | yes | wait for it |
| good | yes | no | are served |
| refreshing | yes | yes | are served |
| backing off | no | not before a set time | get the last error, or wait for the next attempt |
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import field
from enum import Enum, StrEnum
from functools import partial
from random import Random
from typing import Final

from proxy.clock import Clock, Clocks
from proxy.deadlines import PatientTimer
from proxy.errors import TokenTimedOut, TokenUnavailable, new_event
from proxy.frozen import frozen
from proxy.identity.access_token import Wanted
from proxy.identity.fetch import Cause, Fetch, Later
from proxy.identity.source import TokenSource, TokenSourceError, Watched
from proxy.identity.token import USE_MARGIN, Token

REFRESH_AHEAD: Final = 225.0
"""Seconds before its expiry from which a token is refreshed.  google-auth's REFRESH_THRESHOLD:
Google's metadata servers keep a token until 4 minutes before its expiry, so that asking
earlier brings the same one."""

CLOCK_SLACK: Final = 60.0
"""Seconds that the wall clock may go back before a token is asked for anew: it may then
expire earlier than the clock says."""

BACKOFF_FIRST: Final = 0.1
BACKOFF_LAST: Final = 30.0
"""Bounds of the pause after a failed fetch, in seconds."""

PAUSE: Final[tuple[float, float]] = (10.0, 20.0)
"""Bounds of the pause after a successful fetch, in seconds.  Cloud Run's metadata server may
hand out the same token until 100 s before its ``exp``, so asking again is needed and asking at
once is useless.  The spread keeps the containers of one instance from asking in step."""

REFUSED_PAUSE: Final = 30.0
"""Seconds for which a refused token that came back unchanged is not fetched again."""

REFUSALS: Final = 5
"""Refused tokens that are replaced in one `REFUSED_PAUSE`.  A source that signs a different
token each time would otherwise be asked once for every call to a service that never accepts
the audience."""


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


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
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
"""Every pair that is missing here is impossible; meeting one is a bug, which raises."""


def after(state: State, event: Event) -> State:
    """Return the state that follows; raise AssertionError where the table has no entry."""
    if (state, event) not in TRANSITIONS:
        raise AssertionError(f"{event.value} cannot happen in {state.value}")
    return TRANSITIONS[state, event]


class Outcome(StrEnum):
    """How a fetch ended: the label of ``auth_proxy_token_fetches_total``."""

    FETCHED = "fetched"
    UNCHANGED = "unchanged"
    """It brought the token that is kept, or one that expires with it."""
    FAILED = "failed"
    TIMED_OUT = "timed_out"


OnFetch = Callable[[Cause, str, float], object]
"""Told of each fetch that ended: what caused it, its `Outcome`, seconds."""


@frozen
class Failure:
    """Why the last fetch brought no token."""

    detail: str
    hint: str | None
    at: float
    """Wall clock."""
    retryable: bool
    slow: bool
    event: int = field(default_factory=new_event)
    """What callers are told of, each by an error of its own; see `ProxyError.event`."""


class Pace:
    """When the next fetch may begin: after a failure, a refresh, or a token that was refused.

    Holds numbers only; knows no token and starts nothing.
    """

    __slots__ = ("_clock", "_failures", "_jitter", "_refusals", "_refused_at", "not_before")

    def __init__(self, clock: Clock, jitter: Random) -> None:
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._refusals = 0
        self._refused_at = -math.inf
        self.not_before = -math.inf
        """Steady clock."""

    def wait(self) -> float:
        """Return the seconds until the next fetch may begin; 0 or less: at once."""
        return self.not_before - self._clock()

    def failed(self) -> None:
        """Hold the next fetch off for longer than the last time."""
        # The exponent is bounded because 2.0 ** 1100 overflows; 30 s are reached at 8.
        most = min(BACKOFF_LAST, 2 * BACKOFF_FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self.not_before = self._clock() + self._jitter.uniform(most / 2, most)

    def succeeded(self, usable: float) -> None:
        """Hold the next refresh off; `usable` is how long the token may be used, in seconds."""
        self._failures = 0
        # Half of what is left, so that a short-lived token is refreshed in time.
        self.not_before = self._clock() + min(self._jitter.uniform(*PAUSE), usable / 2)

    def came_back(self) -> None:
        """Hold off the next fetch because a refused token was fetched again unchanged."""
        self.not_before = self._clock() + REFUSED_PAUSE

    def may_replace(self) -> bool:
        """Count one refused token; return whether it is to be replaced."""
        now = self._clock()
        if now - self._refused_at >= REFUSED_PAUSE:
            self._refusals = 0
        if self._refusals == REFUSALS:
            return False
        self._refusals += 1
        self._refused_at = now
        return True


class Waiters:
    """The callers that wait for a fetch to end; one that stops waiting affects no other."""

    __slots__ = ("_clock", "_later", "_waiting")

    def __init__(self, clock: Clock, later: Later) -> None:
        self._clock = clock
        self._later = later
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, until: float) -> None:
        """Return once `wake` is called, or when the clock reaches `until`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        timer = None
        if until < math.inf:
            timer = self._later(max(0.0, until - self._clock()), partial(_resolve, waiter))
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """Wake all who wait at this moment."""
        for waiter in self._waiting:
            _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class TokenCache:
    """The token for one audience, or for some scopes, from one source."""

    __slots__ = (
        "_closed",
        "_failure",
        "_fetch",
        "_fresh_from",
        "_fresh_until",
        "_on_fetch",
        "_pace",
        "_refused",
        "_state",
        "_steady",
        "_token",
        "_unread",
        "_waiters",
        "_wall",
        "_watched",
        "source",
        "stats",
        "wanted",
    )

    def __init__(
        self,
        wanted: Wanted,
        source: TokenSource,
        *,
        clocks: Clocks,
        jitter: Random,
        gate: asyncio.Semaphore,
        later: Later = PatientTimer,
        on_fetch: OnFetch | None = None,
    ) -> None:
        """`gate` bounds how many fetches run at once over all caches of `source`."""
        # For the life of the cache
        self.wanted: Wanted = wanted
        self.source = source
        self.stats: Counter[tuple[Cause, str]] = Counter()
        """Fetches that ended, by (cause, outcome)."""
        self._on_fetch = on_fetch
        self._wall = clocks.wall
        self._steady = clocks.steady
        self._watched = source if isinstance(source, Watched) else None
        self._waiters = Waiters(clocks.steady, later)
        self._pace = Pace(clocks.steady, jitter)
        self._fetch = Fetch(wanted, source, self._ended, clocks=clocks, later=later, gate=gate)
        self._closed = False

        # What is known
        self._state = State.NONE
        # A lapsed token stays here: it is good again if the wall clock is set back.
        self._token: Token | None = None
        # Between these wall-clock times the token is given out without further checks.
        self._fresh_from = math.inf
        self._fresh_until = -math.inf
        self._failure: Failure | None = None
        # The value of the last token that the platform refused.
        self._refused = ""
        # Whether a watched source has changed and is being read.
        self._unread = False

    # --- what callers use

    def current(self, cause: Cause) -> Token | None:
        """Return a token that may be used now, None if there is none; never waits.

        Called for every request.  Starts a refresh in the background when its time has come.
        """
        now = self._wall()
        if self._fresh_from <= now < self._fresh_until:
            return self._token
        return self._look(cause, now)

    async def get(self, cause: Cause, timeout: float) -> Token:
        """Return a usable token, waiting up to `timeout` seconds for it.

        Raises `TokenUnavailable` with the last error when no further attempt fits into the
        timeout, `TokenTimedOut` when the source has not answered by then.  Cancelling a
        caller leaves the fetch running for the others.
        """
        deadline = self._steady() + timeout
        while (token := self.current(cause)) is None:
            self._pursue(cause, deadline)
            retry_at = self._pace.not_before if self._state is State.BACKING_OFF else math.inf
            await self._waiters.wait(min(deadline, retry_at))
            # Also where a fetch has just ended: what it brought may be over already.
            is_late = self._steady() >= deadline and self._state is not State.BACKING_OFF
            if is_late and not self._settles():
                raise self._too_late()
        return token

    async def prefetch(self, cause: Cause) -> TokenUnavailable | None:
        """Make one attempt to get a token; return why it failed, None if there is a token.

        For the time before the first request, when `get` would wait for further attempts.
        """
        if self.current(cause) is not None:
            return None
        try:
            self._pursue(cause, self._steady())
        except TokenUnavailable as error:
            return error
        await self._waiters.wait(math.inf)
        return None if self._usable() else self._unavailable()

    def seek_another(self, token: Token, cause: Cause) -> bool:
        """Look for another token than `token`, which Google's front end answered with 401.

        Return whether a fetch is running that may bring one.  Nothing is taken away: the
        refused token is given out until another one has come.  It may still be good, for
        other services of its kind, or because whoever refused it was wrong.

        Not fetched again: a token that came back unchanged, for 30 s; whatever a failed
        fetch has to wait for; more than a few in half a minute.
        """
        held = self._token
        if held is None or held.value != token.value:
            return False  # Another caller was faster: this token has not been refused.
        self._usable()
        if not self._state.is_fetching:
            known_bad = self._failure is not None or held.value == self._refused
            if (known_bad and self._pace.wait() > 0) or not self._pace.may_replace():
                return False
            self._start(cause)
        self._refused = held.value
        return self._state.is_fetching

    async def another(self, refused: Token, cause: Cause, timeout: float) -> Token | None:
        """Return a token other than `refused`, None if there is none.

        Waits for one fetch at most, and up to `timeout` seconds for it; see `seek_another`.
        """
        if self.seek_another(refused, cause):
            await self._waiters.wait(self._steady() + timeout)
        token = self.current(cause)
        return None if token is None or token.value == refused.value else token

    async def close(self) -> None:
        """End the running fetch; every waiting caller gets `TokenUnavailable`."""
        self._closed = True
        await self._fetch.close()
        self._waiters.wake()

    # --- what status, doctor and metrics use

    @property
    def state(self) -> State:
        """Where the cache stands at this moment."""
        self._usable()
        return self._state

    @property
    def expires_at(self) -> float | None:
        """When the token that would be used now expires, wall clock."""
        return self._token.expires_at if self._token is not None and self._usable() else None

    @property
    def email(self) -> str | None:
        """The account that the token names; that of the last one if it has lapsed."""
        return self._token.email if self._token is not None else None

    @property
    def last_error(self) -> Failure | None:
        """Why the last fetch failed; None once one has succeeded."""
        return self._failure

    # --- the policy

    def _look(self, cause: Cause, now: float) -> Token | None:
        """Do the rest of `current`, where the token is not simply fresh."""
        token = self._token
        if token is None or not self._follow(now):
            return None
        if self._has_changed():
            self._unread = True
        if self._unread:
            self._start(cause)
            return None  # `get` waits for the change to be read, and falls back to this token.
        due = not self._fresh_from <= now < token.expires_at - REFRESH_AHEAD
        if due and self._pace.wait() <= 0:
            self._start(cause)
        return token

    def _usable(self) -> bool:
        """Return whether there is a token at this moment."""
        return self._follow(self._wall())

    def _follow(self, now: float) -> bool:
        """Bring the state in line with the wall clock; return whether there is a token."""
        token = self._token
        alive = token is not None and now < token.expires_at - USE_MARGIN
        if alive is not self._state.has_token:
            if alive:
                self._move(Event.REVIVE)
                self._open_window()
            else:
                self._lapse()
        return alive

    def _pursue(self, cause: Cause, deadline: float) -> None:
        """Make sure that waiting until `deadline` (steady clock) can bring a token, or raise."""
        if self._closed:
            raise TokenUnavailable("the proxy is shutting down")
        wait = self._pace.wait()
        if self._state is State.BACKING_OFF and wait > 0 and not self._has_changed():
            hopeless = self._failure is not None and not self._failure.retryable
            if hopeless or self._steady() + wait > deadline:
                raise self._unavailable()
        else:
            self._start(cause)

    def _has_changed(self) -> bool:
        return self._watched is not None and self._watched.changed()

    def _settles(self) -> bool:
        """Stop waiting for a change to be read; return whether the old token will do."""
        self._unread = False
        return self._usable()

    def _start(self, cause: Cause) -> None:
        if not self._state.is_fetching and not self._closed:
            self._fetch.start(cause)
            self._move(Event.START)

    def _ended(self, cause: Cause, result: Token | TokenSourceError, seconds: float) -> None:
        """Take what a fetch brought, and wake whoever waits for it."""
        self._unread = False
        try:
            outcome = self._accept(result) if isinstance(result, Token) else self._fail(result)
        finally:
            if self._state.is_fetching:
                # There was no memory for it, say: as if fetching for ever, it would fetch no more.
                self._move(Event.FAIL)
            self._waiters.wake()
        self.stats[cause, outcome] += 1
        if self._on_fetch is not None:
            self._on_fetch(cause, outcome, seconds)

    def _accept(self, token: Token) -> Outcome:
        old, self._token = self._token, token
        self._failure = None
        self._pace.succeeded(token.expires_at - USE_MARGIN - self._wall())
        if token.value == self._refused:
            self._pace.came_back()
        self._move(Event.ACCEPT)
        self._open_window()
        # An access token's expiry moves a little with each answer: its seconds are whole.
        same = old is not None and (old.expires_at == token.expires_at or old.value == token.value)
        return Outcome.UNCHANGED if same else Outcome.FETCHED

    def _fail(self, error: TokenSourceError) -> Outcome:
        detail = f"{self.source.describe()}: {error.detail}"
        self._failure = Failure(detail, error.hint, self._wall(), error.retryable, error.slow)
        self._pace.failed()
        self._move(Event.FAIL)
        return Outcome.TIMED_OUT if error.slow else Outcome.FAILED

    def _lapse(self) -> None:
        self._move(Event.LAPSE)
        self._fresh_from, self._fresh_until = math.inf, -math.inf
        if self._state is State.NONE and self._failure is not None and self._pace.wait() > 0:
            self._move(Event.HOLD)

    def _open_window(self) -> None:
        """Let `current` give out the token without further checks, where that is safe."""
        if self._token is not None and self._watched is None:
            self._fresh_from = self._wall() - CLOCK_SLACK
            self._fresh_until = self._token.expires_at - REFRESH_AHEAD

    def _move(self, event: Event) -> None:
        """Move to the next state by the table; nothing else writes the state."""
        self._state = after(self._state, event)

    # --- what callers are told

    def _unavailable(self) -> TokenUnavailable:
        # A new exception for each caller: one that is raised twice collects tracebacks.
        if self._failure is None:
            return TokenUnavailable(f"{self.source.describe()}: no token has come")
        failure = self._failure
        return TokenUnavailable(failure.detail, hint=failure.hint, event=failure.event)

    def _too_late(self) -> TokenUnavailable | TokenTimedOut:
        if self._failure is not None and not self._failure.slow:
            return self._unavailable()  # The attempt before this one said what is wrong.
        source = self.source.describe()
        if not self._state.is_fetching:
            return TokenTimedOut(f"{source}: the token that came was over before it could be used")
        return TokenTimedOut(f"{source}: no answer in {self._fetch.seconds:.1f} s")
