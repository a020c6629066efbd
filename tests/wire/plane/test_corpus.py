"""The corpus: what is refused, and what exactly reaches the other side."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fakes.cutting import Cuts, bytewise, cut_after, whole
from tests.fakes.wired import Wired
from tests.wire.plane.corpus import Row, rows, run_request, run_response

REQUESTS = rows("requests-*.yaml")
RESPONSES = rows("responses-*.yaml")

# The loop decides nothing here; the other tests of this folder run on both.
UVLOOP = pytest.mark.asyncio(loop_factories=["uvloop"])

CUTS = pytest.mark.parametrize("cuts", [whole, bytewise], ids=["whole", "bytewise"])
# Each failing example waits for what does not come: it is shown as it is found, not made smaller.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@UVLOOP
@CUTS
@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
async def test_a_request_is_refused_or_is_one_request_to_the_upstream(
    wired: Wired, row: Row, cuts: Cuts
) -> None:
    await run_request(wired, row, cuts)


@UVLOOP
@CUTS
@pytest.mark.parametrize("row", RESPONSES, ids=lambda row: row.name)
async def test_a_response_is_refused_or_is_one_response_to_the_caller(
    wired: Wired, row: Row, cuts: Cuts
) -> None:
    await run_response(wired, row, cuts)


def run_cut(
    run: Callable[[Wired, Row, Cuts], Awaitable[object]], row: Row, sizes: list[int]
) -> None:
    """Run a row in pieces of these sizes, in a proxy of its own."""

    async def main() -> None:
        async with Wired() as wired:
            await wired.serve()
            await run(wired, row, cut_after(sizes))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@settings(max_examples=300, phases=PHASES)
@given(row=st.sampled_from(REQUESTS), sizes=SIZES)
def test_a_request_means_the_same_however_it_is_cut(row: Row, sizes: list[int]) -> None:
    run_cut(run_request, row, sizes)


@settings(max_examples=200, phases=PHASES)
@given(row=st.sampled_from(RESPONSES), sizes=SIZES)
def test_a_response_means_the_same_however_it_is_cut(row: Row, sizes: list[int]) -> None:
    run_cut(run_response, row, sizes)


def test_every_row_names_its_rule_and_is_there_once() -> None:
    every = REQUESTS + RESPONSES

    assert [row.name for row in every if not re.fullmatch(r"RFC \d+, [\d.]+", row.rfc)] == []
    assert len({row.name for row in REQUESTS}) == len(REQUESTS)
    assert len({row.name for row in RESPONSES}) == len(RESPONSES)
    assert len(every) >= 400
