"""Frames in any order and state: whatever comes, the proxy has no bug and keeps nothing."""

from __future__ import annotations

import asyncio
import struct

import uvloop
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fakes.framed import END_HEADERS, END_STREAM, GET, GRPC, POST, FramedUpstream, frame
from tests.fakes.framed_world import Framed, frame_caller

STREAMS = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1])
FLAGS = st.sampled_from(
    [0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS, 0x8, 0xD, 0x2D, 0xFF]
)
HEADS = st.sampled_from(
    [GET, POST, GRPC, (("x-a", "1"),), ((":status", "200"),), ((":status", "103"),),
     ((":status", "200"), ("content-length", "3")), ()]
)  # fmt: skip
WORDS = st.sampled_from([0, 1, 100, 65535, 2**31 - 1, 2**32 - 1])

Step = tuple[str, int, int, object]

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("HEADERS"), STREAMS, FLAGS, HEADS),
    st.tuples(st.just("DATA"), STREAMS, FLAGS, st.binary(max_size=20)),
    st.tuples(st.just("RST_STREAM"), STREAMS, FLAGS, WORDS.map(lambda w: struct.pack(">I", w))),
    st.tuples(st.just("WINDOW_UPDATE"), STREAMS, FLAGS, WORDS.map(lambda w: struct.pack(">I", w))),
    st.tuples(
        st.just("SETTINGS"),
        st.just(0),
        st.sampled_from([0, 0, 1]),
        st.tuples(st.integers(0, 8), WORDS).map(lambda s: struct.pack(">HI", *s)),
    ),
    st.tuples(st.just("GOAWAY"), st.just(0), FLAGS, WORDS.map(lambda w: struct.pack(">II", w, 0))),
    st.tuples(st.just("CONTINUATION"), STREAMS, FLAGS, HEADS),
    st.tuples(st.just("PING"), st.just(0), FLAGS, st.just(bytes(8))),
    st.tuples(
        st.sampled_from(["PRIORITY", "PUSH_PROMISE", "PING", "SETTINGS", "GOAWAY", "HEADERS"]),
        STREAMS,
        FLAGS,
        st.binary(max_size=12),
    ),
)
PLAYS = st.lists(STEPS, min_size=1, max_size=12)
MARK: Step = ("PING", 0, 0, b"the mark")
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def frame_of(end: object, step: Step) -> bytes:
    """Return a step's frame, its head encoded for the connection that sends it."""
    kind, stream, flags, payload = step
    data = payload if isinstance(payload, bytes) else end.encode(payload)  # type: ignore[attr-defined]  # one of the fakes
    return frame(kind, stream, flags, data)


@settings(max_examples=200, phases=PHASES)
@given(play=PLAYS, automatic=st.booleans())
def test_a_caller_may_send_anything(play: list[Step], automatic: bool) -> None:  # noqa: FBT001 (drawn)
    async def main() -> None:
        async with Framed(FramedUpstream(automatic=b"ok" if automatic else None)) as framed:
            async with await frame_caller(framed) as caller:
                for step in (*play, MARK):
                    if not caller.ended:
                        caller.send(frame_of(caller, step))
                        await asyncio.sleep(0)
                await caller.until(lambda: caller.ended or b"the mark" in caller.pongs, "an end")
            async with await frame_caller(framed) as other:
                framed.framed.automatic = b"ok"
                assert (await other.ask(1)).status == 200

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@settings(max_examples=200, phases=PHASES)
@given(play=PLAYS)
def test_an_upstream_may_send_anything(play: list[Step]) -> None:
    async def main() -> None:
        async with Framed() as framed, await frame_caller(framed) as caller:
            for number, head in ((1, GET), (3, POST)):
                caller.send_headers(number, head, end=head is GET)
            upstream = await framed.framed.accept()
            await upstream.until(lambda: len(upstream.streams) == 2, "two requests")
            for step in (*play, MARK):
                if not upstream.ended:
                    upstream.send(frame_of(upstream, step))
                    await asyncio.sleep(0)
            await upstream.until(lambda: upstream.ended or b"the mark" in upstream.pongs, "an end")
            caller.send_frame("PING", 0, 0, b"the mark")
            await caller.until(lambda: caller.pongs, "the answer to a ping")
            assert caller.goaways == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
