"""Why Google's front end refused a call: 401 and 403.  Pure.

Sources: https://cloud.google.com/run/docs/troubleshooting and
https://cloud.google.com/run/docs/authenticating/service-to-service.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from proxy.config.model import IdentityHeader
from proxy.config.resolve import default_audience
from proxy.doctor.again import again
from proxy.doctor.answers import PERIMETER
from proxy.doctor.call import Call
from proxy.doctor.clock import SHOW_CLOCKS, TOLERATED
from proxy.doctor.findings import Advice
from proxy.doctor.smells import audience_smell
from proxy.doctor.words import is_address, span
from proxy.plane.explain import grant_command

_URL = "--format='value(status.url)'"


def unauthorized(call: Call) -> Advice:
    """Explain a 401 of the front end: it could not verify the token."""
    return next(advice for rule in _UNAUTHORIZED if (advice := rule(call)) is not None)


def forbidden(call: Call) -> Advice:
    """Explain a 403 of the front end: it does not let this account call."""
    return next(advice for rule in _FORBIDDEN if (advice := rule(call)) is not None)


# 401


def _expired(call: Call) -> Advice | None:
    now = call.upstream_now
    if call.token is None or now is None or call.token.expires_at > now:
        return None
    behind = now - call.answer.received_at
    return Advice(
        reason="token_expired",
        why=f"By the upstream's clock the token expired {span(now - call.token.expires_at)} ago: "
        f"this machine's clock is {span(max(0.0, behind))} behind.",
        fix="Set the clock, and keep it set by NTP; Docker Desktop's stops with the laptop.",
        command=SHOW_CLOCKS,
    )


def _from_the_future(call: Call) -> Advice | None:
    now = call.upstream_now
    issued_at = call.token.claims.get("iat") if call.token else None
    if now is None or not isinstance(issued_at, int | float) or issued_at <= now + TOLERATED:
        return None
    return Advice(
        reason="token_not_yet_valid",
        why=f"By the upstream's clock the token is issued only in {span(issued_at - now)}.",
        fix="Set the clock of whatever signs the tokens, or of this machine.",
        command=SHOW_CLOCKS,
    )


def _badly_written(call: Call) -> Advice | None:
    smell = audience_smell(call.route)
    if smell is None:
        return None
    return Advice("audience_refused", smell.why, smell.fix, call.gcloud("describe", _URL))


def _custom_domain(call: Call) -> Advice | None:
    upstream, audience = call.route.upstream, call.route.audience
    if upstream is None or audience != default_audience(upstream) or call.is_cloud_run:
        return None
    if is_address(upstream.host):
        return None
    return Advice(
        reason="custom_domain",
        why=f"Cloud Run does not take {audience} as an audience just because it is the service's "
        "domain.",
        fix="Set the route's audience to the service's run.app URL, or make this one a custom "
        "audience of the service:",
        command=call.gcloud("update", f"--add-custom-audiences={shlex.quote(audience)}"),
    )


def _gcloud_login(call: Call) -> Advice | None:
    if not call.fixed_audience:
        return None
    return Advice(
        reason="audience_fixed",
        why="The token of a gcloud login has gcloud's own audience, and this service takes only "
        "its own.",
        fix="Act as a service account while developing:",
        command="gcloud auth application-default login --impersonate-service-account=ACCOUNT",
    )


def _other_audience(call: Call) -> Advice | None:
    upstream, audience = call.route.upstream, call.route.audience
    if upstream is None or audience == default_audience(upstream):
        return None
    return Advice(
        reason="audience_refused",
        why=f"The service does not accept tokens for {audience}: that is neither its run.app URL "
        "nor one of its custom audiences.",
        fix="Set the route's audience to the URL that this prints, or leave it out. "
        + call.where_names_are,
        command=call.gcloud("describe", _URL),
    )


def _unverified(call: Call) -> Advice:
    return Advice(
        reason="token_refused",
        why="Google's front end could not verify the token, although it is for the upstream's own "
        "origin.",
        fix="Compare the route's audience with the URL that this prints. " + call.where_names_are,
        command=call.gcloud("describe", _URL),
    )


_UNAUTHORIZED: tuple[Callable[[Call], Advice | None], ...] = (
    _expired,
    _from_the_future,
    _badly_written,
    _gcloud_login,
    _custom_domain,
    _other_audience,
    _unverified,
)
"""The first that knows an answer; the last one always does."""


# 403


def _perimeter(call: Call) -> Advice | None:
    if not any(words in call.answer.body for words in PERIMETER):
        return None
    return Advice(
        reason="vpc_service_controls",
        why="A service perimeter (VPC Service Controls) does not let this call in.",
        fix="Ask whoever keeps the perimeter for an ingress rule; this shows what was refused:",
        command="gcloud logging read 'protoPayload.metadata.@type:VpcServiceControlAuditMetadata'"
        " --limit=5",
    )


def _no_token(call: Call) -> Advice | None:
    if call.token is not None:
        return None
    return Advice(
        reason="token_not_sent",
        why="The service is private, and this route sends no ID token (auth: none).",
        fix="Set auth: id_token on the route; this tries it:",
        command=f"AUTH_PROXY_AUTH=id_token {again('doctor', call.route, call.source)}",
    )


def _wrong_header(call: Call) -> Advice | None:
    if call.route.header is not IdentityHeader.PROXY:
        return None
    return Advice(
        reason="header_not_read",
        why="Cloud Run does not read Proxy-Authorization, only Identity-Aware Proxy does.",
        fix="Leave the route's header out: its default is X-Serverless-Authorization.",
    )


def _not_invoker(call: Call) -> Advice:
    return Advice(
        reason="not_invoker",
        why=f"{call.who} may not call the service: it lacks roles/run.invoker.",
        fix="A new grant takes a few minutes to hold. If it has the role already, VPC Service "
        f"Controls may be what refuses. {call.where_names_are}".rstrip(),
        command=grant_command(call.route, call.who),
    )


_FORBIDDEN: tuple[Callable[[Call], Advice | None], ...] = (
    _perimeter,
    _no_token,
    _wrong_header,
    _not_invoker,
)
