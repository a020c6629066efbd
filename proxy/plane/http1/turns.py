"""One connection's share of a turn of the loop: others have theirs before it goes on.

libuv reads a socket up to 32 times in a row as long as each read fills the buffer, 8 MB; and what
one segment holds can be ten thousand chunks, or requests that are answered at once.  So a
connection that had a full segment, or as many messages or chunks as a millisecond or two takes,
is not read for the rest of the turn, and goes on with what is left in the next; callers, when it
comes to them: those that use up their turns have one together (`proxy.plane.http2.share`).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from proxy.plane.codec import UNCONNECTED

SEGMENT_BYTES: Final = 192 * 1024
"""What comes in one piece of that size has filled a read buffer: more is there."""

STEPS: Final = 16
"""Heads, bodies and parts of bodies that are taken from one segment in one turn."""


class Turns(ABC):
    """Whether a transport is read: not while a pause is asked for, and not while it rests."""

    __slots__ = ("_partial", "_paused", "_resting", "_share", "_transport")

    def __init__(self) -> None:
        self._transport: asyncio.Transport = UNCONNECTED
        self._paused = False
        """Whether somebody has asked for a pause."""
        self._resting = False
        """Whether it goes on in the next turn."""
        self._share = STEPS
        """What it may still do in this one."""
        self._partial = b""
        """What has come and is not taken yet: a part of a head, what belongs to a later message, or
        what was too much for one turn."""

    def _pause(self) -> None:
        if not self._paused and not self.is_closed:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self.is_closed:
            self._paused = False
            if self._partial:
                self._end_turn()  # That comes first.
            else:
                self._read_on()

    def _end_turn(self) -> None:
        """Take nothing more in this turn."""
        if not self._resting and not self.is_closed:
            self._resting = True
            self._transport.pause_reading()
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        """See to it that `_go_on` is called."""
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take what was left, then read."""
        self._resting = False
        if self._paused or self.is_closed:
            return
        if self._partial:
            data, self._partial = self._partial, b""
            self._take(data)
        self._read_on()

    def _read_on(self) -> None:
        if not (self._resting or self._paused or self.is_closed):
            self._transport.resume_reading()

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Whether nothing is read or written any more."""

    @abstractmethod
    def _take(self, data: bytes) -> None:
        """Handle what has come, as far as one turn allows, and keep the rest."""
