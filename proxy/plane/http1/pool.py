"""HTTP/1.1 connections to one route's upstream: reused, bounded, and handed out fairly.

Two things bound who gets one.  A request that is not whole keeps its connection for as long as its
caller likes, so such ones (`Uploads`) never have all of them.  And a request that must not be
repeated gets none that the upstream may be about to close (`KeepAlive`).
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from functools import lru_cache
from typing import Final, final

from proxy.deadlines import Within
from proxy.errors import Overloaded, ProxyError, UpstreamConnectFailed
from proxy.plane.dial import Dialler
from proxy.plane.head import RequestHead, tokens
from proxy.plane.http1.upstream import Http1Upstream
from proxy.plane.limit import Applicant, ConnectionLimit
from proxy.plane.stats import Connections, RouteStats
from proxy.plane.sweeper import Sweeper
from proxy.retry import IDEMPOTENT

IDLE_TIMEOUT: Final = 90.0
"""Seconds that idle connections are kept: well below any front end's own time (600 s)."""

STALLED_AFTER: Final = 60.0
"""Seconds for which the caller of a response may read nothing while others wait for a connection
and what stalls holds nine tenths; nginx ends such a response in any case (`send_timeout`)."""

UNKNOWN: Final = 1.0
"""Seconds that are taken for granted of an upstream that nothing is known of.  The shortest time
that servers keep connections by default is 2 s (gunicorn)."""

_WELL_BELOW: Final = 0.5
"""The share of the known time that counts: timers are coarse, and a request takes a while."""


Turn = asyncio.Future["Http1Upstream | None"]
"""Done with a connection, or with None where whoever waited shall dial: it has a place."""


