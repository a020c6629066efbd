"""The metrics of a running proxy: all that there are, added up, and no series for a stranger."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from proxy import __version__, build
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from proxy.errors import REASONS
from tests.fakes.lifelines import calling
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies
from tests.fakes.scraping import FORMATS, METRICS, OPEN, Parser

Series = frozenset[tuple[str, frozenset[tuple[str, str]]]]

_REASON = "|".join(REASONS)
KNOWN = {
    "route": re.compile("default|dead|"),
    "protocol": re.compile("h1|h2|ws"),
    "code": re.compile(r"[1-5]\d\d"),
    "reason": re.compile(_REASON),
    "state": re.compile("idle|busy|dialling"),
    "outcome": re.compile(f"ok|fetched|unchanged|failed|timed_out|{_REASON}"),
    "cause": re.compile("connect_failed|reset|429|503|401"),
    "le": re.compile(r"[\d.e-]+|\+Inf"),
    "version": re.compile(re.escape(__version__)),
    "python": re.compile(re.escape(platform.python_version())),
    "build": re.compile(build()),
}
"""What each label may say here."""

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def document(service: ProtectedService, workers: int) -> str:
    route = {"upstream": service.url, "ca_file": str(service.ca_file)}
    again = {"attempts": 2, "on": ["connect_failed"], "backoff": "1ms"}
    return json.dumps(
        {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "workers": workers,
            "routes": {
                "default": {**route, "host": ["localhost"]},
                # Nobody listens on port 1.
                "dead": {
                    "host": ["localhost"],
                    "path": "/dead",
                    "upstream": "http://127.0.0.1:1",
                    "retries": again,
                },
            },
        }
    )


async def metrics(program: Program, accept: str = "*/*", parser: Parser = read_plain) -> Series:
    """Return the proxy's own series, each as its name and labels."""
    return frozenset(
        (sample.name, frozenset(sample.labels.items()))
        for metric in parser(await text(program, accept))
        if metric.name.startswith("auth_proxy_")
        for sample in metric.samples
    )


async def text(program: Program, accept: str = "*/*") -> str:
    return (await program.admin_answer("/metrics", accept)).partition(b"\r\n\r\n")[2].decode()


async def send(program: Program, requests: Iterable[str]) -> list[int]:
    """Send each over a connection of its own; return the statuses."""
    statuses = []
    for request in requests:
        async with calling(program) as caller:
            statuses.append((await caller.ask(request.encode())).status)
    return statuses


def get(path: str, host: str = "localhost", method: str = "GET", fields: str = "") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n"


def post(body: str) -> str:
    length = f"Content-Length: {len(body)}\r\n"
    return get("/x", method="POST", fields=length) + body


@WORKERS
@FORMATS
async def test_every_metric_of_the_contract_is_there_with_exactly_its_labels(
    proxies: Proxies, service: ProtectedService, accept: str, parser: Parser, workers: int
) -> None:
    program = await proxies.run(document(service, workers))
    assert await send(program, [get("/"), get("/dead"), post("four")]) == [200, 502, 200]

    found: dict[str, tuple[str, set[str]]] = {}
    for metric in parser(await text(program, accept)):
        if metric.name.startswith("auth_proxy_"):
            labels = {label for sample in metric.samples for label in sample.labels}
            found[metric.name] = (metric.type, labels - {"le"})
    assert found == METRICS


@WORKERS
async def test_numbers_are_added_up_and_agree_with_what_was_done(
    proxies: Proxies, service: ProtectedService, metadata: MetadataServer, workers: int
) -> None:
    program = await proxies.run(document(service, workers))
    await send(program, [get("/")] * 7 + [post("12345")] * 3 + [get("/dead")] * 2)

    assert await value(program, "auth_proxy_requests_total", route="default", code="200") == 10
    assert await value(program, "auth_proxy_requests_total", route="dead", code="502") == 2
    assert await value(program, "auth_proxy_errors_total", reason="upstream_connect_failed") == 2
    # Two attempts for each of the two.
    assert await value(program, "auth_proxy_retries_total", cause="connect_failed") == 2
    assert await value(program, "auth_proxy_upstream_dials_total", route="dead") == 4
    assert await value(program, "auth_proxy_request_bytes_total", route="default") == 15
    assert await value(program, "auth_proxy_request_duration_seconds_count", route="default") == 10
    assert await value(program, "auth_proxy_upstream_head_seconds_count", route="default") == 10
    fetched = sum(metadata.asked.values())
    assert fetched >= 1
    assert await value(program, "auth_proxy_token_fetches_total", outcome="fetched") == fetched
    assert await value(program, "auth_proxy_token_fetch_seconds_count") == fetched
    assert await value(program, "auth_proxy_in_flight") == 0


async def value(program: Program, name: str, **labels: str) -> float:
    """Return the sum of the samples of this name that have these labels."""
    samples = [
        sample.value
        for metric in read_plain(await text(program))
        for sample in metric.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert samples, f"{name} {labels}"
    return sum(samples)


async def test_no_caller_can_make_a_series(proxies: Proxies, service: ProtectedService) -> None:
    """Methods, hosts, paths, queries and fields that nobody has seen before."""
    program = await proxies.run(document(service, 1))
    await send(program, strange("A"))
    before = await metrics(program)
    for name in (chr(code) for code in range(ord("B"), ord("Z"))):
        await send(program, strange(name))

    assert await metrics(program) == before
    for _, labels in before:
        for label, word in labels:
            assert KNOWN[label].fullmatch(word), (label, word)


def strange(name: str) -> list[str]:
    """Return requests with something of this name in every place."""
    return [
        get("/", method=f"BREW{name}"),
        get("/", host=f"host-{name.lower()}.example"),
        get(f"http://host-{name.lower()}.example/", host=f"host-{name.lower()}.example"),
        get(f"/path-{name}?query={name}"),
        get("/dead", fields=f"X-{name}: {name}\r\nUser-Agent: {name}\r\n"),
        get("/", fields=f"Origin: https://{name.lower()}.example\r\n"),
        get("/", fields=f"Upgrade: {name}\r\nConnection: Upgrade\r\n"),
        get(f"host-{name.lower()}.example:443", method="CONNECT"),
        get("/", method=name.lower()),
    ]


@WORKERS
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_nothing_to_improve_in_what_is_really_served(
    proxies: Proxies, service: ProtectedService, workers: int
) -> None:
    program = await proxies.run(document(service, workers))
    await send(program, [get("/"), get("/dead"), post("four"), *strange("A")])
    served = await text(program)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=served.encode(), capture_output=True, check=False
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
    # It reads one of the two formats; the other one says the same.
    assert await metrics(program, OPEN, read_open) == await metrics(program)
