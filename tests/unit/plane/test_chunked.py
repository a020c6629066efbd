from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.plane.http1.chunked import ChunkedBody, allowed_trailers, chunk, last_chunk

PIECES = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=10)


def feed(data: bytes, sizes: list[int], limit: int = 65536) -> tuple[bytes, ChunkedBody]:
    """Feed `data` in pieces of these sizes, over and over, until the end or a fault."""
    body = ChunkedBody(limit)
    read, at, turn = b"", 0, 0
    while at < len(data) and not (body.done or body.fault):
        size = sizes[turn % len(sizes)]
        read += body.feed(data[at : at + size])
        at += size
        turn += 1
    body.rest += data[at:]
    return read, body


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