@final
class Pool:
    """HTTP/1.1 connections to one upstream.

    LIFO: the warmest connection serves next, and a pool that became too large shrinks.
    """

    __slots__ = (
        "_closed", "_dialler", "_dialling", "_head_limit", "_idle", "_keep_alive", "_limit",
        "_most_tunnels", "_open", "_stalled", "_sweeper", "_tunnels", "_uploads",
        "_waiting", "deadline", "dials",
    )  # fmt: skip

    def __init__(
        self,
        dialler: Dialler,
        *,
        limit: ConnectionLimit,
        tunnels: int,
        head_limit: int,
        sweeper: Sweeper,
        stats: RouteStats,
    ) -> None:
        """`tunnels` bounds the connections that have become tunnels, 0 for no bound.

        `head_limit` is a response head's bytes.
        """
        self._dialler = dialler
        self._limit = limit
        limit.share(self)
        self._most_tunnels = tunnels or math.inf
        self._head_limit = head_limit
        self._sweeper = sweeper
        self.dials = stats.dials
        """Where its dials are counted."""
        self._idle: deque[Http1Upstream] = deque()
        """The one that has idled longest first.  What is closed meanwhile stays until it is met:
        to search for it would take time by the number of connections."""
        self._waiting: OrderedDict[Turn, int] = OrderedDict()
        """Those who wait, in the order of arrival, by their number."""
        self._uploads = Uploads(limit.most)
        self._stalled: OrderedDict[Http1Upstream, float] = OrderedDict()
        """Those that are not read because their callers do not read, and since when."""
        self._open = 0
        """How many connections there are, tunnels apart."""
        self._tunnels = 0
        self._dialling = 0
        self._closed = False
        self._keep_alive = KeepAlive(IDLE_TIMEOUT)
        self.deadline = math.inf
        """When the connection that has idled longest expires; the sweeper asks."""
        sweeper.add(self)

    def connections(self) -> Connections:
        """Return the counts of this moment."""
        idle = sum(connection.is_idle for connection in self._idle)
        busy = self._open - idle + self._tunnels
        waiting = len(self._waiting) + self._uploads.waiting
        return Connections(idle, busy, self._dialling, waiting)

    def take(self, applicant: Applicant, *, counted: bool = False) -> Http1Upstream | None:
        """Return an idle connection, or None where one must be awaited with `acquire`.

        `counted` tells that it has a place among the uploads already.
        """
        idle = self._idle
        if self._waiting:
            return None  # Who waits comes first.
        if self._uploads.is_full and not (counted or applicant.is_whole):
            return None
        while idle:
            connection = idle.pop()
            if not connection.is_idle:
                continue  # It is closed.
            age = self._sweeper.clock() - connection.idle_since
            # Asked each time, for half a microsecond: the far end may have sent FIN, or bytes
            # that nobody asked for, and the loop not have come to read them. Above all after
            # Cloud Run had withdrawn the CPU.
            if age < IDLE_TIMEOUT and connection.is_quiet():
                if age >= self._keep_alive.safe and _is_precious(applicant.head):
                    idle.append(connection)
                    self._learn()
                    return None
                connection.is_idle = False
                return connection
            connection.is_idle = False
            self._keep_alive.found_closed(age)
            connection.close(abort=True)
        return None

    def _longest_idle(self) -> Http1Upstream | None:
        """Return the connection that has idled longest."""
        idle = self._idle
        while idle and not idle[0].is_idle:
            _ = idle.popleft()
        return idle[0] if idle else None

    def _learn(self) -> None:
        """See how long the upstream has kept a connection: the one that has idled longest."""
        connection = self._longest_idle()
        if connection is not None and connection.is_quiet():
            self._keep_alive.seen_open(self._sweeper.clock() - connection.idle_since)

    async def acquire(
        self, timeout: float, applicant: Applicant, *, fresh: bool = False
    ) -> Http1Upstream:
        """Return a connection: an idle one (unless `fresh`), a new one, or the next to be free.

        `timeout` bounds the wait for a place, and again the dialling (seconds).

        Raises:
            Overloaded: no connection became free in time.
            ProxyError: dialling failed; see `Dialler.dial`.
        """
        until = asyncio.get_running_loop().time() + timeout
        counted = await self._uploads.enter(applicant, timeout)
        try:
            connection = await self._acquire(
                until, timeout, applicant, fresh=fresh, counted=counted
            )
        except BaseException:
            if counted:
                self._uploads.end()
            raise
        connection.is_uploading = counted
        return connection

    async def _acquire(
        self, until: float, timeout: float, applicant: Applicant, *, fresh: bool, counted: bool
    ) -> Http1Upstream:
        """As `acquire`; a place is waited for `until` a time of the loop's."""
        while True:
            if not fresh and (connection := self.take(applicant, counted=counted)) is not None:
                return connection
            if not self._waiting and self._limit.take():
                return await self._dial(timeout)
            connection = await self._turn(until, timeout)
            if connection is None:
                return await self._dial(timeout)
            if not connection.is_closed and connection.is_quiet():
                return connection
            # It died on the way here, and its place may be somebody else's already.
            connection.close(abort=True)

    def release(self, connection: Http1Upstream) -> None:
        """Take back a connection that has served its exchange."""
        if self._closed:
            # Not even for those who wait: other roots may be trusted now.
            connection.close()
            return
        if self._waiting and self._hand_over(connection):
            return
        connection.is_idle = True
        connection.idle_since = now = self._sweeper.clock()
        if not self._idle:
            self.deadline = now + IDLE_TIMEOUT
        self._idle.append(connection)
        if self._limit.is_full:
            self._limit.offer()  # Somebody may wait who needs its place.

    def _hand_over(self, connection: Http1Upstream) -> bool:
        """Give the connection, or its place, to whoever has waited longest; return whether."""
        if self._limit.first() is not self:
            connection.close()
            return True
        turn = self._next()
        if turn is not None:
            turn.set_result(connection)
        return turn is not None

    def _next(self) -> Turn | None:
        """Return the turn of whoever has waited longest, who waits no more."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                return turn
        return None

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over a connection that was dialled for another protocol, and its place."""
        connection = self._connection()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        self._count_in(connection)
        self.release(connection)

    def upload_began(self, connection: Http1Upstream) -> None:
        """Count a request that has a connection and is not whole, unless it is counted already."""
        if not connection.is_uploading:
            connection.is_uploading = True
            self._uploads.begin()

    def upload_ended(self, connection: Http1Upstream) -> None:
        """Uncount it: the request is whole, or its connection is gone."""
        connection.is_uploading = False
        self._uploads.end()

    def stalled(self, connection: Http1Upstream) -> None:
        """Note that the caller of a response does not read on."""
        now = self._sweeper.clock()
        self._stalled[connection] = now
        if len(self._stalled) > self._uploads.most:
            self.deadline = min(self.deadline, now + STALLED_AFTER)

    def resumed(self, connection: Http1Upstream) -> None:
        """Note that it reads on."""
        self._stalled.pop(connection, None)

    def completed(self, applicant: Applicant) -> None:
        """Note that a request that waits for a connection is whole now."""
        self._uploads.completed(applicant)

    def tunnelled(self, connection: Http1Upstream) -> None:
        """Count a connection that has become a tunnel as one; its place is another's.

        Raises:
            Overloaded: there may be no more tunnels.
        """
        self.check_tunnels()
        connection.is_tunnel = True
        self.resumed(connection)
        self._tunnels += 1
        self._open -= 1
        self._limit.give_back()

    def check_tunnels(self) -> None:
        """Raise `Overloaded` if there may be no more tunnels."""
        if self._tunnels >= self._most_tunnels:
            raise Overloaded(
                f"{self._tunnels} tunnels to {self._dialler.upstream.origin} are open.",
                hint="Raise the route's limits.tunnels.",
                retry_after=1,
            )

    def promised(self, keep_alive: bytes) -> None:
        """Take what the upstream's Keep-Alive field says."""
        self._keep_alive.promised(timeout_of(keep_alive))

    def lost(self, connection: Http1Upstream, *, ended: bool = False) -> None:
        """Forget a connection that has closed; its place goes to whoever waits.

        `ended` tells that the upstream has closed it.
        """
        if not connection.is_counted:
            return  # Whoever dialled it has gone meanwhile, and gives back the place.
        if connection.is_uploading:
            self.upload_ended(connection)
        self.resumed(connection)
        if connection.is_tunnel:
            self._tunnels -= 1
            return
        if connection.is_idle:
            connection.is_idle = False
            if ended:
                self._keep_alive.found_closed(self._sweeper.clock() - connection.idle_since)
        self._open -= 1
        self._limit.give_back()

    def on_deadline(self, now: float) -> None:
        """Close what has idled too long, and what others wait for while its caller stalls."""
        self.deadline = self._cut_stalled(now)
        while (connection := self._longest_idle()) is not None:
            if connection.idle_since + IDLE_TIMEOUT > now:
                self.deadline = min(self.deadline, connection.idle_since + IDLE_TIMEOUT)
                return
            self._learn()
            connection.close()

    def _cut_stalled(self, now: float) -> float:
        """Cut responses, those that have stalled longest, for others that wait for a connection.

        Those beyond nine tenths of all connections, one for each who waits.  Returns when to look
        again.
        """
        while len(self._stalled) > self._uploads.most:
            connection, since = next(iter(self._stalled.items()))
            if now < since + STALLED_AFTER or self._limit.first() is None:
                return max(now, since + STALLED_AFTER)
            del self._stalled[connection]
            connection.give_up(
                Overloaded(
                    f"The caller did not read for {now - since:.0f} s, and others waited for one of"
                    f" the {self._limit.most:.0f} connections to {self._dialler.upstream.origin}."
                )
            )
        return math.inf

    def close(self) -> None:
        """Close idle connections now and the others when their exchange ends."""
        self._closed = True
        self._sweeper.discard(self)
        while self.close_idle():
            pass

    # --- the limit's side ----------------------------------------------------------------

    def waits_since(self) -> float:
        """Return the number of whoever has waited longest; see `SharingPool`."""
        return next(iter(self._waiting.values()), math.inf)

    def use_place(self) -> bool:
        """Have whoever has waited longest dial."""
        turn = self._next()
        if turn is not None:
            turn.set_result(None)
        return turn is not None

    def close_idle(self) -> bool:
        """Close the connection that has idled longest; return whether there was one."""
        connection = self._longest_idle()
        if connection is not None:
            connection.close()
        return connection is not None

    # --- waiting and dialling ------------------------------------------------------------

    async def _turn(self, until: float, timeout: float) -> Http1Upstream | None:
        """Wait for a connection, or for the place of one (None); `timeout` is for the message."""
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = self._limit.arrive()
        try:
            async with Within(max(0.0, until - asyncio.get_running_loop().time())):
                return await turn
        except TimeoutError:
            self._give_back(turn)
            raise Overloaded(
                f"All {self._limit.most:.0f} connections to {self._dialler.upstream.origin}"
                f" were busy for {timeout:g} s.",
                retry_after=1,
            ) from None
        except asyncio.CancelledError:
            self._give_back(turn)
            raise

    def _give_back(self, turn: Turn) -> None:
        """Pass on what came for a waiter that has just left."""
        if turn in self._waiting:
            del self._waiting[turn]
        elif turn.done() and not turn.cancelled():
            connection = turn.result()
            if connection is None:
                self._limit.give_back()
            else:
                self.release(connection)

    async def _dial(self, timeout: float) -> Http1Upstream:
        """Return a new connection, for which a place was taken; without one, give that back."""
        self._dialling += 1
        try:
            _, connection = await self._dialler.dial(self._connection, timeout)
        except BaseException as error:
            if isinstance(error, ProxyError):
                self.dials[error.reason] += 1
            self._limit.give_back()
            raise
        finally:
            self._dialling -= 1
        self.dials["ok"] += 1
        if connection.is_closed:
            self._limit.give_back()
            origin = self._dialler.upstream.origin
            raise UpstreamConnectFailed(f"{origin} closed the connection at once.")
        self._count_in(connection)
        return connection

    def _count_in(self, connection: Http1Upstream) -> None:
        connection.is_counted = True
        self._open += 1

    def _connection(self) -> Http1Upstream:
        return Http1Upstream(self, self._head_limit)


