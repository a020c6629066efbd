"""The pages of the documentation: each is found, and none says other words than the program."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

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
