"""Decides whether a token opens a service.  Pure: no clock, no socket.

`verify` reads a token as Google's front end does before a request reaches a private Cloud
Run service; whoever calls it decides what to answer.
"""

from __future__ import annotations

import base64
import enum
import json
import re
from collections.abc import Collection
from typing import NoReturn, TypeGuard

from proxy.emulator.claims import ISSUER, Claims
from proxy.emulator.keys import Keys, base64url
from proxy.frozen import frozen

ISSUERS = frozenset({ISSUER, "accounts.google.com"})

# RFC 7515, 2: the alphabet of base64url, without padding.  Stricter than Python's decoder,
# which skips what it does not know.
_PART = re.compile(r"[A-Za-z0-9_-]+")


class Refusal(enum.Enum):
    """Why a request does not reach the service."""

    NO_TOKEN = "no_token"  # noqa: S105 (a reason, no secret)
    SEVERAL_HEADERS = "several_headers"
    MALFORMED = "malformed"
    UNKNOWN_ALGORITHM = "unknown_algorithm"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NOT_INVOKER = "not_invoker"


@frozen
class _Jwt:
    header: Claims
    claims: Claims
    signed: bytes
    signature: bytes


def verify(token: str, keys: Keys, audiences: Collection[str], now: float) -> Claims | Refusal:
    """Return the claims of `token` if `keys` signed it for one of `audiences`, else why not.

    `now` is in Unix seconds.  The rules are RFC 7519, 7.2, plus Google's issuer; times are
    compared without leeway, since an emulator and its callers share one clock.
    """
    jwt = _decode(token)
    if jwt is None:
        return Refusal.MALFORMED
    return _forged(jwt, keys) or _unfit(jwt.claims, audiences, now) or jwt.claims


def _forged(jwt: _Jwt, keys: Keys) -> Refusal | None:
    # Only RS256, whatever the token says of itself (RFC 8725, 3.1): `none` and HS256 with
    # the public key as the secret are how signatures are forged.
    if jwt.header.get("alg") != "RS256" or "crit" in jwt.header:
        return Refusal.UNKNOWN_ALGORITHM
    if jwt.header.get("kid") != keys.key_id:
        return Refusal.UNKNOWN_KEY
    return None if keys.verifies(jwt.signed, jwt.signature) else Refusal.BAD_SIGNATURE


def _unfit(claims: Claims, audiences: Collection[str], now: float) -> Refusal | None:
    issuer, audience = claims.get("iss"), claims.get("aud")
    issued, expires = claims.get("iat"), claims.get("exp")
    if not (_is_number(issued) and _is_number(expires)):
        return Refusal.MALFORMED
    if not (isinstance(issuer, str) and issuer in ISSUERS):
        return Refusal.WRONG_ISSUER
    if not (isinstance(audience, str) and audience in audiences):
        return Refusal.WRONG_AUDIENCE
    # RFC 7519, 4.1.4: "on or after" exp the token must not be accepted.
    if now >= expires:
        return Refusal.EXPIRED
    return Refusal.NOT_YET_VALID if issued > now else None


def _decode(token: str) -> _Jwt | None:
    parts = token.split(".")
    if len(parts) != 3 or not all(map(_PART.fullmatch, parts)):  # noqa: PLR2004 (RFC 7515, 7.1: three parts)
        return None
    try:
        header, claims, signature = (_bytes(part) for part in parts)
        decoded = _object(header), _object(claims)
    except (ValueError, RecursionError):  # JSON nested deeper than the parser goes
        return None
    return _Jwt(*decoded, signed=token.rpartition(".")[0].encode("ascii"), signature=signature)


def _bytes(part: str) -> bytes:
    """Decode base64url; raise ValueError for any spelling but the one that encoding gives."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    # RFC 4648, 3.5: the last character has bits to spare.  Without this check sixteen
    # spellings of one signature would pass, and a test that changes the last character of
    # a token would see it accepted.
    if base64url(decoded) != part:
        raise ValueError("not the canonical encoding")
    return decoded


def _object(data: bytes) -> Claims:
    """Parse a JSON object; raise ValueError for anything else, NaN and Infinity included."""
    value = json.loads(data, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 (one error for all bad tokens)
    return value


def _refuse_constant(name: str) -> NoReturn:
    # An `exp` of NaN would never be reached.
    raise ValueError(f"{name} is not JSON")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
