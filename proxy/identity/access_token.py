"""Access tokens for Google's APIs (RFC 6749): which may be used, and where they may go.  Pure.

They are opaque: what is checked is their form, their type and their time.  That one leaves for
Google's own hosts alone is decided by `config`, before anything is fetched.
"""

from __future__ import annotations

import re

from proxy.frozen import frozen
from proxy.identity.source import Authority, TokenSourceError
from proxy.identity.token import Token, check_time_left, finite_seconds
from proxy.redact import first_words, redact_foreign

# RFC 6750, 2.1 (b64token). Only these characters reach a header field, so no token can smuggle a
# line break into a request.
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")

_MOST_BYTES = 8192
"""Of a token. Google's have up to 2,048 (https://developers.google.com/identity/protocols/oauth2),
those of identity federation up to 12 KB for the workload's own token but less for Google's."""


@frozen
class Scopes:
    """What an access token is wanted for, as an audience is what an ID token is for."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.names)


Wanted = str | Scopes
"""What a token is for: an audience (of an ID token), or scopes (of an access token)."""


def kind_of(wanted: Wanted) -> str:
    """Return what a token for it is called in messages."""
    return "access token" if isinstance(wanted, Scopes) else "ID token"


@frozen(kw_only=True)
class AccessToken(Token):
    """One access token."""

    scopes: Scopes
    """Those that were asked for."""
    fixed_scopes: bool
    """Whether it has those of a login instead."""
    quota_project: str
    """The project on which its calls count, empty for the one that it belongs to."""


def read_access_token(authority: Authority, scopes: Scopes, now: float) -> AccessToken:
    """Return the access token of `authority` if it may be used at `now` (wall clock).

    Raises `TokenSourceError` that says what is wrong with it, and never shows it.
    """
    value = authority.access_token
    if not _BEARER.fullmatch(value) or len(value) > _MOST_BYTES:
        raise TokenSourceError(f"what came is not an access token but {first_words(value)}")
    # RFC 6749, 7.1: a token of a type that is not understood must not be used. Case-insensitive.
    if authority.token_type.lower() != "bearer":
        came = redact_foreign(repr(authority.token_type)) if authority.token_type else "missing"
        raise TokenSourceError(f"the access token's token_type is {came}, not Bearer")
    left = finite_seconds(authority.expires_in)
    if left is None:
        raise TokenSourceError("the access token has no usable expires_in")
    check_time_left(left)
    return AccessToken(
        value=value,
        expires_at=now + left,
        email=authority.email,
        scopes=scopes,
        fixed_scopes=authority.fixed_scopes,
        quota_project=authority.quota_project,
    )
