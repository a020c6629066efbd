"""What a downstream codec needs of the listener that it serves."""

from __future__ import annotations

import sys
from typing import Protocol

from proxy.config.model import Limits
from proxy.errors import ProxyError
from proxy.plane.codec import DownstreamCodec, RequestSink
from proxy.plane.head import NOBODY, RequestHead
from proxy.plane.http2.budget import Budget
from proxy.plane.sweeper import Sweeper


def head_limit(limits: Limits) -> int:
    """Return the bytes of the largest head that `limits` lets pass."""
    return limits.header_bytes or sys.maxsize


class Connection(Protocol):
    """A caller's connection, in whatever format it speaks."""

    @property
    def is_busy(self) -> bool:
        """Whether an exchange, or a response that has not left yet, is on it."""

    def drain(self) -> None:
        """Let the caller know that it should go elsewhere, where it can be told at once."""

    def shut(self) -> None:
        """End the connection because the process ends."""


class Host(Protocol):
    """What the codec needs of the listener that it serves."""

    head_limit: int
    """Bytes of the largest request head that any route takes."""
    allowance: Budget
    """What callers in HTTP/2 may cost all together (see `proxy.plane.http2.tolls`)."""
    sweeper: Sweeper

    draining: bool
    """Whether connections shall end with their next response."""

    def opened(self, connection: Connection) -> None:
        """Count a connection that began."""

    def emptied(self) -> None:
        """Note that a connection has nothing under way any more."""

    def closed(self, connection: Connection) -> None:
        """Count a connection that ended."""

    def admit(self, codec: DownstreamCodec, head: RequestHead) -> RequestSink:
        """Make the exchange of a request; it is not started yet."""

    def crowded(self) -> Host:
        """Return what a connection is served by for which no descriptor is left."""

    def reject(self, codec: DownstreamCodec, error: ProxyError, head: RequestHead = NOBODY) -> None:
        """Answer bytes that are no request; `head` is what can be known of it."""
