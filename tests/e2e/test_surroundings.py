"""What a process may lack that others take for granted: standard streams, a working directory."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import proc
from tests.fakes.child import Child, Done, plain_environment, run
from tests.fakes.program import COMMAND, command
from tests.fakes.proxies import config_for
from tests.fakes.sessions import session

CLOSED = ("2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-")
IN_A_DELETED_DIRECTORY = 'mkdir "$HOME/gone" && cd "$HOME/gone" && rmdir "$HOME/gone" && '


def shell(script: str, *arguments: str) -> list[str | Path]:
    """Return the command line that runs the command by a line of sh, where it stands as "$@"."""
    return ["sh", "-c", script, "sh", str(COMMAND), *arguments]


@asynccontextmanager
async def serving(
    script: str, tmp_path: Path, metadata: MetadataServer, service: ProtectedService, **top: object
) -> AsyncIterator[Path]:
    """Run a proxy by `script`; the path is its listener's.  It must end with 0."""
    listener, admin = tmp_path / "proxy.sock", f"unix:{tmp_path}/admin.sock"
    file = tmp_path / "proxy.yaml"
    file.write_text(config_for(service, route={}, listen=f"unix:{listener}", admin=admin, **top))
    environment = plain_environment(tmp_path, metadata.environ)
    child = Child(shell(script, "run", "--config", str(file)), env=environment)
    await child.spawn()
    try:
        assert (await command("wait", "--admin", admin)).code == 0
        yield listener
        child.signal(signal.SIGTERM)
        assert await child.exit_code() == 0
        assert "Traceback" not in child.output
    finally:
        await child.kill()


async def _status_through(listener: Path) -> int:
    import aiohttp  # noqa: PLC0415 (the connector of this one function)

    async with (
        session(connector=aiohttp.UnixConnector(str(listener))) as caller,
        caller.get("http://localhost/hello") as response,
    ):
        return response.status


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("closed", CLOSED)
async def test_it_serves_without_standard_streams(
    closed: str, workers: int, tmp_path: Path, metadata: MetadataServer, service: ProtectedService
) -> None:
    script = f'exec "$@" {closed}'

    async with serving(script, tmp_path, metadata, service, workers=workers) as listener:
        assert await _status_through(listener) == 200


async def test_it_serves_from_a_directory_that_was_deleted(
    tmp_path: Path, metadata: MetadataServer, service: ProtectedService
) -> None:
    script = IN_A_DELETED_DIRECTORY + 'exec "$@"'

    async with serving(script, tmp_path, metadata, service) as listener:
        assert await _status_through(listener) == 200


async def _check(script: str, tmp_path: Path, text: str) -> Done:
    (tmp_path / "proxy.yaml").write_text(text)
    arguments = ("check", "--config", str(tmp_path / "proxy.yaml"))
    return await run(shell(script, *arguments), env=plain_environment(tmp_path, {}))


GOOD = "routes: {default: {upstream: 'http://127.0.0.1:9'}}"
BAD = "routes: {}"


@pytest.mark.parametrize("closed", [*CLOSED, "2>/dev/full"])
@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (BAD, 64)])
async def test_check_gives_its_verdict_without_standard_streams(
    closed: str, text: str, code: int, tmp_path: Path
) -> None:
    done = await _check(f'exec "$@" {closed}', tmp_path, text)

    assert (done.code, "Traceback" in done.err) == (code, False)


async def test_only_what_is_relative_is_missed_in_a_deleted_directory(tmp_path: Path) -> None:
    script = IN_A_DELETED_DIRECTORY + 'exec "$@"'
    inline = "routes: {default: {upstream: 'https://127.0.0.1:9', ca_file: ca.pem}}"
    environment = plain_environment(tmp_path, {"AUTH_PROXY_CONFIG_YAML": inline})

    relative = await run(shell(script, "check"), env=environment)

    assert relative.code == 64
    assert "ca.pem" in relative.err
    environment["AUTH_PROXY_CONFIG_YAML"] = GOOD
    assert (await run(shell("rm -r gone; " + script, "check"), env=environment)).code == 0


# --- core dumps


def _cores(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.name.startswith("core")]


@pytest.fixture
async def core_folder(tmp_path: Path) -> Path:
    """Return the folder in which a process that is aborted there leaves its core dump."""
    control = tmp_path / "control"
    control.mkdir()
    script = ["sh", "-c", f"ulimit -c unlimited; cd {control}; exec {sys.executable} -c "]
    script[2] += "'import os; os.abort()'"
    await run(script, env=plain_environment(tmp_path, {}))
    if not _cores(control):
        pytest.skip("this machine keeps core dumps elsewhere, or keeps none")
    folder = tmp_path / "cores"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_process_with_tokens_leaves_no_core_dump(
    core_folder: Path,
    tmp_path: Path,
    metadata: MetadataServer,
    service: ProtectedService,
    workers: int,
) -> None:
    file = tmp_path / "proxy.yaml"
    file.write_text(config_for(service, route={}, workers=workers))
    script = 'ulimit -c unlimited && exec "$@"'
    argv = shell(script, "run", "--config", str(file))
    child = Child(argv, env=plain_environment(tmp_path, metadata.environ), cwd=core_folder)
    await child.spawn()
    try:
        await child.line(lambda line: '"serving"' in line)
        for pid in proc.children(child.pid)[:1]:
            os.kill(pid, signal.SIGABRT)
            await child.line(lambda line: "SIGABRT" in line)
        child.signal(signal.SIGABRT)

        assert await child.exit_code() == -signal.SIGABRT
        assert _cores(core_folder) == []
    finally:
        await child.kill()
