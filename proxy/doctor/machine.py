"""A report in JSON's types.  The package's docstring says what each key means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy import __version__
from proxy.config import show
from proxy.config.model import Auth, Route
from proxy.doctor.findings import Finding, Report


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Return all reports in one object."""
    return {
        "version": __version__,
        "ok": all(report.ok for report in reports),
        "routes": [{**_route(report.route), **_findings(report)} for report in reports],
    }


def _route(route: Route) -> dict[str, Any]:
    sends = route.auth is Auth.ID_TOKEN
    return {
        "name": route.name,
        "upstream": None if route.upstream is None else str(route.upstream),
        "auth": route.auth.value,
        "audience": route.audience,
        "header": route.header.value if sends else None,
        "credentials": show.credentials(route.credentials) if sends else None,
    }


def _findings(report: Report) -> dict[str, Any]:
    return {"ok": report.ok, "steps": [_step(finding) for finding in report.findings]}


def _step(finding: Finding) -> dict[str, Any]:
    advice = finding.advice
    return {
        "step": finding.step.value,
        "outcome": finding.outcome.value,
        "text": finding.text,
        "notes": list(finding.notes),
        "reason": advice.reason if advice else None,
        "why": advice.why if advice else None,
        "fix": (advice.fix or None) if advice else None,
        "command": (advice.command or None) if advice else None,
        "facts": dict(finding.facts),
    }
