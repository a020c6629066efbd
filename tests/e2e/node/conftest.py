"""Node services with and without a proxy before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from proxy.emulator.metadata import MetadataServer
from tests.fakes.proxies import Proxies
from tests.fakes.ways import Ways


@pytest.fixture(params=["direct", "proxied"])
async def ways(
    request: pytest.FixtureRequest, metadata: MetadataServer, proxies: Proxies
) -> AsyncIterator[Ways]:
    """Ways to services, the same test straight and through the proxy."""
    async with AsyncExitStack() as stack:
        yield Ways(request.param, metadata, proxies, stack)
