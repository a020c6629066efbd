"""The results of `make floods` as the table of docs/reliability.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.floods.attacks import ATTACKS

LATEST = Path(__file__).parent / "results" / "latest.json"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- floods:begin -->\n", "<!-- floods:end -->"

NAMES = {"proxy": "compiled", "pure": "pure", "envoy": "Envoy"}

Turn = Mapping[str, Any]


def keep(document: Mapping[str, Any]) -> None:
    """Write the results, and the table into the page."""
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + render(document) + END + rest.partition(END)[2])


def render(document: Mapping[str, Any]) -> str:
    """Return the table, and a line about the run."""
    turns: list[Turn] = document["turns"]
    present = [name for name in NAMES if any(turn["contender"] == name for turn in turns)]
    labels = [NAMES[name] for name in present]
    columns = [
        *(f"p99, {label}" for label in labels),
        *(f"memory, {label}" for label in labels),
        *(f"CPU, {label}" for label in labels),
    ]
    lines = [f"| attack | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for name, attack in ATTACKS.items():
        of = {who: _of(turns, name, who) for who in present}
        if all(of.values()):
            cells = [cell(of[who]) for cell in (_p99, _memory, _cpu) for who in present]
            lines.append(f"| {attack.label} | {' | '.join(cells)} |")
    where = document["machine"]
    versions = document["versions"]
    said = (
        f"Medians of {document['rounds']} turns of {document['seconds']:g} s at commit "
        f"`{document['commit']}`, {document['date']}: {where['cpu']}, {where['cores']} cores, "
        f"Python {versions['python']}, Envoy {versions['envoy']}; others used "
        f"{100 * document['others_share']:.0f} % of the machine meanwhile."
    )
    return "\n".join([*lines, "", said, ""])


def _of(turns: Sequence[Turn], attack: str, who: str) -> list[Turn]:
    return [turn for turn in turns if (turn["attack"], turn["contender"]) == (attack, who)]


def _median(turns: Sequence[Turn], value: Callable[[Turn], float]) -> float:
    return statistics.median(map(value, turns))


def _p99(turns: Sequence[Turn]) -> str:
    """Milliseconds, how many times the quiet ones, and how many calls failed."""
    times = _median(turns, lambda turn: turn["p99"] / turn["quiet_p99"])
    failures = sum(turn["failures"] for turn in turns)
    failed = f", {failures} failed" if failures else ""
    return f"{_median(turns, lambda turn: turn['p99']):.1f} ms, {times:.1f} x{failed}"


def _memory(turns: Sequence[Turn]) -> str:
    return f"{_median(turns, lambda turn: turn['memory_mib']):.0f} MiB"


def _cpu(turns: Sequence[Turn]) -> str:
    return f"{_median(turns, lambda turn: turn['cpu']):.2f}"
