"""The installed command in front of a protected service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from proxy.emulator.metadata import MetadataServer
from tests.fakes.collector import Collector
from tests.fakes.proxies import Proxies


@pytest.fixture
async def proxies(metadata: MetadataServer) -> AsyncIterator[Proxies]:
    """Starts proxies that get their tokens from `metadata`."""
    async with AsyncExitStack() as stack:
        yield Proxies(metadata, stack)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Receives spans and metrics; at the end it raises what it could not read."""
    async with Collector() as collector:
        yield collector
