"""One end of a connection without sockets: where frames end, and what each is taken for.

What h2 agrees with us about is in `test_oracle`.
"""

from __future__ import annotations

import itertools
import struct

import hpack
import hpack.hpack
import hpack.huffman
import hpack.huffman_constants
import hyperframe.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.plane.http2 import frames
from proxy.plane.http2.connection import CONNECTION_WINDOW
from proxy.plane.http2.decoder import Decoder
from proxy.plane.http2.fields import Fields
from proxy.plane.http2.share import CONNECTION_SECONDS, MUCH_WORK
from proxy.plane.http2.standard import PREFACE, Code
from proxy.plane.http2.tolls import TALK
from tests.fakes.framed import ACK, END_HEADERS, END_STREAM, GET, POST, frame, setting
from tests.fakes.recorded import Event, Recorded

SETTINGS = frame("SETTINGS")
WHOLE = END_HEADERS | END_STREAM


def started(head_limit: int = 1000, *, client: bool = False, most: int = 100) -> Recorded:
    """Return a connection whose peer has sent its settings."""
    connection = Recorded(head_limit, client=client, most=most)
    assert connection.hear(SETTINGS) == [("settings",)]
    connection.events.clear()
    connection.output()
    return connection


def block(*pairs: tuple[str, str]) -> bytes:
    return hpack.Encoder().encode(pairs or GET)


def request(stream: int, flags: int = WHOLE) -> bytes:
    return frame("HEADERS", stream, flags, block())


def literal(value: bytes) -> bytes:
    """Return a block of one field, which no table keeps, in the Huffman code."""
    codes = hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
    text = hpack.huffman.HuffmanEncoder(*codes).encode(value)
    length = hpack.hpack.encode_integer(len(text), 7)
    length[0] |= 0x80
    return b"\0\x03x-a" + bytes(length) + text


def kinds(events: list[Event]) -> list[str]:
    return [event[0] for event in events]


def word(value: int) -> bytes:
    return struct.pack(">I", value)


# --- where frames end

SPOKEN = b"".join((
    SETTINGS,
    frame("SETTINGS", 0, 0, setting(3, 7) + setting(4, 100)),
    frame("HEADERS", 1, 0, block(*POST)[:5]),
    frame("CONTINUATION", 1, 0),
    frame("CONTINUATION", 1, END_HEADERS, block(*POST)[5:]),
    frame("DATA", 1, 0, bytes(300)),
    frame("PING", 0, ACK, b"12345678"),
    frame("DATA", 1, 0x8, b"\2ab\0\0"),
    frame("WINDOW_UPDATE", 1, 0, word(5)),
    frame(0xBB, 7, 0xFF, b"whatever"),
    frame("HEADERS", 1, WHOLE, b""),
    frame("RST_STREAM", 1, 0, word(8)),
    frame("GOAWAY", 0, 0, word(1) + word(0) + b"bye"),
    frame("DATA", 9, 0, b"a"),
))  # fmt: skip
EXPECTED = [
    ("settings",), ("limit", 7), ("settings",),
    ("head", 1, [(n.encode(), v.encode()) for n, v in POST], False),
    ("data", 1, bytes(300), False), ("pong", b"12345678"), ("data", 1, b"ab", False),
    ("trailers", 1, []), ("reset", 1, 8), ("goaway", 1, 0), ("end", Code.PROTOCOL_ERROR),
]  # fmt: skip


def heard(pieces: list[bytes]) -> list[Event]:
    connection = Recorded()
    return [event for piece in pieces for event in connection.hear(piece)]


@pytest.mark.parametrize("at", range(len(SPOKEN) + 1))
def test_frames_mean_the_same_wherever_they_are_cut_in_two(at: int) -> None:
    assert heard([SPOKEN[:at], SPOKEN[at:]]) == EXPECTED


@given(st.lists(st.integers(1, 40), min_size=1))
def test_frames_mean_the_same_however_they_are_cut(sizes: list[int]) -> None:
    pieces: list[bytes] = []
    at = 0
    while at < len(SPOKEN):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(SPOKEN[at : at + size])
        at += size

    assert heard(pieces) == EXPECTED


@pytest.mark.parametrize(("size", "refused"), [(16_383, False), (16_384, False), (16_385, True)])
def test_a_frame_that_is_too_large_is_refused_before_it_has_come(
    size: int, *, refused: bool
) -> None:
    head = frame(0xBB, 1, 0, bytes(size))[:9]

    assert started().hear(head) == ([("end", Code.FRAME_SIZE_ERROR)] if refused else [])


