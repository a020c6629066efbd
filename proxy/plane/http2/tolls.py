"""What a peer's frames cost it, so that none can keep us busy for nothing.

h2 has no bounds of its own on frames that are cheap to send: rapid resets are counted by the
downstream side, everything else here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

from proxy.clock import Clock
from proxy.plane.http2.budget import Budget
from proxy.plane.http2.standard import Code, ConnectionFault, StreamFault

# Frames that bring nobody anything: PING, SETTINGS, PRIORITY, empty DATA, unknown ones.
# grpcio pings some ten times a second while it measures the bandwidth.
_IDLE_TALK = 1000.0, 100.0

# WINDOW_UPDATEs that a peer may send: so many at first, for each stream, and for each DATA
# frame of ours.  grpcio sends two with each call.
_UPDATES = 1000
_UPDATES_PER_STREAM = 16
_UPDATES_PER_FRAME = 8

# Settings in one frame: six are defined; more than this is a way to keep us busy.
_MOST_SETTINGS = 64
_SETTING_BYTES = 6  # RFC 9113, 6.5.1.

_KNOWN = frozenset(SettingCodes)


class Tolls:
    """The budgets of one connection."""

    __slots__ = ("_idle_talk", "_updates")

    def __init__(self, clock: Clock) -> None:
        self._updates = _UPDATES
        self._idle_talk = Budget(*_IDLE_TALK, clock)

    def opened(self) -> None:
        """Note that there is another stream."""
        self._updates += _UPDATES_PER_STREAM

    def sent(self) -> None:
        """Note that we have sent DATA, for which the peer will open its window again."""
        self._updates += _UPDATES_PER_FRAME

    def idle_talk(self) -> None:
        """Count a frame that brings nobody anything.

        Raises:
            ConnectionFault: there are too many.
        """
        if not self._idle_talk.spend():
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "Too many frames that carry nothing.")

    def admit(self, frame: Frame) -> bool:
        """Take a frame's price; return whether it means anything to us at all.

        Raises:
            ConnectionFault: its sender has used up what it may send.
            StreamFault: it makes no sense on its stream.
        """
        take = _TAKES.get(frame.__class__)
        return take is None or take(self, frame)

    def _take_data(self, frame: DataFrame) -> bool:
        if not frame.data and "END_STREAM" not in frame.flags:
            self.idle_talk()
        return True

    def _take_ping(self, frame: PingFrame) -> bool:
        # An answer to one of ours is worth something: whoever has asked counts the others.
        if "ACK" not in frame.flags:
            self.idle_talk()
        return True

    def _take_idle(self, frame: Frame) -> bool:  # noqa: ARG002 (one of many, see `_TAKES`)
        self.idle_talk()
        return False  # RFC 9113, 5.3 and 5.5: ignored.

    def _take_update(self, frame: WindowUpdateFrame) -> bool:
        self._updates -= 1
        if self._updates < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "WINDOW_UPDATEs without need.")
        if frame.window_increment == 0:
            raise StreamFault(frame.stream_id, Code.PROTOCOL_ERROR, "A WINDOW_UPDATE of 0.")
        return True

    def _take_settings(self, frame: SettingsFrame) -> bool:
        self.idle_talk()
        if frame.body_len > _MOST_SETTINGS * _SETTING_BYTES:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A flood of settings.")
        # h2 would remember every number that it does not know, 65,530 of them.
        frame.settings = {key: value for key, value in frame.settings.items() if key in _KNOWN}
        return True


def _without_priority(tolls: Tolls, frame: HeadersFrame) -> bool:  # noqa: ARG001 (see `_TAKES`)
    # RFC 9113, 5.3.2: priorities are deprecated. h2 ends the connection for odd ones.
    frame.flags.discard("PRIORITY")
    return True


_TAKES: dict[type[Frame], Callable[[Tolls, Any], bool]] = {
    HeadersFrame: _without_priority,
    DataFrame: Tolls._take_data,  # noqa: SLF001 (its own module)
    WindowUpdateFrame: Tolls._take_update,  # noqa: SLF001 (its own module)
    SettingsFrame: Tolls._take_settings,  # noqa: SLF001 (its own module)
    PingFrame: Tolls._take_ping,  # noqa: SLF001 (its own module)
    PriorityFrame: Tolls._take_idle,  # noqa: SLF001 (its own module)
    ExtensionFrame: Tolls._take_idle,  # noqa: SLF001 (its own module)
    AltSvcFrame: Tolls._take_idle,  # noqa: SLF001 (its own module)
}
