"""SIGHUP: another configuration, and nothing that is under way notices.

Most tests run with one process and with two: what they promise is the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.emulator.faults import Held
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.lifelines import (
    GET,
    OK,
    calling,
    calling_at,
    document,
    living,
    scripted,
    status_of,
    url_of,
)
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies, config_for
from tests.fakes.raw import ScriptedUpstream
from tests.fakes.tls import authority, foreign_authority

HUP = signal.SIGHUP
TAKEN = "SIGHUP: the configuration was taken"
REFUSED = "SIGHUP: the configuration was not taken, nothing has changed"

workers = pytest.mark.parametrize("workers", [1, 2])


def answer(text: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


async def reload(program: Program, text: str) -> None:
    """Have the program take another configuration."""
    await _reload(program, text, lambda message: message == TAKEN)


async def refused(program: Program, text: str) -> dict[str, Any]:
    """Have the program refuse a configuration; return the log record about it."""
    return await _reload(program, text, lambda message: message.startswith(REFUSED))


async def _reload(program: Program, text: str, says: Any) -> dict[str, Any]:
    before = len(program.lines)
    program.config_file.write_text(text)
    program.signal(HUP)

    def wanted(line: str) -> bool:
        # Only what has been said since.
        return (
            any(line is late for late in program.lines[before:])
            and line.startswith("{")
            and says(json.loads(line)["message"])
        )

    found: dict[str, Any] = json.loads(await program.line(wanted))
    return found


@asynccontextmanager
async def two_upstreams() -> AsyncIterator[tuple[ScriptedUpstream, ScriptedUpstream]]:
    async with scripted(answer("old")) as old, scripted(answer("new")) as new:
        yield old, new


async def body_of(program: Program, path: str = "/", listener: int = 0) -> bytes:
    async with calling(program, listener) as caller:
        return (await caller.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())).body


# --- what changes, and what goes on


@workers
async def test_routes_change_and_a_kept_connection_follows_them(workers: int) -> None:
    async with (
        two_upstreams() as (old, new),
        Program(document(old, workers=workers)) as program,
        calling(program) as kept,
    ):
        assert (await kept.ask(GET)).body == b"old"
        await reload(program, document(new, workers=workers))

        # The very next request: no process serves by the old file after the line in the log.
        assert (await kept.ask(GET)).body == b"new"
        for _ in range(8):
            assert await body_of(program) == b"new"


@workers
async def test_an_exchange_that_is_under_way_ends_where_it_began(workers: int) -> None:
    async with (
        scripted() as old,
        scripted(answer("new")) as new,
        Program(document(old, workers=workers)) as program,
        calling(program) as caller,
    ):
        caller.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234")
        end = await old.accept()
        await end.until(lambda: b"01234" in end.received, "the first half of the upload")
        await reload(program, document(new, workers=workers))

        caller.send(b"56789")
        assert (await end.request()).body == b"0123456789"
        end.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        await caller.until(lambda: b"01234" in caller.received, "the first half of the answer")
        end.send(b"56789")
        assert (await caller.answer()).body == b"0123456789"
        assert (await caller.ask(GET)).body == b"new"


async def test_a_tunnel_goes_on() -> None:
    async with (
        scripted() as old,
        scripted() as new,
        Program(document(old)) as program,
        calling(program) as caller,
    ):
        offer = b"Connection: Upgrade\r\nUpgrade: chat\r\n"
        caller.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + offer + b"\r\n")
        end = await old.accept()
        await end.head()
        end.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
        )
        await caller.until(lambda: b"\r\n\r\n" in caller.received, "the switch")
        caller.received.clear()
        await reload(program, document(new))

        caller.send(b"ping")
        await end.take(b"ping")
        end.send(b"pong")
        await caller.take(b"pong")
        # Half-closed, a tunnel would hold up the end for as long as the drain.
        end.finish()
        caller.finish()


async def test_a_connection_to_an_upstream_that_stays_is_kept() -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        assert await status_of(program.listeners[0], "/") == 200
        more = {"more": {"path": "/more", "upstream": url_of(upstream)}}
        await reload(program, document(upstream, routes=more))
        assert await status_of(program.listeners[0], "/") == 200

        assert len(upstream.connections) == 1


async def test_tokens_are_kept(
    metadata: MetadataServer, proxies: Proxies, service: ProtectedService
) -> None:
    program = await proxies.to(service)
    assert await status_of(program.listeners[0], "/") == 200
    fetched = len(metadata.requests)

    await reload(program, config_for(service, route={"limits": {"body_bytes": 10}}))

    assert await status_of(program.listeners[0], "/") == 200
    assert len(metadata.requests) == fetched


@workers
async def test_limits_change(workers: int) -> None:
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n01234567890"
    async with scripted(OK) as upstream:
        limited = document(upstream, route={"limits": {"body_bytes": 10}}, workers=workers)
        async with Program(document(upstream, workers=workers)) as program:
            async with calling(program) as caller:
                assert (await caller.ask(post)).status == 200
            await reload(program, limited)
            for _ in range(4):
                async with calling(program) as caller:
                    assert (await caller.ask(post)).status == 413


async def test_the_drain_is_as_long_as_the_last_configuration_says() -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, drain="1m"))) as program,
        calling(program) as caller,
    ):
        await reload(program, document(upstream, drain="100ms"))
        caller.send(GET)
        await (await upstream.accept()).request()
        await program.terminate()

        await caller.refusal(503, "draining")


async def test_the_log_follows() -> None:
    async with scripted(OK) as upstream:
        quiet, loud = {"access": "off"}, {"access": "all", "level": "debug"}
        async with Program(document(upstream, log=quiet)) as program:
            assert await status_of(program.listeners[0], "/quiet") == 200
            await reload(program, document(upstream, log=loud))
            assert await status_of(program.listeners[0], "/loud") == 200

            assert (await program.record(message="GET /loud → 200"))["severity"] == "INFO"
            assert not [line for line in program.lines if "/quiet" in line]
            program.config_file.write_text(document(upstream, log={"format": "text"}))
            program.signal(HUP)
            await program.line(lambda line: TAKEN in line and not line.startswith("{"))


async def test_a_ca_file_is_read_again(
    metadata: MetadataServer, proxies: Proxies, service: ProtectedService, tmp_path: Path
) -> None:
    del metadata
    roots = tmp_path / "roots.pem"
    roots.write_text(Path(str(service.ca_file)).read_text())
    text = config_for(service, route={"ca_file": str(roots)})
    program = await proxies.run(text)
    assert await status_of(program.listeners[0], "/") == 200

    roots.write_bytes(foreign_authority().cert_pem.bytes())
    # The kept connection does not hide it: the old roots had verified it.
    await reload(program, text)

    assert await status_of(program.listeners[0], "/") == 502


# --- listeners


@workers
async def test_a_listener_is_added_and_taken_away(workers: int, tmp_path: Path) -> None:
    path = tmp_path / "second.sock"
    async with scripted(OK) as upstream:
        one = document(upstream, workers=workers)
        second = {"second": {"listen": f"unix:{path}", "upstream": url_of(upstream)}}
        two = document(upstream, workers=workers, routes=second)
        async with Program(one) as program:
            await reload(program, two)
            async with calling_at(f"unix:{path}") as kept:
                assert (await kept.ask(GET)).status == 200

                await reload(program, one)
                assert not path.exists()
                # The connection is not dropped, but told to go with its next response.
                answer = await kept.ask(GET)
                assert (answer.status, answer.value("connection")) == (200, "close")
                assert await kept.take_all() == b""
            assert await status_of(program.listeners[0], "/") == 200

            await reload(program, two)
            assert await status_of(f"unix:{path}", "/") == 200


@workers
async def test_a_port_is_exchanged_for_another(workers: int) -> None:
    async with scripted(OK) as upstream:
        first, second = _free_port(), _free_port()
        async with Program(document(upstream, listen=first, workers=workers)) as program:
            await reload(program, document(upstream, listen=second, workers=workers))

            assert await status_of(second, "/") == 200
            with pytest.raises(ConnectionRefusedError):
                await status_of(first, "/")
            await reload(program, document(upstream, listen=first, workers=workers))
            assert await status_of(first, "/") == 200


@workers
async def test_where_one_port_is_taken_nothing_changes(workers: int, tmp_path: Path) -> None:
    path = tmp_path / "free.sock"
    async with two_upstreams() as (old, new):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            routes = {
                "free": {"listen": f"unix:{path}", "upstream": url_of(new)},
                "taken": {"listen": address, "upstream": url_of(new)},
            }
            text = document(new, workers=workers, routes=routes)
            async with Program(document(old, workers=workers)) as program:
                record = await refused(program, text)

                assert record["message"].endswith(
                    f": cannot listen on {address}: Address already in use"
                )
                assert not path.exists()
                assert await body_of(program) == b"old"

                taken.close()
                await reload(program, text)
                assert await body_of(program) == b"new"
                assert await status_of(address, "/") == 200
                assert await status_of(f"unix:{path}", "/") == 200


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


# --- what is refused


@workers
async def test_a_bad_file_is_logged_with_every_problem_and_changes_nothing(workers: int) -> None:
    async with two_upstreams() as (old, new):
        text = document(new, drian="1s", workers=workers, route={"timeouts": {"connect": "soon"}})
        async with Program(document(old, workers=workers)) as program:
            record = await refused(program, text)

            assert record["severity"] == "ERROR"
            places = [problem.rpartition("/")[2] for problem in record["problems"]]
            assert len(places) == 2
            assert places[0].startswith("proxy.yaml:1:")
            assert "'soon' is not a duration" in " ".join(places)
            assert "did you mean 'drain'" in " ".join(places)
            assert all(problem in record["message"] for problem in record["problems"])
            assert await body_of(program) == b"old"

            await reload(program, document(new, workers=workers))
            assert await body_of(program) == b"new"


async def test_a_file_that_has_gone_is_logged_and_changes_nothing() -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        program.config_file.unlink()
        program.signal(HUP)

        await program.line(lambda line: f"{REFUSED}: " in line and "No such file" in line)
        assert await status_of(program.listeners[0], "/") == 200


async def test_what_came_on_standard_input_is_kept_and_taken_again() -> None:
    from_file = ("sh", "-c", 'exec "$0" "$@" <proxy.yaml')
    program = Program(None, "run", "--config", "-", within=from_file)
    async with scripted(OK) as upstream:
        program.config_file.write_text(document(upstream))
        async with program:
            program.config_file.unlink()
            program.signal(HUP)

            await program.record(message=TAKEN)
            assert await status_of(program.listeners[0], "/") == 200


@workers
async def test_changed_workers_and_admin_wait_for_a_restart_and_the_rest_is_taken(
    workers: int,
) -> None:
    async with (
        two_upstreams() as (old, new),
        Program(document(old, workers=workers)) as program,
    ):
        await reload(program, document(new, workers=workers + 1, admin="off"))

        await program.record(message="SIGHUP: a changed workers needs a restart")
        await program.record(message="SIGHUP: a changed admin needs a restart")
        assert await body_of(program) == b"new"
        assert await status_of(program.admin, "/readiness") == 200


@workers
async def test_a_pipe_in_the_files_place_keeps_nothing_from_ending(workers: int) -> None:
    text = document(None, routes={"a": {"upstream": "http://127.0.0.1:9"}}, workers=workers)
    async with living(Program(text)) as program:
        program.config_file.unlink()
        os.mkfifo(program.config_file)
        program.signal(HUP)
        writer = await _until_waited_for(program.config_file)
        try:
            program.signal(signal.SIGTERM)
            assert await program.exit_code() == 0
        finally:
            os.close(writer)


async def _until_waited_for(pipe: Path) -> int:
    """Wait until somebody is about to read; return the end to which nobody writes anything."""
    async with asyncio.timeout(10):
        while True:
            try:
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                await asyncio.sleep(0.01)


async def test_without_a_file_there_is_nothing_to_read() -> None:
    async with scripted(OK) as upstream:
        arguments = ("--listen", "127.0.0.1:0", "--admin", "off")
        async with Program(None, url_of(upstream), *arguments) as program:
            program.signal(HUP)

            await program.record(message="SIGHUP: there is no configuration file to read")
            assert await status_of(program.listeners[0], "/") == 200


# --- without a signal


def replace_file(file: Path, text: str) -> None:
    """Write it as editors do: beside it, and then over it."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


