"""Refusals by Google's front end: told from answers of the application behind it, and explained.

The front end's means that the container never saw the request: the token was refused, and a
new one may be tried.  The application's is an answer like any other.
"""

from __future__ import annotations

import re

from proxy.config.model import Auth, Route
from proxy.identity.access_token import AccessToken
from proxy.identity.token import Token
from proxy.plane.head import ResponseHead, values

DESCRIPTION = b'error_description="The access token could not be verified"'
"""What the front end's ``WWW-Authenticate: Bearer error="invalid_token"`` goes on with.

Seen in many reports, documented nowhere.  ``invalid_token`` alone proves nothing: it is what
RFC 6750, 3.1 tells every application to say of its users' tokens."""

# The sentence of the front end's HTML page (known in the same way).
_SENTENCE = b"Your client does not have permission to the requested URL"

PAGE_BYTES = 4096
"""Of a page in which the sentence stands, if anywhere; the front end's page is 300 long."""


# What Google's APIs say of an access token: https://cloud.google.com/apis/design/errors, and
# https://cloud.google.com/storage/docs/json_api/v1/status-codes for those of the older form.
_API_ERROR = re.compile(
    rb'"status"\s*:\s*"UNAUTHENTICATED"'
    rb'|"reason"\s*:\s*"(?:ACCESS_TOKEN_(?:EXPIRED|TYPE_UNSUPPORTED)|authError)"'
)


def may_be_platform(head: ResponseHead, token: Token | None) -> bool:
    """Tell whether a 401 to `token` is worth holding back until its body has been looked at."""
    kinds = [kind.lower() for kind in values(head.fields, b"content-type")]
    looked_at = b"application/json" if isinstance(token, AccessToken) else b"text/html"
    return is_described(head) or any(kind.startswith(looked_at) for kind in kinds)


def is_platform(head: ResponseHead, body: bytes, token: Token | None) -> bool:
    """Tell whether Google made a 401 to `token`, of whose body `body` has come.

    What one of its APIs says in JSON counts for access tokens alone: a service behind the front
    end may say the same of its users.
    """
    if isinstance(token, AccessToken) and _API_ERROR.search(body):
        return True
    return is_described(head) or _SENTENCE in body


def is_described(head: ResponseHead) -> bool:
    """Tell whether a 401 describes itself in the front end's words."""
    return any(
        challenge[:7].lower() == b"bearer " and DESCRIPTION in challenge
        for challenge in values(head.fields, b"www-authenticate")
    )


REFUSALS = frozenset((401, 403, 404))
"""Statuses by which Google's front ends refuse a call: token, permission, ingress."""


def refusal_of(head: ResponseHead) -> int:
    """Return the status if the answer may be a refusal by the platform, else 0.

    A 404 counts where it is a page: internal ingress and VPC Service Controls answer so
    (Cloud Run, "Troubleshooting: 404"), while APIs answer in their own formats.
    """
    if head.status != 404:  # noqa: PLR2004 (RFC 9110, 15.5.5)
        return head.status
    kinds = values(head.fields, b"content-type")
    return 404 if any(kind.lower().startswith(b"text/html") for kind in kinds) else 0


def explain(status: int, route: Route, token: Token | None) -> tuple[str, str]:
    """Return a sentence on what was refused and one on what to do."""
    account = (token.email if token else None) or "the account of these credentials"
    if route.auth is Auth.ACCESS_TOKEN:
        return _explain_api(status, route, account)
    if status == 401:  # noqa: PLR2004 (RFC 9110, 15.5.2)
        text = (
            f"The upstream of route {route.name} answered 401 to a token of {account}"
            f" for the audience {route.first.audience}."
        )
        hint = (
            "If the service runs on Cloud Run, the audience must be its run.app URL or one of its"
            " custom audiences: set the route's `audience`. Otherwise the application refused the"
            " caller itself."
        )
        return text, hint
    if status == 404:  # noqa: PLR2004 (RFC 9110, 15.5.5)
        text = (
            f"The upstream of route {route.name} answered 404 with a page: if the application did"
            " not make it, Google's front end did, because the service takes internal traffic only."
        )
        hint = (
            "Look at the service's ingress (gcloud run services describe) and send this service's"
            " traffic through a VPC: --vpc-egress=all-traffic, with Private Google Access."
        )
        return text, hint
    text = (
        f"The upstream of route {route.name} answered 403: {account} may lack"
        " roles/run.invoker on the service."
    )
    return text, grant_command(route, account)


def _explain_api(status: int, route: Route, account: str) -> tuple[str, str]:
    """Explain what one of Google's APIs refused; its own answer says more, and is the caller's."""
    text = f"The upstream of route {route.name} answered {status} to an access token of {account}"
    if status == 401:  # noqa: PLR2004 (RFC 9110, 15.5.2)
        hint = "Look at what the API says in its answer, and at this machine's clock."
        return f"{text}.", hint
    if status == 404:  # noqa: PLR2004 (RFC 9110, 15.5.5)
        hint = "Compare the path, and the region in the route's `upstream`, with the API's own."
        return f"{text}, with a page.", hint
    hint = (
        "The API's answer names the permission, the scope or the API that is missing: grant a role"
        " (gcloud projects add-iam-policy-binding), add to the route's `scopes`, or enable it"
        " (gcloud services enable)."
    )
    return f"{text} for {' '.join(route.scopes)}.", hint


def grant_command(route: Route, account: str) -> str:
    """Return the command that lets `account` call the route's Cloud Run service."""
    service, region = service_of(route)
    kind = "serviceAccount" if account.endswith(".gserviceaccount.com") else "user"
    return (
        f"gcloud run services add-iam-policy-binding {service} --region={region}"
        f" --member={kind}:{account} --role=roles/run.invoker"
    )


def service_of(route: Route) -> tuple[str, str]:
    """Return the service's name and region as far as the URL tells them.

    Deterministic URLs are ``[TAG---]SERVICE-PROJECT_NUMBER.REGION.run.app``; others hold an
    identifier that is not to be parsed (Cloud Run, "Service URLs").
    """
    service, upstream = route.first.service, route.first.upstream
    if service is not None:
        return service.name, service.region or "REGION"
    labels = upstream.host.split(".") if upstream is not None else []
    if labels[2:] == ["run", "app"]:
        name, _, number = labels[0].rpartition("---")[2].rpartition("-")
        if name and number.isdigit():
            return name, labels[1]
    return "SERVICE", "REGION"
