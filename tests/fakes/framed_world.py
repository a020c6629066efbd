"""The data path in this process between peers that speak HTTP/2 in frames."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proxy.config.model import Upstream
from proxy.plane.http2.upstream import Http2Upstream
from tests.fakes.framed import WIDE, FramedCaller, FramedUpstream
from tests.fakes.wired import Wired


async def frame_caller(
    wired: Wired, *, window: int = WIDE, connection_window: int = WIDE
) -> FramedCaller:
    """Connect and exchange settings; the test enters and leaves the connection."""
    loop = asyncio.get_running_loop()
    address = wired.address
    _, caller = await loop.create_connection(
        lambda: FramedCaller(window=window, connection_window=connection_window),
        address.host,
        address.port,
    )
    # So that no acknowledgement comes between the bytes that the test sends.
    await caller.until(lambda: caller.settings and caller.acknowledged, "settings")
    return caller


class Framed(Wired):
    """As `Wired`, with an upstream that speaks HTTP/2."""

    def __init__(
        self,
        upstream: FramedUpstream | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        ca_file: Path | None = None,
        **route: Any,
    ) -> None:
        """`route` are fields of the one route; `tls` is what the upstream serves with."""
        super().__init__()
        self.framed = upstream or FramedUpstream()
        self._tls = tls
        self._ca_file = ca_file
        self._route = route

    async def serve(self, **changes: Any) -> None:
        """Serve one route to the upstream in frames; `changes` are its fields."""
        if self._tls:
            upstream = Upstream("https", "localhost", self.framed.port)
        else:
            upstream = Upstream("http", "127.0.0.1", self.framed.port)
        fields = {"upstream": upstream, "ca_file": self._ca_file, **self._route, **changes}
        await super().serve(**fields)

    @property
    def http2_connections(self) -> list[Http2Upstream]:
        """The proxy's connections to the upstream that take streams."""
        return self.builder.routes["default"].destinations[0].pools._streams._connections

    async def frames(self, **windows: int) -> FramedCaller:
        """Connect; the connection ends with the test at the latest."""
        caller = await frame_caller(self, **windows)
        return await self._stack.enter_async_context(caller)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.framed.start(self._tls)
        await self.serve()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            await self.framed.stop()
