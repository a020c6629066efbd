"""Which protocol a caller speaks: its first bytes tell (RFC 9113, 3.3 and 3.4).

HTTP/2 with prior knowledge begins with a preface that is no HTTP/1.1 request.  Once that is
decided the connection belongs to its codec, and costs nothing more for having been looked at.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, cast

from proxy.plane import descriptors
from proxy.plane.codec import UNCONNECTED, Host
from proxy.plane.http2.downstream import Http2Downstream
from proxy.plane.http2.standard import PREFACE

IDLE_TIMEOUT: Final = 600.0  # Seconds that a caller may keep a connection without a request.
# The same where no descriptor is left, and all that comes is a refusal.
CROWDED_TIMEOUT: Final = 2.0
PREFACE_TIMEOUT: Final = 30.0  # Seconds from the first byte of a preface to its last.


class Detector(asyncio.Protocol):
    """Serves a connection until its protocol is known."""

    __slots__ = ("_begun", "_host", "_http1", "_transport", "deadline")

    def __init__(self, host: Host, http1: Callable[[Host], asyncio.Protocol]) -> None:
        """`http1` makes what serves a caller that does not speak HTTP/2."""
        self._host = host
        self._http1 = http1
        self._transport: asyncio.Transport = UNCONNECTED
        self._begun = b""
        self.deadline = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = cast("asyncio.Transport", transport)
        sweeper = self._host.sweeper
        self.deadline = sweeper.clock() + IDLE_TIMEOUT
        sock = transport.get_extra_info("socket")
        if sock is not None and (within := descriptors.beyond(sock.fileno())):
            self._host = self._host.crowded()
            self.deadline = sweeper.clock() + CROWDED_TIMEOUT
            if within > descriptors.REFUSALS:
                self._transport.abort()
        sweeper.add(self)
        self._host.opened(self)

    def data_received(self, data: bytes) -> None:
        """Decide as soon as the bytes tell."""
        data = self._begun + data
        if data.startswith(PREFACE):
            self._hand_over(Http2Downstream(self._host), data[len(PREFACE) :])
        elif PREFACE.startswith(data):
            if not self._begun:
                self.deadline = self._host.sweeper.clock() + PREFACE_TIMEOUT
            self._begun = data
        else:
            self._hand_over(self._http1(self._host), data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        """Take the end of a caller that never said anything."""
        self._leave()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002 (the sweeper's signature)
        """End a connection on which nothing happens."""
        self._transport.abort()

    @property
    def is_busy(self) -> bool:
        """Tell that nothing is under way."""
        return False

    def drain(self) -> None:
        """Wait for the first request: its codec will say so."""

    def shut(self) -> None:
        """End the connection because the process ends."""
        self._transport.close()

    def _hand_over(self, codec: asyncio.Protocol, data: bytes) -> None:
        self._leave()
        self._transport.set_protocol(codec)
        codec.connection_made(self._transport)
        if data:
            codec.data_received(data)

    def _leave(self) -> None:
        self._host.sweeper.discard(self)
        self._host.closed(self)
