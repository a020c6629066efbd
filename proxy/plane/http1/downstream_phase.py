"""What the next bytes from a caller are."""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """What the next bytes from the caller are."""

    HEAD = 0
    LENGTH = 1
    CHUNKED = 2
    NEXT = 3
    """The request is whole; what comes belongs to later ones and waits."""
    TUNNEL = 4
    DISCARD = 5
    """The last response was sent; what still comes is read only to be thrown away."""
    CLOSED = 6


# Plain names for the hot path: see `proxy.plane.state`.
HEAD, LENGTH, CHUNKED, NEXT, TUNNEL, DISCARD, CLOSED = Phase
