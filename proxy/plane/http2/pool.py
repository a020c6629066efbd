"""Streams to one route's upstream, on as few connections as it allows."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import Final, final

from proxy.deadlines import Within
from proxy.errors import Overloaded, ProxyError, UpstreamConnectFailed, UpstreamConnectTimedOut
from proxy.plane.dial import Dialler
from proxy.plane.http1.pool import IDLE_TIMEOUT, Pool
from proxy.plane.http2.upstream import USUAL_STREAMS, AskingStream, Http2Upstream, OnlyHttp1
from proxy.plane.limit import Applicant, ConnectionLimit
from proxy.plane.stats import Connections, RouteStats
from proxy.plane.sweeper import Sweeper

# Seconds of silence after which the kernel is asked, and the upstream itself, before use: the
# connection may have ended while Cloud Run had withdrawn the CPU, with nobody to hear of it.
_CHECK_AFTER: Final = 1.0
_VERIFY_AFTER: Final = 10.0

VERIFY_TIMEOUT: Final = 2.0
"""Seconds that the upstream may take to answer before another connection is dialled."""

# Seconds for which it is believed that an upstream does not speak HTTP/2: it may be redeployed.
_DECLINED: Final = 60.0

Turn = asyncio.Future["AskingStream | ProxyError | OnlyHttp1"]


@final
class StreamPool:
    """HTTP/2 connections to one upstream; what it gives out are streams.

    The first connection with a place serves, so that those beyond what is needed fall idle.
    """

    __slots__ = (
        "_closed", "_connections", "_declined", "_declined_until", "_dialler", "_dialling",
        "_expected", "_head_limit", "_http1", "_leaving", "_limit", "_sweeper", "_tasks",
        "_timeout", "_waiting", "deadline", "dials",
    )  # fmt: skip

    def __init__(
        self,
        dialler: Dialler,
        http1: Pool,
        *,
        limit: ConnectionLimit,
        head_limit: int,
        sweeper: Sweeper,
        stats: RouteStats,
    ) -> None:
        """`http1` serves the same upstream, within the same limit."""
        self._dialler = dialler
        self._http1 = http1
        self._limit = limit
        limit.share(self)
        self._head_limit = head_limit
        self._sweeper = sweeper
        self.dials = stats.dials
        """Where its dials are counted."""
        self._connections: list[Http2Upstream] = []
        self._leaving: set[Http2Upstream] = set()
        self._waiting: OrderedDict[Turn, int] = OrderedDict()
        """Those who wait, in the order of arrival, by their number."""
        self._dialling = 0
        self._timeout = 0.0
        """What whoever came last waits for a dial (seconds)."""
        self._expected = USUAL_STREAMS
        """How many streams the next connection will probably allow."""
        self._declined_until = -math.inf
        self._declined = ""
        """How it said that it does not speak HTTP/2."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.deadline = math.inf
        sweeper.add(self)

    @property
    def origin(self) -> str:
        """The upstream, for messages."""
        return self._dialler.upstream.origin

    @property
    def is_declined(self) -> bool:
        """Whether the upstream is known not to speak HTTP/2."""
        return self._declined_until > self._sweeper.clock()

    def connections(self) -> Connections:
        """Return the counts of this moment."""
        everything = [*self._connections, *self._leaving]
        busy = sum(1 for connection in everything if connection.active)
        return Connections(
            len(everything) - busy, busy, self._dialling, sum(not t.done() for t in self._waiting)
        )

    def take(self, applicant: Applicant) -> AskingStream | None:  # noqa: ARG002 (as the other pool's)
        """Return a stream, or None where one must be awaited with `acquire`."""
        if self._waiting:
            return None  # Who waits comes first.
        now = self._sweeper.clock()
        for connection in self._connections:
            if connection.has_place:
                silent = now - connection.heard_at
                if silent < _CHECK_AFTER or (silent < _VERIFY_AFTER and not connection.has_news()):
                    return connection.open()
        return None

    async def acquire(
        self, timeout: float, applicant: Applicant, *, fresh: bool = False
    ) -> AskingStream:
        """Return a stream on a connection that is there, or on a new one.

        `timeout` bounds the wait for a place, and the dialling (seconds).  `fresh` asks for a
        connection that was heard of just now.

        Raises:
            Overloaded: no place became free in time.
            OnlyHttp1: the upstream does not speak HTTP/2.
            ProxyError: dialling failed; see `Dialler.dial`.
        """
        if self.is_declined:
            raise OnlyHttp1(self._declined, is_certain=True)
        if not fresh:
            stream = self.take(applicant) or await self._verified(timeout)
            if stream is not None:
                return stream
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = self._limit.arrive()
        self._timeout = timeout
        self._serve_waiting()
        # A dial has its own deadline and tells the outcome; without one a place is waited for.
        patience = timeout * 2 if self._dialling else timeout
        try:
            async with Within(patience):
                outcome = await turn
        except TimeoutError:
            self._give_back(turn)
            raise self._no_place(patience) from None
        except asyncio.CancelledError:
            self._give_back(turn)
            raise
        if isinstance(outcome, AskingStream):
            if fresh:
                outcome.reused = False  # One repeat is enough: who asks has met a dead one.
            return outcome
        raise outcome

    def completed(self, applicant: Applicant) -> None:
        """A stream does not keep others from theirs: nothing depends on it."""

    def close(self) -> None:
        """Close idle connections now and the others when their streams have ended."""
        self._closed = True
        self._sweeper.discard(self)
        for connection in list(self._connections):
            connection.retire()

    def on_deadline(self, now: float) -> None:
        """Close what has idled too long."""
        for connection in list(self._connections):
            if not connection.active and connection.idle_since + IDLE_TIMEOUT <= now:
                connection.close()
        self._set_deadline()

    # --- the connections' side -----------------------------------------------------------

    def freed(self, connection: Http2Upstream) -> None:
        """Give a place that is free to whoever waits."""
        if self._waiting:
            self._serve_waiting()
        elif not connection.active:
            if self._closed:
                connection.retire()
            else:
                # What comes too early is looked at again.
                self.deadline = min(self.deadline, connection.idle_since + IDLE_TIMEOUT)
                if self._limit.is_full:
                    self._limit.offer()  # Somebody may wait who needs its place.

    def retired(self, connection: Http2Upstream) -> None:
        """Give no more places on the connection."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._leaving.add(connection)

    def lost(self, connection: Http2Upstream) -> None:
        """Forget a connection that is closed; others may take its place."""
        if connection in self._connections:
            self._connections.remove(connection)
        elif connection in self._leaving:
            self._leaving.remove(connection)
        else:
            return  # Whoever dialled it gives back the place.
        self._limit.give_back()

    # --- the limit's side ----------------------------------------------------------------

    def waits_since(self) -> float:
        """Return the number of whoever has waited longest for a dial; see `SharingPool`."""
        return next(iter(self._waiting.values())) if self._wants_dial() else math.inf

    def use_place(self) -> bool:
        """Dial, if somebody waits for that."""
        if not self._wants_dial():
            return False
        self._dialling += 1
        task = asyncio.get_running_loop().create_task(
            self._dial(self._timeout), name=f"dial {self.origin}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def close_idle(self) -> bool:
        """Close one connection that is idle; return whether there was one."""
        for connection in self._connections:
            if not connection.active:
                connection.close()
                return True
        return False

    # --- waiting and dialling ------------------------------------------------------------

    async def _verified(self, timeout: float) -> AskingStream | None:
        """Return a stream on a connection that was silent for a while, but answers a ping."""
        for connection in self._connections:
            if connection.has_place and not connection.is_doubtful and not self._waiting:
                answers = await connection.verify(min(timeout, VERIFY_TIMEOUT))
                return connection.open() if answers and connection.has_place else None
        return None

    def _serve_waiting(self) -> None:
        """Give places to those who wait, the first first; dial for those who are left."""
        waiting = self._waiting
        heard = self._sweeper.clock() - _CHECK_AFTER
        for connection in self._connections:
            while waiting and connection.has_place and connection.heard_at >= heard:
                turn, _ = waiting.popitem(last=False)
                if not turn.done():
                    turn.set_result(connection.open())
        if waiting:
            self._limit.offer()

    def _wants_dial(self) -> bool:
        """Tell whether those who wait are more than the dials under way will probably serve."""
        waiting = self._waiting
        while waiting and next(iter(waiting)).done():
            _ = waiting.popitem(last=False)
        wanted = math.ceil(len(waiting) / self._expected)
        return self._dialling < wanted and not self.is_declined

    async def _dial(self, timeout: float) -> None:
        """Dial once, and tell the outcome to those who wait."""
        outcome: ProxyError | OnlyHttp1 | None
        try:
            outcome = await self._connect(timeout)
        except ProxyError as error:
            outcome = error
        except BaseException:
            self._limit.give_back()
            raise
        finally:
            self._dialling -= 1
        failed = isinstance(outcome, ProxyError)
        self.dials[outcome.reason if isinstance(outcome, ProxyError) else "ok"] += 1
        if outcome is None or (failed and self._dialling):
            self._serve_waiting()
        else:
            self._tell_waiting(outcome)
        is_adopted = isinstance(outcome, OnlyHttp1) and self._dialler.upstream.tls
        if outcome is not None and not is_adopted:
            self._limit.give_back()

    async def _connect(self, timeout: float) -> OnlyHttp1 | ProxyError | None:
        """Add a connection that has said how many streams it takes; or return why there is none."""
        until = self._sweeper.clock() + timeout
        transport, connection = await self._dialler.dial(self._connection, timeout)
        try:
            async with Within(max(until - self._sweeper.clock(), 0.0)):
                outcome = await connection.ready
        except TimeoutError:
            connection.drop()
            raise UpstreamConnectTimedOut(
                f"{self.origin} was not connected within {timeout:g} s (HTTP/2 settings)."
            ) from None
        if isinstance(outcome, OnlyHttp1):
            if outcome.is_certain:
                self._declined_until = self._sweeper.clock() + _DECLINED
                self._declined = f"{outcome}"
            if self._dialler.upstream.tls:
                self._http1.adopt(transport)
        if outcome is not None:
            return outcome
        if connection.most_streams == 0:
            connection.close()
            return UpstreamConnectFailed(f"{self.origin} allows no HTTP/2 streams.")
        self._expected = connection.most_streams
        self._connections.append(connection)
        connection.idle_since = self._sweeper.clock()
        self._set_deadline()
        return None

    def _connection(self) -> Http2Upstream:
        tls = self._dialler.upstream.tls
        return Http2Upstream(self, self._head_limit, self._sweeper, tls=tls)

    def _tell_waiting(self, outcome: ProxyError | OnlyHttp1) -> None:
        """Give everybody who waits for this connection the reason why there is none."""
        waiting, self._waiting = self._waiting, OrderedDict()
        for turn in waiting:
            if not turn.done():
                turn.set_result(outcome)

    def _give_back(self, turn: Turn) -> None:
        """Pass on what came for a waiter that has just left."""
        if turn in self._waiting:
            del self._waiting[turn]
        elif turn.done() and not turn.cancelled():
            outcome = turn.result()
            if isinstance(outcome, AskingStream):
                outcome.cancel()

    def _no_place(self, waited: float) -> ProxyError:
        return Overloaded(
            f"All streams to {self.origin} were busy for {waited:g} s.", retry_after=1
        )

    def _set_deadline(self) -> None:
        idle = [c.idle_since for c in self._connections if not c.active]
        self.deadline = min(idle) + IDLE_TIMEOUT if idle else math.inf
