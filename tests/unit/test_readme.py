"""The pages say what the program does: their tables are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import proxy
from proxy.cli import COMMANDS
from proxy.config.reference import reference
from proxy.errors import REASONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
KEYS = (ROOT / "docs" / "configuration.md").read_text()
FAILURES = (ROOT / "docs" / "failures.md").read_text()


def test_the_reference_of_keys_is_the_one_that_the_parser_reads_by() -> None:
    generated = KEYS.split("<!-- config:begin -->\n")[1].split("<!-- config:end -->")[0]

    assert generated == reference()


def test_every_reason_is_explained_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([0-9]{3}) \|", FAILURES, re.MULTILINE))

    assert {name: int(status) for name, status in rows.items()} == {
        reason: kind.status for reason, kind in REASONS.items()
    }


def test_every_command_stands_in_the_readme() -> None:
    rows = re.findall(r"^\| `cloud-run-auth-proxy ([a-z]+)", README, re.MULTILINE)

    assert sorted(rows) == sorted(COMMANDS)


def test_a_long_table_stands_in_a_page_of_its_own() -> None:
    """Who reads the README the first time shall find the next section, not the fortieth row."""
    tables = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)

    assert max(table.count("\n") - 2 for table in tables) <= 15


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert versions[0] == proxy.__version__
