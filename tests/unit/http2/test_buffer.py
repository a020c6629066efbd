"""Where frames end, and what may wait to be complete."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from proxy.plane.http2.buffer import Buffer
from proxy.plane.http2.standard import Code, ConnectionFault

LIMIT = 1000


def take(buffer: Buffer, data: bytes) -> list[Frame]:
    buffer.add_data(data)
    return list(buffer)


def fault(data: bytes) -> Code:
    with pytest.raises(ConnectionFault) as caught:
        take(Buffer(LIMIT), data)
    return caught.value.code


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 11, 1000])
def test_frames_are_the_same_however_they_are_cut(size: int) -> None:
    frames = [PingFrame(0, b"12345678"), DataFrame(1, bytes(300)), DataFrame(3), SettingsFrame(0)]
    data = b"".join(frame.serialize() for frame in frames)
    buffer = Buffer(LIMIT)

    got = [f for at in range(0, len(data), size) for f in take(buffer, data[at : at + size])]

    assert b"".join(frame.serialize() for frame in got) == data


@pytest.mark.parametrize(("size", "refused"), [(16_383, False), (16_384, False), (16_385, True)])
def test_a_frame_that_is_too_large_is_refused_before_it_has_come(
    size: int, *, refused: bool
) -> None:
    head = DataFrame(1, bytes(size)).serialize()[:9]

    if refused:
        assert fault(head) == Code.FRAME_SIZE_ERROR
    else:
        assert take(Buffer(LIMIT), head) == []


@pytest.mark.parametrize(("size", "refused"), [(-1, False), (0, False), (1, True)])
def test_a_block_that_is_far_longer_than_a_head_may_be_is_refused(
    size: int, *, refused: bool
) -> None:
    begin = HeadersFrame(1, bytes(4 * LIMIT - 100)).serialize()
    more = ContinuationFrame(1, bytes(100 + size)).serialize()

    if refused:
        assert fault(begin + more) == Code.ENHANCE_YOUR_CALM
    else:
        assert take(Buffer(LIMIT), begin + more) == []


@pytest.mark.parametrize(("pieces", "refused"), [(62, False), (63, False), (64, True)])
def test_a_block_in_countless_pieces_is_refused(pieces: int, *, refused: bool) -> None:
    data = HeadersFrame(1, b"a").serialize() + ContinuationFrame(1, b"b").serialize() * pieces

    if refused:
        assert fault(data) == Code.ENHANCE_YOUR_CALM
    else:
        assert take(Buffer(LIMIT), data) == []


def test_whether_a_head_is_under_way_is_known() -> None:
    whole = HeadersFrame(1, b"a", flags=["END_HEADERS"]).serialize()
    begun = HeadersFrame(1, b"a").serialize()
    states = []
    for data in (
        b"",
        whole[:3],
        whole[:4],
        whole[:-1],
        whole,
        begun,
        DataFrame(1, b"a").serialize()[:-1],
    ):
        buffer = Buffer(LIMIT)
        take(buffer, data)
        states.append(buffer.in_head)

    assert states == [False, True, True, True, False, True, False]


def test_the_reserved_bit_of_an_update_means_nothing() -> None:
    data = bytes.fromhex("000004080080000003 80000007".replace(" ", ""))

    (frame,) = take(Buffer(LIMIT), data)

    assert isinstance(frame, WindowUpdateFrame)
    assert (frame.stream_id, frame.window_increment) == (3, 7)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("000004 08 00 00000000 00000000", Code.PROTOCOL_ERROR),
        ("000006 04 01 00000000 000300000001", Code.FRAME_SIZE_ERROR),
        ("000003 08 00 00000001 000001", Code.FRAME_SIZE_ERROR),
        ("000000 00 00 00000000", Code.PROTOCOL_ERROR),
        ("000001 00 08 00000001 01", Code.PROTOCOL_ERROR),
        ("000000 00 08 00000001", Code.FRAME_SIZE_ERROR),
    ],
    ids=["an update of nothing", "an acknowledgement with settings", "an update that is short",
         "DATA on stream 0", "padding as long as its frame", "padding without a length"],
)  # fmt: skip
def test_a_frame_that_is_none_has_the_code_of_the_standard(data: str, code: Code) -> None:
    assert fault(bytes.fromhex(data)) == code
