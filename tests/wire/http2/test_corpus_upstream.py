"""The corpus of frames that an upstream answers with: what the caller gets of it."""

from __future__ import annotations

import asyncio
import re

import pytest
import uvloop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from proxy.errors import REASONS
from tests.fakes.cutting import Cuts, bytewise, cut_after, whole
from tests.fakes.framed import GET, FramedCaller, FramedUpstreamEnd
from tests.fakes.framed_world import Framed
from tests.wire.http2.frames import Row, rows

ROWS = rows("http2-upstream*.yaml")


async def run_row(framed: Framed, row: Row, cuts: Cuts) -> None:
    """Answer a request with the row's frames and compare what becomes of it."""
    framed.cut_responses(cuts)
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)
    upstream.send(row.sends(upstream))
    await _compare_response(caller, row)
    await _compare_upstream(upstream, row)
    if row.keys.get("kept"):
        caller.send_headers(3, GET, end=True)
        await upstream.request(3)
        upstream.answer(3)
        assert (await caller.finished(3)).status == 200


async def _compare_response(caller: FramedCaller, row: Row) -> None:
    keys, seen = row.keys, await caller.finished(1)
    if refused := keys.get("refused"):
        assert (seen.status, seen.reason) == (REASONS[refused].status, refused)
    elif keys.get("cut"):
        assert (seen.status, seen.ended, seen.reset) == (200, False, "INTERNAL_ERROR")
    else:
        assert (seen.status, seen.reason, seen.reset) == (keys["gets"], "", "")
        assert bytes(seen.body) == keys["body"].encode()
        assert seen.trailers == ([("x-checksum", "abc")] if keys.get("trailers") else [])


async def _compare_upstream(upstream: FramedUpstreamEnd, row: Row) -> None:
    if reset := row.keys.get("reset"):
        seen = upstream.seen(1)
        await upstream.until(lambda: seen.reset, "a reset")
        assert seen.reset == reset
    if goaway := row.keys.get("goaway"):
        assert await upstream.told_to_go() == goaway


@pytest.mark.parametrize("cuts", [whole, bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_frames_of_an_upstream_have_the_effect_that_the_standard_names(
    framed: Framed, row: Row, cuts: Cuts
) -> None:
    await run_row(framed, row, cuts)


@settings(max_examples=100, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    row=st.sampled_from(ROWS),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=10),
)
def test_frames_of_an_upstream_mean_the_same_however_they_are_cut(
    row: Row, sizes: list[int]
) -> None:
    async def main() -> None:
        async with Framed() as framed:
            await run_row(framed, row, cut_after(sizes))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_every_row_names_its_rule_and_is_there_once() -> None:
    assert [row.name for row in ROWS if not re.fullmatch(r"RFC \d+, [\d.]+", row.rfc)] == []
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len(ROWS) >= 55
