from __future__ import annotations

import pytest
from httptools import HttpParserError, HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.plane.http1.chunked import (
    LONGEST_LINE,
    MOST_CHUNKS,
    ChunkedBody,
    allowed_trailers,
    chunk,
    last_chunk,
)
from proxy.plane.message import MOST_FIELDS

PIECES = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=10)


def feed(data: bytes, sizes: list[int], limit: int = 65536) -> tuple[bytes, ChunkedBody]:
    """Feed `data` in pieces of these sizes, over and over, until the end or a fault."""
    body = ChunkedBody(limit)
    read, at, turn = b"", 0, 0
    while at < len(data) and not (body.done or body.fault):
        size = sizes[turn % len(sizes)]
        read += take(body, data[at : at + size])
        while body.rest and not body.done:
            read += take(body, body.rest)
        at += size
        turn += 1
    body.rest += data[at:]
    return read, body


def take(body: ChunkedBody, data: bytes) -> bytes:
    """Return what one feed gives, of which no piece may be empty: that would end the body."""
    pieces = body.feed(data)
    assert all(pieces)
    return b"".join(pieces)


@given(pieces=PIECES, sizes=CUTS, rest=st.binary(max_size=20))
def test_what_is_written_is_read_however_it_is_cut(
    pieces: list[bytes], sizes: list[int], rest: bytes
) -> None:
    data = b"".join(map(chunk, pieces)) + last_chunk(b"\r\nA: b") + rest
    read, body = feed(data, sizes)

    assert (read, body.done, body.fault) == (b"".join(pieces), True, "")
    assert body.trailers == b"\r\nA: b"
    assert body.rest == rest


@given(data=st.binary(max_size=200), sizes=CUTS)
def test_any_bytes_mean_the_same_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    whole, one = feed(data, [1000])
    pieces, other = feed(data, sizes)

    assert (pieces, other.done, other.trailers) == (whole, one.done, one.trailers)
    assert bool(other.fault) is bool(one.fault)


@given(text=st.text('0123456789abcdefABCDEF;="\r\n xXt:', max_size=40), sizes=CUTS)
def test_bytes_that_are_nearly_chunks_mean_the_same_however_they_are_cut(
    text: str, sizes: list[int]
) -> None:
    data = text.encode()
    whole, one = feed(data, [1000])
    pieces, other = feed(data, sizes)

    assert (pieces, other.done, other.trailers) == (whole, one.done, one.trailers)
    assert bool(other.fault) is bool(one.fault)


class Oracle:
    """Reads a chunked body with llhttp, byte by byte."""

    def __init__(self, data: bytes) -> None:
        self.body = b""
        self.done = self.fault = False
        self.trailers: list[tuple[bytes, bytes]] = []
        parser = HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.trailers.clear()
        self.read = 0
        while self.read < len(data) and not (self.done or self.fault):
            try:
                parser.feed_data(data[self.read : self.read + 1])
            except HttpParserError:
                self.fault = True
            self.read += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.trailers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.done = True


