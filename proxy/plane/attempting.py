"""How an exchange comes to an answer: waiting, attempts, repeats, and a refused token.

The base of `Exchange`, which adds the two sinks that codecs deliver to and the ends.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol

from proxy.clock import Clock
from proxy.errors import InternalError, ProxyError
from proxy.identity.token import IdToken
from proxy.plane import guard
from proxy.plane.acquire import Pursuit, rest
from proxy.plane.codec import DownstreamCodec, UpstreamCodec
from proxy.plane.head import RequestHead, ResponseHead, values
from proxy.plane.prepared import PreparedRoute
from proxy.plane.refusal import REFUSALS, Held, may_be_platform, refusal_of
from proxy.plane.replay import Replay
from proxy.plane.state import (
    ADMITTED,
    ALLOWED,
    ATTEMPTING,
    HOLDING,
    RELAYING,
    TUNNELLING,
    WAITING,
    State,
)
from proxy.plane.sweeper import Sweeper
from proxy.retry import (
    LONGEST_BACKOFF,
    Attempt,
    allowed,
    pause_before,
    retry_after_seconds,
)

log = logging.getLogger("proxy.plane")

Step = Callable[[], Coroutine[None, None, None]]
"""What an exchange does where it has to wait."""


class Keeper(Protocol):
    """What an exchange needs of the plane that it runs in."""

    clock: Clock
    wall: Clock
    sweeper: Sweeper
    jitter: Callable[[], float]

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run what has to wait, as a task that the plane owns."""

    def finished(self, exchange: Attempting, error: ProxyError | None) -> None:
        """Report the end of an exchange: numbers and log."""


