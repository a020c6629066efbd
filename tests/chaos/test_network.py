"""All parties around the proxy in trouble at once: see `network` for who they are, and `runs`.

`make chaos SEEDS=100` runs many seeds, `AUTH_PROXY_TEST_SEED` repeats one here.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos import names, runs

COMPILED = os.environ.get("TESTED_BUILD") == "compiled"
SECONDS = float(os.environ.get("AUTH_PROXY_TEST_SECONDS", "4"))
FIXED = (1, 2) if COMPILED else (1, 2, 3)
GIVEN = os.environ.get("AUTH_PROXY_TEST_SEED")
ANY = int(GIVEN) if GIVEN else random.randrange(10**6)  # noqa: S311 (printed, to repeat)

pytestmark = pytest.mark.timeout(150 + 4 * SECONDS)


# The id says "random", so that a run of what has failed finds it again.
@pytest.mark.parametrize("seed", [*FIXED, pytest.param(ANY, id="random")])
async def test_whatever_happens_on_the_way_these_hold(seed: int) -> None:
    print(f"AUTH_PROXY_TEST_SEED={seed}; name server: {names.WHY_NOT or 'asked'}")
    outcome = await runs.run(seed, SECONDS)

    assert outcome.breaches == []
    assert outcome.calls["control: good"] > SECONDS
    assert outcome.met.total() > SECONDS
