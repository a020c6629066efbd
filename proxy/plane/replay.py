"""The part of a request's body that is kept: what waits for an upstream, and for a repeat."""

from __future__ import annotations

from typing import Final, final

SMALL_BYTES: Final = 64 * 1024  # Of a body that is looked at, to name in an error what failed.


@final
class Replay:
    """Holds the body from its beginning for as long as that is useful and small."""

    __slots__ = ("_limit", "pieces", "size", "whole")

    def __init__(self, limit: int) -> None:
        """`limit` is the largest body that is kept once it has been sent (bytes)."""
        self._limit = limit
        self.pieces: list[bytes] = []
        self.size = 0
        self.whole = True
        """Whether the pieces are all that came so far: the condition of a repeat."""

    def hold(self, data: bytes) -> None:
        """Keep data that nobody could be sent yet: it is kept whatever its size."""
        self.pieces.append(data)
        self.size += len(data)

    def sent(self, data: bytes) -> None:
        """Keep data that was sent, or give up keeping where it grows too large."""
        if self.whole:
            self.hold(data)
            self.trim()

    def joined(self) -> bytes:
        """Return what is kept, in one piece: it may have come byte by byte."""
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0] if self.pieces else b""

    def small(self) -> bytes:
        """Return what came so far if all of it is kept and small, else nothing."""
        return b"".join(self.pieces) if self.size <= SMALL_BYTES else b""

    def trim(self) -> None:
        """Forget everything if it is more than a repeat may keep."""
        if self.size > self._limit:
            self.forget()

    def forget(self) -> None:
        """Give up: no repeat any more."""
        self.whole = False
        self.pieces.clear()
