"""A proxy in this process, with peers that speak in frames; every test runs on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.config.model import Protocol
from tests.fakes import loops
from tests.fakes.framed_world import Framed
from tests.fakes.wired import Wired


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return loops.BOTH


@pytest.fixture
async def wired() -> AsyncIterator[Wired]:
    """A proxy whose upstream speaks HTTP/1.1 and answers everything with `ok`."""
    async with Wired(automatic=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as world:
        await world.serve(protocol=Protocol.H1)
        yield world


@pytest.fixture
async def framed() -> AsyncIterator[Framed]:
    """A proxy whose upstream speaks HTTP/2 and does nothing but what the test says."""
    async with Framed() as world:
        yield world
