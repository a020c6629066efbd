"""Segments as another network could have brought them: real codecs, fed in other pieces."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from proxy.plane.dial import Dialler

Cuts = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    """Leave a segment as it came."""
    yield data


ENDS = 2048
PIECE = 251


def bytewise(data: bytes) -> Iterator[bytes]:
    """Cut a segment into single bytes, but for the middle of a long one.

    A payload of 64 KiB, or a thousand equal frames, mean nothing else at each further byte, and
    take seconds so: between the first and the last `ENDS` bytes pieces of `PIECE` have to do.  That
    is prime, so that they begin everywhere within frames and chunks.
    """
    size = len(data)
    middle = range(ENDS, size - ENDS, PIECE)
    cuts = [*range(min(size, ENDS)), *middle, *range(max(size - ENDS, ENDS), size), size]
    for begin, end in itertools.pairwise(cuts):
        yield data[begin:end]


def cut_after(sizes: Sequence[int]) -> Cuts:
    """Cut what comes into pieces of these sizes, over and over, across segments."""
    cycle = itertools.cycle(sizes)

    def cut(data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            size = next(cycle)
            yield data[at : at + size]
            at += size

    return cut


class _Between:
    """Stands between a transport and a codec; everything but what is read passes through."""

    def __init__(self, codec: asyncio.BaseProtocol, cuts: Cuts) -> None:
        self.codec = codec
        self._cuts = cuts
        self._transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.codec.connection_made(transport)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        for piece in self._cuts(data):
            # A transport that is closing delivers nothing more.
            if not self._transport.is_closing():
                yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)


class CutCaller(_Between):
    """What a caller sends, in other pieces, whichever codec it is handed to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.codec.connection_made(cast("asyncio.Transport", _Transport(self._transport, self)))

    def data_received(self, data: bytes) -> None:
        for piece in self.pieces(data):
            cast("asyncio.Protocol", self.codec).data_received(piece)


class _Transport:
    """The transport of a `CutCaller`, which stays its protocol when another codec takes over."""

    def __init__(self, transport: asyncio.Transport, between: CutCaller) -> None:
        self._transport = transport
        self._between = between

    def set_protocol(self, codec: asyncio.BaseProtocol) -> None:
        self._between.codec = codec

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._between.codec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CutUpstream(_Between, asyncio.Protocol):
    """What an upstream sends, in other pieces."""

    def __init__(self, codec: asyncio.Protocol, cuts: Cuts) -> None:
        super().__init__(codec, cuts)
        # asyncio's own do nothing, and would hide the codec's.
        self.eof_received = codec.eof_received  # type: ignore[method-assign]  # passes through
        self.connection_lost = codec.connection_lost  # type: ignore[method-assign]  # the same
        self.pause_writing = codec.pause_writing  # type: ignore[method-assign]  # the same
        self.resume_writing = codec.resume_writing  # type: ignore[method-assign]  # the same

    def data_received(self, data: bytes) -> None:
        for piece in self.pieces(data):
            cast("asyncio.Protocol", self.codec).data_received(piece)


_dial = Dialler.dial


def cutting_dial(cuts: Cuts) -> Callable[..., Any]:
    """Return what stands in `Dialler.dial`'s place: it dials, and has cut what comes."""

    async def dial(
        self: Dialler, factory: Callable[[], asyncio.Protocol], timeout: float
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        transport, between = await _dial(self, lambda: CutUpstream(factory(), cuts), timeout)
        return transport, between.codec

    return dial
