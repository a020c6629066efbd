"""Which protocol an exchange travels by, and the pool that has connections of it."""

from __future__ import annotations

from collections import Counter
from typing import Final, final
from typing import Protocol as Interface

from proxy.config.model import Protocol
from proxy.errors import UpstreamLacksHttp2
from proxy.plane.codec import UpstreamCodec
from proxy.plane.head import RequestHead
from proxy.plane.http1.pool import Pool
from proxy.plane.http2.pool import StreamPool
from proxy.plane.http2.upstream import OnlyHttp1
from proxy.plane.limit import Applicant
from proxy.plane.stats import Connections

_GRPC_HINT: Final = (
    "gRPC cannot be translated to HTTP/1.1: have the upstream serve HTTP/2"
    " (on Cloud Run every service does)."
)


class Connector(Interface):
    """Where an exchange gets a connection to the upstream from."""

    def take(self, applicant: Applicant) -> UpstreamCodec | None:
        """Return one that is ready, or None where it must be awaited with `acquire`."""

    async def acquire(
        self, timeout: float, applicant: Applicant, *, fresh: bool = False
    ) -> UpstreamCodec:
        """Return one, waiting for a place and a dial for at most `timeout` seconds each.

        `fresh` asks for one that nobody has used.  Raises the `ProxyError` that says why not.
        """

    def completed(self, applicant: Applicant) -> None:
        """Note that a request that waits in `acquire` is whole now."""


@final
class Pools:
    """The connections to one route's upstream, of both protocols."""

    __slots__ = ("_either", "_grpc", "_http1", "_no_grpc", "_streams", "_upgrades")

    def __init__(self, http1: Pool, streams: StreamPool) -> None:
        self._http1 = http1
        self._streams = streams
        self._either = _Either(http1, streams)
        self._upgrades = _Upgrades(http1)
        self._grpc = _OnlyHttp2(streams)
        self._no_grpc = _NoGrpc(streams.origin)

    def connectors(self, configured: Protocol) -> dict[str, Connector]:
        """Return where exchanges find their upstream, by what their caller speaks (h1, h2).

        `configured` is the route's protocol.
        """
        by_protocol: dict[str, Connector] = {"h1": self._http1, "h2": self._either}
        if configured is Protocol.AUTO:
            return by_protocol
        return dict.fromkeys(by_protocol, by_protocol[configured.value])

    def special(self, head: RequestHead, configured: Protocol) -> Connector:
        """Return where an exchange finds it that leaves no choice: an upgrade, or gRPC."""
        if head.upgrade:
            return self._upgrades
        return self._no_grpc if configured is Protocol.H1 else self._grpc

    def count_dials(self, dials: Counter[str]) -> None:
        """Count dials there from now on, by outcome."""
        self._http1.dials = self._streams.dials = dials

    def connections(self) -> Connections:
        """Return the counts of this moment."""
        one, two = self._http1.connections(), self._streams.connections()
        return Connections(
            one.idle + two.idle,
            one.busy + two.busy,
            one.dialling + two.dialling,
            one.waiting + two.waiting,
        )

    def close(self) -> None:
        """Close what is idle now and the rest when its exchanges have ended."""
        self._http1.close()
        self._streams.close()


@final
class _Upgrades:
    """HTTP/1.1, because HTTP/2 cannot switch protocols (RFC 9113, 8.6); while tunnels are few."""

    __slots__ = ("_http1",)

    def __init__(self, http1: Pool) -> None:
        self._http1 = http1

    def take(self, applicant: Applicant) -> UpstreamCodec | None:  # noqa: ARG002 (the interface)
        return None

    async def acquire(
        self, timeout: float, applicant: Applicant, *, fresh: bool = False
    ) -> UpstreamCodec:
        self._http1.check_tunnels()
        return await self._http1.acquire(timeout, applicant, fresh=fresh)

    def completed(self, applicant: Applicant) -> None:
        self._http1.completed(applicant)


@final
class _Either:
    """HTTP/2 where the upstream speaks it, else HTTP/1.1."""

    __slots__ = ("_http1", "_streams")

    def __init__(self, http1: Pool, streams: StreamPool) -> None:
        self._http1 = http1
        self._streams = streams

    def take(self, applicant: Applicant) -> UpstreamCodec | None:
        if self._streams.is_declined:
            return self._http1.take(applicant)
        return self._streams.take(applicant)

    async def acquire(
        self, timeout: float, applicant: Applicant, *, fresh: bool = False
    ) -> UpstreamCodec:
        if not self._streams.is_declined:
            try:
                return await self._streams.acquire(timeout, applicant, fresh=fresh)
            except OnlyHttp1:
                pass
        return await self._http1.acquire(timeout, applicant, fresh=fresh)

    def completed(self, applicant: Applicant) -> None:
        self._http1.completed(applicant)


@final
class _OnlyHttp2:
    """For gRPC: HTTP/2, or an error that says why it cannot be had."""

    __slots__ = ("_streams",)

    def __init__(self, streams: StreamPool) -> None:
        self._streams = streams

    def take(self, applicant: Applicant) -> UpstreamCodec | None:
        return self._streams.take(applicant)

    async def acquire(
        self, timeout: float, applicant: Applicant, *, fresh: bool = False
    ) -> UpstreamCodec:
        try:
            return await self._streams.acquire(timeout, applicant, fresh=fresh)
        except OnlyHttp1 as error:
            raise UpstreamLacksHttp2(
                f"gRPC needs HTTP/2, which {self._streams.origin} does not speak: {error}.",
                hint=_GRPC_HINT,
            ) from None

    def completed(self, applicant: Applicant) -> None:
        """HTTP/2 has a place for everybody."""


@final
class _NoGrpc:
    """A route that is configured not to speak HTTP/2."""

    __slots__ = ("_origin",)

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def take(self, applicant: Applicant) -> UpstreamCodec | None:  # noqa: ARG002 (the interface)
        return None

    async def acquire(
        self,
        timeout: float,  # noqa: ARG002 (the interface)
        applicant: Applicant,  # noqa: ARG002 (the interface)
        *,
        fresh: bool = False,  # noqa: ARG002 (the interface)
    ) -> UpstreamCodec:
        raise UpstreamLacksHttp2(
            f"gRPC needs HTTP/2, but the route speaks HTTP/1.1 to {self._origin} (protocol: h1).",
            hint="Remove `protocol: h1` from the route.",
        )

    def completed(self, applicant: Applicant) -> None:
        """Nothing to do: nobody ever waits for what is refused."""
