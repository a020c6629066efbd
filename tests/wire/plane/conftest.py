"""Every test of this folder runs on both event loops: they differ where connections end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.fakes import loops
from tests.fakes.wired import Wired


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return loops.BOTH


@pytest.fixture
async def wired() -> AsyncIterator[Wired]:
    """A proxy whose upstream does nothing but what the test says."""
    async with Wired() as world:
        await world.serve()
        yield world
