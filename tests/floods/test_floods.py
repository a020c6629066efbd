"""Floods, in short: attackers are told to stop, memory is bounded, calls of others succeed.

How fast others are served meanwhile is for `make floods`, which has Envoy beside it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.chaos.app import App
from tests.chaos.invariants import still_busy
from tests.fakes.program import Program
from tests.floods.attacks import ATTACKS, MIB, Attacker, Paths, allow_many_files
from tests.floods.caller import Caller

PATHS = Paths(small=b"/bytes/1/100", large=b"/bytes/1/1000000", sink=b"/upload/1/1000000")

RATE = 50.0
CALLS = 50
"""That are made while an attack goes on: for a second."""
ENDS = 5
"""Connections that attack at once, and that have to be ended."""
MANY = 100
LASTING = 500
"""Connections of an attack that is their number: by hand it has more of them."""
PATIENCE = 30.0

MOST_MIB = 64
"""That an attack may take: 500 downloads hold the 64 KiB each that may wait, and a segment."""

# One program for all: each flood has to leave it as it was.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def program() -> AsyncIterator[Program]:
    allow_many_files()
    async with App() as app:
        route = {"upstream": f"http://127.0.0.1:{app.address[1]}", "protocol": "h1"}
        limits = {"limits": {"connections": 3000}}
        document = {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "log": {"access": "off"},
            "routes": {"default": {**route, **limits}},
        }
        async with Program(json.dumps(document)) as running:
            yield running


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_flood_is_stopped_and_others_are_served(program: Program, name: str) -> None:
    whole = ATTACKS[name]
    many = whole.connections > MANY
    attack = replace(whole, connections=LASTING if many else ENDS)
    port = program.address[1]
    attacker = Attacker(attack, port, PATHS)
    caller = Caller(port, PATHS.small.decode(), RATE)
    before = program.rss_bytes()
    program.forget_peak()

    attacker.start()
    caller.start()
    async with asyncio.timeout(PATIENCE):
        await caller.answered(CALLS)
        if not attack.lasts:
            await attacker.ended(ENDS)
    seen, ends = caller.take(), dict(attacker.ends)
    grown = program.peak_bytes() - before
    await caller.stop()
    await attacker.stop()

    assert seen.failures == []
    assert len(seen.milliseconds) >= CALLS
    assert set(ends) == attack.ends or (attack.lasts and set(ends) <= attack.ends), ends
    assert grown < MOST_MIB * MIB
    assert await still_busy(program) == []