@pytest.mark.parametrize(("size", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_block_that_is_far_longer_than_a_head_may_be_is_refused(
    size: int, *, refused: bool
) -> None:
    begin = frame("HEADERS", 1, 0, bytes(3900))
    more = frame("CONTINUATION", 1, 0, bytes(100 + size))

    ends = [("end", Code.ENHANCE_YOUR_CALM)]
    assert started(1000).hear(begin + more) == (ends if refused else [])


@pytest.mark.parametrize(("pieces", "refused"), [(62, False), (63, False), (64, True)])
def test_a_block_in_countless_pieces_is_refused(pieces: int, *, refused: bool) -> None:
    data = frame("HEADERS", 1, 0, b"a") + frame("CONTINUATION", 1, 0, b"b") * pieces

    ends = [("end", Code.ENHANCE_YOUR_CALM)]
    assert started().hear(data) == (ends if refused else [])


@pytest.mark.parametrize(
    ("data", "in_head"),
    [
        (b"", False), (request(1)[:3], True), (request(1)[:4], True), (request(1)[:-1], True),
        (request(1), False), (frame("HEADERS", 1, 0, b"a"), True),
        (frame("DATA", 1, 0, b"a")[:-1], False),
    ],
    ids=["nothing", "a length", "a kind", "all but a byte", "all", "a part of a block", "DATA"],
)  # fmt: skip
def test_whether_a_head_is_under_way_is_known(data: bytes, *, in_head: bool) -> None:
    connection = started()
    connection.hear(data)

    assert connection.in_head == in_head


IN_A_TURN = 267
"""Frames of 15 µs that take more than 4 ms."""


@pytest.mark.parametrize(
    ("number", "done"), [(IN_A_TURN - 1, True), (IN_A_TURN, True), (IN_A_TURN + 1, False)]
)
def test_a_turn_takes_so_many_frames_and_leaves_the_rest(number: int, *, done: bool) -> None:
    connection = started()
    pong = frame("PING", 0, ACK, bytes(8))

    assert connection.receive(pong * number + b"\0") == done
    assert len(connection.events) == min(number, IN_A_TURN)
    assert connection.waiting == (number - len(connection.events)) * len(pong) + 1
    connection.hold(pong[1:])
    assert connection.receive(b"")
    # What waited behind them is still there.
    assert (len(connection.events), connection.waiting) == (number + 1, 0)


# --- streams


def test_a_stream_beyond_what_is_taken_is_refused_and_its_block_is_read() -> None:
    connection = started(most=1)
    encoder = hpack.Encoder()
    first, second, third = (encoder.encode([*GET, ("x-a", name)]) for name in "abc")
    connection.hear(frame("HEADERS", 1, WHOLE, first))

    assert connection.hear(frame("HEADERS", 3, WHOLE, second)) == []
    assert connection.output() == frames.reset(3, Code.REFUSED_STREAM)
    # What was on its way to it is ignored.
    assert connection.hear(frame("DATA", 3, 0, b"a") + frame("HEADERS", 3, WHOLE, b"")) == []
    connection.release(connection.streams[1], reset=False)
    assert connection.hear(frame("HEADERS", 5, WHOLE, third))[0][2][-1] == (b"x-a", b"c")


@pytest.mark.parametrize(
    ("late", "events"),
    [
        (frame("DATA", 1, 0, b"a"), []),
        (frame("HEADERS", 1, WHOLE, b"\x82"), []),
        (frame("WINDOW_UPDATE", 1, 0, word(1)), []),
        (frame("RST_STREAM", 1, 0, word(1)), []),
    ],
    ids=["DATA", "trailers", "an update", "a reset"],
)
def test_what_crosses_our_reset_is_ignored(late: bytes, events: list[Event]) -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))
    connection.release(connection.streams[1], reset=True)

    assert connection.hear(late) == events


def test_heads_that_nobody_gets_are_paid_for() -> None:
    connection = started(64 * 1024)
    connection.hear(request(1, END_HEADERS))
    connection.release(connection.streams[1], reset=True)
    late = frame("HEADERS", 1, WHOLE, literal(b"0" * 20_000))

    # Some 3 ms each, of 100.
    assert connection.hear(late * 28) == []
    assert connection.hear(late * 4) == [("end", Code.ENHANCE_YOUR_CALM)]


