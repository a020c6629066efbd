"""What an examination brings to light.  Pure data, in the order in which it was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.config.model import Route


class Outcome(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, and yet somebody should look at it."""
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
    TLS = "tls"
    REQUEST = "request"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Advice:
    """Why a step failed, and what to do about it."""

    reason: str
    """Stable, in snake case: the name for machines."""
    why: str
    """One sentence."""
    fix: str = ""
    """What to change, where that is more than running `command`."""
    command: str = ""
    """One line for a shell.  Words in capitals are to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True)
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
