"""The installed command where Windows and macOS lack what Linux has."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import sessions
from tests.fakes.child import Child, plain_environment
from tests.fakes.program import A_TOKEN, COMMAND, command
from tests.fakes.proxies import Proxies, config_for

_START = Path(__file__).parents[1] / "fakes" / "lacking"


def lacking(system: str) -> dict[str, str]:
    """Return the environment of an interpreter that lacks what `system` does."""
    return {"PYTHONPATH": str(_START), "LACKING": system}


WINDOWS = lacking("windows")
NO_WORKERS = "ignored: workers: this system cannot share a port; one process serves"
NO_UNIX = "this system has no Unix sockets; write one such as localhost:8081"


@pytest.mark.parametrize(("system", "loop"), [("windows", "asyncio"), ("macos", "uvloop")])
async def test_it_serves_with_what_there_is(
    proxies: Proxies, service: ProtectedService, system: str, loop: str
) -> None:
    proxy = await proxies.to(service, env=lacking(system), workers=2)

    async with sessions.session() as session:
        async with session.post(f"{proxy.url}/x", data=b"." * 300_000) as answer:
            assert answer.status == 200
        async with session.get(f"{proxy.admin_url}/status") as answer:
            status = await answer.json()
    assert (status["loop"], status["workers"]) == (loop, 1)
    await proxy.record(message=NO_WORKERS, severity="WARNING")


async def test_windows_ends_at_once_at_the_second_signal(
    service: ProtectedService, metadata: MetadataServer, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(config_for(service, route={}, sigterm_delay="20s", drain="30s"))
    child = Child(
        [COMMAND, "run", "--config", str(file)],
        env=plain_environment(tmp_path, {**metadata.environ, **WINDOWS}),
    )
    await child.spawn()
    try:
        await child.line(lambda line: '"serving"' in line)
        child.signal(signal.SIGINT)
        await child.line(lambda line: "SIGINT: draining" in line)
        child.signal(signal.SIGINT)

        assert await child.exit_code() == 128 + signal.SIGINT
    finally:
        await child.kill()


async def test_windows_shows_the_demo(tmp_path: Path) -> None:
    child = Child(
        [COMMAND, "demo", "--port", "0", "--admin", "off"],
        env=plain_environment(tmp_path, WINDOWS),
        cwd=tmp_path,
    )
    await child.spawn()
    try:
        await child.line(lambda line: line.startswith("Ctrl-C"))
        url = next(line.split()[1] for line in child.lines if "curl http:" in line)
        async with sessions.session() as session, session.get(url) as answer:
            assert answer.status == 200
        child.signal(signal.SIGINT)

        assert await child.exit_code() == 0
    finally:
        await child.kill()


async def test_windows_is_told_the_line_of_a_unix_socket(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(
        "listen: unix:/tmp/proxy.sock\nadmin: unix:/tmp/admin.sock\n"
        "routes:\n  a: {upstream: https://a.example}\n"
    )

    done = await command("check", "--config", str(file), env=WINDOWS)
    flag = await command("wait", "--admin", "unix:/tmp/admin.sock", env=WINDOWS)

    assert (done.code, flag.code) == (64, 64)
    assert done.err.splitlines() == [
        f"{file}:1:9: listen: {NO_UNIX}",
        f"{file}:2:8: admin: {NO_UNIX}",
    ]
    assert flag.err == f"--admin: {NO_UNIX}\n"


async def test_windows_examines_a_route_and_prints_its_token(
    metadata: MetadataServer, service: ProtectedService, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(config_for(service, route={}))
    env = {**metadata.environ, **WINDOWS}

    doctor = await command("doctor", "--config", str(file), "--format", "json", env=env)
    token = await command("token", service.url, env=env, prints_a_token=True)

    assert doctor.code == 0, doctor.out
    assert token.code == 0
    assert A_TOKEN.fullmatch(token.out.strip())


async def test_windows_waits_for_a_proxy_and_ends_it(
    metadata: MetadataServer, service: ProtectedService, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.yaml"
    admin = {"listen": "127.0.0.1:0", "quit": True}
    file.write_text(config_for(service, route={}, admin=admin))
    child = Child(
        [COMMAND, "--config", str(file)],
        env=plain_environment(tmp_path, {**metadata.environ, **WINDOWS}),
    )
    await child.spawn()
    try:
        line = await child.line(lambda line: '"serving"' in line)
        where = json.loads(line)["admin"]
        wait = await command("wait", "--admin", where, env=WINDOWS)
        shutdown = await command("shutdown", "--admin", where, env=WINDOWS)

        assert (wait.code, shutdown.code, await child.exit_code()) == (0, 0, 0)
    finally:
        await child.kill()


async def test_a_table_that_the_output_cannot_show_ends_no_command(tmp_path: Path) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text("routes:\n  a: {path: /a, upstream: https://a.example}\n")

    done = await command("check", "--config", str(file), env={"PYTHONIOENCODING": "ascii"})

    assert (done.code, done.err) == (0, "")
    assert r"/a/\u2026" in done.out