async def admin_page(program: Program, path: str) -> bytes:
    async with calling_at(program.admin) as caller:
        return (await caller.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())).body


@workers
async def test_a_watched_file_is_taken_when_it_changes(workers: int) -> None:
    async with (
        two_upstreams() as (old, new),
        Program(document(old, workers=workers, watch=True)) as program,
    ):
        assert await body_of(program) == b"old"
        replace_file(program.config_file, document(new, workers=workers, watch=True))

        await program.record(message="watch: the configuration was taken")
        assert await body_of(program) == b"new"


async def test_a_watched_file_with_a_mistake_is_refused_once_and_its_mend_taken() -> None:
    async with two_upstreams() as (old, new), Program(document(old, watch=True)) as program:
        replace_file(program.config_file, "routes: 1")
        await program.line(lambda line: "watch: the configuration was not taken" in line)
        last = json.loads(await admin_page(program, "/status"))["last_reload"]
        assert not last["successful"]
        assert "routes" in last["problem"]
        metrics = await admin_page(program, "/metrics")
        assert b"\nauth_proxy_config_last_reload_successful 0.0\n" in metrics

        replace_file(program.config_file, document(new, watch=True))
        await program.record(message="watch: the configuration was taken")

        assert await body_of(program) == b"new"
        assert json.loads(await admin_page(program, "/status"))["last_reload"]["successful"]
        refusals = [line for line in program.lines if "was not taken" in line]
        assert len(refusals) == 1


