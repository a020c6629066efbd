"""One request and its response: a state machine between two codecs.

It knows routes, tokens, attempts, deadlines and numbers; it knows no wire format.  The warm path
(a cached token, an idle connection) runs in the caller's own callback, without a task or a future;
only what has to wait becomes a task.

The file follows one request: it is admitted, an attempt is made, its body and the response pass
through, the attempt is repeated where that is safe, and everything ends once, in `_finish`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final, final

from proxy.clock import Clock
from proxy.errors import (
    BodyTooLarge,
    DownstreamGone,
    Draining,
    PlatformError,
    ProxyError,
    UpstreamTimedOut,
)
from proxy.identity.token import Token
from proxy.plane import guard, unexpected
from proxy.plane.acquire import Pursuit, equip, rest
from proxy.plane.answer import FailedRequest, write_preflight
from proxy.plane.codec import DownstreamCodec, UpstreamCodec
from proxy.plane.destinations import Choice
from proxy.plane.front_end import may_be_api_refusal, may_be_platform
from proxy.plane.head import RequestHead, ResponseHead, values
from proxy.plane.held import HOLD_SECONDS, Held
from proxy.plane.pools import Connector
from proxy.plane.prepared import PreparedRoute
from proxy.plane.replay import Replay
from proxy.plane.state import (
    ADMITTED,
    ALLOWED,
    ATTEMPTING,
    FINISHED,
    HOLDING,
    RELAYING,
    TUNNELLING,
    WAITING,
    State,
)
from proxy.plane.tunnel import Tunnel
from proxy.retry import (
    Attempt,
    allowed,
    cause_of,
    pause_before,
    stale_connection,
    unprocessed,
    wait_before,
)

_WAITING_BYTES: Final = 64 * 1024  # Of a body, for an upstream; then the caller is paused.

Step = Callable[[], Coroutine[None, None, None]]
"""What an exchange does where it has to wait."""


class Owner(ABC):
    """What an exchange needs of the plane that it runs in."""

    clock: Clock
    wall: Clock
    exchanges: set[Exchange]
    jitter: Callable[[], float]

    @abstractmethod
    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run what has to wait, as a task that the plane owns."""

    @abstractmethod
    def finished(self, exchange: Exchange, error: ProxyError | None) -> None:
        """Report the end of an exchange: numbers and log."""