@pytest.mark.parametrize(("left", "is_read"), [(0, True), (-1, False)])
def test_a_block_that_is_too_long_is_paid_for_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, left: int, *, is_read: bool
) -> None:
    connection = started(64 * 1024)
    block = literal(b"0" * 128_000)
    assert len(block) > connection.decoder.longest
    parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    data = frame("HEADERS", 1, END_STREAM) + b"".join(
        frame("CONTINUATION", 1, 0, part) for part in parts
    )
    read: list[bytes] = []
    decode = connection.decoder.decode

    def reading(block: bytes) -> Fields | None:
        read.append(block)
        return decode(block)

    monkeypatch.setattr(Decoder, "decode", lambda _, block: reading(block))
    # The settings were paid for.
    connection.tolls.charge(100_000.0 - TALK - (len(block) >> 4) - left)

    events = connection.hear(data + frame("CONTINUATION", 1, END_HEADERS))

    assert (bool(read), kinds(events)) == ((True, ["head"]) if is_read else (False, ["end"]))


@pytest.mark.parametrize("parts", [1, 3])
def test_a_long_block_is_taken_in_turns_and_nothing_behind_it_before(parts: int) -> None:
    connection = started(64 * 1024)
    long = block() + b"\x40\x01a\x01b" * 150
    cut = [long[len(long) * n // parts : len(long) * (n + 1) // parts] for n in range(parts)]
    data = b"".join(
        frame(
            "CONTINUATION" if n else "HEADERS",
            1,
            (0 if n else END_STREAM) | (END_HEADERS if n == parts - 1 else 0),
            part,
        )
        for n, part in enumerate(cut)
    )

    assert not connection.receive(data + frame("PING", 0, ACK, b"12345678"))
    assert connection.work > MUCH_WORK
    assert not connection.receive(frame("PING", 0, ACK, b"87654321"))
    assert connection.work > MUCH_WORK
    assert connection.events == []
    assert connection.receive(b"")

    pongs = [("pong", b"12345678"), ("pong", b"87654321")]
    assert kinds(connection.events) == ["head", "pong", "pong"]
    assert connection.events[1:] == pongs
    assert len(connection.events[0][2]) == len(GET) + 150


@pytest.mark.parametrize("last", [b"\x80", b"\x40\x01a\x01b" * 4000])
def test_a_long_block_that_is_wrong_in_the_end_ends_the_connection(last: bytes) -> None:
    connection = started(64 * 1024)
    long = block() + b"\x40\x01a\x01b" * 100 + last
    parts = [long[at : at + 16_000] for at in range(0, len(long), 16_000)]
    data = frame("HEADERS", 1, END_STREAM) + b"".join(
        frame("CONTINUATION", 1, 0, part) for part in parts
    )

    code = Code.COMPRESSION_ERROR if last == b"\x80" else Code.ENHANCE_YOUR_CALM
    assert connection.hear(data + frame("CONTINUATION", 1, END_HEADERS)) == [("end", code)]


@pytest.mark.parametrize("late", [frame("DATA", 1, 0, b"a"), frame("HEADERS", 1, WHOLE, b"\x82")])
def test_what_comes_after_the_senders_own_end_ends_the_connection(late: bytes) -> None:
    connection = started()
    connection.hear(request(1))
    connection.release(connection.streams[1], reset=False)

    assert connection.hear(late) == [("end", Code.STREAM_CLOSED)]


def test_what_crosses_a_reset_of_long_ago_is_ignored_too() -> None:
    # More streams than are remembered: whether it was left out is not known any more.
    connection = started()
    for number in range(1, 1201, 2):
        connection.hear(request(number, END_HEADERS))
        connection.release(connection.streams[number], reset=True)

    assert connection.hear(frame("HEADERS", 1, WHOLE, b"\x82")) == []
    assert len(connection._past) + len(connection._older_past) <= 512


def test_a_stream_that_was_left_out_cannot_be_opened_any_more() -> None:
    connection = started()
    connection.hear(request(5))

    assert connection.hear(request(3)) == [("end", Code.PROTOCOL_ERROR)]


def test_an_informational_head_is_followed_by_another() -> None:
    connection = started(client=True)
    connection.ask(b"\r\n:method: GET", ended=True)
    heads = [frame("HEADERS", 1, END_HEADERS, block((":status", code))) for code in ("103", "200")]

    assert kinds(connection.hear(b"".join(heads))) == ["head", "head"]
    assert kinds(connection.hear(frame("HEADERS", 1, WHOLE, b""))) == ["trailers"]


def test_data_before_a_head_is_the_fault_of_its_stream() -> None:
    connection = started(client=True)
    connection.ask(b"\r\n:method: GET", ended=True)

    assert connection.hear(frame("DATA", 1, 0, b"a")) == [("fault", 1, Code.PROTOCOL_ERROR)]


# --- windows


def test_padding_counts_for_both_windows() -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))
    before = connection.streams[1].window_in, connection._window_in

    connection.hear(frame("DATA", 1, 0x8, b"\x05ab" + bytes(5)))

    after = connection.streams[1].window_in, connection._window_in
    assert [was - now for was, now in zip(before, after, strict=True)] == [8, 8]


