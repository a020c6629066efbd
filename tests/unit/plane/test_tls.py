"""The TLS transport between OpenSSL's two ends: what is cut, delayed, broken or too much."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from contextlib import suppress

import pytest

from proxy.plane import tls as subject
from proxy.plane.tls import TlsTransport
from tests.fakes import tls

RECORD = 16 * 1024  # RFC 8446, 5.1: plaintext bytes at most.
PIECE = subject._PIECE_BYTES


class Codec(asyncio.Protocol):
    """Keeps what it gets, in the pieces it gets."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.events: list[str] = []
        self.error: Exception | None = None
        self.pauses = False
        """Whether it pauses after each piece."""
        self.transport: TlsTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.pieces.append(data)
        if self.pauses and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.events.append("lost")

    def pause_writing(self) -> None:
        self.events.append("choked")

    def resume_writing(self) -> None:
        self.events.append("free")


class Tcp(asyncio.Transport):
    """A TCP transport whose far end is the test."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 443)})
        self.written = bytearray()
        self.unsent = 0
        self.reading = True
        self.state = "open"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data
        assert self.state == "open"
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert self.state == "open"
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.state != "open"

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"


class Pair:
    """A client of ours and a server, with a wire that the test moves bytes on."""

    def __init__(self, server: ssl.SSLContext) -> None:
        self.codec = Codec()
        self.transport = TlsTransport(tls.client_context(), "localhost", self.codec)
        self.tcp = Tcp()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(self._in, self._out, server_side=True)
        self.transport.connection_made(self.tcp)

    def shake_hands(self) -> None:
        """Go through the handshake; the server's tickets arrive too (RFC 8446, 4.6.1)."""
        for _ in range(4):
            self.to_server()
            try:
                self.server.do_handshake()
            except ssl.SSLWantReadError:
                pass
            else:
                self.to_server()
            self.arrive(self.sealed())

    def to_server(self) -> None:
        """Move what the client has written."""
        self._in.write(bytes(self.tcp.written))
        self.tcp.written.clear()

    def sealed(self, *texts: bytes) -> bytes:
        """Return the server's records of these texts, and of what it has to say itself."""
        for text in texts:
            self.server.write(text)
        return self._out.read()

    def arrive(self, data: bytes) -> None:
        """Have the client read these bytes in one piece."""
        if data and self.tcp.state == "open":
            self.transport.take(data)

    def heard(self) -> bytes:
        """Return what the server decrypts."""
        self.to_server()
        try:
            return self.server.read(1 << 20)
        except ssl.SSLWantReadError:
            return b""


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def pair(request: pytest.FixtureRequest) -> Pair:
    context = tls.server_context()
    context.maximum_version = request.param
    made = Pair(context)
    made.shake_hands()
    assert made.codec.events == ["made"]
    return made


def has_unread(pair: Pair) -> bool:
    """Ask anew: mypy takes an attribute's value for lasting."""
    return pair.transport.has_unread