@final
class Exchange:
    """Serves one request: both a `RequestSink` and a `ResponseSink` (see `proxy.plane.codec`)."""

    __slots__ = (
        "_answered", "_down", "_ended", "_held", "_kept", "_owner", "_replay", "_target",
        "_total_at", "_trailers", "_tunnel", "_up", "attempts", "came_whole", "choice", "deadline",
        "destination", "entered", "head", "permission", "platform_error", "protocol",
        "replaces_token", "request_bytes", "response_bytes", "route", "sent_at", "started_at",
        "state", "status", "task", "token",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, down: DownstreamCodec, head: RequestHead, route: PreparedRoute
    ) -> None:
        # For the whole exchange
        self._owner = owner
        self._down = down
        self.head = head
        self.route = route
        self.state = ADMITTED
        self.protocol = down.protocol
        """The caller's side as a metrics label: h1, h2, or ws for a tunnel."""
        self.started_at = owner.clock()
        self.deadline = self._total_at = self.started_at + route.config.timeouts.total
        self.entered = False
        """Whether it holds a place at the route's gate, if there is one."""
        self.permission = b""
        """Fields that let the page of an allowed origin read the answer; mostly none."""
        self.status = 0
        self.platform_error: PlatformError | None = None
        """What the answer means where Google's front end made it, not the application."""
        self.attempts = self.request_bytes = self.response_bytes = 0
        self.came_whole = False
        """Whether the answer came in one piece: then its head came when everything ended."""
        self.destination = route.destinations[0]  # Where attempts go.
        self.choice: Choice | None = None
        """What it has tried of several destinations; None where the route has one."""
        self._target = head.target
        """The target as the route passes it on; the caller's until that is known."""
        self._kept = b""
        """The fields for the upstream, without the identity header."""
        self._ended = False  # Whether the request is whole.
        self._tunnel: Tunnel | None = None  # What the connection has become after a 101.
        self._replay: Replay | None = None
        """What is kept of the body; None as long as nothing of it has come."""
        self._trailers = b""
        self._answered = False
        """Whether the caller has got anything of an answer, a 1xx included: no repeat then."""
        self.task: asyncio.Task[None] | None = None
        # For one attempt
        self._up: UpstreamCodec | None = None
        self.sent_at = 0.0  # As much of it as had come.
        self.token: Token | None = None
        self._held: Held | None = None
        self.replaces_token = True
        """Whether another token may be tried after a refused one: once."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has come."""
        return self._ended

    def _move_to(self, new: State) -> None:
        """Change the state; the only writer."""
        if not ALLOWED[self.state][new]:
            raise AssertionError(f"an exchange cannot move from {self.state!r} to {new!r}")
        self.state = new

    def _touch(self) -> float:
        """Move the deadline because something has come or gone; return the steady clock's time."""
        timeouts = self.route.config.timeouts
        waits = self._ended and self.state is ATTEMPTING
        now = self._owner.clock()
        deadline = now + (timeouts.response if waits else timeouts.idle)
        total = self._total_at
        self.deadline = deadline if deadline < total else total  # noqa: FURB136 (slower, runs often)
        return now

    # --- admission: RequestSink.start --------------------------------------------------------

    def start(self, *, ended: bool) -> None:
        """Begin; on the warm path the attempt is under way when this returns."""
        self._ended = ended
        route = self.route
        route.stats.in_flight += 1
        self._owner.exchanges.add(self)
        if route.budget.is_low:
            route.budget.deposit()
        head = self.head
        if head.guarded or head.raw_size > route.head_limit or route.body_limit:
            try:
                if self._answer_here():
                    return
            except ProxyError as error:
                self.fail(error)
                return
        self._target, self._kept = route.prepare(head)
        if route.gate is None or route.gate.try_enter():
            self.entered = True
            if route.several is not None:
                self.choice = Choice(route.several, self)
            line = self.destination.identity_line()
            if line is not None and (up := self._connector().take(self)) is not None:
                self._up = up
                self._attempt(up, line)
                return
        self._wait(self._pursue)

    def _connector(self) -> Connector:
        """Return where the connection for an attempt comes from."""
        head, spoken = self.head, self._down.protocol
        if head.upgrade or head.grpc:
            return self.destination.connector(head, spoken)
        return self.destination.connectors[spoken]

    @property
    def upstream_target(self) -> bytes:
        """The target as the upstream sees it; the caller's where it did not get that far."""
        return self.destination.target(self._target)

    def _answer_here(self) -> bool:
        """Answer what no upstream has to; return whether it was answered.

        Raises:
            ProxyError: the request may not pass.
        """
        head, route = self.head, self.route
        route.check(head)
        if not head.guarded:
            return False
        self.permission = route.guard.permission_for(head)
        if not (self.permission and guard.is_preflight(head)):
            return False
        self.status = guard.PERMITTED
        self._finish(None)
        write_preflight(self._down, head, now=self._owner.wall(), permission=self.permission)
        return True

    # --- an attempt --------------------------------------------------------------------------

    def _attempt(self, up: UpstreamCodec, line: bytes) -> None:
        """Send what there is of the request on `_up`; whoever called flushes."""
        self._move_to(ATTEMPTING)
        self.attempts += 1
        destination = self.destination
        self.token = destination.token
        fields = self._kept + line
        up.send_head(
            self,
            self.head,
            target=destination.target(self._target) if destination.base else self._target,
            authority=destination.authority,
            fields=destination.counted(fields) if destination.quota_project else fields,
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
        self.sent_at = self._touch()

    def _wait(self, step: Step) -> None:
        """Go on in a task."""
        self._move_to(WAITING)
        self.deadline = self._total_at
        self.task = self._owner.spawn(self._guarded(step), f"exchange on {self.route.name}")

    async def _guarded(self, step: Step) -> None:
        """Turn what a waiting step raises into the exchange's failure.

        The step is made here, so that none is left over if the task ends before it begins.
        """
        try:
            try:
                await step()
            except ProxyError as error:
                self.task = None
                self.fail(error)
        except Exception as bug:  # noqa: BLE001 (it ends this exchange, whatever it is)
            self.task = None
            unexpected.end(self, bug)

    async def _pursue(self, *, fresh: bool = False, pause: float = 0.0) -> None:
        """Wait for all that an attempt needs, then make it."""
        await rest(pause)
        if not self.entered:
            await self.pursuit().enter()
            self.entered = True
        if self.choice is None and self.route.several is not None:
            self.choice = Choice(self.route.several, self)
        token, up = await equip(self, fresh=fresh)
        self.task, self._up = None, up
        # Before anything is written: the upstream may ask for a pause at once.
        self._down.resume_request()
        self._attempt(up, self.destination.line_of(token))
        if self._up is not None:
            self._up.flush()

    def pursuit(self, *, fresh: bool = False) -> Pursuit:
        """Return the wait for what another attempt needs."""
        return Pursuit(
            self.route,
            self.destination,
            self._history(),
            self._owner.jitter,
            self._connector(),
            redials=self.choice is None or self.choice.is_last,
            fresh=fresh,
        )

    # --- the rest of the request: RequestSink ------------------------------------------------

    def request_data(self, data: bytes) -> None:
        """Pass on a part of the body, or hold it until there is somebody to pass it to."""
        size = len(data)
        self.request_bytes += size
        self.route.stats.request_bytes += size
        limit = self.route.config.limits.body_bytes
        if limit and self.request_bytes > limit and self.state < TUNNELLING:
            self.broken(BodyTooLarge(f"More than {limit} bytes came or were announced."))
        elif self._up is not None:
            if self.state is ATTEMPTING or self.state is HOLDING:
                self._body().sent(data)
            self._up.send_data(data)
        elif self.state is WAITING:
            body = self._body()
            body.hold(data)
            if body.size > _WAITING_BYTES:
                self._down.pause_request()

    def _body(self) -> Replay:
        """Return what is kept of the body."""
        if self._replay is None:
            self._replay = Replay(self.route.config.retries.max_body)
        return self._replay

    def request_end(self, trailers: bytes) -> None:
        """Pass on the end of the request; in a tunnel, the caller's half-close."""
        if self._tunnel is not None:
            if self._tunnel.end_down():
                self._close(self._tunnel)
            return
        self._ended = True
        if trailers:
            trailers = self._trailers = self.route.trailers(trailers)
        if self._up is not None:
            self._up.send_end(trailers)
            self._touch()
        elif self.state is WAITING:
            self._connector().completed(self)

    def request_flush(self) -> None:
        """Let what came in this segment leave."""
        if self._up is not None and (not self._ended or self.state is TUNNELLING):
            self._up.flush()
            self._touch()

    def pause_response(self) -> None:
        """Pass on the caller's slowness."""
        if self._up is not None:
            self._up.pause_response()

    def resume_response(self) -> None:
        """Pass on that it has caught up."""
        if self._up is not None:
            self._up.resume_response()

    # --- the response: ResponseSink ----------------------------------------------------------

    def informational(self, head: ResponseHead) -> None:
        """Pass on a 1xx; after it the caller has seen a part of this attempt's answer."""
        self._answered = True
        self._down.write_informational(head)

    def response_head(self, head: ResponseHead) -> None:
        """Pass on the final head, unless the attempt is repeated instead."""
        self.route.stats.upstream_head.observe(self._owner.clock() - self.sent_at)
        if head.status >= 400 and self._intercept(head):  # noqa: PLR2004 (errors begin there)
            return
        if self.choice is not None:
            self.choice.answered()
        self._relay(head)

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """Pass on an answer that came in one piece."""
        self.came_whole = True
        self.status = head.status
        if self.choice is not None:
            self.choice.answered()
        if self.permission or self.route.edits:
            self.route.edit(head, self.head, self.destination, self.permission)
        size = self.response_bytes = len(body)
        self.route.stats.response_bytes += size
        self._finish(None)
        # Last: the caller's next request may begin within this call.
        self._down.write_whole(head, body)

    def _relay(self, head: ResponseHead) -> None:
        """Begin the response to the caller."""
        self.status = head.status
        if head.status == 101 and self._up is not None:  # noqa: PLR2004 (RFC 9110, 15.2.2)
            self._move_to(TUNNELLING)
            self._tunnel = Tunnel(self._down, self._up)
            self.protocol = "ws"
        else:
            self._move_to(RELAYING)
        if self._replay is not None:
            self._replay.forget()
        if self.permission or self.route.edits:
            self.route.edit(head, self.head, self.destination, self.permission)
        self._down.write_head(head)

    def response_data(self, data: bytes) -> None:
        """Pass on a part of the body."""
        if self._held is not None:
            self._held.data(data)
            return
        size = len(data)
        self.response_bytes += size
        self.route.stats.response_bytes += size
        self._down.write_data(data)

    def response_end(self, trailers: bytes) -> None:
        """Pass on the end; in a tunnel, the upstream's half-close."""
        if self._tunnel is not None:
            if self._tunnel.end_up():
                self._close(self._tunnel)
            return
        self._up = None
        if self._held is not None:
            self._held.end(trailers)
            return
        self._finish(None)
        # Last: the caller's next request may begin within this call.
        self._down.write_end(trailers)

    def response_flush(self) -> None:
        """Let what came in this segment leave."""
        if self._held is not None:
            self._held.decide()
        elif self.state is RELAYING or self.state is TUNNELLING:
            self._down.flush()
            self._touch()

    def pause_request(self) -> None:
        """Pass on the upstream's slowness."""
        if not self._ended or self.state is TUNNELLING:
            self._down.pause_request()

    def resume_request(self) -> None:
        """Pass on that it has caught up."""
        self._down.resume_request()

    # --- another attempt ---------------------------------------------------------------------

    def failed(self, error: ProxyError) -> None:
        """Repeat the attempt where that is safe, else tell the caller."""
        attempt = self._history()
        self._up = None
        if self._tunnel is not None and self._tunnel.up_ended:
            # The upstream had ended its half of the tunnel: TLS cannot leave the other open.
            self._finish(None)
            self._down.close()
            return
        if self.state is ATTEMPTING:
            if unprocessed(error, attempt):
                self._repeat_refused(error, attempt)
                return
            if stale_connection(error, attempt):
                self.route.stats.retries["stale"] += 1
                self._wait(partial(self._pursue, fresh=True))
                return
            if self.choice is not None:
                self.choice.failed(error)
            if self._repeats(cause_of(error), attempt):
                return
        self.fail(error)

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
        self._held = None
        self._drop_upstream()
        if self.choice is not None:
            self.choice.next(str(cause))
        pause = pause_before(attempt.number, policy, retry_after, self._owner.jitter)
        self._wait(partial(self._pursue, pause=pause))
        return True

    def _repeat_refused(self, error: ProxyError, attempt: Attempt) -> None:
        """Begin another attempt after one that the upstream has not begun: at once, then slower."""
        self.route.stats.retries["refused"] += 1
        pause, earlier = 0.0, attempt.number - 1
        if self.choice is not None and self.choice.moves_on(error):
            earlier = 0
        if earlier:
            policy = self.route.config.retries
            pause = pause_before(earlier, policy, None, self._owner.jitter)
        self._wait(partial(self._pursue, pause=pause))

    def _intercept(self, head: ResponseHead) -> bool:
        """Keep a response from the caller, to look at it or to repeat; return whether."""
        if not (may_be_platform(head) or may_be_api_refusal(head, self.token)):
            if self.choice is not None:
                self.choice.answered()
            return self.repeats_status(head)
        self._move_to(HOLDING)
        self._held = Held(self, head)
        self.deadline = min(self._owner.clock() + HOLD_SECONDS, self._total_at)
        return True

    def repeats_status(self, head: ResponseHead) -> bool:
        """Begin another attempt after a status that the route repeats; return whether."""
        if head.status not in self.route.config.retries.on:
            return False
        wait = wait_before(values(head.fields, b"retry-after"))
        return wait is not None and self._repeats(head.status, self._history(), wait)

    # --- for a response that is held ---------------------------------------------------------

    @property
    def is_repeatable(self) -> bool:
        """Whether another attempt can be made of what is at hand, unnoticed by the caller."""
        return self._ended and self._is_replayable() and not self._answered

    def hold_for(self, step: Step) -> None:
        """Do `step` while a response is held, and not read."""
        if self._up is not None:
            self._up.pause_response()
        self.deadline = self._total_at
        self.task = self._owner.spawn(self._guarded(step), f"response held on {self.route.name}")

    def repeat(self) -> None:
        """Drop the held response and make another attempt."""
        self._held = None
        self._drop_upstream()
        self._wait(self._pursue)

    def explain(self, page: ResponseHead, error: PlatformError) -> bool:
        """Answer with `error` instead of a page if the caller is to read that; return whether."""
        request = self._failed_request()
        if not request.is_told(self.route.config.platform_errors):
            return False
        self.status = page.status
        self._finish(None)
        request.answer(error, now=self._owner.wall(), page=page.fields)
        return True

    def release(self, head: ResponseHead) -> None:
        """Begin the held response to the caller."""
        self._held = None
        # Before anything is written: the caller may ask for a pause at once.
        self.resume_response()
        self._relay(head)

    # --- the end -----------------------------------------------------------------------------

    def gone(self) -> None:
        """Cancel everything: nobody waits for the answer any more."""
        if self.state is FINISHED:
            return
        self._drop_upstream()
        if self.state is TUNNELLING:
            self._finish(None)
        else:
            self.status = DownstreamGone.status
            self._finish(DownstreamGone("The caller closed the connection."))

    def collapse(self) -> None:
        """Cut what the caller still waits for; see `ResponseSink`."""
        try:
            self.gone()
        finally:
            self._down.abort()

    def _close(self, tunnel: Tunnel) -> None:
        self._finish(None)
        tunnel.close()

    def broken(self, error: ProxyError) -> None:
        """Give up: the rest of the request cannot be passed on."""
        self.fail(error)

    def on_deadline(self, now: float) -> None:
        """Fail with the deadline that has passed."""
        timeouts = self.route.config.timeouts
        if now >= self._total_at:
            detail = f"The exchange was not done within {timeouts.total:g} s (timeouts.total)."
        elif self._held is not None:
            self._held.overdue()
            return
        elif self.state is ATTEMPTING and self._ended:
            detail = f"No response came within {timeouts.response:g} s (timeouts.response)."
            if self.choice is not None:
                self.choice.failed(UpstreamTimedOut(detail))
            if self._repeats("timeout", self._history()):
                return
        else:
            detail = f"Nothing came for {timeouts.idle:g} s (timeouts.idle)."
        self.fail(UpstreamTimedOut(detail))

    def cut(self) -> None:
        """End what is left when the drain is over."""
        self.fail(Draining("The exchange was not done when the drain ended."))

    def fail(self, error: ProxyError) -> None:
        """End with an error: as a response where none has begun, else as a cut."""
        if self.state is FINISHED:
            return
        self._drop_upstream()
        if self.state is RELAYING or self.state is TUNNELLING:
            self._finish(error)
            self._down.abort()
            return
        self.status = error.status
        self._finish(error)
        self._failed_request().answer(error, now=self._owner.wall())

    def _failed_request(self) -> FailedRequest:
        return FailedRequest(
            self._down,
            self.head,
            self.route.name,
            self.route.config.errors,
            body=self._replay.small() if self._ended and self._replay is not None else b"",
            permission=self.permission,
            said=b"" if self.choice is None else self.destination.said,
        )

    def _drop_upstream(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.cancel()

    def _finish(self, error: ProxyError | None) -> None:
        """End, exactly once: the terminal state refuses a second time."""
        self._move_to(FINISHED)
        self._owner.exchanges.discard(self)
        self._up = self._held = self._tunnel = None
        self.route.stats.in_flight -= 1
        if self.entered and self.route.gate is not None:
            self.route.gate.leave()
        if self.task is not None:
            self.task.cancel()
        if self.choice is not None:
            self.choice.ended()
        self._owner.finished(self, error)
