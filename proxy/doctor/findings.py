"""What an examination finds, in the order in which it was found.  Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Literal

from proxy.config.model import Route
from proxy.frozen import frozen


class Outcome(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, but somebody should look at it."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """There was nothing to do, or an earlier step failed."""


class Step(StrEnum):
    """What is looked at, in the order of the report."""

    CONFIGURATION = "configuration"
    SERVICE = "service"
    CREDENTIALS = "credentials"
    ACCOUNT = "account"
    TOKEN = "token"  # noqa: S105 (the name of a step)
    DNS = "dns"
    TCP = "tcp"
    EGRESS_PROXY = "egress_proxy"
    TLS = "tls"
    REQUEST = "request"
    CLOCK = "clock"


Reason = Literal[
    # configuration
    "audience_suspicious",
    # service
    "service_unresolved",
    # credentials, account, token
    "credentials_missing",
    "credentials_unusable",
    "account_missing",
    "token_unavailable",
    "token_timed_out",
    # dns, tcp
    "dns_failed",
    "dns_timed_out",
    "dns_unanswered",
    "connection_refused",
    "connect_timed_out",
    "connect_failed",
    # egress_proxy
    "egress_proxy_failed",
    # tls
    "certificate_ended",
    "certificate_ends_soon",
    "certificate_for_other_name",
    "certificate_issuer_unknown",
    "certificate_not_yet_valid",
    "certificate_refused",
    "http2_not_offered",
    "tls_failed",
    "tls_not_spoken",
    "tls_timed_out",
    # request: no answer
    "upstream_connect_failed",
    "upstream_malformed",
    "upstream_reset",
    "upstream_timed_out",
    # request: Google's front end
    "audience_fixed",
    "audience_refused",
    "custom_domain",
    "front_end_refused",
    "header_not_read",
    "ingress_internal",
    "instance_failed",
    "no_instance",
    "not_invoker",
    "service_timed_out",
    "token_expired",
    "token_not_sent",
    "token_not_yet_valid",
    "token_refused",
    "vpc_service_controls",
    # request: one of Google's APIs
    "api_disabled",
    "permission_denied",
    "scope_insufficient",
    "quota_project_missing",
    # request: Identity-Aware Proxy
    "iap_audience_refused",
    "iap_header_not_read",
    "iap_not_accessor",
    # request: the service itself
    "service_failed",
    "service_refused",
    # clock
    "clock_skew",
]
"""What can be wrong, by the step where it shows.  These names are stable: programs know them."""


@frozen
class Advice:
    """Why a step failed, and what to do about it."""

    reason: Reason
    why: str
    """One sentence."""
    fix: str = ""
    """What to change, where that is more than running `command`."""
    command: str = ""
    """One line for a shell.  Words in capitals are to be replaced."""


@frozen(kw_only=True)
class Finding:
    """One step and what was found there."""

    step: Step
    outcome: Outcome = Outcome.OK
    text: str
    """What was found, on one line."""
    notes: tuple[str, ...] = ()
    """More of it, a line each."""
    advice: Advice | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    """The same for machines, in JSON's types."""


@frozen
class Report:
    """One route, examined."""

    route: Route
    """With the upstream and the audience that were found for its service."""
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether calls through the route work."""
        return all(finding.outcome is not Outcome.FAILED for finding in self.findings)


def failed(step: Step, text: str, advice: Advice, **facts: object) -> Finding:
    """Return the finding of a step that failed."""
    return Finding(step=step, outcome=Outcome.FAILED, text=text, advice=advice, facts=facts)


def skipped(step: Step, text: str) -> Finding:
    """Return the finding of a step that was not taken."""
    return Finding(step=step, outcome=Outcome.SKIPPED, text=text)
