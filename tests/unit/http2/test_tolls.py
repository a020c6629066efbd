"""What frames cost their sender: so many are free, the next one is too many."""

from __future__ import annotations

import pytest
from h2.settings import SettingCodes
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from proxy.plane.http2.standard import Code, ConnectionFault, StreamFault
from proxy.plane.http2.tolls import Tolls


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def idle(tolls: Tolls, frame: Frame, times: int) -> None:
    for _ in range(times):
        tolls.admit(frame)


def refuses(tolls: Tolls, frame: Frame) -> None:
    with pytest.raises(ConnectionFault) as caught:
        tolls.admit(frame)
    assert caught.value.code == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "frame",
    [PingFrame(0, b"12345678"), SettingsFrame(0), PriorityFrame(1), ExtensionFrame(0xBB, 1),
     DataFrame(1), AltSvcFrame(0, b"a")],
    ids=lambda frame: type(frame).__name__,
)  # fmt: skip
def test_a_thousand_frames_that_carry_nothing_are_free_and_a_hundred_a_second(frame: Frame) -> None:
    clock = Clock()
    tolls = Tolls(clock)

    idle(tolls, frame, 1000)
    refuses(tolls, frame)
    clock.now = 1.01
    idle(tolls, frame, 99)


@pytest.mark.parametrize(
    "frame",
    [DataFrame(1, b"x"), DataFrame(1, flags=["END_STREAM"]), HeadersFrame(1),
     PingFrame(0, b"12345678", flags=["ACK"])],
    ids=["DATA", "the end", "HEADERS", "an answer to a ping"],
)  # fmt: skip
def test_frames_that_carry_something_are_free(frame: Frame) -> None:
    tolls = Tolls(Clock())

    assert {tolls.admit(frame) for _ in range(3000)} == {True}


@pytest.mark.parametrize(("streams", "frames"), [(0, 0), (3, 0), (0, 5), (2, 2)])
def test_window_updates_are_paid_for_by_streams_and_by_what_we_send(
    streams: int, frames: int
) -> None:
    tolls = Tolls(Clock())
    for _ in range(streams):
        tolls.opened()
    for _ in range(frames):
        tolls.sent()
    update = WindowUpdateFrame(1, window_increment=1)

    idle(tolls, update, 1000 + 16 * streams + 8 * frames)
    refuses(tolls, update)


def test_an_update_of_nothing_is_the_fault_of_its_stream() -> None:
    with pytest.raises(StreamFault) as caught:
        Tolls(Clock()).admit(WindowUpdateFrame(7, window_increment=0))

    assert (caught.value.stream, caught.value.code) == (7, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize(("count", "refused"), [(63, False), (64, False), (65, True)])
def test_the_settings_of_a_frame_are_limited(count: int, *, refused: bool) -> None:
    frame = SettingsFrame(0)
    frame.parse_body(memoryview(b"\0\x04\0\0\xff\xff" * count))

    if refused:
        refuses(Tolls(Clock()), frame)
    else:
        assert Tolls(Clock()).admit(frame)


def test_settings_that_nobody_knows_are_not_kept() -> None:
    frame = SettingsFrame(0, settings={4: 1, 3: 2, 9: 3, 65_535: 4})

    assert Tolls(Clock()).admit(frame)
    assert frame.settings == {
        SettingCodes.INITIAL_WINDOW_SIZE: 1,
        SettingCodes.MAX_CONCURRENT_STREAMS: 2,
    }


def test_priorities_are_ignored() -> None:
    head = HeadersFrame(1, depends_on=1, flags=["PRIORITY", "END_HEADERS"])

    assert Tolls(Clock()).admit(head)
    assert set(head.flags) == {"END_HEADERS"}
    assert not Tolls(Clock()).admit(PriorityFrame(1, depends_on=1))