async def settle() -> None:
    """Let what was put off happen."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_text_passes_both_ways_and_one_write_is_one_record(pair: Pair) -> None:
    await pair.transport.ready()
    pair.arrive(pair.sealed(b"from the server"))
    pair.transport.write(b"from the client")

    assert pair.codec.pieces == [b"from the server"]
    assert pair.tcp.written[0] == 0x17  # RFC 8446, 5.1: application data
    assert int.from_bytes(pair.tcp.written[3:5]) == len(pair.tcp.written) - 5
    assert pair.heard() == b"from the client"


async def test_records_may_be_cut_anywhere() -> None:
    pair = Pair(tls.server_context())
    for _ in range(4):
        pair.to_server()
        with suppress(ssl.SSLWantReadError):
            pair.server.do_handshake()
        for byte in pair.sealed():
            pair.arrive(bytes([byte]))
    for byte in pair.sealed(b"one", b"two"):
        pair.arrive(bytes([byte]))

    assert pair.codec.pieces == [b"one", b"two"]


async def test_what_came_with_the_end_of_the_handshake_is_delivered() -> None:
    """A server that speaks first, as in HTTP/2, need not wait."""
    context = tls.server_context()
    context.num_tickets = 0
    early = Pair(context)
    early.to_server()
    with pytest.raises(ssl.SSLWantReadError):
        early.server.do_handshake()
    early.arrive(early.sealed())
    early.to_server()
    early.server.do_handshake()
    early.arrive(early.sealed(b"hello"))

    assert early.codec.pieces == [b"hello"]


@pytest.mark.parametrize(
    "size", [RECORD - 1, RECORD, RECORD + 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5]
)
async def test_what_came_together_is_delivered_in_pieces_of_a_bounded_size(
    pair: Pair, size: int
) -> None:
    text = bytes(range(251)) * (size // 251 + 1)
    text = text[:size]
    pair.arrive(pair.sealed(text))

    assert b"".join(pair.codec.pieces) == text
    assert [len(piece) for piece in pair.codec.pieces[:-1]] == [PIECE] * ((size - 1) // PIECE)
    assert not has_unread(pair)


async def test_a_paused_codec_gets_nothing_and_later_everything_in_order(pair: Pair) -> None:
    first = bytes(PIECE)
    pair.codec.pauses = True
    pair.arrive(pair.sealed(first, b"abcde", b"fgh"))
    assert pair.codec.pieces == [first]
    assert not pair.tcp.reading
    assert has_unread(pair)

    pair.transport.resume_reading()
    assert pair.codec.pieces == [first]  # Not within the call.
    assert not pair.tcp.reading  # What is on the wire comes after what is here.
    await settle()
    assert pair.codec.pieces == [first, b"abcdefgh"]
    assert not pair.tcp.reading
    assert not has_unread(pair)

    pair.transport.resume_reading()
    await settle()
    assert pair.tcp.reading


async def test_resumed_and_paused_again_is_paused(pair: Pair) -> None:
    pair.transport.pause_reading()
    pair.transport.resume_reading()
    pair.transport.pause_reading()
    await settle()
    assert not pair.tcp.reading


async def test_nothing_is_delivered_after_the_codec_has_closed(pair: Pair) -> None:
    first = bytes(PIECE)
    pair.codec.pauses = True
    pair.arrive(pair.sealed(first, b"more"))
    pair.transport.resume_reading()
    pair.transport.close()
    await settle()

    assert pair.codec.pieces == [first]
    assert not pair.tcp.reading


async def test_a_close_says_so_behind_what_was_written(pair: Pair) -> None:
    pair.transport.write(b"the last")
    pair.transport.close()
    pair.transport.close()
    pair.transport.write(b"too late")

    assert pair.transport.is_closing()
    assert pair.tcp.state == "closed"
    assert pair.heard() == b"the last"
    assert pair.server.read(10) == b""  # close_notify


async def test_close_notify_is_the_end_for_both(pair: Pair) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    pair.arrive(pair.sealed())

    assert pair.codec.events == ["made", "eof"]
    assert pair.tcp.state == "closed"
    pair.transport.connection_lost(None)
    assert pair.codec.events == ["made", "eof", "lost"]


async def test_text_before_close_notify_comes_first(pair: Pair) -> None:
    sealed = pair.sealed(b"the end")
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    pair.arrive(sealed + pair.sealed())

    assert pair.codec.pieces == [b"the end"]
    assert pair.codec.events == ["made", "eof"]


async def test_a_fin_alone_is_no_end(pair: Pair) -> None:
    """RFC 9112, 9.8."""
    assert not pair.transport.eof_received()
    pair.transport.connection_lost(None)

    assert pair.codec.events == ["made", "lost"]


@pytest.mark.parametrize("before", [(), (b"sound", b"also")])
async def test_a_record_that_was_tampered_with_ends_the_connection(
    pair: Pair, before: tuple[bytes, ...]
) -> None:
    sound = pair.sealed(*before)
    broken = bytearray(pair.sealed(b"broken"))
    broken[-1] ^= 1
    pair.arrive(sound + broken)

    assert b"".join(pair.codec.pieces) == b"".join(before)
    assert pair.codec.events == ["made", "lost"]
    assert isinstance(pair.codec.error, ssl.SSLError)
    assert pair.tcp.state == "closed"
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        pair.heard()  # The alert.
    pair.transport.connection_lost(None)
    assert pair.codec.events == ["made", "lost"]


async def test_what_is_broken_behind_the_codecs_own_end_is_nobodys_business(pair: Pair) -> None:
    class Last(Codec):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            pair.transport.close()

    last = Last()
    pair.transport.set_protocol(last)
    broken = bytearray(pair.sealed(b"last", b"broken"))
    broken[-1] ^= 1
    pair.arrive(bytes(broken))

    assert (last.pieces, last.events) == ([b"last"], [])
    assert pair.tcp.state == "closed"
    pair.transport.connection_lost(None)
    assert (last.error, last.events) == (None, ["lost"])


async def test_no_alert_waits_for_a_far_end_that_does_not_read(pair: Pair) -> None:
    pair.tcp.unsent = 1
    pair.arrive(b"\x17\x03\x03\x00\x05bogus")

    assert pair.tcp.state == "aborted"
    assert pair.codec.events == ["made", "lost"]


async def test_back_pressure_reaches_the_codec(pair: Pair) -> None:
    pair.transport.pause_writing()
    pair.transport.resume_writing()
    pair.tcp.unsent = 77

    assert pair.codec.events == ["made", "choked", "free"]
    assert pair.transport.get_write_buffer_size() == 77


async def test_another_codec_can_take_over(pair: Pair) -> None:
    other = Codec()
    pair.transport.set_protocol(other)
    assert pair.transport.get_protocol() is other
    pair.arrive(pair.sealed(b"x"))
    pair.transport.connection_lost(None)

    assert other.pieces == [b"x"]
    assert other.events == ["lost"]
    assert pair.codec.events == ["made"]


async def test_it_tells_about_both_of_its_parts(pair: Pair) -> None:
    assert pair.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    assert pair.transport.get_extra_info("peername") == ("127.0.0.1", 443)
    assert pair.transport.get_extra_info("unknown", 5) == 5
    assert not pair.transport.can_write_eof()


async def test_a_certificate_for_another_name_is_told_with_an_alert() -> None:
    pair = Pair(tls.server_context("other.example"))
    with pytest.raises(ssl.SSLError, match="ALERT_BAD_CERTIFICATE"):
        pair.shake_hands()

    with pytest.raises(ssl.SSLCertVerificationError):
        await pair.transport.ready()
    assert pair.codec.events == []
    assert pair.tcp.state == "closed"


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_an_end_within_the_handshake_is_told(error: Exception | None) -> None:
    pair = Pair(tls.server_context())
    pair.transport.connection_lost(error)

    with pytest.raises(type(error or ConnectionAbortedError())):
        await pair.transport.ready()
    assert pair.codec.events == []


async def test_nothing_is_read_after_a_handshake_that_was_given_up() -> None:
    pair = Pair(tls.server_context())
    pair.to_server()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()
    pair.transport.abort()
    pair.transport.take(pair.sealed())

    assert pair.codec.events == []
    assert pair.tcp.state == "aborted"


async def test_an_end_leaves_no_work_for_the_garbage_collector(pair: Pair) -> None:
    """Thousands of connections that an upstream closes would pile up until it runs."""
    pair.transport.close()
    pair.transport.connection_lost(None)
    gone = weakref.ref(pair.codec)
    gc.disable()
    try:
        pair.codec = Codec()

        assert gone() is None
    finally:
        gc.enable()
