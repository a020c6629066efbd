"""One plain word for one thing, where a test can tell."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "proxy").rglob("*.py"))

# What was said once and is said otherwise now.
_GONE = re.compile(
    r"something else than|of its begin\b|lives shortly|take the caller's leave|\bKeeper\b|\bBell\b"
    r"|\bLanding\b|_disappoint\b|_forgive\b|_obey\b",
    re.IGNORECASE,
)


def test_what_is_said_otherwise_now_does_not_come_back() -> None:
    found = [
        f"{source.relative_to(ROOT)}:{number}: {line.strip()}"
        for source in SOURCES
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if _GONE.search(line)
    ]

    assert found == []


def test_the_data_path_calls_its_two_sides_downstream_and_upstream() -> None:
    """A sentence may speak of callers; what has a name is the glossary's downstream."""
    names = {
        f"{source.relative_to(ROOT)}: {name}"
        for source in SOURCES
        if source.is_relative_to(ROOT / "proxy" / "plane")
        for node in ast.walk(ast.parse(source.read_text()))
        for name in (getattr(node, kind, None) for kind in ("id", "attr", "name", "arg"))
        if isinstance(name, str) and re.search("caller|backend", name, re.IGNORECASE)
    }

    assert names == set()
