"""Ten reloads and one SIGTERM under steady load: nothing is lost but what the drain cuts.

A few seconds long; `AUTH_PROXY_TEST_SECONDS=60` makes it a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.chaos.app import App
from tests.chaos.traffic import WELL_BEHAVED, Traffic, UploadSilence
from tests.fakes.lifelines import living
from tests.fakes.program import Program
from tests.fakes.proxies import config_for

SECONDS = float(os.environ.get("AUTH_PROXY_TEST_SECONDS", "6"))
RELOADS = 10
TAKEN = "SIGHUP: the configuration was taken"

pytestmark = [
    pytest.mark.timeout(60 + 4 * SECONDS),
    pytest.mark.parametrize("workers", [1, 2]),
]


@asynccontextmanager
async def protected(metadata: MetadataServer) -> AsyncIterator[tuple[App, ProtectedService]]:
    async with App() as app, ProtectedService(metadata.keys, app=app.address) as service:
        yield app, service


async def test_ten_reloads_lose_nothing(
    metadata: MetadataServer, tmp_path: Path, workers: int
) -> None:
    async with protected(metadata) as (app, service):
        texts = _configurations(service, tmp_path, workers)
        program = Program(texts[0], env=metadata.environ)
        async with living(program):
            traffic = Traffic(program.address, WELL_BEHAVED)
            traffic.start()
            for number in range(RELOADS):
                await asyncio.sleep(SECONDS / (RELOADS + 1))
                program.config_file.write_text(texts[(number + 1) % len(texts)])
                program.signal(signal.SIGHUP)
                await program.line(lambda _, n=number: _taken(program) > n)  # type: ignore[misc]  # a lambda's default
            await asyncio.sleep(SECONDS / (RELOADS + 1))
            await program.terminate()
            await program.record(message="SIGTERM: draining")
            await traffic.stop()

        assert traffic.problems == []
        assert traffic.bad == {}
        assert traffic.good > 20 * SECONDS
        await program.record(message="drained", cut=0)
        _assert_only_valid_tokens(service)
        assert app.bad_uploads == 0


async def test_what_goes_on_when_the_drain_is_over_is_cut_and_counted(
    metadata: MetadataServer, tmp_path: Path, workers: int
) -> None:
    drain = 1.0
    async with protected(metadata) as (app, service):
        # Without the delay, a moment in which no caller asks anything would be the end.
        ending = {"drain": f"{drain:g}s", "sigterm_delay": "1m"}
        text = _configurations(service, tmp_path, workers, **ending)[0]
        program = Program(text, env=metadata.environ)
        async with living(program):
            traffic = Traffic(program.address, WELL_BEHAVED)
            traffic.start()
            await asyncio.sleep(SECONDS / 4)
            signalled = time.monotonic()
            await program.terminate()
            assert await program.exit_code() == 0
            await traffic.stop()

        assert traffic.problems == []
        for trouble in traffic.bad:
            assert traffic.first(trouble) >= signalled + drain, trouble
        # Silence is where a request crossed with the end of an idle connection.
        lost = UploadSilence.outcome
        assert set(traffic.bad) <= {"error draining", "cut", "silence", lost, "refused"}
        visible = traffic.outcomes["error draining"] + traffic.outcomes["cut"]
        (counted,) = [r["cut"] for r in program.records() if "cut" in r]
        assert visible <= counted <= visible + traffic.outcomes[lost]
        assert counted > 0
        _assert_only_valid_tokens(service)
        assert app.bad_uploads == 0


def _configurations(
    service: ProtectedService, tmp_path: Path, workers: int, **top: Any
) -> list[str]:
    """Three that serve the same; routes, pools, limits, listeners and the log differ."""
    common: dict[str, Any] = {"workers": workers, **top}
    one = json.loads(config_for(service, route={}, **common))
    two = json.loads(
        config_for(
            service,
            route={"limits": {"connections": 64}, "timeouts": {"idle": "20s"}},
            log={"level": "debug"},
            **common,
        )
    )
    two["routes"]["more"] = {
        "listen": f"unix:{tmp_path}/more.sock",
        "upstream": service.url,
        "ca_file": str(service.ca_file),
    }
    three = json.loads(config_for(service, route={"path": "/"}, **common))
    three["routes"]["small"] = {**three["routes"]["default"], "path": "/bytes"}
    return [json.dumps(each) for each in (one, two, three)]


def _assert_only_valid_tokens(service: ProtectedService) -> None:
    assert [seen.refusal for seen in service.requests if seen.claims is None] == []


def _taken(program: Program) -> int:
    return sum(TAKEN in line for line in program.lines)
