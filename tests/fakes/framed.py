"""Both ends of the wire in frames: a caller and an upstream that speak HTTP/2 as a test says.

They read with hyperframe and hpack, which the proxy does not use for that, and fail the test
when the proxy breaks a rule that its peer can see: frame sizes, windows, field names, stream
states; h2 judges the same once more (`tests.fakes.judge`).  What they send can be as wrong as a
test wants.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.fakes import leaks
from tests.fakes.judge import Judge
from tests.fakes.raw import End, Listening

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WIDE = 2**31 - 1

KINDS = {
    "DATA": 0, "HEADERS": 1, "PRIORITY": 2, "RST_STREAM": 3, "SETTINGS": 4, "PUSH_PROMISE": 5,
    "PING": 6, "GOAWAY": 7, "WINDOW_UPDATE": 8, "CONTINUATION": 9,
}  # fmt: skip
CODES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WEIGHTED = 0x20

NOT_MODIFIED = 304

Pairs = Sequence[tuple[str, str]]

GET: Pairs = (
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "orders.internal"),
)
POST: Pairs = ((":method", "POST"), *GET[1:])
GRPC: Pairs = (*POST, ("content-type", "application/grpc"), ("te", "trailers"))


def frame(kind: str | int, stream: int = 0, flags: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame as bytes, whatever it says."""
    number = KINDS[kind] if isinstance(kind, str) else kind
    return struct.pack(">IBI", len(payload) << 8 | number, flags, stream) + payload


def setting(number: int, value: int) -> bytes:
    return struct.pack(">HI", number, value)


@dataclass
class Seen:
    """What the proxy has sent on one stream."""

    informational: list[dict[str, str]] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    """Of the proxy's routes that a request has come through; they are not in `pairs`."""
    """The head's fields, pseudo-headers first."""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    frames: list[str] = field(default_factory=list)
    """Kinds of frames in order, a ``!`` behind the one that ends the stream."""
    never_indexed: set[str] = field(default_factory=set)
    ended: bool = False
    reset: str = ""
    """The code of a RST_STREAM."""

    @property
    def head(self) -> dict[str, str]:
        return dict(self.pairs)

    @property
    def status(self) -> int:
        return int(self.head.get(":status", 0))

    @property
    def reason(self) -> str:
        return self.head.get("x-auth-proxy-error", "")

    @property
    def done(self) -> bool:
        return self.ended or bool(self.reset)


