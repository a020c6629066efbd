"""Damaged bytes: whatever they are, nothing in the data path fails, hangs or is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import uvloop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fakes.raw import check_answers
from tests.fakes.wired import Wired
from tests.wire.plane.corpus import PLAIN_GET, SIMPLE_ANSWER, rows

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"5", b"-",
     b"\xff", b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"]
)  # fmt: skip


def damaged(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes that differ from one of these in a few places."""

    def damage(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
        for place, size, piece in changes:
            at = int(place * len(data))
            data = data[:at] + piece + data[at + size :]
        return data

    change = st.tuples(st.floats(0, 1), st.integers(0, 4), PIECES)
    return st.builds(damage, st.sampled_from(originals), st.lists(change, min_size=1, max_size=4))


def in_a_proxy(test: Callable[[Wired], Awaitable[None]]) -> None:
    """Run `test` with a proxy of its own, which must be quiet afterwards."""

    async def main() -> None:
        async with Wired() as wired:
            await wired.serve()
            await test(wired)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@settings(max_examples=250, phases=PHASES)
@given(data=damaged([row.sends for row in rows("requests-*.yaml")]))
def test_damaged_requests_do_no_damage(data: bytes) -> None:
    async def test(wired: Wired) -> None:
        wired.upstream.automatic = SIMPLE_ANSWER
        caller = await wired.caller()
        caller.send(data)
        caller.finish()
        await caller.take_all()

    in_a_proxy(test)


@settings(max_examples=250, phases=PHASES)
@given(data=damaged([row.sends for row in rows("responses-*.yaml")]))
def test_damaged_responses_reach_nobody_as_whole_ones(data: bytes) -> None:
    async def test(wired: Wired) -> None:
        caller = await wired.caller()
        caller.send(PLAIN_GET.encode())
        upstream = await wired.upstream.accept()
        await upstream.head()
        upstream.send(data)
        upstream.finish()
        await wired.until(lambda: wired.route_stats.in_flight == 0, "the end of the exchange")
        # A further request tells whether the first one's answer has ended where it should.
        failed = bool(wired.refusals)
        caller.send(b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: b\r\n\r\n")
        check_answers(await caller.take_all(), b"GET", failed=failed)

    in_a_proxy(test)
