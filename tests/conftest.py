"""What tests of every kind share: Google's side of the wire on this machine."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

import proxy
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import leaks
from tests.fakes.loops import pytest_runtest_teardown as pytest_runtest_teardown  # noqa: PLC0414 (a hook)

# A loaded machine makes single examples slow, which says nothing about the code.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


# A shell starts what shall run in the background with SIGINT ignored, and that is inherited: the
# programs under test would not hear it either.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IS_COMPILED = proxy.build() == "compiled"

# They derive from a connection that has no sockets; compiled, it is met through real ones, by
# tests/wire/http2 and by h2spec.
collect_ignore = (
    ["unit/plane/http2/test_connection.py", "unit/plane/http2/test_oracle.py"]
    if IS_COMPILED
    else []
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what only the pure program lets one test."""
    for item in items:
        if IS_COMPILED and item.get_closest_marker("pure") is not None:
            item.add_marker(pytest.mark.skip(reason="only the pure program can be looked into"))


@pytest.fixture
async def metadata() -> AsyncIterator[MetadataServer]:
    """A metadata server whose tokens verify; at the end it raises what it could not handle."""
    async with MetadataServer() as server:
        yield server


@pytest.fixture
async def service(metadata: MetadataServer) -> AsyncIterator[ProtectedService]:
    """A private service over TLS that admits tokens of `metadata` for its own URL, and echoes."""
    async with ProtectedService(metadata.keys) as server:
        yield server


class _Watch(logging.Handler):
    """Searches every record as it is logged; caplog forgets those of a phase with the phase."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 (such a record is what a test is about)
            text = repr((record.msg, record.args))
        leaks.look(f"the log of {record.name}", text)


@pytest.fixture(autouse=True)
def no_token_is_shown() -> Iterator[None]:
    """Fail the test in which token material was read where it must not be.

    Searched are the log of the test's own process here, and by `leaks.look` what processes
    write, what callers are answered, and what admin listeners show.
    """
    leaks.take()
    watch = _Watch()
    logging.getLogger().addHandler(watch)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(watch)
    found = leaks.take()
    assert not found, f"a token is in: {found}"
