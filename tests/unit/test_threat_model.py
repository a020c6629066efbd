"""Each threat names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "THREAT_MODEL.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT)


def test_the_tests_that_are_named_exist() -> None:
    missing = [f"{file}::{name}" for file, name in NAMED if name not in names_in(ROOT / file)]

    assert missing == []


def test_every_threat_names_a_test_or_says_why_not() -> None:
    threats = TEXT.partition("## Threats")[2].partition("## What is left")[0]
    rows = [line for line in threats.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| threat")]

    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row and "by hand: " not in row] == []


def names_in(file: Path) -> set[str]:
    """Return the names of the tests in a file, none where there is no such file."""
    if not file.exists():
        return set()
    found = ast.walk(ast.parse(file.read_text()))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in found if isinstance(node, kinds)}
