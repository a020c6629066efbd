"""The pages of the documentation: each is found, and none says other words than the program."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
import yaml

from proxy.cli import COMMANDS
from proxy.dialects import problem
from proxy.doctor.findings import Reason, Step
from proxy.doctor.render import label
from proxy.errors import REASONS, PlatformError
from proxy.plane.front_end import STATUSES
from tools import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "config/**/*.md")
    for page in ROOT.glob(pattern)
    if "node_modules" not in page.parts
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


class Menu(yaml.SafeLoader):
    """Reads mkdocs.yml without the functions that it names."""


Menu.add_multi_constructor("tag:yaml.org,2002:python/", lambda _loader, _suffix, _node: None)


def listed(menu: object) -> list[str]:
    """Return the pages of the site's menu, in their order."""
    if isinstance(menu, str):
        return [menu]
    below = menu.values() if isinstance(menu, dict) else menu
    return [page for each in below for page in listed(each)]  # type: ignore[attr-defined]  # (YAML)


def test_the_menu_has_every_page_once() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(), Menu)  # noqa: S506 (safe, see Menu)

    assert sorted(listed(site["nav"])) == sorted(map(name, PAGES))


def test_every_page_of_the_folder_is_reached_from_its_first() -> None:
    reached = {(DOCS / link).resolve() for link in LINK.findall(INDEX.read_text())}

    assert [page for page in DOCS.rglob("*.md") if page in PAGES and page not in reached] == [INDEX]


def test_links_between_pages_lead_to_files() -> None:
    targets = [(page, link) for page in PAGES for link in LINK.findall(page.read_text())]

    assert len(targets) > 90
    assert [(name(p), link) for p, link in targets if not (p.parent / link).exists()] == []


# Reasons


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading of the second level that is a name."""
    text = (DOCS / page).read_text()
    return dict(re.findall(r"^## `(\w+)`\n\n(.+?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def test_every_reason_has_a_section_by_its_name_with_status_and_title() -> None:
    found = sections("reasons.md")
    own = {reason: text for reason, text in found.items() if reason in REASONS}

    assert list(own) == list(REASONS)
    for reason, text in own.items():
        kind = REASONS[reason]
        sent = "The upstream may have executed the request." if kind.sent_upstream else "Nothing"
        assert text.startswith(f"{kind.status}. {kind.title}. {sent}"), reason


def test_every_page_of_the_front_end_that_is_explained_has_a_section() -> None:
    named = [reason for reason in sections("reasons.md") if reason not in REASONS]

    assert named == [PlatformError(status, "", "").reason for status in sorted(STATUSES)]


def test_the_type_of_a_problem_is_the_name_of_a_section() -> None:
    assert f"`{problem.TYPE}NAME`" in (DOCS / "reasons.md").read_text()


# Troubleshooting

TROUBLE = (DOCS / "troubleshooting.md").read_text()


def test_troubleshooting_has_the_steps_of_doctor_in_its_order_and_words() -> None:
    steps = re.findall(r"^## (.+)$", TROUBLE, re.MULTILINE)

    assert steps == [label(step) for step in Step]


def test_troubleshooting_has_every_reason_of_doctor_in_its_order() -> None:
    named = re.findall(r"^\| `(\w+)` \||`(upstream_\w+)`", TROUBLE, re.MULTILINE)

    assert ["".join(each) for each in named] == list(get_args(Reason))


def words_of(sources: Iterable[Path]) -> set[str]:
    """Return every text in the sources, with a … in place of what is filled in."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.sub(r"\{\w+\}", "…", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                found.add("".join(part if isinstance(part, str) else "…" for part in parts))
    return found


def test_what_doctor_is_quoted_with_it_says() -> None:
    quoted = re.findall(r'\| "(.+?)" \|', TROUBLE)

    assert len(quoted) > 30
    said = words_of([*(ROOT / "proxy" / "doctor").glob("*.py"), ROOT / "proxy" / "unreached.py"])
    assert [each for each in quoted if each not in said] == []


# Reference


@pytest.mark.parametrize("page", sorted(reference.files()), ids=lambda page: page.name)
def test_the_tables_of_the_reference_are_those_of_the_program(page: Path) -> None:
    assert page.read_text() == reference.files()[page], "make manual writes it"


def test_every_command_and_flag_stands_on_its_page() -> None:
    page = (DOCS / "command-line.md").read_text()

    for command in COMMANDS.values():
        parser = argparse.ArgumentParser(add_help=False)
        command.flags(parser)
        assert f"\n## {command.name}\n" in page
        names = [name for action in parser._actions for name in action.option_strings]
        assert [name for name in names if f"`{name}" not in page] == []


def test_variables_of_the_environment_are_read_somewhere() -> None:
    page = (DOCS / "command-line.md").read_text().partition("## Environment")[2]
    rows = re.findall(r"^\| (`.+?) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([A-Z_]{4,})`", row)}
    sources = "".join(source.read_text() for source in (ROOT / "proxy").rglob("*.py"))

    assert len(named) > 10
    assert [name for name in sorted(named) if f'"{name}"' not in sources] == ["AUTH_PROXY_LISTEN"]


# Coming from something else


def test_keys_of_the_configuration_that_other_settings_become_exist() -> None:
    """Every word of the right column that looks like a key is one, but for a part and a URL's."""
    rows = re.findall(r"^\| .+ \| (.+) \|$", (DOCS / "migration.md").read_text(), re.MULTILINE)
    named = {key for cell in rows for key in re.findall(r"`([a-z_]+)(?=[`:])", cell)}
    keys = set(
        re.findall(r"^\| `([a-z_.]+)`", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    )

    assert len(named) > 12
    assert named - {key.rpartition(".")[2] for key in keys} - {"response", "http"} == set()
