"""What holds after every test of this folder, whose program runs in the tests' own process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_exception_is_left_behind() -> Iterator[None]:
    """Compiled, a handler that waits leaves what it handles to all that come later.

    The first test that fails here is the one that did it: it stays so.
    """
    yield
    assert sys.exception() is None
