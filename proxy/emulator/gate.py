"""Decides who may pass to a private service.  Pure: header fields in, a verdict out.

Source of the rules: https://cloud.google.com/run/docs/authenticating/service-to-service and
https://cloud.google.com/run/docs/troubleshooting (401 and 403).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import field

from proxy.emulator.claims import Claims
from proxy.emulator.verify import Refusal
from proxy.frozen import frozen

SERVERLESS = "x-serverless-authorization"
AUTHORIZATION = "authorization"

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)

FORBIDDEN = 403
UNAUTHORIZED = 401


@frozen
class Admitted:
    """A request that may pass."""

    claims: Claims
    place: int
    """Which field, counted from 0, carried the token."""
    token: str = field(repr=False)

    @property
    def without_signature(self) -> str:
        """The token as the service sees it, so that it cannot use it to call others."""
        return self.token.rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE"


def judge(
    fields: Sequence[tuple[str, str]],
    verify: Callable[[str], Claims | Refusal],
    invokers: Collection[str] | None,
) -> Admitted | Refusal:
    """Return whether a request with these header `fields` may pass.

    `invokers` are the e-mail addresses that hold roles/run.invoker; None lets in everybody
    with a valid token.
    """
    places = _identity(fields)
    if not places:
        return Refusal.NO_TOKEN
    if len(places) > 1:
        return Refusal.SEVERAL_HEADERS
    bearer = _BEARER.fullmatch(fields[places[0]][1])
    if bearer is None:
        return Refusal.MALFORMED
    claims = verify(bearer[1])
    if isinstance(claims, Refusal):
        return claims
    if invokers is not None and not _is_one_of(invokers, claims):
        return Refusal.NOT_INVOKER
    return Admitted(claims, places[0], bearer[1])


def _is_one_of(invokers: Collection[str], claims: Claims) -> bool:
    email = claims.get("email")
    return isinstance(email, str) and email in invokers and claims.get("email_verified") is True


def _identity(fields: Sequence[tuple[str, str]]) -> list[int]:
    # "If both headers are provided, only the X-Serverless-Authorization header is checked."
    for name in (SERVERLESS, AUTHORIZATION):
        if places := [place for place, (field, _) in enumerate(fields) if field.lower() == name]:
            return places
    return []


def status_of(refusal: Refusal) -> int:
    """Return the status that Google's front end answers with.

    No token and no permission are 403; a token that cannot be verified is 401.
    """
    missing = refusal in {Refusal.NO_TOKEN, Refusal.NOT_INVOKER}
    return FORBIDDEN if missing else UNAUTHORIZED
