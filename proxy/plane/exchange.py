"""One request and its response: a state machine between two codecs.

It knows routes, tokens, attempts, deadlines and numbers; it knows no wire format.  The warm
path (a cached token, an idle connection) runs in the caller's own callback without a task or
a future; only what has to wait becomes a task.
"""

from __future__ import annotations

from functools import partial

from proxy.errors import (
    BodyTooLarge,
    DownstreamGone,
    Draining,
    HeadersTooLarge,
    ProxyError,
    UpstreamTimedOut,
)
from proxy.plane import guard
from proxy.plane.answer import dated, write_error
from proxy.plane.attempting import Attempting
from proxy.plane.head import ResponseHead, block
from proxy.plane.replay import Replay
from proxy.plane.state import ATTEMPTING, FINISHED, HOLDING, RELAYING, TUNNELLING, WAITING
from proxy.retry import cause_of, stale_connection, unprocessed

# Bytes of a body that may wait for an upstream before the caller is asked to pause.
_WAITING_BYTES = 64 * 1024


class Exchange(Attempting):
    """Serves one request: both a `RequestSink` and a `ResponseSink` (see `proxy.plane.codec`)."""

    __slots__ = ()

    # --- the caller's half: RequestSink --------------------------------------------------

    def start(self, *, ended: bool) -> None:
        """Begin; on the warm path the attempt is under way when this returns."""
        self._ended = ended
        self._keeper.sweeper.add(self)
        route = self.route
        route.stats.in_flight += 1
        route.budget.deposit()
        head = self.head
        if head.guarded or head.raw_size > route.head_limit or route.body_limit:
            try:
                if self._answer_here():
                    return
            except ProxyError as error:
                self.fail(error)
                return
        self.upstream_target, self._kept = route.prepare(head)
        if route.gate is None or route.gate.try_enter():
            self.entered = True
            line = route.identity_line()
            if line is not None and (up := self._source.take(self)) is not None:
                self._attempt(up, line)
                return
        self._wait(self._pursue)

    def request_data(self, data: bytes) -> None:
        """Pass on a part of the body, or hold it until there is somebody to pass it to."""
        size = len(data)
        self.request_bytes += size
        self.route.stats.request_bytes += size
        limit = self.route.config.limits.body_bytes
        if limit and self.request_bytes > limit and self.state < TUNNELLING:
            self.broken(BodyTooLarge(f"The request body is larger than {limit} bytes."))
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
        if self.state is TUNNELLING:
            self._half_closed("downstream")
            return
        self._ended = True
        if trailers:
            trailers = self._trailers = self.route.trailers(trailers)
        if self._up is not None:
            self._up.send_end(trailers)
            self._touch()
        elif self.state is WAITING:
            self._source.completed(self)

    def request_flush(self) -> None:
        """Let what came in this segment leave."""
        if self._up is not None and (not self._ended or self.state is TUNNELLING):
            self._up.flush()
            self._touch()

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

    def broken(self, error: ProxyError) -> None:
        """Give up: the rest of the request cannot be passed on."""
        self.fail(error)

    def pause_response(self) -> None:
        """Pass on the caller's slowness."""
        if self._up is not None:
            self._up.pause_response()

    def resume_response(self) -> None:
        """Pass on that it has caught up."""
        if self._up is not None:
            self._up.resume_response()

    # --- the upstream's half: ResponseSink -----------------------------------------------

    def informational(self, head: ResponseHead) -> None:
        """Pass on a 1xx; after it the caller has seen a part of this attempt's answer."""
        self._answered = True
        self._down.write_informational(head)

    def response_head(self, head: ResponseHead) -> None:
        """Pass on the final head, unless the attempt is repeated instead."""
        self.route.stats.upstream_head.observe(self._keeper.clock() - self._sent_at)
        if head.status >= 400 and self._intercept(head):  # noqa: PLR2004 (errors begin there)
            return
        self._relay(head)

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """Pass on an answer that came in one piece."""
        stats = self.route.stats
        stats.upstream_head.observe(self._keeper.clock() - self._sent_at)
        self.status = head.status
        if self.origin:
            head.fields = guard.allow(head.fields, self.origin)
        size = self.response_bytes = len(body)
        stats.response_bytes += size
        self._finish(None)
        # Last: the caller's next request may begin within this call.
        self._down.write_whole(head, body)

    def response_data(self, data: bytes) -> None:
        """Pass on a part of the body."""
        if self._held is not None:
            self._held.pieces.append(data)
            return
        size = len(data)
        self.response_bytes += size
        self.route.stats.response_bytes += size
        self._down.write_data(data)

    def response_end(self, trailers: bytes) -> None:
        """Pass on the end; in a tunnel, the upstream's half-close."""
        if self.state is TUNNELLING:
            self._half_closed("upstream")
            return
        self._up = None
        if self._held is not None:
            self._held.ended = True
            self._held.trailers = trailers
            self._decide_held()
            return
        self._finish(None)
        # Last: the caller's next request may begin within this call.
        self._down.write_end(trailers)

    def response_flush(self) -> None:
        """Let what came in this segment leave."""
        if self._held is not None:
            self._decide_held()
        elif self.state is RELAYING or self.state is TUNNELLING:
            self._down.flush()
            self._touch()

    def failed(self, error: ProxyError) -> None:
        """Repeat the attempt where that is safe, else tell the caller."""
        attempt = self._history()
        self._up = None
        if self._half == "upstream":
            # The upstream had ended its half of the tunnel: TLS cannot leave the other open.
            self._finish(None)
            self._down.close()
            return
        if self.state is ATTEMPTING:
            if unprocessed(error, attempt):
                self._repeat_refused(attempt)
                return
            if stale_connection(error, attempt):
                self.route.stats.retries["stale"] += 1
                self._wait(partial(self._pursue, fresh=True))
                return
            if self._repeats(cause_of(error), attempt):
                return
        self.fail(error)

    def pause_request(self) -> None:
        """Pass on the upstream's slowness."""
        if not self._ended or self.state is TUNNELLING:
            self._down.pause_request()

    def resume_request(self) -> None:
        """Pass on that it has caught up."""
        self._down.resume_request()

    # --- deadlines and ends --------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Fail with the deadline that has passed."""
        timeouts = self.route.config.timeouts
        if now >= self._total_at:
            detail = f"The exchange was not done within {timeouts.total:g} s (timeouts.total)."
        elif self.state is ATTEMPTING and self._ended:
            detail = f"No response came within {timeouts.response:g} s (timeouts.response)."
            if self._repeats("timeout", self._history()):
                return
        else:
            detail = f"Nothing came for {timeouts.idle:g} s (timeouts.idle)."
        self.fail(UpstreamTimedOut(detail))

    def cut(self) -> None:
        """End what is left when the drain is over."""
        self.fail(Draining("The proxy was shut down before the exchange was done."))

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
        write_error(
            self._down,
            error,
            self.head,
            now=self._keeper.wall(),
            route=self.route.name,
            language=self.route.config.errors,
            origin=self.origin,
            body=self._small_body(),
        )

    def _small_body(self) -> bytes:
        """Return the request's body if it is whole, small and still at hand, else nothing."""
        return self._replay.small() if self._ended and self._replay is not None else b""

    def _finish(self, error: ProxyError | None) -> None:
        """End, exactly once: the terminal state refuses a second time."""
        self._move_to(FINISHED)
        self._keeper.sweeper.discard(self)
        self._up = self._held = None
        self.route.stats.in_flight -= 1
        if self.entered and self.route.gate is not None:
            self.route.gate.leave()
        if self._task is not None:
            self._task.cancel()
        self._keeper.finished(self, error)

    def _half_closed(self, half: str) -> None:
        """Pass on the end of one direction of a tunnel; with the second, all is done."""
        up = self._up
        if self._half and self._half != half:
            self._finish(None)
            if up is not None:
                up.close()
            self._down.close()
            return
        self._half = half
        if half == "upstream":
            self._down.write_end(b"")
        elif up is not None:
            up.send_end(b"")

    def _answer_here(self) -> bool:
        """Answer what no upstream has to; return whether it was answered.

        Raises:
            ProxyError: the request may not pass.
        """
        head, route = self.head, self.route
        if head.raw_size > route.head_limit:
            raise HeadersTooLarge(f"The request head is larger than {route.head_limit} bytes.")
        limit = route.body_limit
        if limit and (head.length or 0) > limit:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes.")
        if not head.guarded:
            return False
        self.origin = self.route.guard.origin_of(head)
        if not (self.origin and guard.is_preflight(head)):
            return False
        answer = guard.preflight_answer(head)
        date = block([dated(self._keeper.wall())])
        answer.fields = guard.allow(answer.fields + date, self.origin)
        self.status = answer.status
        self._finish(None)
        self._down.write_head(answer)
        self._down.write_end(b"")
        return True
