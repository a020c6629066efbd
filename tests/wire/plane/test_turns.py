"""What one connection has done in one turn of the loop is bounded: work is counted, not timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config.model import Protocol
from proxy.plane.exchange import Exchange
from proxy.plane.head import ResponseHead
from proxy.plane.http1.chunked import MOST_CHUNKS
from proxy.plane.http1.turns import STEPS
from proxy.plane.http2.share import CONNECTION_SECONDS
from tests.fakes import tls
from tests.fakes.framed import END_STREAM, GRPC, POST, FramedUpstream, frame
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import RawCaller
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MEGABYTE = 1024 * 1024
BUFFER = 256 * 1024
"""What is read at once: uvloop's own buffer, and ours."""


MOST_FRAMES = 267
"""Frames of HTTP/2 without heads that one turn takes."""

RECORD = 16 * 1024  # RFC 8446, 5.1: what TLS deciphers at once.

COUNT = 64


class Turns:
    """Looks at a number once in each turn of the loop, and keeps its largest step."""

    def __init__(self, measure: Callable[[], int]) -> None:
        self.largest = 0
        self._measure = measure
        self._before = measure()
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        now = self._measure()
        self.largest = max(self.largest, now - self._before)
        self._before = now
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def stop(self) -> int:
        self._look()
        self._handle.cancel()
        return self.largest


async def begin_upload(wired: Wired, framing: bytes) -> RawCaller:
    caller = await wired.caller()
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
    return caller


