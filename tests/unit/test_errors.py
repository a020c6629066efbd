"""What an error says: its title what is the matter, its detail what happened this time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import errors
from proxy.errors import ProxyError

PACKAGE = Path(__file__).parents[2] / "proxy"
IN_A_ROW = 3
"""Words that a title and its detail may not have in common; "the upstream" is no repeat."""


def made() -> Iterator[tuple[str, type[ProxyError], str]]:
    """Yield each place where an error is made, its class, and what stands there as its detail."""
    for source in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            kind = getattr(errors, node.func.id, None)
            if isinstance(kind, type) and issubclass(kind, ProxyError):
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        place = f"{source.relative_to(PACKAGE)}:{node.lineno}"
                        yield place, kind, part.value


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    return {tuple(words[n : n + IN_A_ROW]) for n in range(len(words) - IN_A_ROW + 1)}


@pytest.mark.parametrize(
    ("title", "detail", "repeats"),
    [
        ("The request body is too large", "The request body is larger than 9 bytes.", True),
        ("The request body is too large", "More than 9 bytes came.", False),
    ],
)
def test_a_repeat_is_seen(title: str, detail: str, repeats: bool) -> None:  # noqa: FBT001 (a column of the table)
    assert bool(runs(title) & runs(detail)) is repeats


def test_a_detail_does_not_repeat_its_title() -> None:
    found = list(made())

    assert len(found) > 100, "the places where errors are made were not found"
    assert [
        f"{place}: {kind.title}: {detail}"
        for place, kind, detail in found
        if runs(kind.title) & runs(detail)
    ] == []
