"""What a peer's frames cost it, so that none can keep us busy for nothing.

Prices are in microseconds of our work, rounded up, so that what a peer may spend at once is about
what it can keep the loop from others.  Each frame that we send with something in it (HEADERS,
DATA) earns its receiver one frame that carries nothing: gRPC measures its bandwidth by a PING for
each DATA that comes, however many that are, and the answer to a request pays for the answer that
somebody else no longer waits for.  So who is served pays nothing, and who does nothing else but
ping, reset or err runs out.

RFC 9113, 10.5 is the source of the kinds; CVE-2023-44487 (rapid reset) and CVE-2025-8671 (resets
that we are made to send) of two of the kinds.  Nothing in here knows how frames are read.

Exchanges that are given up have an account of their own, in numbers of them, because callers that
mean no harm differ in it: whoever sets short deadlines gives up all that is under way whenever an
upstream is slow.  `limits.resets` says how many.  What had been answered by then never counts.
"""

from __future__ import annotations

from typing import Final, final

from proxy.clock import Clock
from proxy.plane.http2.budget import Budget
from proxy.plane.http2.standard import Code, ConnectionFault

TALK: Final = 100.0
"""A frame that brings nobody anything: PING, SETTINGS, PRIORITY, empty DATA, unknown ones."""

REFUSED_STREAM: Final = 100.0
"""A stream beyond what may be open, or behind the last that a GOAWAY lets in."""

REFUSED_HEAD: Final = 500.0
"""A head that is answered 400 or 431, besides the work of reading it."""

UNREAD_SHIFT: Final = 4
"""So many bytes, as a power of two, of a header block that is too long to be read cost one."""

FAULT: Final = 1000.0
"""An exchange that we are made to end by what breaks the rules of its stream."""

_EARNED: Final = 100.0
"""What a frame of ours is worth in work; it pays for one exchange that is given up, too."""

_BURST: Final = 100_000.0
"""Work that a connection may cause at once, and then a tenth of it each second."""

AT_ONCE: Final = 8.0
"""For so many counts an exchange that is given up with the bytes that began it.

Nobody changes its mind so soon, except for a few calls that others have made needless.
"""

LENIENCY: Final = 10.0
"""An upstream may cost so many times what a caller may: its calls are our own."""

# WINDOW_UPDATEs that a peer may send: so many at first, for each stream, and for each HEADERS
# and DATA frame of ours.  grpcio sends two with each call, Go one for each 4 KiB it reads.
_UPDATES: Final = 1000
_UPDATES_PER_STREAM: Final = 16
_UPDATES_PER_FRAME: Final = 8

_TOO_MUCH: Final = "Too much of what costs us work and brings nobody anything."


_TOO_MANY: Final = "Too many exchanges are given up before they are answered (limits.resets)."


@final
class Allowance:
    """What peers may spend of one thing: each connection, and those of a listener together.

    A connection has `burst` at once, and a tenth of it each second.  Together they have four times
    as much, and twice as much each second: who comes again and again to spend a burst each time
    finds less and less, down to a twenty-fifth, what of work one turn of the loop takes: whoever
    comes anew waits to be accepted behind all of them.  Others pay nothing, and notice nothing.
    """

    __slots__ = ("burst", "clock", "frame", "least", "text", "together")

    def __init__(
        self, burst: float, clock: Clock, *, frame: float, text: str, alone: bool = False
    ) -> None:
        """A `frame` of ours earns so much; `text` is for who has no more.

        `alone` leaves it at what each has by itself.
        """
        self.burst = burst
        self.clock = clock
        self.frame = frame
        self.text = text
        self.least = burst * 24 / 25
        """What a connection must have left where together they have nothing more."""
        self.together = None if alone else Budget(4 * burst, burst / 5, clock)


def work_allowance(clock: Clock, *, alone: bool = False) -> Allowance:
    """Return what may be spent of our work, in microseconds."""
    return Allowance(_BURST, clock, frame=_EARNED, text=_TOO_MUCH, alone=alone)


def reset_allowance(limit: float, clock: Clock) -> Allowance:
    """Return how many exchanges may be given up unanswered (`limits.resets`)."""
    return Allowance(limit, clock, frame=1.0, text=_TOO_MANY)


@final
class Account:
    """What one connection has left of an allowance."""

    __slots__ = ("_counted", "_credit", "allowance", "own")

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.own = Budget(allowance.burst, allowance.burst / 10, allowance.clock)
        self._counted = 0
        self._credit = 0.0
        """What frames of ours have earned, as far as it has paid for nothing yet."""

    def charge(self, price: float, sent: int) -> None:
        """Take a price from a connection on which we have `sent` so many frames.

        Raises:
            ConnectionFault: there is not so much left.
        """
        allowance, own = self.allowance, self.own
        earned = (sent - self._counted) * allowance.frame
        if earned:
            self._counted = sent
            own.earn(earned)
            self._credit = min(allowance.burst, self._credit + earned)
        if not own.spend(price):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, allowance.text)
        owed = price - self._credit
        self._credit = max(0.0, -owed)
        together = allowance.together
        if together is None or owed <= 0 or together.spend(owed):
            return
        own.refill()
        if own.balance < allowance.least:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, allowance.text)


@final
class Tolls:
    """What one connection pays, and out of what."""

    __slots__ = ("_rebate", "_resets", "_updates", "clock", "opened", "sent", "work")

    def __init__(self, work: Allowance, *, leniency: float = 1.0) -> None:
        """`work` is what its listener's connections have, or its own alone; see `LENIENCY`."""
        self.work = Account(work)
        self.clock = work.clock
        self._resets: Account | None = None
        self._rebate = 1 / leniency
        self._updates = 0
        self.sent = 0
        """HEADERS and DATA frames of ours; whoever sends one counts it."""
        self.opened = 0
        """Streams; whoever opens one counts it."""

    def charge(self, price: float) -> None:
        """Take a price; to be called before the work that it is for.

        Raises:
            ConnectionFault: the peer has used up what it had.
        """
        self.work.charge(price * self._rebate, self.sent)

    def charge_reset(self, allowance: Allowance, count: float) -> None:
        """Count an exchange that is given up unanswered; it may count for several.

        `allowance` may be another one than the last time: a reload changes it.

        Raises:
            ConnectionFault: there are more than may be.
        """
        account = self._resets
        if account is None or account.allowance is not allowance:
            account = self._resets = Account(allowance)
        account.charge(count, self.sent)

    def charge_update(self) -> None:
        """Count a WINDOW_UPDATE.

        Raises:
            ConnectionFault: there are more than anybody needs for what we have sent.
        """
        self._updates += 1
        if self._updates > _UPDATES:
            paid = self.opened * _UPDATES_PER_STREAM + self.sent * _UPDATES_PER_FRAME
            if self._updates > _UPDATES + paid:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "WINDOW_UPDATEs without need.")
