"""What an answer means for the route: that it works, or why not and what to do.  Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from urllib.parse import urlsplit

from proxy.config.addresses import is_address, is_loopback
from proxy.config.model import Auth, IdentityHeader
from proxy.config.resolve import default_audience
from proxy.doctor import apis
from proxy.doctor.answers import PERIMETER, By
from proxy.doctor.call import Call
from proxy.doctor.clock import SET_CLOCK, SHOW_CLOCKS, TOLERATED
from proxy.doctor.findings import Advice, Finding, Outcome, Step
from proxy.doctor.smells import audience_smell
from proxy.doctor.words import again, printable, span
from proxy.plane.front_end import grant_command, service_of
from proxy.redact import first_words

_WHO = {
    By.SERVICE: "answered by the service",
    By.GOOGLE: "answered by Google's front end, in place of the service",
    By.IAP: "answered by Identity-Aware Proxy, in place of the service",
}
_LOWEST_REDIRECT, _LOWEST_ERROR, _LOWEST_FAULT = 300, 400, 500
_NOT_FOUND, _METHOD_NOT_ALLOWED = 404, 405


def judge(call: Call) -> Finding:
    """Return the finding of the request."""
    answer, question = call.answer, call.question
    advice = _advice(call)
    path = question.path.partition("?")[0]
    return Finding(
        step=Step.REQUEST,
        outcome=Outcome.OK if advice is None else Outcome.FAILED,
        text=f"{question.method} {path} → {_status(answer.status)} in {span(answer.seconds)}",
        notes=tuple(_notes(call, failed=advice is not None)),
        advice=advice,
        facts={
            "method": question.method,
            "path": path,
            "status": answer.status,
            "seconds": round(answer.seconds, 4),
            "server": answer.server or None,
            "answered_by": answer.by.value,
        },
    )


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _notes(call: Call, *, failed: bool) -> list[str]:
    answer = call.answer
    server = f" (server: {answer.server})" if answer.server else ""
    notes = [f"{_WHO[answer.by]}{server}"]
    if failed:
        if answer.by is By.SERVICE and answer.body:
            notes.append(f"it says {first_words(answer.body)}")
    elif answer.status in (_NOT_FOUND, _METHOD_NOT_ALLOWED):
        notes.append("the way there works; try --path and --method for what the service knows")
    elif _LOWEST_REDIRECT <= answer.status < _LOWEST_ERROR:
        notes.append(f"a redirect{_to(answer.fields.get('location', ''))}: the proxy passes it on")
    return notes


def _to(location: str) -> str:
    """Return the host that a redirect leads to, as words; paths and queries may hold secrets."""
    host = urlsplit(printable(location)).netloc.rpartition("@")[2]
    return f" to {host}" if host else ""


def _advice(call: Call) -> Advice | None:
    answer = call.answer
    if call.route.auth is Auth.ACCESS_TOKEN and answer.status in apis.REFUSALS:
        return apis.explain(call)
    if answer.by is By.IAP or _asks_for_login(call):
        return _iap(call)
    if answer.by is By.GOOGLE:
        advice = _GOOGLE.get(answer.status, _front_end)(call)
        return _here(call, advice) if is_loopback(call.host) else advice
    if answer.status in _BY_SERVICE or answer.status >= _LOWEST_FAULT:
        return _service(call)
    return None


def _here(call: Call, advice: Advice) -> Advice:
    """Return the advice without commands for a service that Google knows: here is none."""
    if not advice.command.startswith("gcloud run services "):
        return advice
    fix = _STAND_IN if audience_smell(call.route) is None else advice.fix
    return replace(advice, fix=fix, command=call.logs)


_STAND_IN = (
    "Something on this machine stands in for Google's front end. The emulator prints which "
    "audiences it admits: set the route's audience to one of them, or leave it out. Behind a "
    "tunnel, such as `gcloud run services proxy`, the service there is what refuses. This makes "
    "the same call:"
)


# By the service


_BY_SERVICE: Mapping[int, str] = {
    401: "the application wants another proof of who calls",
    403: "the call passed Google's front end, so roles/run.invoker is not what is missing",
    407: "it takes itself for a proxy that wants a password",
    429: "it limits its own rate",
}


def _service(call: Call) -> Advice:
    status = call.answer.status
    more = _BY_SERVICE.get(status, "the route itself works")
    if status in (401, 403) and (call.token is None or not call.is_cloud_run):
        more = "it is its own rule, not Cloud Run's"
    return Advice(
        reason="service_refused" if status < _LOWEST_FAULT else "service_failed",
        why=f"The service itself answered {status}: {more}.",
        fix="Look at the service's own log, or ask for another path with --path.",
        command=call.logs,
    )


# By Google's front end


def _nowhere(call: Call) -> Advice:
    workload = call.workload
    if workload is None:
        fix = (
            "If this prints internal, calls have to come through its VPC network: from Cloud Run "
            "with Direct VPC egress, from elsewhere over a VPN."
        )
        command = call.gcloud(
            "describe", "--format='value(metadata.annotations[\"run.googleapis.com/ingress\"])'"
        )
    else:
        fix = f"Send what {workload.name} calls through the VPC network, which the service admits:"
        command = (
            f"gcloud run {workload.kind} update {shlex.quote(workload.name)} --region=REGION "
            "--network=NETWORK --subnet=SUBNET --vpc-egress=all-traffic"
        )
    return Advice(
        reason="ingress_internal",
        why="Google's front end shows no such service to this caller: its ingress is internal and "
        "the call did not come through its VPC network, or the URL is wrong.",
        fix=f"{fix} {call.where_names_are}".rstrip(),
        command=command,
    )


def _no_instance(call: Call) -> Advice:
    return Advice(
        reason="no_instance",
        why="Cloud Run had no instance for the call: the service runs as many as it may.",
        fix="Allow more, or let the proxy try again: retries: {attempts: 3}.",
        command=call.gcloud("update", "--max-instances=N"),
    )


def _broken_instance(call: Call) -> Advice:
    return Advice(
        reason="instance_failed",
        why="The service's container did not start, crashed, or broke off its answer.",
        fix=f"Its log says which. {call.where_names_are}".rstrip(),
        command=call.gcloud("logs read", "--limit=20"),
    )


def _too_slow(call: Call) -> Advice:
    return Advice(
        reason="service_timed_out",
        why="The service took longer than Cloud Run lets one request take.",
        fix="Allow more time, or find out in its log what takes so long.",
        command=call.gcloud("update", "--timeout=SECONDS"),
    )


def _front_end(call: Call) -> Advice:
    return Advice(
        reason="front_end_refused",
        why=f"Google's front end answered {call.answer.status} in place of the service.",
        fix="Its log says more, if the request got that far.",
        command=call.gcloud("logs read", "--limit=20"),
    )


# By Identity-Aware Proxy: https://cloud.google.com/iap/docs/authentication-howto

_EXPECTED = re.compile(r"expected value \(([0-9]+-[a-z0-9]+\.apps\.googleusercontent\.com)\)")


def _asks_for_login(call: Call) -> bool:
    """Whether a person is sent to Google's login, which IAP does to calls without a token."""
    redirects = _LOWEST_REDIRECT <= call.answer.status < _LOWEST_ERROR
    location = urlsplit(call.answer.fields.get("location", ""))
    return redirects and location.hostname == "accounts.google.com"


