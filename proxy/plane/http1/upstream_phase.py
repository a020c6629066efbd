"""What the next bytes from an upstream are."""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """What the next bytes from the upstream are."""

    IDLE = 0
    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    UNTIL_CLOSE = 4
    TUNNEL = 5
    CLOSED = 6


# Plain names for the hot path: see `proxy.plane.state`.
IDLE, HEAD, LENGTH, CHUNKED, UNTIL_CLOSE, TUNNEL, CLOSED = Phase
