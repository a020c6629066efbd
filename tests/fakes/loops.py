"""Event loops of the tests: both kinds, and what one of them needs at its end."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Generator

import pytest
import uvloop

BOTH: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}

UNCLOSED = "unclosed resource <"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Fail the test that left something open when uvloop was closed.

    uvloop warns of it in the midst of closing (0.23, UVHandle._warn_unclosed).  Raised there, as
    any other warning is in this suite, it interrupts the closing, and the loop waits without end:
    one test that fails before it has closed its listener would stop all of them.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.filterwarnings("always", UNCLOSED, ResourceWarning)
        yield
    left = [text for one in warned if (text := str(one.message)).startswith(UNCLOSED)]
    if left:
        pytest.fail(f"left open: {left}", pytrace=False)
