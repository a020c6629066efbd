"""The one room of google-auth: blocking calls that bring a token or a `TokenSourceError`.

Importing this costs about 0.2 s and 10 MB, so nobody does before such credentials are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

from google.auth.exceptions import GoogleAuthError

from proxy.frozen import frozen
from proxy.identity.files import CredentialsFile, read_small
from proxy.identity.googleauth import iam
from proxy.identity.googleauth.principals import Info, Principal, principal_of
from proxy.identity.googleauth.transport import BoundedRequest
from proxy.identity.source import ANSWER_WITHIN, Authority, TokenSourceError
from proxy.identity.target import Means, Target
from proxy.redact import redact_foreign

_HINTS = (
    (
        # Google's words for an assertion from the future or the past.
        "reasonable timeframe",
        "Set this machine's clock: Google refuses what was signed at another time than now.",
    ),
    (
        # google-auth's words for a missing file of `credential_source`.
        "' was not found.",
        "Whatever gives this workload its own token has to write it there.",
    ),
)
"""Hints for errors that are not the credentials' own fault."""

# What google-auth lets through when Google's answer is not what it expects.
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


@frozen
class Minted:
    """What came of asking for an ID token."""

    token: str = field(repr=False)
    fixed_audience: str | None


def id_token(file: CredentialsFile, audience: str, means: Means) -> Minted:
    """Return an ID token of whoever the file stands for."""
    principal = _load(file)
    with _asking(principal.renewal, means) as request:
        token = principal.id_token(audience, request)
    return Minted(token, principal.fixed_audience)


def authorize(file: CredentialsFile, scopes: tuple[str, ...], means: Means) -> Authority:
    """Return an access token of whoever the file stands for."""
    principal = _load(file)
    with _asking(principal.renewal, means) as request:
        return principal.authorize(request, scopes)


def account(file: CredentialsFile) -> str | None:
    """Return the service account that the file stands for, where it says so."""
    return _load(file).email


def impersonated_id_token(authority: Authority, target: Target, audience: str, means: Means) -> str:
    """Return an ID token of `target`."""
    with BoundedRequest(means, ANSWER_WITHIN) as request:
        return iam.generate_id_token(request, authority, target, audience)


def impersonate(
    authority: Authority, target: Target, scopes: tuple[str, ...], means: Means
) -> Authority:
    """Return an access token of `target`."""
    with BoundedRequest(means, ANSWER_WITHIN) as request:
        return iam.generate_access_token(request, authority, target, scopes)


def _load(file: CredentialsFile) -> Principal:
    info = _parse(read_small(file.path, file.if_missing))
    if file.only and info.get("type") != file.only:
        raise TokenSourceError(
            f"its type is {redact_foreign(repr(info.get('type')))}, not {file.only!r}",
            hint="For other credentials than a key set credentials: auto, and "
            "GOOGLE_APPLICATION_CREDENTIALS to the file.",
        )
    return principal_of(info, file.token_endpoint, file.quota_project)


def _parse(content: bytes) -> Info:
    try:
        info = json.loads(content)
    except (ValueError, RecursionError):  # The cause would quote the file, which is a secret.
        info = None
    if not isinstance(info, dict):
        raise TokenSourceError(
            "it is not a JSON object", hint="Create the credentials file again."
        ) from None
    return info


@contextmanager
def _asking(renewal: str, means: Means) -> Iterator[BoundedRequest]:
    """Give out the means to ask Google, and explain what it refuses."""
    try:
        with BoundedRequest(means, ANSWER_WITHIN) as request:
            yield request
    except GoogleAuthError as error:
        # The cause has the whole answer, which may hold tokens.
        raise _explain(error, renewal) from None
    except _UNREADABLE:
        raise TokenSourceError("Google's answer could not be understood") from None


def _explain(error: GoogleAuthError, renewal: str) -> TokenSourceError:
    text = redact_foreign(str(error.args[0]) if error.args else type(error).__name__)
    if error.retryable:
        return TokenSourceError(f"Google is in trouble: {text}", retryable=True)
    # RFC 6749, 5.2: invalid_grant, invalid_client and others. A login may need a second factor.
    refused = "invalid_" in text or "Reauthentication" in text
    hint = next((hint for words, hint in _HINTS if words in text), renewal if refused else None)
    return TokenSourceError(f"Google refused: {text}" if refused else text, hint=hint)