async def test_roots_that_are_swapped_are_taken(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    foreign_authority().cert_pem.write_to_path(str(roots))
    async with scripted(OK) as upstream:
        text = document(upstream, watch=True, route={"ca_file": str(roots)})
        async with Program(text) as program:
            authority().cert_pem.write_to_path(str(roots))

            await program.record(message="watch: the configuration was taken")


async def test_unwatched_files_are_left_alone() -> None:
    async with two_upstreams() as (old, new), Program(document(old)) as program:
        replace_file(program.config_file, document(new, watch=True))
        program.signal(HUP)
        await program.record(message=TAKEN)

        # From here on they are looked at.
        replace_file(program.config_file, document(old, watch=True))
        await program.record(message="watch: the configuration was taken")
        assert await body_of(program) == b"old"


# --- one after the other


async def test_a_reload_waits_for_the_one_before_and_all_that_come_meanwhile_are_one(
    metadata: MetadataServer,
) -> None:
    async with scripted(answer("old")) as old, scripted(answer("last")) as last:
        held = asyncio.Event()
        service = {"named": {"path": "/named", "service": "billing", "auth": "none"}}
        async with Program(document(old), env=metadata.environ) as program:
            metadata.inject(Held(held))
            program.config_file.write_text(document(old, routes=service))
            program.signal(HUP)
            # The reload asks for the service's region and project, and waits.
            await metadata.requests.reached(1)
            program.config_file.write_text(document(last))
            for _ in range(5):
                program.signal(HUP)
            assert await body_of(program) == b"old"
            held.set()

            await _until_taken(program, 2)
            assert await body_of(program) == b"last"
            await reload(program, document(last))
            assert len(_taken(program)) == 3


async def test_a_service_whose_url_is_known_is_served_throughout_a_reload(
    metadata: MetadataServer,
) -> None:
    service = {"named": {"path": "/named", "service": "billing", "auth": "none"}}
    async with (
        two_upstreams() as (old, new),
        Program(document(old, routes=service), env=metadata.environ) as program,
    ):
        held = asyncio.Event()
        metadata.inject(Held(held))
        asked = len(metadata.requests)
        await reload(program, document(new, routes=service))

        # Whatever the metadata server does: the answer was known.
        assert len(metadata.requests) == asked
        assert await body_of(program) == b"new"
        held.set()


async def test_a_signal_to_end_does_not_wait_for_a_reload(metadata: MetadataServer) -> None:
    service = {"named": {"path": "/named", "service": "billing", "auth": "none"}}
    async with scripted(OK) as upstream, AsyncExitStack() as stack:
        program = Program(document(upstream), env=metadata.environ)
        await stack.enter_async_context(living(program))
        metadata.inject(Held(asyncio.Event()))
        program.config_file.write_text(document(upstream, routes=service))
        program.signal(HUP)
        await metadata.requests.reached(1)

        program.signal(signal.SIGTERM)


async def test_nothing_is_reloaded_during_the_drain() -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream))) as program,
        calling(program) as caller,
    ):
        caller.send(GET)
        end = await upstream.accept()
        await end.request()
        program.signal(signal.SIGTERM)
        await program.record(message="SIGTERM: draining")
        program.signal(HUP)
        await program.record(message="SIGHUP: nothing is reloaded any more, the process is ending")

        end.send(OK)
        assert (await caller.answer()).status == 200


def _taken(program: Program) -> list[dict[str, Any]]:
    return [record for record in program.records() if record["message"] == TAKEN]


async def _until_taken(program: Program, count: int) -> None:
    await program.line(lambda _: len(_taken(program)) >= count)
