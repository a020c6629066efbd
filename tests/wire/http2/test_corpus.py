"""The corpus of frames: what ends a connection, what ends a stream, what is served."""

from __future__ import annotations

import asyncio
import re

import pytest
import uvloop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from proxy.config.model import Protocol
from proxy.errors import REASONS
from tests.fakes.cutting import Cuts, bytewise, cut_after, whole
from tests.fakes.framed import FramedCaller
from tests.fakes.framed_world import frame_caller
from tests.fakes.wired import Wired
from tests.wire.http2.frames import Row, rows

ROWS = rows("http2-listener-*.yaml")
AFTER = 100_001
"""A stream that no row uses."""


async def run_row(wired: Wired, row: Row, cuts: Cuts) -> None:
    """Send the row's frames and compare what becomes of the connection and its streams."""
    wired.cut_requests = cuts
    async with await frame_caller(wired) as caller:
        caller.send(row.sends(caller))
        if "goaway" in row.keys:
            assert await caller.told_to_go() == row.keys["goaway"]
            return
        await _compare_stream(caller, row)
        # Whatever happened on one stream, the connection serves the next.
        assert (await caller.ask(AFTER)).status == 200


async def _compare_stream(caller: FramedCaller, row: Row) -> None:
    keys = row.keys
    stream = keys.get("stream", 1)
    if refused := keys.get("refused"):
        seen = await caller.finished(stream)
        assert (seen.status, seen.reason) == (REASONS[refused].status, refused)
    if reset := keys.get("reset"):
        seen = caller.seen(stream)
        await caller.until(lambda: seen.reset, "a reset")
        assert seen.reset == reset
    if keys.get("served"):
        seen = await caller.finished(stream)
        assert (seen.status, bytes(seen.body), seen.reset) == (200, b"ok", "")


@pytest.mark.parametrize("cuts", [whole, bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_frames_of_a_caller_have_the_effect_that_the_standard_names(
    wired: Wired, row: Row, cuts: Cuts
) -> None:
    await run_row(wired, row, cuts)


@settings(max_examples=150, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    row=st.sampled_from(ROWS),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=10),
)
def test_frames_mean_the_same_however_they_are_cut(row: Row, sizes: list[int]) -> None:
    async def main() -> None:
        async with Wired(automatic=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as wired:
            await wired.serve(protocol=Protocol.H1)
            await run_row(wired, row, cut_after(sizes))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_every_row_names_its_rule_and_is_there_once() -> None:
    assert [row.name for row in ROWS if not re.fullmatch(r"RFC \d+, [\d.]+", row.rfc)] == []
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len(ROWS) >= 120
