"""The process and what is around it in trouble; see `surroundings` for the kinds.

`AUTH_PROXY_TEST_SEED` repeats a run, `AUTH_PROXY_TEST_SECONDS=60` makes each longer.  By hand, with
a table: `python -m tests.chaos.surroundings --seeds 20`.
"""

from __future__ import annotations

import asyncio
import os
import pty
import random
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.chaos import surroundings
from tests.chaos.app import App
from tests.chaos.traffic import Traffic
from tests.fakes.child import plain_environment
from tests.fakes.program import COMMAND, command
from tests.fakes.proxies import config_for

COMPILED = os.environ.get("TESTED_BUILD") == "compiled"
SECONDS = float(os.environ.get("AUTH_PROXY_TEST_SECONDS", "2"))
SEED = int(os.environ.get("AUTH_PROXY_TEST_SEED", random.randrange(10**6)))  # noqa: S311 (printed, to repeat)

# What machine code can do otherwise: to have no memory. The rest is no matter of how it was built.
KINDS = ["no memory"] if COMPILED else list(surroundings.KINDS)

pytestmark = pytest.mark.timeout(150 + 4 * SECONDS)


@pytest.mark.parametrize("name", KINDS)
async def test_whatever_happens_to_the_process_these_hold(name: str) -> None:
    kind = surroundings.KINDS[name]
    if kind.clock and surroundings.FAKETIME is None:
        pytest.skip("needs libfaketime")
    print(f"AUTH_PROXY_TEST_SEED={SEED}")
    # One form in each run of the suite, for the time that it takes; by hand, both.
    workers = random.Random(SEED).choice(kind.workers)  # noqa: S311 (repeatable)
    outcome = await surroundings.run(name, workers, SEED, SECONDS)

    assert outcome.breaches == []
    assert outcome.calls["good"] > SECONDS
    assert outcome.faults > 0


# --- whoever reads what it writes


def _pipe_that_nobody_reads() -> tuple[int, int]:
    return os.pipe()


def _terminal_that_was_stopped() -> tuple[int, int]:
    return pty.openpty()


def _socket_that_nobody_reads() -> tuple[int, int]:
    ours, its = socket.socketpair()
    return ours.detach(), its.detach()


def _pipe_whose_reader_has_gone() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.open(os.devnull, os.O_RDONLY), writer


def _full_disk() -> tuple[int, int]:
    return os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)


READERS: list[Callable[[], tuple[int, int]]] = [
    _pipe_that_nobody_reads,
    _terminal_that_was_stopped,
    _socket_that_nobody_reads,
    _pipe_whose_reader_has_gone,
    _full_disk,
]


@pytest.mark.skipif(COMPILED, reason="the log is not compiled")
@pytest.mark.parametrize("reader", READERS)
async def test_whatever_becomes_of_its_output_calls_are_served(
    reader: Callable[[], tuple[int, int]], metadata: MetadataServer, tmp_path: Path
) -> None:
    ours, its = reader()
    listen, admin = _free_port(), f"unix:{tmp_path}/admin.sock"
    async with App() as app, ProtectedService(metadata.keys, app=app.address) as service:
        more = {"listen": f"127.0.0.1:{listen}", "admin": admin, "workers": 2}
        file = tmp_path / "proxy.yaml"
        file.write_text(config_for(service, route={}, log={"access": "all"}, **more))
        process = await asyncio.create_subprocess_exec(
            COMMAND, "run", "--config", file, stdout=its, stderr=its,
            env=plain_environment(tmp_path, metadata.environ),
        )  # fmt: skip
        os.close(its)
        try:
            assert (await command("wait", "--admin", admin)).code == 0
            traffic = Traffic(("127.0.0.1", listen), {"small": 1})
            traffic.start()
            async with asyncio.timeout(60):
                # More than pipes, terminals and sockets hold: a line has some 200 bytes.
                while traffic.outcomes.total() < CALLS:  # noqa: ASYNC110 (callers tell no event)
                    await asyncio.sleep(0.01)
            await traffic.stop()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            os.close(ours)

        assert traffic.problems == []
        assert traffic.bad == {}


CALLS = 500


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port
