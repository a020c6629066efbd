"""The installed command behind a company's proxy, which the environment names."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes import tls
from tests.fakes.egress import ForwardProxy, needs_tinyproxy, tinyproxy
from tests.fakes.program import Program, command
from tests.fakes.raw import ScriptedUpstream

NAME = "orders.example"
SECRET = "hunter2"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def document(port: int, folder: Path, **route: Any) -> str:
    orders = {
        "upstream": f"https://{NAME}:{port}",
        "auth": "none",
        "ca_file": str(tls.ca_file(folder)),
        **route,
    }
    return json.dumps(
        {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "routes": {"orders": orders}}
    )


async def get(program: Program) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(program.url) as response:
        return response.status, await response.text()


@needs_tinyproxy
async def test_the_environments_proxy_is_taken_and_its_password_never_shown(
    tmp_path: Path,
) -> None:
    upstream = ScriptedUpstream(OK)
    await upstream.start(tls.server_context(NAME))
    async with (
        ForwardProxy().serving() as forward,
        tinyproxy(tmp_path, f"BasicAuth user {SECRET}", behind=forward) as port,
    ):
        env = {
            "HTTPS_PROXY": f"http://user:{SECRET}@127.0.0.1:{port}",
            "NO_PROXY": "other.example",
        }
        config = document(upstream.port, tmp_path)
        async with Program(config, env=env) as program:
            assert await get(program) == (200, "ok")
            status = json.loads((await program.admin_answer("/status")).partition(b"\r\n\r\n")[2])
            checked = await command("check", "--config", str(program.config_file), env=env)
        assert len(forward.heads) == 1
    await upstream.stop()

    shown = f"http://127.0.0.1:{port}"
    assert status["routes"][0]["egress_proxy"] == shown
    assert f"through {shown}" in checked.out
    for text in (program.output, json.dumps(status), checked.out, checked.err):
        assert SECRET not in text


@needs_tinyproxy
async def test_wrong_credentials_are_explained_to_the_caller_and_not_shown(tmp_path: Path) -> None:
    async with (
        ForwardProxy().serving() as forward,
        tinyproxy(tmp_path, "BasicAuth user other", behind=forward) as port,
        Program(
            document(443, tmp_path, egress_proxy=f"http://user:{SECRET}@127.0.0.1:{port}")
        ) as program,
    ):
        status, body = await get(program)

    assert status == 502
    assert f"The egress proxy http://127.0.0.1:{port} does not accept the credentials" in body
    assert SECRET not in body + program.output


@pytest.mark.parametrize("off", [{"NO_PROXY": NAME}, {"egress_proxy": "off"}], ids=str)
async def test_what_is_exempt_is_dialled_directly(off: dict[str, str], tmp_path: Path) -> None:
    env = {"HTTPS_PROXY": "http://127.0.0.1:9"}
    route = {key: value for key, value in off.items() if key == "egress_proxy"}
    env |= {key: value for key, value in off.items() if key == "NO_PROXY"}
    async with Program(document(443, tmp_path, **route), env=env) as program:
        status, body = await get(program)

    # No name server knows it, and nobody has asked the proxy.
    assert status in {502, 504}
    assert "egress proxy" not in body
    assert NAME in body


async def test_a_reload_changes_the_way(tmp_path: Path) -> None:
    upstream = ScriptedUpstream(OK)
    await upstream.start(tls.server_context(NAME))
    async with ForwardProxy().serving() as one, ForwardProxy().serving() as two:
        ways = [
            document(upstream.port, tmp_path, egress_proxy=f"http://127.0.0.1:{each.port}")
            for each in (one, two)
        ]
        async with Program(ways[0]) as program:
            assert await get(program) == (200, "ok")
            program.config_file.write_text(ways[1])
            program.signal(signal.SIGHUP)
            await program.record(message="SIGHUP: the configuration was taken")
            assert await get(program) == (200, "ok")
        assert (len(one.heads), len(two.heads)) == (1, 1)
    await upstream.stop()
