"""A run as a picture: memory and descriptors over time, as SVG, and as numbers, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench import machine
from tests.soak.judge import Sample
from tests.soak.run import Outcome

ROOT = Path(__file__).parents[2]
NUMBERS = Path(__file__).parent / "results" / "latest.json"
PICTURE = ROOT / "docs" / "soak.svg"

WIDTH, HEIGHT = 720, 150
"""Of one curve, in pixels."""
LEFT, TOP, BOTTOM = 60, 30, 30
POINTS = 600
STEPS = 4
"""Lines across a curve."""


def keep(found: Outcome) -> None:
    """Write both into the checkout."""
    document = {
        "machine": machine.facts(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        **asdict(found),
        "samples": [list(asdict(each).values()) for each in _thin(found.samples)],
        "samples_are": list(Sample.__dataclass_fields__),
    }
    NUMBERS.parent.mkdir(exist_ok=True)
    NUMBERS.write_text(json.dumps(document, indent=1) + "\n")
    PICTURE.write_text(picture(found.samples))


def picture(samples: Sequence[Sample]) -> str:
    """Return the curves of memory and of descriptors, one above the other."""
    kept = _thin(samples)
    height = 2 * (TOP + HEIGHT + BOTTOM)
    curves = _curve("memory, MiB", [(s.at / 60, s.rss_kib / 1024) for s in kept], 0)
    curves += _curve("descriptors", [(s.at / 60, s.descriptors) for s in kept], height // 2)
    # On a page that is light or dark.
    style = "<style>text{font:12px sans-serif;fill:#777}.l{stroke:#777;stroke-opacity:.3}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}">'
        f"{style}\n{curves}</svg>\n"
    )


def _curve(name: str, points: Sequence[tuple[float, float]], top: int) -> str:
    """Return one curve from 0 up; the axis below is in minutes."""
    minutes = max(x for x, _ in points) or 1.0
    most = _round_up(max(y for _, y in points))
    zero = top + TOP + HEIGHT
    path = " ".join(
        f"{LEFT + WIDTH * x / minutes:.1f},{zero - HEIGHT * y / most:.1f}" for x, y in points
    )
    lines = [f'<text x="{LEFT}" y="{top + TOP - 10}">{name}</text>']
    for step in range(STEPS + 1):
        y, value = zero - HEIGHT * step / STEPS, most * step / STEPS
        lines.append(f'<path class="l" d="M{LEFT} {y:g}h{WIDTH}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{value:g}</text>')
        x = LEFT + WIDTH * step / STEPS
        label = f"{minutes * step / STEPS:.0f}" + (" min" if step == STEPS else "")
        lines.append(f'<text x="{x:g}" y="{zero + 18}" text-anchor="middle">{label}</text>')
    lines.append(f'<polyline fill="none" stroke="#3572b0" stroke-width="1.5" points="{path}"/>')
    return "\n".join(lines) + "\n"


def _round_up(value: float) -> float:
    """Return the next number that `STEPS` steps divide well."""
    step = 1
    while STEPS * step < value:
        step *= 2 if str(step)[0] != "2" else 5
        step = int(f"{step}"[0] + "0" * (len(f"{step}") - 1))
    return float(STEPS * step)


def _thin(samples: Sequence[Sample]) -> list[Sample]:
    every = -(-len(samples) // POINTS)
    return list(samples[::every])
