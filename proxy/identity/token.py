"""What tokens have in common, and reading ID tokens: what may be used, what came instead.  Pure.

The signature is not checked: the receiver does that, and only it knows the keys.  What is
checked is everything that would make the receiver refuse the token, or send it elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, NoReturn

from proxy.frozen import frozen
from proxy.identity.source import TokenSourceError
from proxy.redact import first_words, redact_foreign

USE_MARGIN = 30.0
"""Seconds before ``exp`` from which a token is no longer used: the call needs time to arrive,
and Google's clock and ours may differ a little."""

# RFC 7515, 7.1: three parts of base64url. Only these characters reach a header field, so no
# token can smuggle a line break into a request.
_JWT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@frozen(kw_only=True)
class Token:
    """One token that was accepted; its text form never shows the value."""

    value: str = field(repr=False)
    """ASCII without white space, so that it can stand in a header field."""
    expires_at: float
    """Wall clock, seconds since the epoch: an ID token's own ``exp``."""
    email: str | None
    """The account that it is for, where that is known."""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What it says of itself; nothing where it is opaque."""


@frozen(kw_only=True)
class IdToken(Token):
    """One ID token."""

    audience: str
    """The audience that it was asked for; its own ``aud`` differs where it cannot be chosen."""


def read_token(raw: str, audience: str, now: float, fixed_audience: str | None = None) -> IdToken:
    """Return the token in `raw` if it may be used at `now` (wall clock) for `audience`.

    `fixed_audience` is what ``aud`` must be instead where the source cannot choose it.
    Raises `TokenSourceError` that names what came.
    """
    value = raw.strip()
    claims = read_claims(value)
    _check_audience(claims, audience if fixed_audience is None else fixed_audience)
    expires_at = _expiry(claims, now)
    email = claims.get("email")
    return IdToken(
        value=value,
        audience=audience,
        expires_at=expires_at,
        email=email if isinstance(email, str) else None,
        claims=MappingProxyType(claims),
    )


def read_claims(raw: str) -> dict[str, Any]:
    """Return the claims of the JWT in `raw`; raise `TokenSourceError` if it is none."""
    parts = _JWT.fullmatch(raw.strip())
    if parts is None:
        raise _not_a_token(raw)
    try:
        _object(parts[1])
        claims = _object(parts[2])
        _decode(parts[3])
    except (ValueError, RecursionError):  # JSON nested deeper than the parser goes
        raise _not_a_token(raw) from None  # The cause would quote the token.
    return claims


def _not_a_token(raw: str) -> TokenSourceError:
    return TokenSourceError(f"what came is not an ID token but {first_words(raw)}")


def _check_audience(claims: Mapping[str, Any], expected: str) -> None:
    # RFC 7519, 4.1.3: a single audience may be written as a string or as a list of one.
    # Stricter than the RFC: a token for several audiences is refused, since each of those
    # receivers could use it at all the others.
    actual = claims.get("aud")
    if actual in (expected, [expected]):
        return
    came = redact_foreign(json.dumps(actual)) if "aud" in claims else "missing"
    raise TokenSourceError(
        f"the token's aud is {came}, asked for was {json.dumps(expected)}",
        hint="Set the route's audience to what the called service accepts, "
        "and have the token made for exactly that.",
    )


def _expiry(claims: Mapping[str, Any], now: float) -> float:
    expires_at = finite_seconds(claims.get("exp"))
    if expires_at is None:
        raise TokenSourceError("the token has no usable exp")
    check_time_left(expires_at - now)
    return expires_at


def check_time_left(left: float) -> None:
    """Raise `TokenSourceError` unless a token with `left` seconds to go may be used."""
    if left <= USE_MARGIN:
        what = f"expires in {left:.0f} s" if left > 0 else f"expired {-left:.0f} s ago"
        raise TokenSourceError(
            f"the token {what}; more than {USE_MARGIN:.0f} s are needed",
            hint="Check this machine's clock, and that whatever keeps the token renews it in time.",
            retryable=True,
        )


def finite_seconds(value: object) -> float | None:
    """Return a number of JSON's, such as a NumericDate (RFC 7519, 2); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:  # An integer of hundreds of digits.
        return None
    return seconds if math.isfinite(seconds) else None  # 1e999 reads as infinity.


def _object(part: str) -> dict[str, Any]:
    value = json.loads(_decode(part), parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 (one error for all that is no JWT)
    return value


def _decode(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error


def _no_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity, which are no JSON (RFC 8259, 6); such an exp never comes.
    raise ValueError(f"{name} is not JSON")
