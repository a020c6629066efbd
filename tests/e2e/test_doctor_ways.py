"""`doctor` on the way to upstreams that are not simply dialled: egress proxies, other addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.emulator.metadata import MetadataServer
from tests.fakes.doctoring import DOMAIN, Doctor, silent
from tests.fakes.egress import ForwardProxy, needs_tinyproxy, tinyproxy

SECRET = "hunter2"


@pytest.fixture
async def doctor(metadata: MetadataServer, tmp_path: Path) -> AsyncIterator[Doctor]:
    async with AsyncExitStack() as stack:
        yield Doctor(metadata, tmp_path, stack)


@needs_tinyproxy
async def test_the_hop_is_a_step_of_its_own_and_all_others_go_through_it(
    doctor: Doctor, tmp_path: Path
) -> None:
    _, port = await doctor.private(audience=f"https://{DOMAIN}")
    async with (
        ForwardProxy().serving() as forward,
        tinyproxy(tmp_path, f"BasicAuth user {SECRET}", behind=forward) as at,
    ):
        env = {"HTTPS_PROXY": f"http://user:{SECRET}@127.0.0.1:{at}"}
        route = doctor.to(DOMAIN, port, audience=f"https://{DOMAIN}")
        seen = await doctor.examine({"orders": route}, env=env)

    assert seen.routes["orders"]["ok"], seen.done.out
    step = seen.step("orders", "egress_proxy")
    assert step["text"].startswith(f"http://127.0.0.1:{at} opened a tunnel to {DOMAIN}:{port}")
    assert step["notes"] == ["HTTPS_PROXY names it"]
    assert step["facts"]["proxy"] == f"http://127.0.0.1:{at}"
    assert seen.outcomes("orders")["request"] == "ok"
    # One to see whether there is one, one each for TLS and the request.
    assert forward.targets == [f"{DOMAIN}:{port}"] * 3
    assert SECRET not in seen.done.out


@needs_tinyproxy
async def test_an_egress_proxy_that_refuses_is_explained(doctor: Doctor, tmp_path: Path) -> None:
    async with (
        ForwardProxy().serving() as forward,
        tinyproxy(tmp_path, "BasicAuth user other", behind=forward) as at,
    ):
        url = f"http://user:{SECRET}@127.0.0.1:{at}"
        route = doctor.to(DOMAIN, 443, egress_proxy=url, auth="none")
        seen = await doctor.examine({"orders": route})

    step = seen.step("orders", "egress_proxy")
    assert (step["outcome"], step["reason"]) == ("failed", "egress_proxy_failed")
    assert "does not accept the credentials" in step["why"]
    assert "egress_proxy" in step["fix"]
    assert step["command"] == f"curl -v --proxy http://127.0.0.1:{at} https://{DOMAIN}:443/"
    assert seen.outcomes("orders")["tls"] == "skipped"
    assert SECRET not in seen.done.out


async def test_an_egress_proxy_that_is_silent_or_gone_is_told(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        gone = free.getsockname()[1]
    hanging = await doctor.serve(silent)
    more = {"auth": "none", "timeouts": {"connect": "300ms"}}
    seen = await doctor.examine(
        {
            "gone": doctor.to(DOMAIN, 443, egress_proxy=f"http://127.0.0.1:{gone}", **more),
            "hangs": doctor.to(DOMAIN, 443, egress_proxy=f"http://127.0.0.1:{hanging}", **more),
        }
    )

    assert seen.step("gone", "tcp")["reason"] == "connection_refused"
    assert seen.outcomes("gone")["egress_proxy"] == "skipped"
    step = seen.step("hangs", "egress_proxy")
    assert (step["outcome"], step["reason"]) == ("failed", "egress_proxy_failed")
    assert "did not answer within" in step["why"]


async def test_another_address_is_what_is_reached_and_the_name_what_is_verified(
    doctor: Doctor,
) -> None:
    _, port = await doctor.private(audience=f"https://{DOMAIN}")
    route = {
        "upstream": f"https://{DOMAIN}",
        "connect_to": f"127.0.0.1:{port}",
        "ca_file": doctor.ca,
    }
    seen = await doctor.examine({"orders": route})

    assert seen.routes["orders"]["ok"], seen.done.out
    assert seen.step("orders", "tcp")["facts"]["port"] == port
    assert seen.outcomes("orders")["dns"] == "skipped"
    assert "egress_proxy" not in seen.outcomes("orders")


async def test_a_unix_socket_is_reached(doctor: Doctor, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()  # Whoever only looks.

    server = await asyncio.start_unix_server(connected, str(tmp_path / "socket"))
    seen = await doctor.examine(
        {
            "there": {
                "upstream": "http://mesh.internal",
                "connect_to": f"unix:{tmp_path}/socket",
            },
            "gone": {"upstream": "http://mesh.internal", "connect_to": f"unix:{tmp_path}/gone"},
        }
    )
    server.close()

    assert seen.routes["there"]["ok"], seen.done.out
    assert seen.step("there", "tcp")["text"] == f"unix:{tmp_path}/socket"
    assert seen.outcomes("there")["request"] == "ok"
    step = seen.step("gone", "tcp")
    assert (step["outcome"], step["reason"]) == ("failed", "connect_failed")
    assert "no such file" in step["why"]