class Attempting(ABC):
    """One request on its way to an answer."""

    __slots__ = (
        "_answered", "_down", "_ended", "_half", "_held", "_keeper", "_kept", "_refused",
        "_replay", "_sent_at", "_source", "_task", "_token", "_total_at", "_trailers", "_up",
        "attempts", "deadline", "entered", "head", "origin", "refused_as", "request_bytes",
        "response_bytes", "route", "started_at", "state", "status", "upstream_target",
    )  # fmt: skip

    def __init__(
        self, keeper: Keeper, down: DownstreamCodec, head: RequestHead, route: PreparedRoute
    ) -> None:
        # For the whole exchange
        self._keeper = keeper
        self._down = down
        self.head = head
        self.route = route
        self.state = ADMITTED
        self.started_at = keeper.clock()
        self.deadline = self._total_at = self.started_at + route.config.timeouts.total
        self.entered = False
        """Whether it holds a place at the route's gate, if there is one."""
        self.origin = b""
        """The allowed browser origin that asks."""
        self.status = 0
        self.refused_as = 0
        """The status of an answer that may be a refusal by the platform, to be explained."""
        self.attempts = self.request_bytes = self.response_bytes = 0
        self._source = route.source(head, down.protocol)
        self._kept = b""
        """The fields for the upstream, without the identity header."""
        self.upstream_target = head.target
        """The target as the upstream sees it; the caller's where it did not get that far."""
        self._ended = False  # Whether the request is whole.
        self._half = ""
        """In a tunnel: the half that has ended, so that the other's end is the last."""
        self._replay: Replay | None = None
        """What is kept of the body; None as long as nothing of it has come."""
        self._trailers = b""
        self._answered = False
        """Whether the caller has got anything of an answer, a 1xx included: no repeat then."""
        self._task: asyncio.Task[None] | None = None
        # For one attempt
        self._up: UpstreamCodec | None = None
        self._sent_at = 0.0
        self._token: IdToken | None = None
        self._held: Held | None = None
        self._refused = False
        """Whether a token of this exchange was refused before: there is one replay."""

    @property
    def protocol(self) -> str:
        """The caller's side as a metrics label: h1, h2, or ws for a tunnel."""
        return "ws" if self.status == 101 else self._down.protocol  # noqa: PLR2004 (RFC 9110, 15)

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""
        return self._ended

    def _move_to(self, new: State) -> None:
        """Change the state; the only writer."""
        if not ALLOWED[self.state][new]:
            raise AssertionError(f"an exchange cannot move from {self.state!r} to {new!r}")
        self.state = new

    @abstractmethod
    def fail(self, error: ProxyError) -> None:
        """End with an error."""

    @abstractmethod
    def response_data(self, data: bytes) -> None:
        """Pass on a part of the body."""

    @abstractmethod
    def resume_response(self) -> None:
        """Go on reading the response."""

    @abstractmethod
    def response_end(self, trailers: bytes) -> None:
        """Pass on the end of the response."""

    def _drop_upstream(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.cancel()

    def _touch(self) -> float:
        """Move the deadline because something has come or gone; return the steady clock's time."""
        timeouts = self.route.config.timeouts
        waits = self._ended and self.state is ATTEMPTING
        now = self._keeper.clock()
        deadline = now + (timeouts.response if waits else timeouts.idle)
        total = self._total_at
        self.deadline = deadline if deadline < total else total  # noqa: FURB136 (slower, runs often)
        return now

    def _wait(self, step: Step) -> None:
        """Go on in a task."""
        self._move_to(WAITING)
        self.deadline = self._total_at
        self._task = self._keeper.spawn(self._guarded(step), f"exchange on {self.route.name}")

    async def _guarded(self, step: Step) -> None:
        """Turn what a waiting step raises into the exchange's failure.

        The step is made here, so that none is left over if the task ends before it begins.
        """
        error: ProxyError
        try:
            await step()
            return
        except ProxyError as failure:
            error = failure
        except Exception:
            log.exception("A bug in the data path.", extra={"route": self.route.name})
            error = InternalError("The proxy met a condition that it does not know.")
        self._task = None
        self.fail(error)

    async def _pursue(self, *, fresh: bool = False, pause: float = 0.0) -> None:
        """Wait for all that an attempt needs, then make it."""
        pursuit = Pursuit(
            self.route, self._history(), self._keeper.jitter, self._source, fresh=fresh
        )
        await rest(pause)
        if not self.entered:
            await pursuit.enter()
            self.entered = True
        token = await pursuit.token()
        up = await pursuit.connection(self)
        self._task = None
        # Before anything is written: the upstream may ask for a pause at once.
        self._down.resume_request()
        self._attempt(up, b"" if token is None else self.route.line_of(token))
        if self._up is not None:
            self._up.flush()

    def _attempt(self, up: UpstreamCodec, line: bytes) -> None:
        """Send what there is of the request; whoever called flushes."""
        self._move_to(ATTEMPTING)
        self.attempts += 1
        self._up = up
        self._token = self.route.token
        up.send_head(
            self,  # type: ignore[arg-type]  # `Exchange` makes it a sink; a cast is a call.
            self.head,
            target=self.upstream_target,
            authority=self.route.authority,
            fields=self._kept + line,
        )
        if self._replay is not None:
            # In one piece: as 64 KiB of single bytes, it would take the loop for 20 ms and more.
            body = self._replay.joined()
            if body:
                up.send_data(body)
            self._replay.trim()
        if self._ended:
            up.send_end(self._trailers)
        else:
            up.begin_upload()
        self._sent_at = self._touch()

    def _relay(self, head: ResponseHead) -> None:
        """Begin the response to the caller."""
        self.status = head.status
        tunnel = head.status == 101  # noqa: PLR2004 (RFC 9110, 15.2.2)
        self._move_to(TUNNELLING if tunnel else RELAYING)
        if self._replay is not None:
            self._replay.forget()
        if self.origin:
            head.fields = guard.allow(head.fields, self.origin)
        if head.status in REFUSALS and self._token is not None:
            self.refused_as = refusal_of(head)
        self._down.write_head(head)

    def _history(self) -> Attempt:
        up, method, whole = self._up, self.head.method, self._is_replayable()
        if up is None:
            return Attempt(self.attempts, method, whole)
        return Attempt(self.attempts, method, whole, up.reused, up.wrote, up.answered)

    def _is_replayable(self) -> bool:
        """Whether all of the body that has come so far is still at hand."""
        return self._replay is None or self._replay.whole

    def _repeats(self, cause: str | int, attempt: Attempt, retry_after: float = 0.0) -> bool:
        """Begin another attempt if the route's policy allows one; return whether."""
        policy = self.route.config.retries
        if self._answered or not allowed(cause, attempt, policy, self.route.budget):
            return False
        self.route.stats.retries[str(cause)] += 1
        self._drop_upstream()
        pause = pause_before(attempt.number, policy, retry_after, self._keeper.jitter)
        self._wait(partial(self._pursue, pause=pause))
        return True

    def _repeat_refused(self, attempt: Attempt) -> None:
        """Begin another attempt after one that the upstream has not begun: at once, then slower."""
        self.route.stats.retries["refused"] += 1
        pause, earlier = 0.0, attempt.number - 1
        if earlier:
            policy = self.route.config.retries
            pause = pause_before(earlier, policy, None, self._keeper.jitter)
        self._wait(partial(self._pursue, pause=pause))

    def _intercept(self, head: ResponseHead) -> bool:
        """Keep a response from the caller because the attempt may be repeated; return whether."""
        if head.status == 401 and self.route.tokens is not None:  # noqa: PLR2004 (RFC 9110)
            if not (self._refused or self._answered) and may_be_platform(head):
                self._move_to(HOLDING)
                self._held = Held(head)
                return True
            return False
        if head.status not in self.route.config.retries.on:
            return False
        found = values(head.fields, b"retry-after")
        wait = retry_after_seconds(found[0]) if found else 0.0
        if wait is None or wait > LONGEST_BACKOFF:
            return False  # Longer than the caller should be kept waiting: the answer is its own.
        return self._repeats(head.status, self._history(), wait)

    # --- a refused token -----------------------------------------------------------------

    def _decide_held(self) -> None:
        """Look at the held 401: after the platform's, another token is tried once."""
        held, token, tokens = self._held, self._token, self.route.tokens
        if held is None or self._refused or not held.is_decidable():
            return
        self._refused = True
        if token is None or tokens is None or not held.is_platform():
            self._release_held(held)
            return
        if not (self._ended and self._is_replayable()):
            tokens.refuse(token, self.route.name)
            self._release_held(held)
            return
        if self._up is not None:
            self._up.pause_response()
        self.deadline = self._total_at
        step = partial(self._reauthenticate, held, token)
        self._task = self._keeper.spawn(self._guarded(step), f"new token for {self.route.name}")

    async def _reauthenticate(self, held: Held, refused: IdToken) -> None:
        """Fetch once; repeat with the new token if there is one, else pass on the 401."""
        pursuit = Pursuit(self.route, self._history(), self._keeper.jitter, self._source)
        token = await pursuit.another_token(refused)
        self._task = None
        if token is None:
            self._release_held(held)
            return
        self._held = None
        self._drop_upstream()
        self.route.stats.retries["token_refused"] += 1
        self._wait(self._pursue)

    def _release_held(self, held: Held) -> None:
        self._held = None
        # Before anything is written: the caller may ask for a pause at once.
        self.resume_response()
        self._relay(held.head)
        for piece in held.pieces:
            self.response_data(piece)
        if held.ended:
            self.response_end(held.trailers)
        else:
            self._down.flush()