def _is_precious(head: RequestHead) -> bool:
    """Tell whether a request may not be repeatable once it was sent; see `stale_connection`.

    A body is only kept up to a limit, and may not have come yet.
    """
    return head.method not in IDEMPOTENT or head.length != 0


@final
class Uploads:
    """A bound on the connections that requests hold which are not whole yet.

    Such a request keeps its connection for as long as its caller likes: one that stops sending is
    noticed after `timeouts.idle` at the soonest.  Requests that are whole depend on the upstream
    alone.  So the last tenth of a route's connections is theirs, whatever callers do.
    """

    __slots__ = ("_connections", "_held", "_waiting", "is_full", "most")

    def __init__(self, connections: float) -> None:
        """`connections` is the upstream's limit, infinity for none."""
        self._connections = connections
        self.most = connections if connections == math.inf else connections - connections // 10
        """What stalls may hold: nine tenths."""
        self._held = 0
        self._waiting: OrderedDict[Applicant, asyncio.Future[bool]] = OrderedDict()
        """In the order of arrival."""
        self.is_full = False
        """Whether another one has to wait; an attribute, for each exchange asks."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self, applicant: Applicant, timeout: float) -> bool:
        """Wait for a place, at most `timeout` seconds, or until the request is whole.

        Returns whether it was counted, so that it has to be uncounted with `end`.

        Raises:
            Overloaded: there was no place in time.
        """
        if applicant.is_whole:
            return False
        if not self.is_full:
            self.begin()
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[applicant] = turn
        try:
            async with Within(timeout):
                return await turn
        except TimeoutError:
            self._leave(applicant, turn)
            raise Overloaded(
                f"Requests whose bodies have not come yet held {self.most:.0f} of the"
                f" {self._connections:.0f} connections for {timeout:g} s.",
                retry_after=1,
            ) from None
        except asyncio.CancelledError:
            self._leave(applicant, turn)
            raise

    def begin(self) -> None:
        """Count one that did not have to wait."""
        self._held += 1
        self.is_full = self._held >= self.most

    def end(self) -> None:
        """Uncount one: it is whole, or its connection is gone.  Its place goes to the next."""
        while self._waiting:
            _, turn = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(True)
                return
        self._held -= 1
        self.is_full = self._held >= self.most

    def completed(self, applicant: Applicant) -> None:
        """Let one go on that waits no more: it is whole."""
        turn = self._waiting.pop(applicant, None)
        if turn is not None and not turn.done():
            turn.set_result(False)

    def _leave(self, applicant: Applicant, turn: asyncio.Future[bool]) -> None:
        is_given = turn.done() and not turn.cancelled() and turn.result()
        if self._waiting.pop(applicant, None) is None and is_given:
            self.end()  # The place was given to it in this very moment: pass it on.


@final
class KeepAlive:
    """How long an upstream keeps an idle connection, as far as it is known.

    An upstream ends idle connections when it likes, most after a fixed time (RFC 9112, 9.3 and
    9.5).  A request that meets such an end on its way is lost, and what must not be repeated is
    lost for the caller too.  So it gets only connections that have idled for well below the time
    for which this upstream has been seen, or has promised, to keep one; whatever may be repeated
    takes any.
    """

    __slots__ = ("_enough", "_known", "_promised", "safe")

    def __init__(self, enough: float) -> None:
        """`enough` is how long we keep idle connections ourselves (seconds)."""
        self._enough = enough
        self._known = UNKNOWN
        self._promised = math.inf
        self.safe = UNKNOWN * _WELL_BELOW
        """Seconds of idling below which a connection may carry what must not be repeated."""

    def promised(self, seconds: float) -> None:
        """Take what ``Keep-Alive: timeout=N`` says; cheap where it says what it said before."""
        if seconds != self._promised:
            self._promised = seconds
            self._set(seconds)

    def seen_open(self, idle: float) -> None:
        """Note that a connection is open after `idle` seconds."""
        if idle > self._known:
            self._set(min(idle, self._promised))

    def found_closed(self, idle: float) -> None:
        """Note that the upstream ended a connection which had idled for at most `idle` seconds."""
        if idle < self._known:
            self._set(idle)

    def _set(self, known: float) -> None:
        self._known = known
        # Beyond our own time nothing can be seen, and nothing has to be.
        self.safe = self._enough if known >= self._enough else known * _WELL_BELOW


@lru_cache(maxsize=64)  # The upstream picks the value; the bound keeps a hostile one out of memory.
def timeout_of(value: bytes) -> float:
    """Return the seconds that a Keep-Alive field promises, infinity where it does not say.

    The field is older than its descriptions (RFC 2068, 19.7.1.1); servers send ``timeout=5`` and
    ``timeout=5, max=100``.
    """
    for member in tokens(value):
        name, _, number = member.partition(b"=")
        number = number.strip(b' \t"')
        if name.strip() == b"timeout" and number.isdigit() and len(number) <= 9:  # noqa: PLR2004 (31 years)
            return float(number)
    return math.inf
