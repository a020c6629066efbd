"""What a release needs of the version and of the changelog; it takes nothing but Python.

``python -m tools.release check [TAG]`` says what keeps this state from a release (as that tag);
``python -m tools.release notes [VERSION]`` prints what changed, as the text of a release;
``python -m tools.release version`` prints the version.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]

_SECTION = re.compile(r"^## (?P<version>\S+)(?: (?P<rest>.*))?$", re.MULTILINE)
_DATED = re.compile(r"- (\d{4}-\d{2}-\d{2})")
_VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+)"$', re.MULTILINE)
# Where a line of Markdown goes on with what the one before it says.
_WRAPPED = re.compile(r"(?<=\S)\n(?![-*#|>\n]|\d+\. | *[-*] |```) *")


def version(root: Path = ROOT) -> str:
    """Return the version of the sources in the folder `root`."""
    found = _VERSION.search((root / "proxy/__init__.py").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit("proxy/__init__.py: no __version__ of three numbers")
    return found[1]


def problems(changelog: str, version: str, tag: str | None = None) -> list[str]:
    """Return what keeps `version` from being released, as `tag` if there is one already."""
    found = []
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag is {tag}, the version {version}: proxy/__init__.py")
    top = _SECTION.search(changelog)
    if top is None or top["version"] != version:
        found.append(f"the first section of CHANGELOG.md is not {version}")
    elif not _is_dated(top["rest"] or ""):
        found.append(f'CHANGELOG.md gives {version} no date: "## {version} - YEAR-MONTH-DAY"')
    elif not notes(changelog, version):
        found.append(f"CHANGELOG.md says nothing of {version}")
    return found


def _is_dated(rest: str) -> bool:
    found = _DATED.fullmatch(rest)
    try:
        return found is not None and bool(date.fromisoformat(found[1]))
    except ValueError:
        return False


def notes(changelog: str, version: str) -> str:
    """Return what `changelog` says of `version`, a line for each paragraph; empty if nothing.

    GitHub shows each line break of a release's text, where a file's are mere spaces.
    """
    sections = list(_SECTION.finditer(changelog))
    for each, following in zip(sections, [*sections[1:], None], strict=True):
        if each["version"] == version:
            text = changelog[each.end() : following.start() if following else None].strip()
            return _WRAPPED.sub(" ", text)
    return ""


def main(arguments: list[str]) -> int:
    """Run one of the commands; return the exit code."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    match arguments:
        case ["check", *tag] if len(tag) <= 1:
            found = problems(changelog, version(), *tag)
            sys.stderr.write("".join(f"{each}\n" for each in found))
            return bool(found)
        case ["notes", *named] if len(named) <= 1:
            text = notes(changelog, *(named or [version()]))
            sys.stdout.write(f"{text}\n" if text else "")
            return not text
        case ["version"]:
            sys.stdout.write(f"{version()}\n")
            return 0
        case _:
            sys.stderr.write((__doc__ or "").partition("\n\n")[2])
            return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
