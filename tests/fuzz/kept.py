"""Nothing grows without bound: what the proxy keeps while strangers send, and between them.

`Watch` looks in every turn of the loop at the connections of a proxy, and fails where one keeps
more than its limits allow, whatever came.  `Growth` looks at the whole process between inputs.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from types import TracebackType
from typing import Any, Self

from proxy.plane.http1.turns import Turns
from proxy.plane.http2.downstream import MOST_STREAMS
from proxy.plane.http2.endpoint import HIGH_WATER, Endpoint, Stream
from proxy.plane.http2.table import TABLE_BYTES
from tests.fakes.framed_world import Framed
from tests.fakes.wired import Wired

MOST_SEGMENT = 256 * 1024
"""Bytes that one read of a socket brings."""
MOST_WAITING = 64 * 1024
"""Bytes that wait for a turn before reading stops; what was read by then comes on top."""
MOST_UNREAD = 1024 * 1024
"""Bytes of answers that wait for a peer that does not read."""
MOST_REMEMBERED = 256
"""Streams that are remembered in each of the two generations."""
MOST_SEEN = 64
"""Lines that are remembered before they come into a table."""
MOST_BLOCKS = 32
"""Whole blocks of fields that are looked up."""
FEW_WAITING = 64
"""Streams that have ended and stand in the queue for the window, beyond as many as are open."""

EVERY = 100
"""Inputs between two looks at the process."""
LEFT_BEHIND = 25
"""Blocks of memory that an input may leave: loops and sockets of the tests leave some six."""


class Watch:
    """Looks at what a proxy keeps, once in each turn of the loop."""

    def __init__(self, wired: Wired) -> None:
        self._wired = wired
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._error: AssertionError | None = None
        self.turns = 0

    async def __aenter__(self) -> Self:
        self._look()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if error is None and self._error is not None:
            raise self._error

    def _look(self) -> None:
        try:
            check(self._wired)
        except AssertionError as error:
            self._error = error
            return
        self.turns += 1
        self._handle = self._loop.call_soon(self._look)


def check(wired: Wired) -> None:
    """Fail if something is kept that is more than may be."""
    streams = 0
    for connection in wired.plane.connections:
        if isinstance(connection, Endpoint):
            _check_endpoint(connection)
            streams += len(connection.streams)
        elif isinstance(connection, Turns):
            assert len(connection._partial) <= MOST_WAITING + MOST_SEGMENT, "unread bytes"
            assert _unsent(connection) <= MOST_UNREAD, "unsent bytes"
            streams += 1
    assert len(wired.plane.exchanges) <= streams + 1, "exchanges without callers"
    share = wired.host.share
    waiting = len(share._unknown) + len(share._others)
    assert waiting <= len(wired.plane.connections) + 1, "turns of connections that have ended"
    if isinstance(wired, Framed):
        for upstream in wired.http2_connections:
            _check_endpoint(upstream)


def _check_endpoint(end: Endpoint[Any]) -> None:
    """Fail if an HTTP/2 connection keeps more than its limits say."""
    assert len(end.streams) <= MOST_STREAMS, "streams"
    in_vain = len(end._waiting) - 2 * len(end.streams)
    assert in_vain <= FEW_WAITING, "streams that wait for a window"
    assert not any(each._queue for each in end._waiting if each.is_closed), (
        "bodies of streams that have ended"
    )
    assert len(end._touched) <= MOST_STREAMS, "streams to flush"
    assert end.waiting <= MOST_WAITING + MOST_SEGMENT, "unread bytes"
    whole = b"" if end._block is None else end._block.whole()
    assert len(whole) <= end.decoder.limit * 4 + MOST_SEGMENT, "a header block"
    assert len(end._past) <= MOST_REMEMBERED, "ended streams"
    assert len(end._older_past) <= MOST_REMEMBERED, "ended streams"
    assert sum(len(each) for each in end._out) + _unsent(end) <= MOST_UNREAD + MOST_SEGMENT, (
        "unsent bytes"
    )
    decoder, encoder = end.decoder, end.encoder
    assert decoder._size <= TABLE_BYTES, "the table of what came"
    assert encoder._size <= TABLE_BYTES, "the table of what is sent"
    assert len(encoder._numbers) == len(encoder._entries), "lines of the table"
    assert len(encoder._seen) <= MOST_SEEN, "lines that were seen"
    assert max(len(decoder._blocks), len(encoder._blocks)) <= MOST_BLOCKS, "whole blocks"
    for stream in end.streams.values():
        _check_stream(stream)


def _check_stream(stream: Stream) -> None:
    assert stream._queued == sum(len(each) for each in stream._queue), (
        "bytes that are counted wrong"
    )
    assert stream._queued <= HIGH_WATER + MOST_SEGMENT, "a body that nobody takes"


def _unsent(connection: Any) -> int:
    """Return the bytes that wait in the transport."""
    transport = connection._transport
    return 0 if transport is None else int(transport.get_write_buffer_size())


class Growth:
    """Compares how many blocks of memory Python holds, each `EVERY` inputs."""

    def __init__(self) -> None:
        self._inputs = 0
        self._before = 0
        self.worst = 0
        """The most that `EVERY` inputs have left behind."""

    def note(self) -> None:
        """Count an input; fail if those since the last look have left too much."""
        self._inputs += 1
        if self._inputs % EVERY:
            return
        gc.collect()
        now = sys.getallocatedblocks()
        if self._before:
            self.worst = max(self.worst, now - self._before)
            left = now - self._before
            assert left <= EVERY * LEFT_BEHIND, f"{left} blocks of memory were left behind"
        self._before = now
