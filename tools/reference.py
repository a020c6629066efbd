"""The tables of docs/command-line.md and docs/metrics.md, which ``make manual`` makes.

Text around the markers is written by hand and stays.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric

from proxy import PROGRAM
from proxy.cli import COMMANDS
from proxy.ops.lifecycle import Reload
from proxy.ops.metrics import families
from proxy.ops.numbers import Numbers
from proxy.plane.stats import Stats

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = re.compile(r"(?<=<!-- generated:begin -->\n)(.*?)(?=<!-- generated:end -->)", re.DOTALL)
VARIABLE = re.compile(r" ?\[(AUTH_PROXY_\w+)\]")
SUFFIXES = {"counter": "_total"}


def command_line() -> str:
    """Return a section for each command: what it does, and its flags."""
    return "\n".join(_command(name) for name in COMMANDS)


def _command(name: str) -> str:
    parser = argparse.ArgumentParser(add_help=False)
    COMMANDS[name].flags(parser)
    rows = [_flag(action) for action in parser._actions]  # noqa: SLF001 (argparse has no other list of them)
    words = [_word(action) for action in parser._actions if not action.option_strings]  # noqa: SLF001 (as above)
    text = f"## {name}\n\n`{' '.join([PROGRAM, name, *words])}`: {COMMANDS[name].help}.\n"
    return text + (f"\n{_table(('flag', 'variable', 'meaning'), rows)}" if rows else "")


def _word(action: argparse.Action) -> str:
    value = str(action.metavar or "|".join(map(str, action.choices or ())))
    return f"[{value}]" if action.nargs == "?" else f"[{value}…]" if action.nargs == "*" else value


def _flag(action: argparse.Action) -> tuple[str, ...]:
    value = action.metavar or "|".join(map(str, action.choices or ()))
    words = [*action.option_strings[-1:], *([str(value)] if action.nargs != 0 and value else [])]
    help_ = action.help or ""
    variable = VARIABLE.search(help_)
    return (
        f"`{' '.join(words)}`",
        f"`{variable[1]}`" if variable else "",
        VARIABLE.sub("", help_).replace("%%", "%"),
    )


def metrics() -> str:
    """Return a table of what a scrape shows, in its order."""
    shown = families(Numbers(stats=Stats()), Reload(succeeded_at=0.0))
    rows = [_metric(each) for each in shown if each.name.startswith("auth_proxy_")]
    return _table(("metric", "kind", "labels", "meaning"), rows)


def _metric(family: Metric) -> tuple[str, ...]:
    labels: Iterable[str] = getattr(family, "_labelnames", ())
    return (
        f"`{family.name}{SUFFIXES.get(family.type, '')}`",
        family.type,
        ", ".join(f"`{label}`" for label in labels),
        family.documentation.rstrip("."),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    # A bar ends a cell, in code as well.
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def files() -> dict[Path, str]:
    """Return what each page should hold."""
    tables = {DOCS / "command-line.md": command_line(), DOCS / "metrics.md": metrics()}
    return {page: _with(page.read_text(), table) for page, table in tables.items()}


def _with(page: str, table: str) -> str:
    before, _, after = GENERATED.split(page)
    return f"{before}{table}{after}"


if __name__ == "__main__":
    for page, content in files().items():
        page.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)}\n")
