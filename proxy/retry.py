"""Decides whether a failed attempt may be repeated.

Pure: sees an error or a status, a method and a history; never sleeps, never looks at a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from proxy.config.model import Retries
from proxy.errors import (
    ProxyError,
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamLoops,
    UpstreamReset,
    UpstreamTimedOut,
    UpstreamTlsFailed,
)
from proxy.frozen import frozen

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
"""RFC 9110, 9.2.2: repeating these has the same effect as sending them once (TRACE is refused)."""

MOST_REFUSALS: Final = 6
"""Attempts that an upstream may refuse before the caller is told."""

LONGEST_BACKOFF: Final = 10.0  # Seconds; beyond that the caller's own patience ends first.

# A failure's class as `retries.on` names it. A loop is not in it: it would be run through again,
# by every proxy on the way. A refused certificate is not in it: it does not
# become valid by asking again.
_CAUSES: Final[tuple[tuple[type[ProxyError], str], ...]] = (
    (UpstreamLoops, "loop"),
    (UpstreamConnectFailed, "connect_failed"),
    (UpstreamConnectTimedOut, "connect_failed"),
    (UpstreamTlsFailed, "tls_failed"),
    (UpstreamReset, "reset"),
    (UpstreamTimedOut, "timeout"),
)


@frozen
class Attempt:
    """What is known of an attempt when it has failed."""

    number: int
    """1 for the first."""
    method: bytes
    replayable: bool
    """Whether the whole body, as far as it came, is still at hand."""
    reused: bool = False
    """Whether it went over a connection that had served another exchange."""
    wrote: bool = False
    """Whether any byte of it left."""
    answered: bool = False
    """Whether any byte came back."""


class RetryBudget:
    """Bounds retries to a share of the requests, so that they cannot multiply an outage."""

    __slots__ = ("_balance", "_share", "is_low")

    RESERVE: ClassVar[float] = 10.0
    """Retries that a route may make before its share has grown: a quiet route can retry too."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._balance = self.RESERVE if share > 0 else 0.0
        self.is_low = share > 0 and self._balance < self.RESERVE
        """Whether a request adds to it; an attribute, for each request asks."""

    def deposit(self) -> None:
        """Count one request, while the budget is low."""
        if self._balance < self.RESERVE:
            self._balance += self._share
        self.is_low = self._balance < self.RESERVE

    def withdraw(self) -> bool:
        """Take one retry, or return False."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        self.is_low = True
        return True


def stale_connection(error: ProxyError, attempt: Attempt) -> bool:
    """Tell whether the attempt met a pooled connection that had died, and may be repeated.

    RFC 9112, 9.3.1: a request on a connection that closes before any answer may be repeated
    if it is idempotent; one of which nothing left may be repeated always.
    """
    return (
        isinstance(error, UpstreamReset)
        and error.sent_upstream
        and attempt.reused
        and not attempt.answered
        and attempt.replayable
        and (attempt.method in IDEMPOTENT or not attempt.wrote)
    )


def unprocessed(error: ProxyError, attempt: Attempt) -> bool:
    """Tell whether the upstream has not begun the attempt, so that it may be repeated.

    RFC 9113, 8.7: whatever its method.  An upstream that refuses again and again is overloaded.
    """
    return (
        isinstance(error, UpstreamReset)
        and not error.sent_upstream
        and attempt.replayable
        and attempt.number < MOST_REFUSALS
    )


def cause_of(error: ProxyError) -> str:
    """Return the class of a failure as ``retries.on`` names it."""
    for kind, cause in _CAUSES:
        if isinstance(error, kind):
            return cause
    return error.reason


def allowed(cause: str | int, attempt: Attempt, policy: Retries, budget: RetryBudget) -> bool:
    """Tell whether the policy repeats this failed attempt; takes from the budget if so.

    An attempt that failed within its answer is never repeated; a status is an answer that the
    caller has seen nothing of.
    """
    return (
        attempt.number < policy.attempts
        and cause in policy.on
        and attempt.replayable
        and (isinstance(cause, int) or not attempt.answered)
        and attempt.method.decode("ascii") in policy.methods
        and budget.withdraw()
    )


def redials(error: ProxyError, attempt: Attempt, policy: Retries, budget: RetryBudget) -> bool:
    """Tell whether to dial again; takes from the budget if so.

    An upstream that could not be connected is dialled once more even without a retry policy:
    nothing was sent, and a port that opens a moment later is the commonest cause.  Not so one
    that took too long, which would let the caller wait twice `timeouts.connect`.
    """
    least = 2 if isinstance(error, UpstreamConnectFailed) else 1
    return (
        attempt.number < max(policy.attempts, least)
        and cause_of(error) in policy.on
        and budget.withdraw()
    )


def pause_before(
    number: int, policy: Retries, retry_after: float | None, random: Callable[[], float]
) -> float:
    """Return the seconds before attempt `number` + 1: doubling, jittered by a half either way.

    `random` answers from 0 to 1.  RFC 9110, 10.2.3: Retry-After is the least that is waited.
    """
    pause = min(policy.backoff * 2.0 ** (number - 1), LONGEST_BACKOFF) * (0.5 + random())
    return max(pause, retry_after or 0.0)


def wait_before(retry_after: Sequence[bytes]) -> float | None:
    """Return the seconds to wait before a repeat, by the values of Retry-After.

    None where the caller should not be kept waiting for so long: the answer is its own.
    """
    wait = retry_after_seconds(retry_after[0]) if retry_after else 0.0
    return wait if wait is not None and wait <= LONGEST_BACKOFF else None


def retry_after_seconds(value: bytes) -> float | None:
    """Return what Retry-After says if it is a number of seconds; a date is not followed."""
    text = value.strip()
    return float(text) if text.isdigit() and len(text) <= 6 else None  # noqa: PLR2004 (11 days)
