"""A test that leaves something open under uvloop fails, and stops no other."""

from __future__ import annotations

import sys
from pathlib import Path

import tests
from tests.fakes.child import plain_environment, run

HOOKS = """
from tests.conftest import pytest_runtest_teardown
from tests.fakes.loops import BOTH

def pytest_asyncio_loop_factories():
    return {"uvloop": BOTH["uvloop"]}
"""
TWO_TESTS = """
import asyncio

kept = []

async def test_leaves():
    kept.append(await asyncio.start_server(lambda *_: None, "127.0.0.1", 0))

async def test_closes():
    (await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)).close()
"""


async def test_what_a_test_left_open_fails_it_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(HOOKS)
    (tmp_path / "test_open.py").write_text(TWO_TESTS)
    root = Path(tests.__path__[0]).parent
    settings = ["-c", str(root / "pyproject.toml"), "-p", "no:cacheprovider", "--tb=short"]
    done = await run(
        [sys.executable, "-m", "pytest", "-q", *settings, str(tmp_path)],
        env=plain_environment(tmp_path, {"PYTHONPATH": str(root)}),
    )

    assert "2 passed, 1 error" in done.out, done.out
    assert "left open: ['unclosed resource <TCPServer" in done.out
    assert "ERROR test_open.py::test_leaves" in done.out
