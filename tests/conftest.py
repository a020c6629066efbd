"""What tests of every kind share: Google's side of the wire on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.program import A_TOKEN

# A loaded machine makes single examples slow, which says nothing about the code.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


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


@pytest.fixture(autouse=True)
def no_token_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Search what every test has logged for token material; `Program` does so for processes."""
    yield
    found = [record.name for record in caplog.records if A_TOKEN.search(record.getMessage())]
    assert not found, f"a token is in the log of {found}"
