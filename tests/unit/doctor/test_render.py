from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.doctor.findings import Advice, Finding, Outcome, Report, Step, skipped
from proxy.doctor.render import MARKS, PLAIN_MARKS, Style, as_json, render, style_for, summary
from tests.unit.doctor.patients import patient

GRANT = "gcloud run services add-iam-policy-binding orders " + "--role=roles/run.invoker " * 5
BROKEN = Finding(
    step=Step.REQUEST,
    outcome=Outcome.FAILED,
    text="GET / → 403 Forbidden in 23 ms",
    notes=("answered by Google's front end",),
    advice=Advice("not_invoker", "The account may not call. " * 5, "Grant it the role.", GRANT),
)


def report(*findings: Finding) -> Report:
    return Report(patient(), findings)


def test_what_failed_says_why_and_what_to_type() -> None:
    text = render(report(Finding(step=Step.DNS, text="192.0.2.1"), BROKEN), Style(80))

    assert text.splitlines()[:3] == [
        "a → https://orders-123456789012.us-central1.run.app",
        "  (ID token in X-Serverless-Authorization)",
        "  ✓ DNS           192.0.2.1",
    ]
    assert text.splitlines()[3:] == [
        "  ✗ request       GET / → 403 Forbidden in 23 ms",
        "                  answered by Google's front end",
        "                  why  The account may not call. The account may not call. The",
        "                       account may not call. The account may not call. The",
        "                       account may not call.",
        "                  fix  Grant it the role.",
        f"                  run  {GRANT}",
        "",
    ]


def test_what_does_not_fit_behind_a_label_goes_below_the_value() -> None:
    names = "subject  " + ", ".join(f"service-{n}.example" for n in range(5))
    plain = "no label here " * 6
    text = render(report(Finding(step=Step.TLS, text="fine", notes=(names, plain))), Style(80))

    assert text.splitlines()[3:] == [
        "                  subject  service-0.example, service-1.example,",
        "                           service-2.example, service-3.example,",
        "                           service-4.example",
        "                  no label here no label here no label here no label here no",
        "                  label here no label here",
        "",
    ]


def test_a_value_that_is_too_long_below_itself_goes_below_its_label() -> None:
    address = f"https://{'x' * 46}.example"
    text = render(
        report(Finding(step=Step.TLS, text="fine", notes=(f"aud    {address}",))), Style(80)
    )

    assert text.splitlines()[3:] == [f"{'':18}aud", f"{'':18}{address}", ""]


def test_the_heading_stands_on_one_line_where_it_fits() -> None:
    assert render(report(), Style(100)).splitlines()[0] == (
        "a → https://orders-123456789012.us-central1.run.app  "
        "(ID token in X-Serverless-Authorization)"
    )


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_mark_of_one_width(outcome: Outcome) -> None:
    assert len(MARKS[outcome]) == 1
    assert len(PLAIN_MARKS[outcome]) == 4
    assert PLAIN_MARKS[outcome].isascii()


def test_a_terminal_without_the_marks_gets_words() -> None:
    text = render(report(BROKEN, skipped(Step.CLOCK, "\N{EN DASH}")), Style(80, unicode=False))

    assert text.isascii()
    assert "  FAIL request       GET / -> 403" in text
    assert "  -    clock         -" in text


@pytest.mark.parametrize(
    ("encoding", "unicode"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False), ("no-such", False)],
)
def test_what_a_terminal_can_show_depends_on_its_encoding(
    encoding: str | None, *, unicode: bool
) -> None:
    assert style_for(100, encoding, colour=False).unicode is unicode


@pytest.mark.parametrize(
    ("columns", "width"), [(40, 80), (79, 80), (80, 80), (90, 90), (100, 100), (101, 100)]
)
def test_a_report_is_80_to_100_columns_wide(columns: int, width: int) -> None:
    assert style_for(columns, "utf-8", colour=False).width == width


def test_colours_are_for_the_marks_alone() -> None:
    plain = render(report(BROKEN), Style())
    coloured = render(report(BROKEN), Style(colour=True))

    assert "\x1b" not in plain
    assert coloured.count("\x1b") == 2
    assert coloured.replace("\x1b[31m✗\x1b[0m", "✗") == plain


def test_the_last_line_counts_a_route_with_several_destinations_once() -> None:
    fine, ill = report(), report(BROKEN)

    assert summary([fine, fine], Style()) == "The route works.\n"
    assert summary([fine, ill], Style()) == "The route fails.\n"
    assert summary([ill, fine], Style()) == "The route fails.\n"


def test_the_last_line_counts() -> None:
    fine, ill = report(), report(BROKEN)
    other = Report(replace(fine.route, name="b"), ())
    broken = Report(other.route, (BROKEN,))
    third = Report(replace(fine.route, name="c"), ())

    assert summary([fine], Style()) == "The route works.\n"
    assert summary([fine, other], Style()) == "All 2 routes work.\n"
    assert summary([ill], Style()) == "The route fails.\n"
    assert summary([ill, broken], Style()) == "All 2 routes fail.\n"
    assert summary([ill, other], Style()) == "1 of 2 routes work; a fails.\n"
    assert summary([ill, broken, third], Style()) == "1 of 3 routes work; a, b fail.\n"


def test_warnings_and_skipped_steps_are_no_failures() -> None:
    warning = Finding(step=Step.CLOCK, outcome=Outcome.WARNING, text="off")

    assert report(warning, skipped(Step.TLS, "plain http")).ok
    assert not report(BROKEN).ok


def test_nothing_to_advise_is_null_for_machines() -> None:
    advised = Finding(
        step=Step.TLS, outcome=Outcome.FAILED, text="x", advice=Advice("tls_failed", "Why.")
    )

    written = as_json([report(Finding(step=Step.DNS, text="x", facts={"seconds": 1}), advised)])

    first, second = written["routes"][0]["steps"]
    assert (first["reason"], first["why"], first["facts"]) == (None, None, {"seconds": 1})
    assert (second["reason"], second["why"]) == ("tls_failed", "Why.")
    assert (second["fix"], second["command"]) == (None, None)
    assert written["ok"] is False
