"""h2spec, the conformance suite of HTTP/2, against the listener.

It is built with Go where that is to be had, and all of its cases hold but those in `DIFFERENCES`:
it was written for RFC 7540, and for listeners that speak nothing but HTTP/2.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import golang
from tests.fakes.proxies import Proxies

SUITE = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

DIFFERENCES = {
    "http2/3.5: Sends invalid connection preface": (
        "RFC 9113, 3.4: what begins otherwise is no HTTP/2, and the listener speaks HTTP/1.1, too: "
        "it gets a 400 in that."
    ),
    "http2/5.3.1: Sends HEADERS frame that depend on itself": (
        "RFC 9113, 5.3.2: priorities are deprecated, and ignored."
    ),
    "http2/5.3.1: Sends PRIORITY frame that depend on itself": (
        "RFC 9113, 5.3.2: priorities are deprecated, and ignored."
    ),
}


@pytest.fixture(scope="module")
def h2spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, or a skipped test where it cannot be built."""
    folder = tmp_path_factory.mktemp("h2spec")
    golang.build("install", SUITE, folder=folder)
    return folder / "h2spec"


async def run(program: Path, port: int, report: Path) -> dict[str, str]:
    """Run every case, the strict ones too; return what each says that did not hold."""
    child = await asyncio.create_subprocess_exec(
        program, "--host", "127.0.0.1", "--port", str(port), "--strict", "--timeout", "2",
        "--junit-report", report,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(100):
            await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 (h2spec's own)
    assert len(cases) == 146
    return {
        f"{case.get('package')}: {case.get('classname')}": ET.tostring(case, "unicode")
        for case in cases
        if len(case)
    }


@pytest.mark.timeout(240)  # It may have to be built.
async def test_all_cases_hold_but_those_that_are_listed(
    metadata: MetadataServer, proxies: Proxies, h2spec: Path, tmp_path: Path
) -> None:
    async with ProtectedService(metadata.keys) as service:
        proxy = await proxies.to(service, route={"protocol": "h1"})

        failed = await run(h2spec, proxy.address[1], tmp_path / "report.xml")

    assert set(failed) == set(DIFFERENCES), failed