def test_the_window_of_the_connection_is_refilled_when_half_of_it_is_used() -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))
    connection.output()
    connection.release(connection.streams[1], reset=True)
    half = CONNECTION_WINDOW // 2 // 16_384

    # What is late counts, too.
    connection.hear(frame("DATA", 1, 0, bytes(16_384)) * (half - 1))
    assert connection.output() == b""
    connection.hear(frame("DATA", 1, 0, bytes(16_384)))
    assert connection.output() == frames.window_update(0, CONNECTION_WINDOW // 2)


@pytest.mark.parametrize(("extra", "fault"), [(-1, False), (0, False), (1, True)])
def test_a_stream_takes_what_its_window_allows(extra: int, *, fault: bool) -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))
    data = [16_384, 16_384, 16_384, 16_383 + extra]

    events = connection.hear(b"".join(frame("DATA", 1, 0, bytes(size)) for size in data))

    assert (events[-1] == ("fault", 1, Code.FLOW_CONTROL_ERROR)) == fault


def test_the_reserved_bit_of_an_update_means_nothing() -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))

    assert connection.hear(frame("WINDOW_UPDATE", 1, 0, word(2**31 + 7))) == []
    assert connection.streams[1].window_out == 65_535 + 7


def test_a_setting_moves_the_windows_of_streams_and_not_the_connections() -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))
    connection.hear(frame("WINDOW_UPDATE", 1, 0, word(10)))

    connection.hear(frame("SETTINGS", 0, 0, setting(4, 0)))
    connection.hear(request(3, END_HEADERS))

    windows = connection.streams[1].window_out, connection.streams[3].window_out
    assert windows == (10, 0)
    assert connection.window_out == 65_535
    connection.hear(frame("SETTINGS", 0, 0, setting(4, 100)))
    assert connection.streams[1].window_out == 110


def test_settings_are_paid_for_by_the_windows_that_they_move() -> None:
    connection = started(most=1000)
    connection.tolls.charge(TALK)
    for number in range(1, 1001, 2):
        connection.hear(request(number, END_HEADERS))
    # 500 streams, so each costs as much as six pings; two of those were paid for before.
    flip = frame("SETTINGS", 0, 0, setting(4, 0)) + frame("SETTINGS", 0, 0, setting(4, 65_535))

    assert connection.hear(flip * 83)[-1] == ("settings",)
    assert connection.hear(SETTINGS) == [("end", Code.ENHANCE_YOUR_CALM)]


@pytest.mark.parametrize(("count", "refused"), [(63, False), (64, False), (65, True)])
def test_the_settings_of_a_frame_are_limited(count: int, *, refused: bool) -> None:
    flood = frame("SETTINGS", 0, 0, setting(9, 1) * count)

    assert started().hear(flood) == [("end", Code.ENHANCE_YOUR_CALM) if refused else ("settings",)]


# --- tolls

IDLE = {
    "PING": frame("PING", 0, 0, bytes(8)), "SETTINGS": SETTINGS,
    "an acknowledgement": frame("SETTINGS", 0, ACK),
    "PRIORITY": frame("PRIORITY", 1, 0, bytes(5)), "an unknown one": frame(0xBB),
    "empty DATA": frame("DATA", 1), "padding": frame("DATA", 1, 0x8, b"\1\0"),
    "a late reset": frame("RST_STREAM", 3, 0, bytes(4)),
}  # fmt: skip


