"""A process that is frozen for longer than its timeouts, and what it makes of answers in time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.emulator.faults import Held
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.lifelines import GET, OK, between, calling_at, living
from tests.fakes.program import Program
from tests.fakes.proxies import config_for
from tests.fakes.raw import PATIENCE

TIMEOUT = 1.0  # Seconds.


@asynccontextmanager
async def frozen(program: Program) -> AsyncIterator[None]:
    """Stop the process for longer than `TIMEOUT`."""
    state = Path(f"/proc/{program.pid}/stat")
    if not state.exists():
        pytest.skip("needs /proc")
    program.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE):
            while state.read_text().rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 (a state of the kernel)
                await asyncio.sleep(0.01)
        yield
        await asyncio.sleep(TIMEOUT * 2.5)  # The freeze itself.
    finally:
        program.signal(signal.SIGCONT)


@pytest.mark.parametrize("timeout", ["response", "total"])
async def test_an_answer_that_came_meanwhile_is_passed_on(timeout: str) -> None:
    async with between(route={"timeouts": {timeout: f"{TIMEOUT:g}s"}}) as (
        upstream,
        program,
        caller,
    ):
        caller.send(GET)
        connection = await upstream.accept()
        await connection.request()
        async with frozen(program):
            connection.send(OK)
        assert (await caller.answer()).status == 200


async def test_a_body_that_went_on_meanwhile_is_not_cut() -> None:
    async with between(route={"timeouts": {"idle": f"{TIMEOUT:g}s"}}) as (
        upstream,
        program,
        caller,
    ):
        caller.send(GET)
        connection = await upstream.accept()
        await connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        await caller.until(lambda: caller.received.endswith(b"01234"), "the first half")
        async with frozen(program):
            connection.send(b"56789")
        assert (await caller.answer()).body == b"0123456789"


async def test_a_token_that_came_meanwhile_is_used(
    metadata: MetadataServer, service: ProtectedService, tmp_path: Path
) -> None:
    held = asyncio.Event()
    metadata.inject(Held(held))
    listen = f"unix:{tmp_path}/proxy.sock"
    route = {"timeouts": {"connect": f"{TIMEOUT:g}s"}}
    text = config_for(service, route=route, listen=listen)
    async with living(Program(text, env=metadata.environ), serving=False) as program:
        await metadata.requests.reached(1)
        await listening(tmp_path / "proxy.sock")
        async with calling_at(listen) as caller:
            caller.send(GET)
            async with frozen(program):
                held.set()
            assert (await caller.answer()).status == 200
        program.signal(signal.SIGTERM)


async def listening(path: Path) -> None:
    """Wait until a socket is bound."""
    async with asyncio.timeout(PATIENCE):
        while not path.exists():  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.01)
