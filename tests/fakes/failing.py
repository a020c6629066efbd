"""A listener of the data path whose every answer is a failure of the proxy's own."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from proxy.clock import Clocks
from proxy.config.model import Address, ErrorFormat
from proxy.errors import REASONS
from proxy.plane.codec import DownstreamCodec, RequestSink
from proxy.plane.detect import Detector
from proxy.plane.head import RequestHead
from proxy.plane.http1.downstream import Http1Downstream
from proxy.plane.listen import Listener, listen
from proxy.plane.plane import ListenerHost, Plane
from proxy.plane.stats import Stats

ANSWERED = sorted(reason for reason in REASONS if reason != "downstream_gone")
"""Every reason that a caller can be told."""

DETAIL = 'It said "no": 100 % <grüße>.'


class _Host:
    """A `Host` that is an ordinary listener's but for what it admits."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.language = ErrorFormat.AUTO
        ordinary = ListenerHost(plane)
        self.draining = False
        self.on_path = False
        self.head_limit = ordinary.head_limit
        self.sweeper = ordinary.sweeper
        self.allowance = ordinary.allowance
        self.resets = ordinary.resets
        self.share = ordinary.share
        self.opened = ordinary.opened
        self.emptied = ordinary.emptied
        self.closed = ordinary.closed
        self.reject = ordinary.reject
        self.crowded = ordinary.crowded

    def connection(self) -> Detector:
        return Detector(self, Http1Downstream)

    def admit(self, codec: DownstreamCodec, head: RequestHead) -> RequestSink:
        reason = head.path.split(b"/")[1].decode()
        error = REASONS[reason](DETAIL)
        return self.plane.refuse(codec, head, error, "orders", self.language)


class Failing:
    """Answers every request with the failure whose reason its path begins with.

    As a context it listens on a free port, for HTTP/1.1 and HTTP/2.  `language` may be changed
    while it runs.
    """

    def __init__(self) -> None:
        self._host = _Host(Plane(Clocks(), Stats()))
        self._listener: Listener | None = None

    @property
    def language(self) -> ErrorFormat:
        """What the route's ``errors`` says."""
        return self._host.language

    @language.setter
    def language(self, language: ErrorFormat) -> None:
        self._host.language = language

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._listener is not None
        return self._listener.address

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://{self.address}"

    async def __aenter__(self) -> Self:
        self._listener = await listen(Address("127.0.0.1", 0), self._host.connection)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._host.plane.stop()