LINES = st.one_of(
    st.text("0123456789abcdefABCDEF", min_size=1, max_size=3),
    st.text('05aF;="\\ \t\rx\x80\x7f\x01', max_size=12),
    st.from_regex(r'\A[0-5](;[a-z]{0,2}(=[a-z]{0,2}("([a-z \t;]|\\[ -~])*")?)?){0,3}\Z'),
)
DATA = st.text("ax\r\n0", max_size=5)
NEARLY = st.lists(
    st.tuples(LINES, st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r", ""]), DATA), max_size=4
)
ENDS = st.sampled_from(
    [
        "0\r\n\r\n", "00\r\n\r\n", "0;a=b\r\n\r\n", "0\r\nA: b\r\n\r\n", "0\r\nA: b\n\r\n",
        "0\r\nA : b\r\n\r\n", "0\r\n A: b\r\n\r\n", "0\r\n:\r\n\r\n", "0\r\nA: b\r\nB: c\r\n\r\n",
        "0\r\n\n", "",
    ]
)  # fmt: skip


def nearly_chunked(parts: list[tuple[str, str, str]], end: str) -> bytes:
    """Return chunks whose sizes are often right, and whose lines are often malformed."""
    text = ""
    for line, line_end, data in parts:
        digits = f"{len(data):x}"
        text += (digits + line.lstrip("0123456789abcdefABCDEF")) if len(line) > 1 else line
        text += line_end + data + "\r\n"
    return (text + end).encode("latin-1")


@given(parts=NEARLY, end=ENDS, sizes=CUTS, rest=st.sampled_from([b"", b"\r\n", b"GET /"]))
@example(parts=[("5;a=b", "\r\n", "hello")], end="0\r\n\r\n", sizes=[1], rest=b"x")
@example(parts=[('5;a="b', "\r\n", "hello")], end="0\r\n\r\n", sizes=[3], rest=b"")
@example(parts=[('5;a=b"c";d;;e', "\r\n", "hello")], end="0\r\n\r\n", sizes=[3], rest=b"")
def test_a_chunked_body_is_what_llhttp_says_it_is(
    parts: list[tuple[str, str, str]], end: str, sizes: list[int], rest: bytes
) -> None:
    data = nearly_chunked(parts, end) + rest
    oracle = Oracle(data)
    read, body = feed(data, sizes)

    assert (read, body.done) == (oracle.body, oracle.done)
    if oracle.done:
        assert body.trailers == allowed_trailers(oracle.trailers)
        assert body.rest == data[oracle.read :]
    # A line that can become none is refused at its end at the latest.
    assert not body.fault or oracle.fault
    if oracle.fault:
        assert feed(data + b"\r\n\r\n", sizes)[1].fault


EVERY_BYTE = [bytes((number,)) for number in range(256)]


@pytest.mark.parametrize(
    "before", [b"", b"5", b"5;", b"5;a", b"5;a=", b"5;a=b", b'5;a="', b'5;a="\\', b'5;a="b"']
)
@pytest.mark.parametrize("after", [b"", b'"', b"a"])
def test_every_byte_in_a_size_line_is_judged_as_llhttp_does(before: bytes, after: bytes) -> None:
    for byte in EVERY_BYTE:
        data = (
            before + byte + after + b"\r\n" + bytes(int(b"0" + before[:1], 16)) + b"\r\n0\r\n\r\n"
        )
        oracle = Oracle(data)
        read, body = feed(data, [1000])
        assert (read, body.done, bool(body.fault)) == (oracle.body, oracle.done, oracle.fault), data


def test_a_size_line_means_the_same_wherever_it_is_cut() -> None:
    data = b"5;x=" + b"y" * 80 + b"\r\nhello\r\n0\r\n\r\n"
    for at in range(1, len(data)):
        read, body = feed(data, [at, len(data)])
        assert (read, body.done, body.fault) == (b"hello", True, ""), at


@pytest.mark.parametrize(
    ("size", "faulty"), [(LONGEST_LINE - 1, False), (LONGEST_LINE, False), (LONGEST_LINE + 1, True)]
)
def test_a_size_line_is_limited_wherever_it_is_cut(size: int, faulty: bool) -> None:  # noqa: FBT001 (a parameter)
    data = b"5;" + b"x" * (size - 2) + b"\r\nhello\r\n0\r\n\r\n"
    for sizes in ([100_000], [1], [size, 100_000], [size + 1, 100_000]):
        _, body = feed(data, sizes)
        assert (bool(body.fault), body.done) == (faulty, not faulty)


@pytest.mark.parametrize("count", [MOST_CHUNKS - 1, MOST_CHUNKS, MOST_CHUNKS + 1])
def test_no_more_than_so_many_chunks_are_read_at_once(count: int) -> None:
    body = ChunkedBody(65536)
    data = chunk(b"x") * count + b"0\r\n\r\n"
    read = b"".join(body.feed(data))

    assert len(read) <= MOST_CHUNKS
    assert body.done is (count < MOST_CHUNKS)
    while not body.done:
        read += b"".join(body.feed(body.rest))
    assert (read, body.rest) == (b"x" * count, b"")


def test_data_that_lies_within_a_chunk_is_not_copied() -> None:
    body = ChunkedBody(65536)
    assert body.feed(b"100000\r\nx") == [b"x"]
    data = bytes(200_000)

    (piece,) = body.feed(data)
    assert piece is data


@pytest.mark.parametrize("size", [1, 1000, 65_535, 65_536, 65_537, 200_000])
def test_many_chunks_are_passed_on_in_few_pieces_of_moderate_size(size: int) -> None:
    data = chunk(b"x" * size) * (200_000 // size)
    body = ChunkedBody(65536)
    while data:
        pieces = body.feed(data)
        data = body.rest
        assert len(pieces) <= 6
        assert all(len(piece) <= max(size, 80_000) for piece in pieces)


def test_what_comes_before_a_fault_is_read() -> None:
    read, body = feed(b"5\r\nhello\r\nx", [1000])

    assert (read, bool(body.fault)) == (b"hello", True)


@pytest.mark.parametrize(("size", "faulty"), [(99, False), (100, False), (101, True)])
def test_what_is_not_data_is_limited(size: int, faulty: bool) -> None:  # noqa: FBT001 (a parameter)
    trailer = b"X: " + b"x" * (size - len(b"0\r\n" + b"X: " + b"\r\n\r\n"))
    _, body = feed(b"0\r\n" + trailer + b"\r\n\r\n", [1000], limit=100)

    assert bool(body.fault) is faulty


def test_an_extension_without_end_is_limited() -> None:
    _, body = feed(b"5;a=" + b"x" * 70_000, [100])

    assert body.fault


@pytest.mark.parametrize(
    ("size", "faulty"), [(b"f" * 15, False), (b"0" * 30 + b"f", False), (b"1" + b"0" * 15, True)]
)
@pytest.mark.parametrize("sizes", [[1], [2, 3], [1000]])
def test_a_size_that_not_everybody_can_count_is_refused(
    size: bytes,
    faulty: bool,  # noqa: FBT001 (a parameter)
    sizes: list[int],
) -> None:
    _, body = feed(b"5\r\nhello\r\n" + size + b"\r\nhello", sizes)

    assert bool(body.fault) is faulty


@pytest.mark.parametrize("name", [b"Content-Length", b"x_serverless_authorization", b"TE", b"Vary"])
def test_trailers_that_frame_route_or_authenticate_are_dropped(name: bytes) -> None:
    assert allowed_trailers([(b"A", b"1"), (name, b"2"), (b"B", b"3")]) == b"\r\nA: 1\r\nB: 3"


@pytest.mark.parametrize("cut", [0, 7, 4000])
@pytest.mark.parametrize("number", [MOST_FIELDS - 1, MOST_FIELDS, MOST_FIELDS + 1])
def test_trailers_are_bounded_by_their_number(number: int, cut: int) -> None:
    body = ChunkedBody(65536)
    data = b"0\r\n" + b"a: b\r\n" * number + b"\r\n"

    for part in (data[:cut], data[cut:]):
        if not body.fault:
            body.feed(part)

    allowed = number <= MOST_FIELDS
    assert (body.done and not body.fault) == allowed
    if allowed:
        assert body.trailers.count(b"a: b") == number


@pytest.mark.parametrize("limit", [65536, 1 << 40])
def test_trailers_beyond_a_limit_are_not_read(limit: int) -> None:
    body = ChunkedBody(limit)

    body.feed(b"0\r\n" + b"a: b\r\n" * 50_000 + b"\r\n")

    assert "too large" in body.fault
    assert body.trailers == b""
