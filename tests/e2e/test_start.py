"""What the start costs: an instance of Cloud Run starts while a caller waits."""

from __future__ import annotations

import re

from proxy.emulator.service import ProtectedService
from tests.fakes.proxies import Proxies
from tests.fakes.sessions import session

# Python's own account of imports: "import time: self | cumulative | name".
AN_IMPORT = re.compile(r"import time: +\d+ \| +\d+ \| *(\S+)")

# None of them is needed to answer; each takes 5 to 200 ms.
UNNEEDED = (
    "aiohttp", "prometheus_client", "opentelemetry", "google", "requests", "urllib3",
    "cryptography", "email", "importlib.resources",
    "importlib.metadata", "http.client", "http.cookies", "multiprocessing", "tempfile",
    "xml", "unittest", "sqlite3", "proxy.doctor", "proxy.emulator", "proxy.workers",
    "proxy.ops.metrics", "proxy.ops.otel", "proxy.identity.googleauth",
)  # fmt: skip

MOST = 430
"""Modules in all, the standard library's included: 395 with Python 3.11, and room for others."""


async def test_nothing_is_imported_before_it_is_needed(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service, env={"PYTHONPROFILEIMPORTTIME": "1"})
    async with session() as caller, caller.get(f"{proxy.url}/hello") as response:
        assert response.status == 200
    async with session() as caller, caller.get(f"{proxy.admin_url}/startup") as probe:
        assert probe.status == 200

    imported = [found[1] for line in proxy.lines if (found := AN_IMPORT.match(line))]

    assert "proxy.server" in imported, "the account of imports is not there"
    unneeded = [
        name for name in imported if any(f"{name}.".startswith(f"{each}.") for each in UNNEEDED)
    ]
    assert unneeded == []
    assert len(imported) <= MOST, len(imported)