def _iap(call: Call) -> Advice:
    if call.answer.status == HTTPStatus.FORBIDDEN:
        return _no_accessor(call)
    if call.route.header is IdentityHeader.SERVERLESS:
        return Advice(
            reason="iap_header_not_read",
            why="Identity-Aware Proxy does not read X-Serverless-Authorization.",
            fix="Set the route's header to Proxy-Authorization, or to Authorization.",
        )
    expected = _EXPECTED.search(call.answer.body)
    client = expected[1] if expected else "the OAuth client ID that this prints"
    return Advice(
        reason="iap_audience_refused",
        why=f"Identity-Aware Proxy does not accept tokens for {call.route.first.audience}.",
        fix=f"Set the route's audience to {client}.",
        command="gcloud compute backend-services describe BACKEND_SERVICE --global "
        "--format='value(iap.oauth2ClientId)'",
    )


def _no_accessor(call: Call) -> Advice:
    service, region = service_of(call.route)
    resource = f"--resource-type=cloud-run --service={service} --region={region}"
    if not call.is_cloud_run:
        resource = "--resource-type=backend-services --service=BACKEND_SERVICE"
    kind = "serviceAccount" if call.who.endswith(".gserviceaccount.com") else "user"
    return Advice(
        reason="iap_not_accessor",
        why=f"{call.who} may not pass Identity-Aware Proxy: it lacks "
        "roles/iap.httpsResourceAccessor.",
        fix="A new grant takes a few minutes to hold.",
        command=f"gcloud iap web add-iam-policy-binding {resource} --member={kind}:{call.who} "
        "--role=roles/iap.httpsResourceAccessor",
    )


# By Google's front end: why it refused a call, 401 and 403.
# https://cloud.google.com/run/docs/troubleshooting and
# https://cloud.google.com/run/docs/authenticating/service-to-service

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
        fix=SET_CLOCK,
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
    upstream, audience = call.route.first.upstream, call.route.first.audience
    if upstream is None or audience != default_audience(upstream) or call.is_cloud_run:
        return None
    if is_address(upstream.host) or is_loopback(upstream.host):
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
    upstream, audience = call.route.first.upstream, call.route.first.audience
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
        why="The service is private, and this route sends no token (auth: none).",
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


_GOOGLE: Mapping[int, Callable[[Call], Advice]] = {
    401: unauthorized,
    403: forbidden,
    404: _nowhere,
    429: _no_instance,
    500: _broken_instance,
    502: _broken_instance,
    503: _broken_instance,
    504: _too_slow,
}