class FramedEnd(End):
    """One end of an HTTP/2 connection."""

    opens_streams = False
    """Whether it is the caller's."""

    def __init__(self, *, window: int = WIDE, connection_window: int = WIDE) -> None:
        """`window` is what the proxy may send on each stream before it is granted more."""
        super().__init__()
        self.judge = Judge(client=self.opens_streams)
        self.streams: dict[int, Seen] = {}
        self.settings: dict[int, int] = {}
        self.acknowledged = 0
        """SETTINGS of ours that the proxy has acknowledged."""
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.goaways: list[tuple[int, str, str]] = []
        """Last stream, code and text of each GOAWAY."""
        self.updates: dict[int, int] = {}
        """Window that the proxy has granted, by stream, 0 for the connection."""
        self.answers_pings = True
        self.faults: list[str] = []
        self.rests: dict[str, bytes] = {}
        """Ends of header blocks that are still to be sent."""
        self._stream_window = window
        self._window = connection_window
        """What the proxy may still send."""
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._block: tuple[HeadersFrame, bytes] | None = None

    # --- what is sent

    def send(self, data: bytes) -> None:
        self.judge.say(data.removeprefix(PREFACE))
        super().send(data)

    def send_frame(
        self, kind: str | int, stream: int = 0, flags: int = 0, data: bytes = b""
    ) -> None:
        self.send(frame(kind, stream, flags, data))

    def greet(self, *settings: tuple[int, int]) -> None:
        """Send our settings, with the windows that were asked for."""
        ours = [(4, self._stream_window), *settings]
        self.send_frame("SETTINGS", 0, 0, b"".join(setting(*item) for item in ours))
        if self._window > 65535:
            self.send_frame("WINDOW_UPDATE", 0, 0, struct.pack(">I", self._window - 65535))

    def encode(self, pairs: Iterable[tuple[str, str]], never: Iterable[str] = ()) -> bytes:
        """Return a header block; strings are bytes in Latin-1.

        The fields named in `never` may not be indexed.
        """
        block: bytes = self._encoder.encode(
            [
                (name.encode("latin-1"), value.encode("latin-1"), name in never)
                for name, value in pairs
            ]
        )
        return block

    def send_headers(
        self, stream: int, pairs: Pairs, *, end: bool = False, never: Iterable[str] = ()
    ) -> None:
        flags = END_HEADERS | (END_STREAM if end else 0)
        block = self.encode(pairs, never)
        first, rest = block[:16384], block[16384:]
        if not rest:
            self.send_frame("HEADERS", stream, flags, block)
            return
        self.send_frame("HEADERS", stream, flags & ~END_HEADERS, first)
        while rest:
            piece, rest = rest[:16384], rest[16384:]
            self.send_frame("CONTINUATION", stream, 0 if rest else END_HEADERS, piece)

    def send_data(self, stream: int, data: bytes = b"", *, end: bool = False) -> None:
        """Send a body in frames that are not too large; windows are the test's business."""
        pieces = [data[at : at + 16384] for at in range(0, len(data), 16384)] or [b""]
        for number, piece in enumerate(pieces, 1):
            last = END_STREAM if end and number == len(pieces) else 0
            self.send_frame("DATA", stream, last, piece)

    def send_reset(self, stream: int, code: str) -> None:
        self.send_frame("RST_STREAM", stream, 0, struct.pack(">I", CODES.index(code)))

    def send_goaway(self, last: int, code: str = "NO_ERROR") -> None:
        self.send_frame("GOAWAY", 0, 0, struct.pack(">II", last, CODES.index(code)))

    def grant(self, stream: int, size: int) -> None:
        """Let the proxy send so much more."""
        if not stream:
            self._window += size
        self.send_frame("WINDOW_UPDATE", stream, 0, struct.pack(">I", size))

    # --- what has come

    def seen(self, stream: int) -> Seen:
        return self.streams.setdefault(stream, Seen())

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        while len(self.received) >= 9 and not self.faults:
            parsed, size = Frame.parse_frame_header(memoryview(bytes(self.received[:9])))
            if len(self.received) < 9 + size:
                return
            self._check(size <= 16384, "a frame larger than SETTINGS_MAX_FRAME_SIZE")
            parsed.parse_body(memoryview(bytes(self.received[9 : 9 + size])))
            raw = bytes(self.received[: 9 + size])
            del self.received[: 9 + size]
            self._take(parsed)
            self._hear(parsed.stream_id, raw)
        self._news.set()

    def _hear(self, stream: int, raw: bytes) -> None:
        """Ask h2 what it thinks of a frame."""
        if stream in self.streams and self.streams[stream].status == NOT_MODIFIED:
            self.judge.expect_no_body(stream)
        self.judge.hear(raw)
        self._check(not self.judge.fault, self.judge.fault)

    def _check(self, holds: object, what: str) -> None:
        if not holds:
            self.faults.append(what)

    def _take(self, got: Frame) -> None:
        if self._block is not None:
            self._check(isinstance(got, ContinuationFrame), "a frame within a header block")
        match got:
            case DataFrame():
                self._take_data(got)
            case HeadersFrame():
                self._take_block(got, got.data, done="END_HEADERS" in got.flags)
            case ContinuationFrame():
                assert self._block is not None
                first, data = self._block
                self._take_block(first, data + got.data, done="END_HEADERS" in got.flags)
            case RstStreamFrame():
                self.seen(got.stream_id).reset = CODES[got.error_code]
            case SettingsFrame():
                self._take_settings(got)
            case PingFrame():
                self._take_ping(got)
            case GoAwayFrame():
                self.goaways.append(
                    (got.last_stream_id, CODES[got.error_code], got.additional_data.decode())
                )
            case WindowUpdateFrame():
                self.updates[got.stream_id] = (
                    self.updates.get(got.stream_id, 0) + got.window_increment
                )
            case _:
                self.faults.append(f"an unexpected frame: {got}")

    def _take_data(self, got: DataFrame) -> None:
        seen = self.seen(got.stream_id)
        self._window -= got.flow_controlled_length  # Whether it was open, h2 knows.
        self._check(seen.pairs and not seen.done, "DATA outside of a body")
        seen.body += got.data
        self._note(seen, "DATA", ended="END_STREAM" in got.flags)

    def _note(self, seen: Seen, kind: str, *, ended: bool) -> None:
        seen.frames.append(kind + "!" * ended)
        seen.ended = seen.ended or ended

    def _take_block(self, first: HeadersFrame, data: bytes, *, done: bool) -> None:
        if not done:
            self._block = first, data
            return
        self._block = None
        seen = self.seen(first.stream_id)
        decoded = list(self._decoder.decode(data, raw=True))
        never = {name.decode() for name, _ in (p for p in decoded if not p.indexable)}
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in decoded]
        self._check(all(name == name.lower() for name, _ in pairs), f"upper case: {pairs}")
        self._check(not seen.done, "HEADERS after the end")
        ended = "END_STREAM" in first.flags
        self._note(seen, "HEADERS", ended=ended)
        if seen.pairs:
            self._check(ended, "trailers that do not end the stream")
            seen.trailers = pairs
        elif dict(pairs).get(":status", "200").startswith("1"):
            seen.informational.append(dict(pairs))
        else:
            # As in tests/fakes/raw.py: the proxy's mark is looked at by the tests of loops alone.
            seen.marks = [value for name, value in pairs if name == "x-auth-proxy-via"]
            seen.pairs = [pair for pair in pairs if pair[0] != "x-auth-proxy-via"]
            seen.never_indexed = never

    def _take_settings(self, got: SettingsFrame) -> None:
        if "ACK" in got.flags:
            self.acknowledged += 1
        else:
            self.settings |= got.settings
            self._acknowledge()

    def _acknowledge(self) -> None:
        self.send_frame("SETTINGS", 0, ACK)

    def _take_ping(self, got: PingFrame) -> None:
        if "ACK" in got.flags:
            self.pongs.append(got.opaque_data)
        else:
            self.pings.append(got.opaque_data)
            if self.answers_pings:
                self.send_frame("PING", 0, ACK, got.opaque_data)

    # --- waiting

    @property
    def state(self) -> str:
        """What has come, in words."""
        end = "reset" if self.error else "closed" if self.closed else "FIN" if self.at_eof else ""
        return f"streams: {self.streams}, GOAWAY: {self.goaways} {end}"

    async def until(self, done: Callable[[], object], what: str) -> None:
        await super().until(lambda: self.faults or done(), what)
        assert self.faults == [], self.faults

    async def finished(self, stream: int) -> Seen:
        """Wait for the end of a stream, neat or not."""
        await self.until(lambda: self.seen(stream).done, f"the end of stream {stream}")
        return self.seen(stream)

    async def headed(self, stream: int) -> Seen:
        """Wait for the head on a stream."""
        seen = self.seen(stream)
        await self.until(lambda: seen.pairs or seen.done, f"a head on stream {stream}")
        return seen

    async def told_to_go(self) -> str:
        """Wait for a GOAWAY that ends the connection, and return its code."""
        await self.until(lambda: self.goaways and self.ended, "a GOAWAY and the end")
        return self.goaways[-1][1]

    async def ask_for_pong(self) -> None:
        """Wait until the proxy has taken all that was sent so far."""
        before = len(self.pongs)
        self.send_frame("PING", 0, 0, b"the mark")
        await self.until(lambda: len(self.pongs) > before, "the answer to a ping")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.abort()
        await self.until(lambda: self.closed, "the end of this connection")


