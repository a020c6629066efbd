"""Writes of many streams, made once per connection.

One segment can bring frames of a hundred streams, each of which sends something to the same
connection on the other side.  While a segment is being taken, connections that have
something to write are only noted, and written when it is done.
"""

from __future__ import annotations

from typing import Final, Protocol


class Writer(Protocol):
    """A connection with something to write."""

    def write_out(self) -> None:
        """Write all that waits on the connection, in one call of its transport."""

    def tear(self, bug: Exception) -> None:
        """Close after an exception of ours."""


class Batch:
    """What is to be written when the segment under way is done."""

    __slots__ = ("_noted", "_open")

    def __init__(self) -> None:
        self._noted: list[Writer] = []
        self._open = False

    def begin(self) -> None:
        """Hold writes back; segments are never taken within segments."""
        self._open = True

    def end(self) -> None:
        """Write everything that was held back."""
        self._open = False
        while self._noted:
            writer = self._noted.pop()
            try:
                writer.write_out()
            except Exception as bug:  # noqa: BLE001 (the others are to be written)
                writer.tear(bug)

    def note(self, writer: Writer) -> None:
        """Write soon: at the end of the segment, or now if none is under way."""
        if self._open:
            self._noted.append(writer)
        else:
            writer.write_out()


# One for the process: everything on the data path happens on the loop's one thread.
BATCH: Final = Batch()
