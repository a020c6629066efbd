"""A version is released with its date and its notes, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import proxy
from tools.release import main, notes, problems, version

ROOT = Path(__file__).parents[2]
CHANGELOG = """\
# Changelog

## 1.2.0 - 2026-11-30

### Added

- `a` does b, and
  goes on here.
- c

  d
  e

## 1.1.0 - 2026-10-01

- old
"""


def test_a_dated_version_under_its_own_tag_is_released() -> None:
    assert problems(CHANGELOG, "1.2.0") == []
    assert problems(CHANGELOG, "1.2.0", "v1.2.0") == []


@pytest.mark.parametrize(
    ("changed", "tag", "problem"),
    [
        ("1.2.0 - 2026-11-30", "1.2.0", "the tag is 1.2.0, the version 1.2.0"),
        ("1.2.0 - 2026-11-30", "v1.2.1", "the tag is v1.2.1, the version 1.2.0"),
        ("1.3.0 - 2026-11-30", "v1.2.0", "the first section of CHANGELOG.md is not 1.2.0"),
        ("Unreleased", "v1.2.0", "the first section of CHANGELOG.md is not 1.2.0"),
        ("1.2.0 (unreleased)", "v1.2.0", "CHANGELOG.md gives 1.2.0 no date"),
        ("1.2.0", "v1.2.0", "CHANGELOG.md gives 1.2.0 no date"),
        ("1.2.0 - 2026-11-31", "v1.2.0", "CHANGELOG.md gives 1.2.0 no date"),
        ("1.2.0 - 30.11.2026", "v1.2.0", "CHANGELOG.md gives 1.2.0 no date"),
        ("1.2.0 - 2026-11-30\n\n## 1.1.9", "v1.2.0", "CHANGELOG.md says nothing of 1.2.0"),
    ],
)
def test_what_keeps_a_version_from_being_released_is_said(
    changed: str, tag: str, problem: str
) -> None:
    [said] = problems(CHANGELOG.replace("1.2.0 - 2026-11-30", changed), "1.2.0", tag)

    assert said.startswith(problem)


def test_notes_are_the_section_of_a_version_with_a_line_for_each_paragraph() -> None:
    assert notes(CHANGELOG, "1.2.0") == (
        "### Added\n\n- `a` does b, and goes on here.\n- c\n\n  d e"
    )
    assert notes(CHANGELOG, "1.1.0") == "- old"
    assert notes(CHANGELOG, "1.0.0") == ""


def test_the_version_is_the_one_that_the_program_says() -> None:
    assert version() == proxy.__version__


def test_this_state_has_notes_and_no_problem_but_a_missing_date(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["check", f"v{proxy.__version__}"])

    said = capsys.readouterr().err
    assert (code, said) == (0, "") or "no date" in said
    assert main(["notes"]) == 0
    assert capsys.readouterr().out.startswith("### ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["check", "v0.0.0"], 1), (["notes", "0.0.0"], 1), ([], 64), (["check", "a", "b"], 64)],
)
def test_what_cannot_be_done_is_an_exit_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert capsys.readouterr().out == ""


def test_the_tool_needs_nothing_but_python() -> None:
    """The first job of a release installs nothing: -S leaves installed packages out."""
    told = subprocess.run(
        [sys.executable, "-S", "-m", "tools.release", "version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout == f"{proxy.__version__}\n"