def counted(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return what has one element for each request that was admitted."""
    admitted: list[None] = []
    admit = wired.host.admit

    def counting(*args: Any) -> Any:
        admitted.append(None)
        return admit(*args)

    monkeypatch.setattr(wired.host, "admit", counting)
    return admitted


@pytest.mark.pure
async def test_requests_that_are_answered_at_once(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted = counted(wired, monkeypatch)
    await wired.serve(path="/elsewhere")
    caller = await wired.caller()
    turns = Turns(lambda: len(admitted))
    caller.send(GET * 500)
    await caller.until(lambda: caller.history.count(b"HTTP/1.1 404") == 500, "all answers")
    assert turns.stop() <= STEPS


@pytest.mark.pure
async def test_requests_that_take_longer_than_a_turn(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted = counted(wired, monkeypatch)
    clock = wired.host.sweeper.clock
    await wired.serve(path="/elsewhere")
    caller = await wired.caller()
    monkeypatch.setattr(
        wired.host.sweeper, "clock", lambda: clock() + len(admitted) * CONNECTION_SECONDS * 0.6
    )
    turns = Turns(lambda: len(admitted))
    caller.send(GET * 50)
    await caller.until(lambda: caller.history.count(b"HTTP/1.1 404") == 50, "all answers")
    # The clock is looked at before the second of them, and before each that follows.
    assert turns.stop() <= 3


@pytest.mark.pure
async def test_requests_that_did_not_wait_for_the_answer_before(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 40
    admitted = counted(wired, monkeypatch)
    callers = [await wired.caller() for _ in range(many)]
    for caller in callers:
        caller.send(GET * 2)
    upstreams = [await wired.upstream.accept() for _ in range(many)]
    for upstream in upstreams:
        await upstream.head()
    turns = Turns(lambda: len(admitted))

    for upstream in upstreams:
        upstream.send(OK)
    await wired.until(lambda: len(admitted) == 2 * many, "the second of each")

    # As many as have a turn together, before the sockets are looked at and after.
    assert turns.stop() <= 2 * 6


@pytest.mark.parametrize("count", [MOST_CHUNKS, MOST_CHUNKS + 1, 20_000])
async def test_small_chunks_of_a_request(wired: Wired, count: int) -> None:
    stats = wired.route_stats
    caller = await begin_upload(wired, b"Transfer-Encoding: chunked")
    upstream = await wired.upstream.accept()
    await upstream.head()
    turns = Turns(lambda: stats.request_bytes)
    caller.send(b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    await upstream.until(lambda: upstream.received.endswith(b"\r\n0\r\n\r\n"), "the end")
    assert turns.stop() <= MOST_CHUNKS
    upstream.send(OK)
    await caller.take(OK)
    assert stats.request_bytes == count


async def test_small_chunks_of_many_requests_have_one_turn_together(wired: Wired) -> None:
    many, count = 40, 5000
    callers = [await begin_upload(wired, b"Transfer-Encoding: chunked") for _ in range(many)]
    for _ in range(many):
        await (await wired.upstream.accept()).head()
    modest = await wired.caller()
    modest.send(GET)
    first = await wired.upstream.accept()
    await first.serve(OK)
    await modest.take(OK)
    stats = wired.route_stats
    before = stats.request_bytes
    turns = Turns(lambda: stats.request_bytes)

    for caller in callers:
        caller.send(b"1\r\nx\r\n" * count)
    await wired.until(lambda: stats.request_bytes > before, "the first of them")
    modest.send(GET)
    await first.serve(OK)
    await modest.take(OK)

    # Who is answered and asks for little was not behind all of them.
    assert stats.request_bytes - before < many * count / 2
    await wired.until(lambda: stats.request_bytes - before == many * count, "the last of them")
    # Four of them, before and after the sockets are looked at, and the one that overdraws it.
    assert turns.stop() <= 10 * MOST_CHUNKS


async def test_many_callers_that_come_at_once_are_served_a_few_in_each_turn(wired: Wired) -> None:
    callers = [await wired.caller() for _ in range(100)]
    turns = Turns(lambda: len(wired.plane.exchanges))

    for caller in callers:
        caller.send(GET)
    await wired.until(lambda: len(wired.plane.exchanges) == len(callers), "all exchanges")

    # Ten before the sockets are looked at, and ten after.
    assert turns.stop() <= 2 * 11


@pytest.mark.parametrize("count", [MOST_CHUNKS, MOST_CHUNKS + 1, 20_000])
async def test_small_chunks_of_a_response(wired: Wired, count: int) -> None:
    stats = wired.route_stats
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    turns = Turns(lambda: stats.response_bytes)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.send(head + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    await caller.until(lambda: caller.received.endswith(b"\r\n0\r\n\r\n"), "the end")
    assert turns.stop() <= MOST_CHUNKS
    assert stats.response_bytes == count


@pytest.mark.pure
async def test_interim_responses(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = 0
    pass_on = Exchange.informational

    def counting(self: Exchange, head: ResponseHead) -> None:
        nonlocal passed
        passed += 1
        pass_on(self, head)

    monkeypatch.setattr(Exchange, "informational", counting)
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    hint = b"HTTP/1.1 103 Hint\r\n\r\n"
    turns = Turns(lambda: passed)
    upstream.send(hint * 1000 + OK)
    await caller.until(lambda: caller.received.endswith(OK), "the answer")
    assert turns.stop() <= STEPS
    assert caller.history.count(hint) == passed == 1000


@pytest.mark.parametrize("framing", ["a length", "chunks"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_bytes_both_ways(tmp_path: Path, framing: str, secure: bool) -> None:  # noqa: FBT001 (a parameter)
    async with Wired(tls=tls.server_context() if secure else None) as wired:
        if secure:
            await wired.serve_tls(tls.ca_file(tmp_path))
        else:
            await wired.serve()
        stats = wired.route_stats
        if framing == "chunks":
            head = b"Transfer-Encoding: chunked"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (16 * MEGABYTE, bytes(16 * MEGABYTE))
        else:
            head, body = b"Content-Length: %d" % (16 * MEGABYTE), bytes(16 * MEGABYTE)
        caller = await begin_upload(wired, head)
        upstream = await wired.upstream.accept()
        turns = Turns(lambda: stats.request_bytes)
        caller.send(body)
        await upstream.until(lambda: stats.request_bytes == 16 * MEGABYTE, "the upload")
        assert turns.stop() <= BUFFER

        turns = Turns(lambda: stats.response_bytes)
        upstream.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
        await caller.until(lambda: stats.response_bytes == 16 * MEGABYTE, "the download")
        # The beginning of a record may have come in an earlier turn.
        assert turns.stop() <= BUFFER + (RECORD if secure else 0)


async def test_bytes_of_a_tunnel(wired: Wired) -> None:
    wired.half_open = True
    stats = wired.route_stats
    caller = await wired.caller()
    caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
    upstream = await wired.upstream.accept()
    await upstream.head()
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    upstream.send(switch)
    await caller.take(switch)
    up = Turns(lambda: stats.request_bytes)
    down = Turns(lambda: stats.response_bytes)
    caller.send(bytes(16 * MEGABYTE))
    upstream.send(bytes(16 * MEGABYTE))
    await upstream.until(lambda: len(upstream.received) == 16 * MEGABYTE, "all")
    await caller.until(lambda: len(caller.received) == 16 * MEGABYTE, "all")
    assert (up.stop() <= BUFFER, down.stop() <= BUFFER) == (True, True)


async def test_what_was_left_for_the_next_turn_waits_while_the_upstream_does_not_read(
    wired: Wired,
) -> None:
    stats = wired.route_stats
    caller = await begin_upload(wired, b"Transfer-Encoding: chunked")
    upstream = await wired.upstream.accept()
    await upstream.head()
    upstream.pause()
    chunks = (b"1\r\nx\r\n" * 2_000 + b"40000\r\n%b\r\n" % bytes(262_144)) * COUNT
    caller.send(chunks + b"0\r\n\r\n")
    standing = await wired.standstill(lambda: stats.request_bytes)
    assert standing < COUNT * (2_000 + 262_144)

    upstream.resume()
    await upstream.until(lambda: upstream.received.endswith(b"\r\n0\r\n\r\n"), "the rest")
    assert stats.request_bytes == COUNT * (2_000 + 262_144)
    upstream.send(OK)
    await caller.take(OK)


async def test_an_answer_behind_small_chunks_is_read_to_its_end_when_the_connection_breaks(
    wired: Wired,
) -> None:
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.send(head + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    upstream.finish()
    await caller.until(lambda: caller.received.endswith(b"\r\n0\r\n\r\n"), "the end")
    assert wired.refusals == {}


@pytest.mark.parametrize("count", [MOST_FRAMES - 1, MOST_FRAMES + 1, 4 * MOST_FRAMES])
async def test_small_frames_of_a_request(count: int) -> None:
    async with Wired() as wired:
        await wired.serve(protocol=Protocol.H1)
        stats = wired.route_stats
        async with await frame_caller(wired) as caller:
            caller.send_headers(1, POST)
            upstream = await wired.upstream.accept()
            await upstream.head()
            turns = Turns(lambda: stats.request_bytes)
            caller.send(frame("DATA", 1, 0, b"x") * count + frame("DATA", 1, END_STREAM))
            await upstream.until(lambda: upstream.received.endswith(b"\r\n0\r\n\r\n"), "the end")
            assert turns.stop() <= MOST_FRAMES
            upstream.send(OK)
            assert (await caller.finished(1)).status == 200
            assert stats.request_bytes == count


@pytest.mark.parametrize("count", [MOST_FRAMES - 1, MOST_FRAMES + 1, 4 * MOST_FRAMES])
async def test_small_frames_of_a_response(count: int) -> None:
    async with Framed() as framed, await frame_caller(framed) as caller:
        stats = framed.route_stats
        caller.send_headers(1, GRPC, end=True)
        upstream = await framed.framed.accept()
        await upstream.request(1)
        turns = Turns(lambda: stats.response_bytes)
        upstream.send_headers(1, ((":status", "200"),))
        upstream.send(frame("DATA", 1, 0, b"x") * count + frame("DATA", 1, END_STREAM))
        await caller.finished(1)
        assert turns.stop() <= MOST_FRAMES
        assert len(caller.seen(1).body) == count

        # Both are still read.
        caller.send_headers(3, GRPC, end=True)
        await upstream.request(3)
        upstream.answer(3)
        assert (await caller.finished(3)).status == 200


async def test_bytes_of_many_streams() -> None:
    """What fits into the windows of sixteen requests is there at once, four full reads."""
    async with Framed(FramedUpstream(window=0)) as framed, await frame_caller(framed) as caller:
        stats = framed.route_stats
        for stream in range(1, 33, 2):
            caller.send_headers(stream, POST)
        upstream = await framed.framed.accept()
        await upstream.until(lambda: len(upstream.streams) == 16, "all requests")
        body = [frame("DATA", stream, 0, bytes(16_383)) * 4 for stream in range(1, 33, 2)]
        turns = Turns(lambda: stats.request_bytes)
        caller.send(b"".join(body))
        await framed.until(lambda: stats.request_bytes == 16 * 4 * 16_383, "all of them")
        assert turns.stop() <= BUFFER


STREAMS = 60
"""Each may send 64 KiB at once, and all together 4 MiB."""


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_bytes_of_many_streams_both_ways(tmp_path: Path, secure: bool) -> None:  # noqa: FBT001 (a parameter)
    context = tls.server_context(alpn=tls.HTTP2) if secure else None
    world = Framed(tls=context, ca_file=tls.ca_file(tmp_path) if secure else None)
    async with world as framed, await frame_caller(framed) as caller:
        stats = framed.route_stats
        numbers = range(1, 2 * STREAMS, 2)
        for number in numbers:
            caller.send_headers(number, POST)
        upstream = await framed.framed.accept()
        await upstream.until(lambda: len(upstream.streams) == STREAMS, "all heads")
        turns = Turns(lambda: stats.request_bytes)
        for number in numbers:
            caller.send_data(number, bytes(65_535), end=True)
        await upstream.until(lambda: stats.request_bytes == STREAMS * 65_535, "the uploads")
        assert turns.stop() <= BUFFER

        await upstream.until(lambda: all(seen.ended for seen in upstream.streams.values()), "ends")
        turns = Turns(lambda: stats.response_bytes)
        for number in numbers:
            upstream.send_headers(number, ((":status", "200"),))
            upstream.send_data(number, bytes(65_535), end=True)
        await caller.until(lambda: stats.response_bytes == STREAMS * 65_535, "the downloads")
        assert turns.stop() <= BUFFER
        for number in numbers:
            await caller.finished(number)
