"""A header block that is not taken at once (RFC 9113, 4.3).

It comes in several frames, between which nothing else may come: nothing answers a block before it
is whole, so one that never ends is bounded here, by bytes and, since frames may be empty, by frames
(CVE-2024-27316).
"""

from __future__ import annotations

from typing import Final, final

from proxy.plane.http2.standard import Code, ConnectionFault

# Frames that one header block may take: 16 KiB each, that is far beyond any limit.
_LONGEST_BLOCK: Final = 64

# A block may be this many times as long as what it may decode to: one that is merely too large
# is decoded, so that its stream gets an answer and the others go on.
_BLOCK_SHARE: Final = 4


@final
class Block:
    """What has come of one."""

    __slots__ = ("_most", "_pieces", "_size", "ended", "stream")

    def __init__(self, stream: int, limit: int, *, ended: bool) -> None:
        """It opens or ends `stream`; `limit` is what it may decode to (bytes)."""
        self.stream = stream
        self.ended = ended
        self._most = limit * _BLOCK_SHARE
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, payload: bytes) -> None:
        """Put the next frame's part behind the others.

        Raises:
            ConnectionFault: it does not end.
        """
        self._pieces.append(payload)
        self._size += len(payload)
        if self._size > self._most or len(self._pieces) > _LONGEST_BLOCK:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block does not end.")

    def whole(self) -> bytes:
        """Return all of it."""
        return b"".join(self._pieces)
