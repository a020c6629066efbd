"""Which destination an exchange goes to, where a route has several.

`Destinations` are those of a route, `Choice` is what one exchange has tried of them.  A route with
one destination has neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol, final

from proxy.errors import (
    ProxyError,
    TokenTimedOut,
    TokenUnavailable,
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamLacksHttp2,
    UpstreamLoops,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimedOut,
    UpstreamTlsFailed,
    new_event,
)
from proxy.plane.availability import AVAILABLE, ON_TRIAL, SET_ASIDE, Standing
from proxy.plane.destination import Destination
from proxy.plane.stats import RouteStats
from proxy.retry import cause_of

log = logging.getLogger("proxy.plane")

# What counts against a destination: each kind with whether it does.  The first that fits holds, so
# exceptions come before the rule.
_VERDICTS: Final[tuple[tuple[type[ProxyError], bool], ...]] = (
    (UpstreamLoops, False),  # It leads back here: the configuration's fault.
    (UpstreamLacksHttp2, False),  # It serves others well.
    (UpstreamConnectFailed, True),
    (UpstreamConnectTimedOut, True),
    (UpstreamTlsFailed, True),
    (UpstreamRefused, False),  # It is alive, and has no room or is being replaced.
    (UpstreamReset, True),
    (UpstreamTimedOut, True),
    (TokenUnavailable, True),
    (TokenTimedOut, True),
)

_MOVES: Final[tuple[type[ProxyError], ...]] = (
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamTlsFailed,
    UpstreamRefused,
    TokenUnavailable,
    TokenTimedOut,
)
"""After which another destination is tried at once, because nothing was sent."""

OUTAGES: Final = frozenset((502, 503, 504))
"""Statuses of Google's front end that count against a destination."""


def is_own_fault(error: ProxyError) -> bool:
    """Tell whether a failure before the response head counts against the destination."""
    return next((counts for kind, counts in _VERDICTS if isinstance(error, kind)), False)


def moves_on(error: ProxyError) -> bool:
    """Tell whether another destination is tried at once, whatever the method."""
    return isinstance(error, _MOVES) and not error.sent_upstream


@final
class Destinations:
    """The destinations of a route that has several."""

    __slots__ = ("_ask", "_stats", "all", "route")

    def __init__(
        self,
        route: str,
        destinations: Sequence[Destination],
        stats: RouteStats,
        ask: Callable[[], None] | None = None,
    ) -> None:
        """`destinations` come in order of preference.

        `ask` is called for every exchange, where a further one of them is not resolved yet.
        """
        self.route = route
        self.all = tuple(destinations)
        self._stats = stats
        self._ask = ask

    def asked(self) -> None:
        """Note that an exchange comes."""
        if self._ask is not None:
            self._ask()

    def best(self, tried: Sequence[Destination]) -> Destination | None:
        """Return the one to try now, of those not `tried` yet; None if there is none.

        Where none is available it is the one whose turn is next: nothing is refused for that
        reason alone.
        """
        next_: Destination | None = None
        for each in self.all:
            if each in tried:
                continue
            if each.availability.is_open:
                return each
            if next_ is None or _turn(each) < _turn(next_):
                next_ = each
        return next_

    def count_failover(self, cause: str) -> None:
        """Count an exchange that goes to another destination because of `cause`."""
        self._stats.failovers[cause] += 1

    def tell(self, destination: Destination, before: Standing, why: str) -> None:
        """Log that a destination was set aside, or that it is back; the trials between are not."""
        now = destination.availability.standing
        extra = {"route": self.route, "fields": {"destination": destination.name}}
        if before is AVAILABLE and now is SET_ASIDE:
            log.warning("%s is set aside: %s", destination.name, why, extra=extra)
        elif before is not AVAILABLE and now is AVAILABLE:
            log.info("%s is available again", destination.name, extra=extra)


def _turn(destination: Destination) -> tuple[bool, float]:
    availability = destination.availability
    return availability.standing is ON_TRIAL, availability.due_at


class Traveller(Protocol):
    """What is sent to a destination: an exchange."""

    destination: Destination
    """Where it goes; set by its choice."""


@final
class Choice:
    """Which destinations one exchange has tried, and what it owes the one that it is at."""

    __slots__ = ("_among", "_era", "_exchange", "_is_trial", "_owes", "_tried")

    def __init__(self, among: Destinations, exchange: Traveller) -> None:
        """Send `exchange` to the best destination."""
        among.asked()
        self._among = among
        self._exchange = exchange
        self._tried: list[Destination] = []
        self._era = 0
        self._is_trial = False
        self._owes = False
        """Whether a verdict on the destination is still to come."""
        self._go()

    def _go(self) -> bool:
        """Go to the best of those that were not tried; return whether there was one."""
        best = self._among.best(self._tried)
        if best is None:
            return False
        self.ended()
        self._tried.append(best)
        self._exchange.destination = best
        self._era = best.availability.era
        self._is_trial = best.availability.chosen()
        self._owes = True
        return True

    @property
    def is_last(self) -> bool:
        """Whether every destination was tried."""
        return len(self._tried) >= len(self._among.all)

    def answered(self, *, by_platform: bool = False) -> None:
        """Note the head of a final response; `by_platform` where Google's front end made it."""
        if by_platform:
            self._judge(new_event(), "Google's front end answers in its place")
        else:
            self._judge()

    def failed(self, error: ProxyError) -> None:
        """Note what ended an attempt before the head of a final response."""
        if is_own_fault(error):
            self._judge(error.event, error.detail)

    def moves_on(self, error: ProxyError) -> bool:
        """Note a failure; go to another destination if nothing was sent; return whether."""
        self.failed(error)
        if not (moves_on(error) and self._go()):
            return False
        self._among.count_failover(cause_of(error))
        return True

    def next(self, cause: str) -> None:
        """Go to the next destination for a repeat; after the last one, begin again."""
        before = self._exchange.destination
        if self.is_last:
            self._tried = [before]
        if self._go():
            self._among.count_failover(cause)
        else:  # The only one that is resolved.
            self._tried = []
            self._go()

    def ended(self) -> None:
        """Note that no verdict will come, where none has: a trial is another exchange's."""
        if self._owes and self._is_trial:
            self._exchange.destination.availability.undecided(self._era)
        self._owes = False

    def _judge(self, failure: int = 0, why: str = "") -> None:
        """Note a verdict; `failure` is the event that was one, 0 for a success."""
        if not self._owes:
            return
        self._owes = False
        destination = self._exchange.destination
        availability = destination.availability
        before = availability.standing
        if failure:
            availability.failed(self._era, failure)
        else:
            availability.succeeded(self._era)
        if availability.standing is not before:
            self._among.tell(destination, before, why)
