"""The outcome of a run: every sample, the medians, and the ratios to Envoy, as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

LATEST = Path(__file__).parent / "results" / "latest.json"

Samples = dict[str, dict[str, list[float]]]
"""By measure, then by contender: one value a round, in the order of the rounds."""


@dataclass(slots=True)
class Results:
    """One run of the benchmark."""

    date: str
    commit: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]
    labels: dict[str, str]
    """Contenders, in the order of the table."""
    samples: Samples = field(default_factory=dict)

    def add(self, contender: str, values: dict[str, float]) -> None:
        """Add what one turn measured."""
        for measure, value in values.items():
            self.samples.setdefault(measure, {}).setdefault(contender, []).append(round(value, 4))

    def median(self, measure: str, contender: str) -> float | None:
        """Return the median of a contender's samples; None if it was not measured."""
        values = self.samples.get(measure, {}).get(contender)
        return statistics.median(values) if values else None

    def ratio(self, measure: str, contender: str, to: str = "envoy") -> float | None:
        """Return the median over the rounds of contender ÷ `to`.

        Within a round the two follow each other by seconds: what the machine does to one, it
        does to the other, so this is steadier than the ratio of two medians.
        """
        of = self.samples.get(measure, {})
        pairs = zip(of.get(contender, []), of.get(to, []), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else None

    def save(self, path: Path = LATEST) -> None:
        """Write it as JSON, with medians and ratios beside the samples for people who read it."""
        document = asdict(self)
        document["medians"] = {
            measure: {name: self.median(measure, name) for name in of}
            for measure, of in self.samples.items()
        }
        document["proxy_to_envoy"] = {
            measure: round(ratio, 3)
            for measure in self.samples
            if (ratio := self.ratio(measure, "proxy")) is not None
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path = LATEST) -> Self:
        """Read what `save` wrote."""
        document = json.loads(path.read_text())
        return cls(**{name: document[name] for name in cls.__dataclass_fields__})
