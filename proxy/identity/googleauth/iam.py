"""The IAM Credentials API: tokens of a service account for somebody who may act as it.

https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, unquote

from google.auth import transport

from proxy.identity.source import Authority, TokenSourceError
from proxy.identity.target import Target
from proxy.redact import first_words, redact_foreign

_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 400, 401, 403, 404
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


def generate_id_token(
    request: transport.Request, authority: Authority, target: Target, audience: str
) -> str:
    """Return an ID token of `target` for `audience`; raise `TokenSourceError`.

    Needs ``iam.serviceAccounts.getOpenIdToken`` on the account, as in
    ``roles/iam.serviceAccountOpenIdTokenCreator``.
    """
    # Cloud Run and IAP know the caller by its email, which is left out unless asked for.
    body = {"audience": audience, "includeEmail": True}
    return _text(_json(_call(request, authority, target, "generateIdToken", body)), "token")


def generate_access_token(
    request: transport.Request, authority: Authority, target: Target, scopes: tuple[str, ...]
) -> Authority:
    """Return an access token of `target`; needs ``roles/iam.serviceAccountTokenCreator``."""
    body = {"scope": list(scopes)}
    response = _call(request, authority, target, "generateAccessToken", body)
    answer = _json(response)
    return Authority(
        _text(answer, "accessToken"),
        expires_in=_lifetime(answer.get("expireTime"), response.headers),
        member=f"serviceAccount:{target.email}",
    )


def _lifetime(expires: object, headers: Mapping[str, str]) -> float | None:
    """Return the seconds from the answer to ``expireTime``; None where one of them is unreadable.

    Both are of Google's clock, so that this machine's does not matter (RFC 9110, 6.6.1).
    """
    try:
        # RFC 3339, with up to nine digits of a second, which Python 3.11 reads.
        until = datetime.fromisoformat(str(expires))
        return (until - parsedate_to_datetime(headers["date"])).total_seconds()
    except (ValueError, KeyError, TypeError):  # TypeError: one of them names no time zone.
        return None


def target_of(impersonation_url: str, delegates: tuple[str, ...] = ()) -> Target:
    """Return whom the ``service_account_impersonation_url`` of a credentials file names."""
    resource, colon, _ = impersonation_url.rpartition(":generateAccessToken")
    email = unquote(resource.rpartition("/")[2])
    if not colon or "@" not in email:
        raise TokenSourceError(
            "its service_account_impersonation_url names no service account",
            hint="It has to end in /serviceAccounts/EMAIL:generateAccessToken.",
        )
    endpoint = resource.rpartition("/v1/projects/")[0]
    return Target(email, delegates, endpoint)


def _call(
    request: transport.Request,
    authority: Authority,
    target: Target,
    method: str,
    body: dict[str, Any],
) -> transport.Response:
    account = quote(target.email, safe="@")
    url = f"{target.endpoint}/v1/projects/-/serviceAccounts/{account}:{method}"
    delegates = [_resource(delegate) for delegate in target.delegates]
    response: transport.Response = request(
        url,
        method="POST",
        body=json.dumps(body | {"delegates": delegates}).encode(),
        headers={**authority.headers, "Content-Type": "application/json"},
    )
    if response.status != _OK:
        raise _refused(response, authority, target, method)
    return response


def _json(response: transport.Response) -> Any:
    try:
        return json.loads(response.data)
    except (ValueError, RecursionError):
        raise _odd(response.data) from None


def _resource(account: str) -> str:
    return account if account.startswith("projects/") else f"projects/-/serviceAccounts/{account}"


def _text(answer: Any, name: str) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str):
        raise _odd(json.dumps(answer))
    return value


def _odd(body: bytes | str) -> TokenSourceError:
    return TokenSourceError(f"IAM answered without a token: {first_words(body)}")


def _refused(
    response: transport.Response, authority: Authority, target: Target, method: str
) -> TokenSourceError:
    status, message = response.status, _message(response.data)
    if status == _FORBIDDEN and _is_api_off(message):
        return TokenSourceError(
            "the IAM Service Account Credentials API is off in the project of the credentials",
            hint="Run `gcloud services enable iamcredentials.googleapis.com`.",
        )
    if status == _FORBIDDEN:
        return TokenSourceError(
            f"{authority.member} may not act as {target.email}: {message}",
            hint=_grant(authority, target, method),
        )
    if status == _NOT_FOUND:
        return TokenSourceError(
            f"there is no service account {target.email}: {message}",
            hint="`gcloud iam service-accounts list` prints those that there are.",
        )
    if status == _UNAUTHORIZED:
        return TokenSourceError(f"IAM does not accept the access token: {message}")
    return TokenSourceError(
        f"IAM answered with status {status}: {message}", retryable=status in _PASSING
    )


def _grant(authority: Authority, target: Target, method: str) -> str:
    role = "OpenIdTokenCreator" if method == "generateIdToken" else "TokenCreator"
    # Each delegate needs the right on the next one; the first link is the caller's.
    account = target.delegates[0] if target.delegates else target.email
    role = "TokenCreator" if target.delegates else role
    role = authority.role or f"roles/iam.serviceAccount{role}"
    return (
        f"Run `gcloud iam service-accounts add-iam-policy-binding {account} "
        f"--member={shlex.quote(authority.member)} --role={role}`; it takes a few minutes to hold."
    )


def _message(body: bytes) -> str:
    """Return Google's own words: ``{"error": {"message": …}}`` (https://google.aip.dev/193)."""
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return first_words(body)
    return redact_foreign(str(message))


def _is_api_off(message: str) -> bool:
    return "has not been used in project" in message or "it is disabled" in message
