"""An upstream's transport: what is written to it, and whether it is read or has news."""

from __future__ import annotations

import asyncio
import select
from typing import cast

from proxy.plane.http1.turns import Turns
from proxy.plane.http1.upstream_phase import CLOSED, IDLE
from proxy.plane.tls import TlsTransport


class UpstreamTransport(Turns, asyncio.BufferedProtocol):
    """Collects a request until it is flushed; what reads responses is derived from it."""

    __slots__ = ("_has_large", "_out", "_phase", "_poll", "_tls", "wrote")

    def __init__(self) -> None:
        super().__init__()
        # For the life of the connection
        self._tls: TlsTransport | None = None
        """The transport, if it may have what the kernel does not have any more."""
        # For one attempt
        self._phase = IDLE
        self._out: list[bytes] = []
        self._has_large = False
        """Whether a large chunk is in what was collected."""
        self.wrote = False
        """Whether any byte of the current attempt left."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin idle."""
        self._transport = cast("asyncio.Transport", transport)
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._poll = poll.poll
        if isinstance(transport, TlsTransport):
            self._tls = transport

    def flush(self) -> None:
        """Write what was collected, as one piece: over TLS, one record."""
        out = self._out
        if not out or self._phase is CLOSED:
            return
        self.wrote = True
        if self._has_large:
            # Joined, it would be copied once more, into memory that is new each time.
            self._has_large = False
            self._transport.writelines(out)
        else:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def pause_response(self) -> None:
        """Stop reading."""
        self._pause()

    def resume_response(self) -> None:
        """Go on reading."""
        self._resume()

    @property
    def is_closed(self) -> bool:
        """Whether it can serve nobody any more."""
        return self._phase is CLOSED

    @property
    def is_over(self) -> bool:
        """Whether nothing is read or written any more."""
        return self._phase is CLOSED

    def is_quiet(self) -> bool:
        """Ask the kernel whether the far end has sent something meanwhile, a FIN included."""
        return not (self._poll(0) or (self._tls is not None and self._tls.has_unread))
