"""Sockets that the process is started with, and what it tells who started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.fakes.activated import ActivatedProgram, Manager
from tests.fakes.lifelines import GET, OK, calling_at, document, living, scripted, status_of
from tests.fakes.program import Program

workers = pytest.mark.parametrize("workers", [1, 2])


@workers
async def test_an_inherited_socket_stands_for_the_one_listener(workers: int) -> None:
    async with (
        scripted(OK) as upstream,
        ActivatedProgram(document(upstream, workers=workers), [{}]) as program,
    ):
        assert program.listeners == program.bound
        assert await status_of(program.bound[0], "/") == 200


@workers
async def test_a_socket_whose_address_is_configured_serves_that_listener(
    workers: int, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.sock", tmp_path / "second.sock"
    async with scripted(OK) as upstream:
        other = {"other": {"listen": f"unix:{second}", "upstream": f"http://127.0.0.1:{9}"}}
        text = document(upstream, listen=f"unix:{first}", routes=other, workers=workers)
        async with ActivatedProgram(text, [{"path": str(second)}, {"path": str(first)}]) as program:
            assert await status_of(f"unix:{first}", "/") == 200
            assert await status_of(f"unix:{second}", "/") == 502
            inodes = [path.stat().st_ino for path in (first, second)]

            # They are their owner's: a reload leaves them open, and the end leaves the files.
            program.signal(signal.SIGHUP)
            await program.record(message="SIGHUP: the configuration was taken")
            assert await status_of(f"unix:{first}", "/") == 200
        assert [path.stat().st_ino for path in (first, second)] == inodes


async def test_a_socket_named_after_a_route_serves_its_listener() -> None:
    async with scripted(OK) as upstream:
        own = {"own": {"listen": "127.0.0.1:18999", "upstream": "http://127.0.0.1:9"}}
        text = document(upstream, routes=own)
        async with ActivatedProgram(text, [{}, {}], names="own:web.socket") as program:
            own_address, shared = program.bound

            assert await status_of(shared, "/") == 200
            assert await status_of(own_address, "/") == 502


@workers
async def test_a_socket_named_admin_is_the_admin_listener(workers: int) -> None:
    async with (
        scripted(OK) as upstream,
        ActivatedProgram(document(upstream, workers=workers), [{}, {}], "admin:x") as program,
    ):
        admin, listener = program.bound

        assert (program.admin, program.listeners) == (admin, [listener])
        assert await status_of(admin, "/readiness") == 200
        assert await status_of(listener, "/") == 200


async def test_an_admin_socket_with_a_path_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with scripted(OK) as upstream:
        text = document(upstream, admin=f"unix:{path}")
        async with ActivatedProgram(text, [{"path": str(path)}]) as program:
            assert await status_of(f"unix:{path}", "/readiness") == 200
            assert program.listeners != [f"unix:{path}"]
        assert path.exists()


async def test_an_abstract_socket_is_inherited_like_any_other() -> None:
    name = f"@auth-proxy-test-{os.getpid()}"
    async with (
        scripted(OK) as upstream,
        ActivatedProgram(document(upstream), [{"path": name}]) as program,
    ):
        assert program.listeners == [f"unix:{name}"]
        async with calling_at(f"unix:\0{name[1:]}") as caller:
            assert (await caller.ask(GET)).status == 200


@pytest.mark.parametrize("spec", [{"datagram": True}])
async def test_a_socket_that_takes_no_connections_is_one_line_and_69(
    spec: dict[str, object],
) -> None:
    async with scripted(OK) as upstream:
        program = ActivatedProgram(document(upstream), [spec])
        async with living(program, code=69, serving=False):
            await program.line(lambda line: line.startswith("cloud-run-auth-proxy: "))

    assert program.lines[-1] == (
        "cloud-run-auth-proxy: cannot listen on the inherited descriptor 3: "
        "a socket unit needs ListenStream= and Accept=no"
    )


async def test_sockets_of_another_process_are_left_alone() -> None:
    theirs = {"LISTEN_PID": "1", "LISTEN_FDS": "3"}
    async with scripted(OK) as upstream, Program(document(upstream), env=theirs) as program:
        assert await status_of(program.listeners[0], "/") == 200


# --- notifications


@workers
@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
async def test_the_manager_hears_of_the_start_a_reload_and_the_end(
    workers: int,
    abstract: bool,  # noqa: FBT001 (a case)
) -> None:
    with Manager(abstract=abstract) as manager:
        async with scripted(OK) as upstream:
            program = Program(document(upstream, workers=workers), env=manager.env)
            async with living(program, serving=False):
                assert await manager.message() == {"READY": "1", "STATUS": "serving"}
                serving = await program.record(message="serving")
                assert await status_of(serving["listeners"][0], "/") == 200

                program.signal(signal.SIGHUP)
                reloading = await manager.message()
                assert reloading.pop("RELOADING") == "1"
                assert int(reloading.pop("MONOTONIC_USEC")) > 0
                assert (await manager.message())["READY"] == "1"

                program.signal(signal.SIGTERM)
                assert await manager.message() == {"STOPPING": "1", "STATUS": "draining"}


async def test_a_manager_that_has_gone_stops_nothing() -> None:
    nobody = {"NOTIFY_SOCKET": "/nowhere/notify"}
    async with scripted(OK) as upstream, Program(document(upstream), env=nobody) as program:
        assert await status_of(program.listeners[0], "/") == 200
