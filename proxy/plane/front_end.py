"""Google's front end: which answers are its own, made in a service's place, and what they mean.

The container never saw such a request, or broke off while it served it.  What the application
behind answers is an answer like any other, whatever stands in it.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.config.model import Auth, Route
from proxy.errors import PlatformError
from proxy.identity.access_token import AccessToken
from proxy.identity.token import Token
from proxy.plane.head import ResponseHead, pairs, values

DESCRIPTION: Final = b'error_description="The access token could not be verified"'
"""What the front end's ``WWW-Authenticate: Bearer error="invalid_token"`` goes on with.

Seen in many reports, documented nowhere.  ``invalid_token`` alone proves nothing: it is what
RFC 6750, 3.1 tells every application to say of its users' tokens."""

PAGE_BYTES: Final = 16 * 1024
"""Of the largest page that can be the front end's.

Those that are known have 14 to 1600, and repeat the URL, which a batch of queries makes long."""

_UNAUTHORIZED: Final = 401  # RFC 9110, 15.5.2
STATUSES: Final = frozenset((401, 403, 404, 429, 500, 502, 503, 504))
"""With which the front end answers by itself."""

# What it sends with its pages, of which reports show nothing else. Frameworks add at least one
# of their own to an error (X-Powered-By, ETag, X-Content-Type-Options, Vary, a cookie).
_FIELDS: Final = frozenset(
    (
        b"alt-svc", b"content-length", b"content-type", b"date", b"referrer-policy", b"retry-after",
        b"server", b"traceparent", b"via", b"www-authenticate", b"x-cloud-trace-context",
    )
)  # fmt: skip

_SERVER: Final = b"Google Frontend"
"""What ``Server`` says, on applications' answers too; the pages with the robot have none."""

# Expressions are compiled when the first page comes (`re` keeps them): most processes see none,
# and a caller waits for the start.

# The page of Cloud Run, App Engine and the load balancers; no two of its kind differ in more
# than the sentence. Every repetition ends at a character that it cannot contain: linear.
_PAGE: Final = (
    rb"<html><head>\s*(?:<meta [^<>]*>\s*)?<title>(\d{3}) [^<]*</title>\s*</head>\s*"
    rb"<body[^<>]*>\s*<h1>Error: [^<]*</h1>\s*"
    rb"<h2>(?:Your client does not have permission to|The requested URL |Rate exceeded\."
    rb"|The server encountered an? |The service you requested is not available|Service Unavailable)"
    rb"(?:[^<]|</?(?:code|p)>)*</h2>\s*(?:<h2></h2>\s*)?</body>\s*</html>"
)

# The page with the robot, for names and paths behind which there is no service.
_ROBOT: Final = (
    rb"<!DOCTYPE html>\s*<html lang=en>\s*<meta charset=utf-8>\s*"
    rb"(?:<meta name=viewport [^<>]*>\s*)?<title>Error (\d{3}) \([^<]*\)!!1</title>"
)
_ROBOT_ENDS: Final = b"<ins>That\xe2\x80\x99s all we know.</ins>"

# Whole bodies; only with `Server`, since an application could say as little.
_LINES: Final = frozenset((b"Rate exceeded.", b"Service Unavailable", b"upstream request timeout"))
_LINE_WITH_REASON: Final = b"upstream connect error or disconnect/reset before headers."

# What Google's APIs say of an access token: https://cloud.google.com/apis/design/errors, and
# https://cloud.google.com/storage/docs/json_api/v1/status-codes for those of the older form.
_API_ERROR: Final = (
    rb'"status"\s*:\s*"UNAUTHENTICATED"'
    rb'|"reason"\s*:\s*"(?:ACCESS_TOKEN_(?:EXPIRED|TYPE_UNSUPPORTED)|authError)"'
)

_BEGINNINGS: Final[tuple[bytes, ...]] = (
    b"<html><head>", b"<!DOCTYPE html>", b"Rate exceeded.", b"Service Unavailable",
    b"upstream connect error or disconnect/reset before headers.", b"upstream request timeout",
)  # fmt: skip


def may_be_platform(head: ResponseHead) -> bool:
    """Tell whether the front end may have made a response, of which the head has come.

    Without a body only its description of a 401 tells, so a HEAD is the application's.
    """
    return head.status in STATUSES and (is_described(head) or _may_be_page(head))


def _may_be_page(head: ResponseHead) -> bool:
    if head.bodyless or head.length == 0 or (head.length or 0) > PAGE_BYTES:
        return False
    kinds = values(head.fields, b"content-type")
    is_text = any(kind.lower().startswith((b"text/html", b"text/plain")) for kind in kinds)
    return is_text and _is_bare(head)


def _is_bare(head: ResponseHead) -> bool:
    """Tell whether no field is an application's own."""
    for name, value in pairs(head.fields):
        lower = name.lower()
        if lower not in _FIELDS or (lower == b"server" and value != _SERVER):
            return False
    return True


def may_become_page(body: bytes | bytearray) -> bool:
    """Tell whether a body that begins with `body` may be one of the front end's pages."""
    return any(body.startswith(each[: len(body)]) for each in _BEGINNINGS)


