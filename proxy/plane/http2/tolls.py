"""What a peer's frames cost it, so that none can keep us busy for nothing.

Prices are in microseconds of our work, rounded up, so that what a peer may spend at once is about
what it can keep the loop from others.  Each frame that we send with something in it (HEADERS,
DATA) earns its receiver one frame that carries nothing: gRPC measures its bandwidth by a PING for
each DATA that comes, however many that are, and the answer to a request pays for the answer that
somebody else no longer waits for.  So who is served pays nothing, and who does nothing else but
ping, reset or err runs out.

RFC 9113, 10.5 is the source of the kinds; CVE-2023-44487 (rapid reset) and CVE-2025-8671 (resets
that we are made to send) of two of the prices.  Nothing in here knows how frames are read.
"""

from __future__ import annotations

from typing import Final

from proxy.clock import Clock
from proxy.plane.http2.budget import Budget
from proxy.plane.http2.standard import Code, ConnectionFault

TALK: Final = 100.0
"""A frame that brings nobody anything: PING, SETTINGS, PRIORITY, empty DATA, unknown ones."""

GIVEN_UP: Final = 80.0
"""An exchange that the caller gives up.  A thousand may reach their deadline together."""

GIVEN_UP_AT_ONCE: Final = 400.0
"""One that it gives up with the bytes that began it: nobody changes its mind so soon."""

REFUSED_STREAM: Final = 100.0
"""A stream beyond what may be open, or behind the last that a GOAWAY lets in."""

REFUSED_HEAD: Final = 500.0
"""A head that is answered 400 or 431, besides the work of reading it."""

UNREAD_SHIFT: Final = 4
"""So many bytes, as a power of two, of a header block that is too long to be read cost one."""

FAULT: Final = 1000.0
"""An exchange that we are made to end by what breaks the rules of its stream."""

_EARNED = 100.0
"""What a frame of ours is worth."""

_BURST = 100_000.0
_RATE = 10_000.0  # Per second: a hundredth of the time.

# All connections of a listener together: who comes again and again to spend a burst each time
# finds less and less, down to `_LEAN`, what one turn of the loop takes: whoever comes anew waits
# to be accepted behind all of them.  Others pay nothing, and notice nothing.
_SHARED_BURST = 400_000.0
_SHARED_RATE = 20_000.0
_LEAN = 4_000.0

LENIENCY: Final = 10.0
"""An upstream may cost so many times what a caller may: its calls are our own."""

# WINDOW_UPDATEs that a peer may send: so many at first, for each stream, and for each HEADERS
# and DATA frame of ours.  grpcio sends two with each call, Go one for each 4 KiB it reads.
_UPDATES = 1000
_UPDATES_PER_STREAM = 16
_UPDATES_PER_FRAME = 8

_TOO_MUCH = "Too much of what costs us work and brings nobody anything."


def shared_by_all(clock: Clock) -> Budget:
    """Return what the connections of one listener share."""
    return Budget(_SHARED_BURST, _SHARED_RATE, clock)


class Tolls:
    """The account of one connection."""

    __slots__ = ("_account", "_counted", "_rebate", "_shared", "_updates", "opened", "sent")

    def __init__(
        self, clock: Clock, shared: Budget | None = None, *, leniency: float = 1.0
    ) -> None:
        """`shared` is what all connections of its listener have; see `LENIENCY`."""
        self._account = Budget(_BURST, _RATE, clock)
        self._shared = shared
        self._rebate = 1 / leniency
        self._updates = 0
        self._counted = 0
        self.sent = 0
        """HEADERS and DATA frames of ours; whoever sends one counts it."""
        self.opened = 0
        """Streams; whoever opens one counts it."""

    def charge(self, price: float) -> None:
        """Take a price; to be called before the work that it is for.

        Raises:
            ConnectionFault: the peer has used up what it had.
        """
        price *= self._rebate
        sent = self.sent
        earned = (sent - self._counted) * _EARNED
        if earned:
            self._counted = sent
            self._account.earn(earned)
        if not self._account.spend(price):
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, _TOO_MUCH)
        shared = self._shared
        if shared is None or price <= earned or shared.spend(price - earned):
            return
        self._account.refill()
        if self._account.balance < _BURST - _LEAN:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, _TOO_MUCH)

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
