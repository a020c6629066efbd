"""Ways to a Node service: straight, and through the proxy and a protected front."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Literal

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.node import NodeServer
from tests.fakes.proxies import Proxies


class Ways:
    """Starts services and answers with the URL that a caller uses.

    Tests that take `ways` run twice, ``direct`` and ``proxied``: what a peer does by itself
    is the measure of what it must do through the proxy.
    """

    def __init__(
        self,
        kind: Literal["direct", "proxied"],
        metadata: MetadataServer,
        proxies: Proxies,
        stack: AsyncExitStack,
    ) -> None:
        self.kind = kind
        self._metadata = metadata
        self._proxies = proxies
        self._stack = stack

    async def to(self, script: str, *arguments: str) -> str:
        """Start a service of this folder and return where to call it."""
        app = await self._stack.enter_async_context(NodeServer(script, *arguments))
        if self.kind == "direct":
            return app.url
        front = ProtectedService(self._metadata.keys, app=app.address)
        await self._stack.enter_async_context(front)
        return (await self._proxies.to(front)).url
