"""A report: for people, aligned, with what to do beside what failed; for programs, in JSON's types.

The package's docstring says what each key of the latter means.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from proxy import __version__
from proxy.config import show
from proxy.config.model import Auth, Route
from proxy.doctor.findings import Advice, Finding, Outcome, Report, Step
from proxy.frozen import frozen

MARKS = {
    Outcome.OK: "✓",
    Outcome.WARNING: "!",
    Outcome.FAILED: "✗",
    Outcome.SKIPPED: "\N{EN DASH}",
}
_TOKENS = {
    Auth.ID_TOKEN: "ID token",
    Auth.ACCESS_TOKEN: "access token",
}
PLAIN_MARKS = {
    Outcome.OK: "ok  ",
    Outcome.WARNING: "WARN",
    Outcome.FAILED: "FAIL",
    Outcome.SKIPPED: "-   ",
}
"""For terminals that cannot show `MARKS`."""

_PLAIN = str.maketrans({"→": "->", "\N{EN DASH}": "-", "…": "...", "✓": "ok", "✗": "FAIL"})

_COLOURS = {Outcome.OK: "32", Outcome.WARNING: "33", Outcome.FAILED: "31", Outcome.SKIPPED: "2"}
"""ECMA-48, 8.3.117 (select graphic rendition): green, yellow, red, faint."""

_LABELS = {"dns": "DNS", "tcp": "TCP", "tls": "TLS", "egress_proxy": "egress proxy"}
_LABEL_WIDTH = 14

_LABELLED = re.compile(r"\w+ {2,}")
"""How a note begins that is a label and a value."""

NARROWEST, WIDEST = 80, 100
"""Columns.  Sentences are wrapped; addresses and commands stay whole, to be copied."""


@frozen
class Style:
    """What the terminal can show."""

    width: int = WIDEST
    unicode: bool = True
    colour: bool = False

    @property
    def marks(self) -> Mapping[Outcome, str]:
        """The mark of each outcome, all of one width."""
        return MARKS if self.unicode else PLAIN_MARKS


def style_for(columns: int, encoding: str | None, *, colour: bool) -> Style:
    """Return the style for a terminal with so many columns and this encoding."""
    try:
        "".join(MARKS.values()).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        unicode = False
    else:
        unicode = True
    return Style(max(NARROWEST, min(WIDEST, columns)), unicode, colour)


def render(report: Report, style: Style) -> str:
    """Return one route's report, with an empty line after it."""
    lines = list(_heading(report.route, style.width))
    for finding in report.findings:
        lines += _finding(finding, style)
    return _shown([*lines, ""], style)


def summary(reports: Iterable[Report], style: Style) -> str:
    """Return the last line: how many routes work, and which do not."""
    works: dict[str, bool] = {}
    for report in reports:  # One for each destination.
        works[report.route.name] = works.get(report.route.name, True) and report.ok
    broken = [name for name, ok in works.items() if not ok]
    fine = len(works) - len(broken)
    if not broken:
        line = "The route works." if fine == 1 else f"All {fine} routes work."
    elif not fine:
        line = "The route fails." if len(broken) == 1 else f"All {len(broken)} routes fail."
    else:
        fails = "fails" if len(broken) == 1 else "fail"
        line = f"{fine} of {len(works)} routes work; {', '.join(broken)} {fails}."
    return _shown(textwrap.wrap(line, style.width), style)


def _heading(route: Route, width: int) -> Iterator[str]:
    where = show.upstream(route)
    kind = _TOKENS.get(route.auth)
    how = f"{kind} in {route.header.value}" if kind else "no token"
    line = f"{route.name} → {where}"
    if len(f"{line}  ({how})") <= width:
        yield f"{line}  ({how})"
    else:
        yield line
        yield f"  ({how})"


def label(step: Step) -> str:
    """Return what a step is called."""
    return _LABELS.get(step.value, step.value)


def _finding(finding: Finding, style: Style) -> Iterator[str]:
    mark = style.marks[finding.outcome]
    indent = " " * (2 + len(mark) + 1 + _LABEL_WIDTH)
    if style.colour:
        mark = f"\x1b[{_COLOURS[finding.outcome]}m{mark}\x1b[0m"
    first, *more = _wrapped(finding.text, style.width - len(indent)) or [""]
    yield f"  {mark} {label(finding.step):{_LABEL_WIDTH}}{first}"
    for text in more:
        yield indent + text
    for note in finding.notes:
        for text in _wrapped(note, style.width - len(indent), _hanging(note)):
            yield indent + text
    if finding.advice is not None:
        yield from _advice(finding.advice, indent, style)


def _advice(advice: Advice, indent: str, style: Style) -> Iterator[str]:
    for label, text in (("why", advice.why), ("fix", advice.fix)):
        for number, line in enumerate(_wrapped(text, style.width - len(indent) - 5)):
            yield f"{indent}{label if number == 0 else '':3}  {line}"
    if advice.command:
        yield f"{indent}run  {advice.command}"


def _hanging(note: str) -> str:
    """Return what stands under the label of a note such as ``subject  a, b``; else nothing."""
    label = _LABELLED.match(note)
    return " " * len(label[0]) if label else ""


def _wrapped(text: str, width: int, below: str = "") -> list[str]:
    """Return the lines of a text; `below` begins all but the first if they fit then."""
    if len(text) <= width:  # As it stands, with the spaces that align it.
        return [text] if text else []
    lines = textwrap.wrap(
        text, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
    )
    return _wrapped(text, width) if below and max(map(len, lines)) > width else lines


def _shown(lines: Iterable[str], style: Style) -> str:
    text = "".join(f"{line}\n" for line in lines)
    return text if style.unicode else text.translate(_PLAIN)


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Return all reports in one object."""
    return {
        "version": __version__,
        "ok": all(report.ok for report in reports),
        "routes": [{**_route(report.route), **_findings(report)} for report in reports],
    }


def _route(route: Route) -> dict[str, Any]:
    sends = route.auth is not Auth.NONE
    return {
        "name": route.name,
        "upstream": None if route.first.upstream is None else str(route.first.upstream),
        "auth": route.auth.value,
        "audience": route.first.audience,
        "scopes": list(route.scopes) if route.auth is Auth.ACCESS_TOKEN else None,
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
