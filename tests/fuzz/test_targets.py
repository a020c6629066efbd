"""The short form of `python -m tests.fuzz`: the kept inputs, and some damaged ones."""

from __future__ import annotations

import logging
import random

import pytest

from tests.fuzz.kept import Growth
from tests.fuzz.targets import TARGETS, damage

DAMAGED = {
    "requests": 250, "requests_to_frames": 100, "responses": 300, "frames": 200,
    "upstream_frames": 200, "admin": 100, "config": 300, "jwt": 1000, "metadata": 100,
    "google": 15, "connect": 300,
}  # fmt: skip
"""How many damaged inputs: some forty seconds in all."""


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_what_must_hold_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest captures of the log would be the growth that is looked for.
    monkeypatch.setattr(logging.getLogger("proxy"), "propagate", False)
    target, dice = TARGETS[name], random.Random(name)  # noqa: S311 (the same in every run)
    inputs, growth = target.inputs(), Growth()
    for data in inputs:
        target.execute(data)
    for _ in range(DAMAGED[name]):
        data = damage(dice.choice(inputs), target.pieces, dice)
        try:
            target.execute(data, growth)
        except BaseException as error:
            error.add_note(f"input: {data!r}")
            raise
