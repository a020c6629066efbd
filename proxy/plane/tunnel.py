"""A connection that has switched protocols (101): bytes both ways, until both ways have ended.

What is in it is not looked at.  Each direction ends for itself, as the closing handshakes of
what is spoken inside need; the exchange is over with the second.
"""

from __future__ import annotations

from typing import final

from proxy.plane.codec import DownstreamCodec, UpstreamCodec


@final
class Tunnel:
    """The two halves of a tunnel, and which of them has ended."""

    __slots__ = ("_down", "_down_ended", "_up", "up_ended")

    def __init__(self, down: DownstreamCodec, up: UpstreamCodec) -> None:
        self._down = down
        self._up = up
        self._down_ended = False
        self.up_ended = False

    def end_down(self) -> bool:
        """Pass on that the caller sends no more; return whether it is the second end."""
        self._down_ended = True
        if self.up_ended:
            return True
        self._up.send_end(b"")  # Within this call the upstream may end its half, too.
        return False

    def end_up(self) -> bool:
        """Pass on that the upstream sends no more; return whether it is the second end."""
        self.up_ended = True
        if self._down_ended:
            return True
        self._down.write_end(b"")
        return False

    def close(self) -> None:
        """Close both connections."""
        self._up.close()
        self._down.close()
