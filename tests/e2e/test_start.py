"""What the start costs: an instance of Cloud Run starts while a caller waits."""

from __future__ import annotations

import asyncio
import re
import socket
import sys

from proxy.emulator.service import ProtectedService
from tests.fakes.proxies import Proxies
from tests.fakes.sessions import session

# Python's own account of imports: "import time: self | cumulative | name".
AN_IMPORT = re.compile(r"import time: +\d+ \| +\d+ \| *(\S+)")

# None of them is needed to answer; each takes 5 to 200 ms.
UNNEEDED = (
    "aiohttp", "prometheus_client", "opentelemetry", "google", "requests", "urllib3",
    "cryptography", "email", "importlib.resources", "shutil", "bz2", "lzma", "secrets", "hmac",
    "importlib.metadata", "http.client", "http.cookies", "multiprocessing", "platform", "tempfile",
    "xml", "unittest", "sqlite3", "proxy.doctor", "proxy.emulator", "proxy.workers",
    "proxy.ops.metrics", "proxy.ops.otel", "proxy.identity.googleauth",
)  # fmt: skip

MOST = 380
"""Modules in all, the standard library's included: 336 with Python 3.11, and room for others."""


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


# Runs a command whose start fails as late as it can, and says how often the collector ran.
COUNTED = """
import gc, sys
from proxy.cli import main
seen = []
gc.callbacks.append(lambda phase, _: seen.append(phase) if phase == "start" else None)
code = main(sys.argv[1:])
print(code, len(seen), gc.isenabled())
"""


async def test_the_collector_does_not_look_at_what_the_start_makes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNTED, "https://127.0.0.1:9", "--listen", listen,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        said, _ = await process.communicate()

    code, collections, is_enabled = said.split()
    assert code == b"69"
    assert int(collections) <= 5  # 1 with Python 3.11; 42 with a collector that runs all the time.
    assert is_enabled == b"True"
