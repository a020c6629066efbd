"""Whether this machine's clock can be trusted, by the clocks of those who answer.  Pure.

Tokens are judged by their ``exp``: with a clock that is behind, the proxy would send them
after they have expired; with one that is far ahead, it would take none.
"""

from __future__ import annotations

from proxy.doctor.answers import Answer
from proxy.doctor.findings import Advice, Finding, Outcome, Step
from proxy.doctor.words import span
from proxy.identity.token import USE_MARGIN, Token

TOLERATED = USE_MARGIN
"""Seconds: a token is used until so long before its expiry, so less does no harm."""

SET_CLOCK = "Set the clock, and keep it set by NTP; Docker Desktop's stops with the laptop."
SHOW_CLOCKS = (
    "date -u; python3 -c 'import urllib.request as u; "
    'print(u.urlopen("https://www.google.com").headers["date"])\''
)
_RESOLUTION = 1.0  # RFC 9110, 5.6.7: Date has whole seconds.


def skew_of(answer: Answer) -> float | None:
    """Return how many seconds the upstream's clock is ahead of this machine's.

    0 where the two agree within what can be known; None where the answer has no Date.
    """
    date = answer.date
    if date is None:
        return None
    # Somewhere between the request and the response their clock said so.
    least = date - answer.received_at
    most = date + _RESOLUTION - (answer.received_at - answer.seconds)
    return max(least, min(0.0, most))


def skew_of_token(token: Token, now: float) -> float | None:
    """Return how many seconds in the future the token was issued, None if it was not."""
    issued_at = token.claims.get("iat")
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float) or issued_at <= now:
        return None
    return float(issued_at) - now


def clock_finding(by_answer: float | None, by_token: float | None, peer: str) -> Finding | None:
    """Return what is known of this machine's clock, None if nothing is.

    Both are seconds by which the clock of `peer`, and that of whoever signed the token, are
    ahead of this machine's.
    """
    if by_answer is None:
        if by_token is None or by_token <= TOLERATED:
            return None
        return _suspicious(by_token, "the token's issuer")
    if abs(by_answer) > TOLERATED:
        return _suspicious(by_answer, peer)
    text = f"agrees with {peer}'s"
    return Finding(step=Step.CLOCK, text=text, facts={"skew_seconds": round(by_answer, 1)})


def _suspicious(skew: float, peer: str) -> Finding:
    side, effect = "ahead of", "are renewed too early, or not accepted at all"
    if skew > 0:
        side, effect = "behind", "may be sent after they have expired"
    text = f"{span(abs(skew))} {side} {peer}'s"
    return Finding(
        step=Step.CLOCK,
        outcome=Outcome.WARNING,
        text=text,
        advice=Advice(
            reason="clock_skew",
            why=f"The clock of this machine is {text}: tokens {effect}.",
            fix=SET_CLOCK,
            command=SHOW_CLOCKS,
        ),
        facts={"skew_seconds": round(skew, 1)},
    )