@pytest.mark.parametrize("idle", IDLE.values(), ids=IDLE)
def test_a_thousand_frames_that_carry_nothing_are_taken(idle: bytes) -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS) + request(3, END_HEADERS))
    connection.release(connection.streams[3], reset=True)

    # The settings at the beginning have been one; with streams they cost a little more.
    price = TALK + (1 if idle[3] == frames.SETTINGS else 0)
    number = int((100_000 - TALK) // price)
    assert "end" not in kinds(connection.hear(idle * number))
    assert connection.hear(idle)[-1:] == [("end", Code.ENHANCE_YOUR_CALM)]


FREE = {
    "DATA": frame("DATA", 1, 0, b"x"), "an answer to a ping": frame("PING", 0, ACK, bytes(8)),
}  # fmt: skip


@pytest.mark.parametrize("free", FREE.values(), ids=FREE)
def test_frames_that_carry_something_are_free(free: bytes) -> None:
    connection = started()
    connection.hear(request(1, END_HEADERS))

    assert "end" not in kinds(connection.hear(free * 3000))


# --- what is written


def read(data: bytes) -> list[hyperframe.frame.Frame]:
    """Return the frames of `data`, as hyperframe reads them."""
    found = []
    while data:
        one, length = hyperframe.frame.Frame.parse_frame_header(memoryview(data[:9]))
        one.parse_body(memoryview(data[9 : 9 + length]))
        found.append(one)
        data = data[9 + length :]
    return found


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 32_768, 32_769, 50_000])
@pytest.mark.parametrize("ended", [True, False])
def test_a_block_of_any_size_is_written_whole(size: int, *, ended: bool) -> None:
    whole = (bytes(range(256)) * 200)[:size]

    first, *others = read(frames.headers(7, whole, ended=ended))

    assert isinstance(first, hyperframe.frame.HeadersFrame)
    assert ("END_STREAM" in first.flags) == ended
    parts = [first, *others]
    assert b"".join(part.data for part in parts) == whole  # type: ignore[attr-defined]  # both kinds have data
    assert {part.stream_id for part in parts} == {7}
    assert ["END_HEADERS" in part.flags for part in parts] == [False] * len(others) + [True]
    assert max(len(part.data) for part in parts) <= 16_384  # type: ignore[attr-defined]  # as above


def test_frames_are_written_as_hyperframe_writes_them() -> None:
    theirs = hyperframe.frame
    assert [
        frames.settings({3: 100, 4: 5}), frames.SETTINGS_ACK,
        frames.data_head(9, 3, ended=True) + b"abc", frames.reset(5, Code.CANCEL),
        frames.ping(b"12345678"), frames.ping(b"12345678", ack=True),
        frames.goaway(7, Code.NO_ERROR, "bye"), frames.window_update(0, 1000),
    ] == [
        each.serialize() for each in (
            theirs.SettingsFrame(0, {3: 100, 4: 5}), theirs.SettingsFrame(0, flags=["ACK"]),
            theirs.DataFrame(9, b"abc", flags=["END_STREAM"]), theirs.RstStreamFrame(5, 8),
            theirs.PingFrame(0, b"12345678"), theirs.PingFrame(0, b"12345678", flags=["ACK"]),
            theirs.GoAwayFrame(0, 7, 0, b"bye"), theirs.WindowUpdateFrame(0, 1000),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("client", [True, False])
def test_a_connection_begins_as_the_standard_says(*, client: bool) -> None:
    connection = Recorded(client=client)
    connection.greet({2: 0})
    data = connection.output()

    assert data.startswith(PREFACE) == client
    first, second = read(data.removeprefix(PREFACE))
    assert isinstance(first, hyperframe.frame.SettingsFrame)
    assert isinstance(second, hyperframe.frame.WindowUpdateFrame)


def test_what_is_taken_once_is_not_written_again() -> None:
    connection = started()
    connection.send_ping(bytes(8))

    assert (connection.output(), connection.output()) == (frames.ping(bytes(8)), b"")


@pytest.mark.parametrize(
    ("step", "taken"),
    [(0.0, 80), (CONNECTION_SECONDS * 0.51, 3 * 21), (CONNECTION_SECONDS * 1.01, 2 * 21)],
)
def test_a_turn_ends_by_the_clock_where_work_was_reckoned_too_low(step: float, taken: int) -> None:
    ticks = itertools.count()
    connection = Recorded(clock=lambda: next(ticks) * step)
    connection.hear(SETTINGS)
    connection.output()

    all_taken = connection.receive(frame("PING", 0, 0, bytes(8)) * 80)

    # It is looked at behind each 21 frames, which count for 15 microseconds each.
    assert all_taken == (taken == 80)
    assert connection.output() == frame("PING", 0, ACK, bytes(8)) * taken
    while not connection.receive(b""):
        pass
    assert connection.output() == frame("PING", 0, ACK, bytes(8)) * (80 - taken)
