"""The README says what the program does: its tables are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import proxy
from proxy.config.reference import reference
from proxy.errors import REASONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def between(name: str) -> str:
    """Return what stands between the markers of a generated part."""
    return README.split(f"<!-- {name}:begin -->\n")[1].split(f"<!-- {name}:end -->")[0]


def test_the_reference_of_keys_is_the_one_that_the_parser_reads_by() -> None:
    assert between("config") == reference()


def test_every_reason_is_explained_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([0-9]{3}) \|", README, re.MULTILINE))

    assert {name: int(status) for name, status in rows.items()} == {
        reason: kind.status for reason, kind in REASONS.items()
    }


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## ([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert versions[0] == proxy.__version__