def is_platform(head: ResponseHead, body: bytes) -> bool:
    """Tell whether the front end made a response; `body` is the whole of it.

    Its description in what is no page of its own may be an application's that passes on what it
    was answered itself.
    """
    if not body:
        return is_described(head) and _is_bare(head)
    return head.status in STATUSES and is_page(head, body)


def is_page(head: ResponseHead, body: bytes) -> bool:
    """Tell whether a response with an error is one of the front end's pages, whatever its status.

    Beyond `STATUSES` nothing can be said for the service, and callers get it as it is.
    """
    if len(body) > PAGE_BYTES or not _may_be_page(head):
        return False
    text = body.rstrip()
    if text.startswith(b"<"):
        page = re.fullmatch(_PAGE, text)
        if page is None and text.endswith(_ROBOT_ENDS):
            page = re.match(_ROBOT, text)
        return page is not None and int(page[1]) == head.status
    return bool(values(head.fields, b"server")) and _is_line(text)


def _is_line(text: bytes) -> bool:
    is_one = b"\n" not in text and b"<" not in text
    return text in _LINES or (is_one and text.startswith(_LINE_WITH_REASON))


def is_described(head: ResponseHead) -> bool:
    """Tell whether a 401 describes itself in the front end's words."""
    return head.status == _UNAUTHORIZED and any(
        challenge[:7].lower() == b"bearer " and DESCRIPTION in challenge
        for challenge in values(head.fields, b"www-authenticate")
    )


def may_be_api_refusal(head: ResponseHead, token: Token | None) -> bool:
    """Tell whether one of Google's APIs may have refused an access token."""
    return (
        head.status == _UNAUTHORIZED
        and isinstance(token, AccessToken)
        and any(
            kind.lower().startswith(b"application/json")
            for kind in values(head.fields, b"content-type")
        )
    )


def is_api_refusal(head: ResponseHead, body: bytes, token: Token | None) -> bool:
    """Tell whether one of Google's APIs refused an access token; `body` is what has come.

    What it says in JSON counts for access tokens alone: a service behind the front end may say
    the same of its users.
    """
    return may_be_api_refusal(head, token) and re.search(_API_ERROR, body) is not None


def explain(status: int, route: Route, token: Token | None) -> PlatformError:
    """Return what a page of the front end with `status` means for a call that carried `token`."""
    account = (token.email if token else None) or "the account of these credentials"
    if route.auth is Auth.ACCESS_TOKEN:
        return _explain_api(status, route, account)
    service, region = service_of(route)
    where = f"{service} --region={region}"
    if token is None and status in (401, 403):
        return PlatformError(
            status,
            "The service takes only callers that it knows, and this call carried no ID token: the"
            f" `auth` of route {route.name} is none.",
            "Set the route's `auth: id_token`.",
        )
    if status == _UNAUTHORIZED:
        return PlatformError(
            status,
            f"The ID token of {account} for the audience {route.first.audience} was refused.",
            "The audience must be the service's run.app URL or one of its custom audiences: set the"
            f" route's `audience` to what `gcloud run services describe {where}"
            " --format='value(status.url)'` prints.",
        )
    if status == 403:  # noqa: PLR2004 (RFC 9110, 15.5.4)
        return PlatformError(
            status,
            f"{account} may not call the service (audience {route.first.audience}): it lacks"
            " roles/run.invoker.",
            grant_command(route, account),
        )
    detail, hint = _MEANING[status], _REMEDY[status]
    return PlatformError(status, detail, hint.format(where=where))


def _explain_api(status: int, route: Route, account: str) -> PlatformError:
    """Explain what was refused on the way to one of Google's APIs."""
    detail = f"The call carried an access token of {account} for {' '.join(route.scopes)}."
    return PlatformError(status, detail, _API_REMEDY.get(status, "Repeat the call later."))


_API_REMEDY: Final = {
    401: "Look at what the API says in its answer, and at this machine's clock.",
    403: "Grant a role (gcloud projects add-iam-policy-binding), add to the route's `scopes`, or"
    " enable the API (gcloud services enable).",
    404: "Compare the path, and the region in the route's `upstream`, with the API's own.",
}


# Source: https://cloud.google.com/run/docs/troubleshooting
_MEANING: Final = {
    404: "It shows this caller no such service: the URL is wrong, or the service takes internal"
    " traffic only and the call did not come through its VPC network.",
    429: "No instance of the service was free, and no more may or can be started so fast.",
    500: "It could not start an instance in time, or could not pass the service's answer on.",
    502: "It could not pass the service's answer on.",
    503: "The service's instance could not be started, or ended without an answer.",
    504: "The service did not answer within its request timeout.",
}
_LOGS: Final = "`gcloud run services logs read {where} --limit=20` says why."
_REMEDY: Final = {
    404: "`gcloud run services describe {where}` prints URL and ingress. If that is internal, send"
    " this workload's traffic through the VPC: --vpc-egress=all-traffic, with Private Google"
    " Access. Paths such as /healthz Cloud Run keeps to itself.",
    429: "`gcloud run services update {where} --max-instances=N` lets it have more; the route's"
    " `retries: {{on: [429]}}` waits for one.",
    500: _LOGS,
    502: _LOGS,
    503: _LOGS,
    504: "`gcloud run services update {where} --timeout=SECONDS` gives it longer.",
}


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