class FramedCaller(FramedEnd):
    """A caller that speaks HTTP/2 with prior knowledge; no token may be in what it is answered."""

    opens_streams = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(PREFACE)
        self.greet()

    async def ask(self, stream: int, pairs: Pairs = GET, body: bytes | None = None) -> Seen:
        """Send a request and wait for its end."""
        self.send_headers(stream, pairs, end=body is None)
        if body is not None:
            self.send_data(stream, body, end=True)
        return await self.finished(stream)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        for number, seen in self.streams.items():
            where = f"what a caller was answered on stream {number}"
            leaks.look(where, repr((seen.informational, seen.pairs, seen.trailers)))
            leaks.look(where, bytes(seen.body))


class FramedUpstreamEnd(FramedEnd):
    """A connection that the proxy opened to an upstream in frames."""

    def __init__(self, upstream: FramedUpstream) -> None:
        super().__init__(window=upstream.window, connection_window=upstream.connection_window)
        self._upstream = upstream
        self._prefaced = False
        self._greeted = False
        self._owed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream.accepted(self)

    def greet(self, *settings: tuple[int, int]) -> None:
        super().greet(*(settings or self._upstream.settings))
        self._greeted = True
        # Nothing may come before them, acknowledgements included.
        for _ in range(self._owed):
            self.send_frame("SETTINGS", 0, ACK)

    def data_received(self, data: bytes) -> None:
        if not self._prefaced:
            self.received += data
            self.history += data
            if not self.received.startswith(PREFACE):
                self._news.set()  # Not whole yet, or HTTP/1.1, which the test looks at itself.
                return
            data = bytes(self.received[len(PREFACE) :])
            self.received.clear()
            self.history[:] = PREFACE  # The rest is added below.
            self._prefaced = True
            self.judge.hear(PREFACE)
            if self._upstream.greets:
                self.greet()
        super().data_received(data)
        self._upstream.heard(self)

    def _acknowledge(self) -> None:
        if self._greeted:
            super()._acknowledge()
        else:
            self._owed += 1

    async def request(self, stream: int) -> Seen:
        """Wait for a whole request."""
        return await self.finished(stream)

    def answer(
        self, stream: int, body: bytes = b"ok", pairs: Pairs = ((":status", "200"),)
    ) -> None:
        """Answer neatly."""
        self.send_headers(stream, pairs, end=not body)
        if body:
            self.send_data(stream, body, end=True)


class FramedUpstream(Listening[FramedUpstreamEnd]):
    """A server that speaks HTTP/2 as a test tells it, connection by connection.

    With `automatic` set, it answers every whole request with this body.
    """

    def __init__(
        self,
        *settings: tuple[int, int],
        automatic: bytes | None = None,
        window: int = WIDE,
        connection_window: int = WIDE,
    ) -> None:
        super().__init__(lambda: FramedUpstreamEnd(self))
        self.settings = settings
        self.automatic = automatic
        self.window = window
        self.connection_window = connection_window
        self.greets = True
        """Whether it sends its settings by itself."""
        self._answered: set[tuple[int, int]] = set()

    async def stop(self) -> None:
        """Stop listening and close every connection; fail with what the proxy did wrong."""
        await super().stop()
        assert [end.faults for end in self.connections if end.faults] == []

    def heard(self, end: FramedUpstreamEnd) -> None:
        if self.automatic is None:
            return
        for stream, seen in end.streams.items():
            key = id(end), stream
            if seen.ended and not seen.reset and key not in self._answered:
                self._answered.add(key)
                end.answer(stream, self.automatic)
