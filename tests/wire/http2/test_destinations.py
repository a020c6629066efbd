"""Two destinations that speak HTTP/2: refused streams, gRPC, and callers in frames."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.config.model import Destination, Upstream
from proxy.plane.availability import Standing
from tests.fakes.framed import GET, GRPC, POST, FramedUpstream, Seen
from tests.fakes.framed_world import Framed
from tests.fakes.raw import ScriptedUpstream
from tests.fakes.wired import AUDIENCE

MESSAGE = b"\0\0\0\0\5hello"


def at(port: int) -> Destination:
    return Destination(upstream=Upstream("http", "127.0.0.1", port), audience=AUDIENCE)


class Pair(Framed):
    """A proxy with two upstreams in frames."""

    def __init__(self) -> None:
        super().__init__()
        self.second = FramedUpstream()

    async def serve_both(self) -> None:
        await self.serve(destinations=(at(self.framed.port), at(self.second.port)))

    def standings(self) -> list[Standing]:
        return [each.availability.standing for each in self.builder.routes["default"].destinations]

    async def _stop(self) -> None:
        await super()._stop()
        await self.second.stop()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with Pair() as world:
        await world.second.start()
        await world.serve_both()
        yield world


def by(seen: Seen) -> str:
    return seen.head["x-auth-proxy-destination"]


async def test_a_stream_that_is_refused_moves_on_at_once_and_counts_for_nothing(
    pair: Pair,
) -> None:
    caller = await pair.frames()
    for stream in (1, 3, 5, 7):
        caller.send_headers(stream, POST, end=False)
        caller.send_data(stream, b"hello", end=True)
        upstream = pair.framed.connections[0] if stream > 1 else await pair.framed.accept()
        await upstream.request(stream)
        upstream.send_reset(stream, "REFUSED_STREAM")
        other = pair.second.connections[0] if stream > 1 else await pair.second.accept()
        assert (await other.request(stream)).body == b"hello"
        other.answer(stream)

        seen = await caller.finished(stream)
        assert (seen.status, by(seen)) == (200, f"127.0.0.1:{pair.second.port}")
    assert pair.standings() == [Standing.AVAILABLE] * 2
    assert pair.route_stats.failovers == {"reset": 4}


async def test_where_both_refuse_a_stream_it_is_tried_again_as_with_one(pair: Pair) -> None:
    caller = await pair.frames()
    caller.send_headers(1, GET, end=True)
    first = await pair.framed.accept()
    await first.request(1)
    first.send_reset(1, "REFUSED_STREAM")
    second = await pair.second.accept()
    await second.request(1)
    second.send_reset(1, "REFUSED_STREAM")
    await second.request(3)
    second.answer(3)

    assert (await caller.finished(1)).status == 200


async def test_a_grpc_stream_goes_to_the_second_and_flows_both_ways(pair: Pair) -> None:
    await pair.framed.stop()
    caller = await pair.frames()
    caller.send_headers(1, GRPC, end=False)
    caller.send_data(1, MESSAGE)

    upstream = await pair.second.accept()
    await upstream.until(lambda: upstream.seen(1).body == MESSAGE, "the first message")
    upstream.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    upstream.send_data(1, MESSAGE)
    await caller.until(lambda: caller.seen(1).body == MESSAGE, "the first answer")
    caller.send_data(1, MESSAGE, end=True)
    await upstream.until(lambda: upstream.seen(1).ended, "the end of the call")
    upstream.send_headers(1, [("grpc-status", "0")], end=True)

    seen = await caller.finished(1)
    assert by(seen) == f"127.0.0.1:{pair.second.port}"
    assert seen.trailers == [("grpc-status", "0")]


async def test_a_grpc_stream_that_was_answered_is_cut_with_its_destination(pair: Pair) -> None:
    caller = await pair.frames()
    caller.send_headers(1, GRPC, end=False)
    caller.send_data(1, MESSAGE)
    upstream = await pair.framed.accept()
    await upstream.until(lambda: upstream.seen(1).body == MESSAGE, "the first message")
    upstream.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    upstream.send_data(1, MESSAGE)
    await caller.until(lambda: caller.seen(1).body == MESSAGE, "the first answer")
    upstream.close()

    assert (await caller.finished(1)).reset
    assert pair.second.connections == []


async def test_a_grpc_call_that_was_sent_fails_and_the_fourth_goes_elsewhere(pair: Pair) -> None:
    """A reset stream whose request was whole may have been executed."""
    caller = await pair.frames()
    for stream in (1, 3, 5):
        caller.send_headers(stream, GRPC, end=False)
        caller.send_data(stream, MESSAGE, end=True)
        upstream = pair.framed.connections[0] if stream > 1 else await pair.framed.accept()
        await upstream.request(stream)
        upstream.send_reset(stream, "INTERNAL_ERROR")
        seen = await caller.finished(stream)
        assert seen.head["grpc-status"] == "14"
        assert by(seen) == f"127.0.0.1:{pair.framed.port}"

    caller.send_headers(7, GRPC, end=False)
    caller.send_data(7, MESSAGE, end=True)
    other = await pair.second.accept()
    await other.request(1)
    other.answer(1)
    assert by(await caller.finished(7)) == f"127.0.0.1:{pair.second.port}"


async def test_one_that_lacks_http2_is_no_worse_for_others(pair: Pair) -> None:
    """GRPC calls move on; what can be translated goes there."""
    plain = ScriptedUpstream(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await plain.start()
    pair.second.automatic = b"ok"
    await pair.serve(destinations=(at(plain.port), at(pair.second.port)))
    caller = await pair.frames()
    for stream in (1, 3, 5, 7):
        seen = await caller.ask(stream, GRPC, MESSAGE)
        assert by(seen) == f"127.0.0.1:{pair.second.port}"
    assert pair.standings() == [Standing.AVAILABLE] * 2
    assert by(await caller.ask(9)) == f"127.0.0.1:{plain.port}"
    await plain.stop()


@pytest.mark.parametrize(("dials", "first"), [(2, Standing.AVAILABLE), (3, Standing.SET_ASIDE)])
async def test_a_dial_that_many_callers_wait_for_is_one_failure(
    pair: Pair, dials: int, first: Standing
) -> None:
    await pair.framed.stop()
    pair.second.automatic = b"ok"
    caller = await pair.frames()
    for dial in range(dials):
        streams = [2 * (10 * dial + n) + 1 for n in range(10)]
        for stream in streams:
            caller.send_headers(stream, GET, end=True)
        for stream in streams:
            assert by(await caller.finished(stream)) == f"127.0.0.1:{pair.second.port}"
    assert pair.route_stats.destinations[f"127.0.0.1:{pair.framed.port}"].dials == {
        "upstream_connect_failed": dials
    }
    assert pair.standings() == [first, Standing.AVAILABLE]


async def test_a_connection_that_ends_with_many_streams_is_one_failure(pair: Pair) -> None:
    caller = await pair.frames()
    for stream in (1, 3, 5, 7):
        caller.send_headers(stream, POST, end=True)
    upstream = await pair.framed.accept()
    await upstream.request(7)
    upstream.close()

    for stream in (1, 3, 5, 7):
        assert (await caller.finished(stream)).status == 502
    assert pair.standings() == [Standing.AVAILABLE] * 2
