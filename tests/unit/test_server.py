"""One server in this process: all or nothing at the start and at a reload."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.config.loading import parse
from proxy.config.model import Config, Log
from proxy.emulator.faults import Answer, Held
from proxy.emulator.metadata import MetadataServer
from proxy.ops.lifecycle import State
from proxy.ops.logs import configure
from proxy.plane import trust
from proxy.plane.build import Builder
from proxy.plane.listen import ListenFailed
from proxy.server import Server
from tests.fakes import tls
from tests.fakes.lifelines import OK, scripted, status_of, url_of


def config(routes: dict[str, Any], **top: Any) -> Config:
    document = {"listen": "127.0.0.1:0", "admin": "off", "routes": routes, **top}
    return parse(json.dumps(document), source="test", env={})


@asynccontextmanager
async def running(config: Config, environ: dict[str, str] | None = None) -> AsyncIterator[Server]:
    server = Server(config, environ or {})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def at(server: Server, listener: int = 0) -> str:
    return str(server.addresses[listener])


async def test_a_server_goes_from_starting_to_stopped() -> None:
    async with scripted(OK) as upstream:
        server = Server(config({"a": {"upstream": url_of(upstream)}}), {})
        states = [server.lifecycle.state]
        await server.start()
        states.append(server.lifecycle.state)
        assert await status_of(at(server), "/") == 200
        server.drain()
        states.append(server.lifecycle.state)
        assert await server.drained() == 0
        await server.stop()
        states.append(server.lifecycle.state)
        # A second time, nothing is left to be done.
        await server.stop()

        assert states == [State.STARTING, State.SERVING, State.DRAINING, State.STOPPED]
        assert server.addresses == []


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({"K_SERVICE": "shop"}, True),
        ({"CLOUD_RUN_JOB": "report"}, True),
        ({"CLOUD_RUN_WORKER_POOL": "queue"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ({"K_SERVICE": "shop", "GOOGLE_CLOUD_PROJECT": "named"}, False),
        ({}, False),
    ],
)
async def test_traces_are_named_by_the_project_where_cloud_logging_reads_them(
    environ: dict[str, str], *, asked: bool
) -> None:
    stream = io.StringIO()
    logs = configure(Log(format="json"), stream=stream, environ=environ)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    routes = {"a": {"upstream": "http://127.0.0.1:9"}}
    try:
        async with (
            MetadataServer() as metadata,
            running(config(routes), {**metadata.environ, **environ}),
        ):
            asking = [t for t in asyncio.all_tasks() if t.get_name() == "ask for the project"]
            await asyncio.gather(*asking)
            extra = {"trace": ("traceparent", f"00-{trace}-00f067aa0ba902b7-01")}
            logging.getLogger("proxy.plane").warning("a line", extra=extra)
            paths = [request.path for request in metadata.requests]
    finally:
        logs.close()

    project = "emulated-project" if asked else environ.get("GOOGLE_CLOUD_PROJECT")
    line = next(
        each
        for each in map(json.loads, stream.getvalue().splitlines())
        if each["message"] == "a line"
    )
    name = f"projects/{project}/traces/{trace}" if project else trace
    assert line["logging.googleapis.com/trace"] == name
    assert paths == ["/computeMetadata/v1/project/project-id"] * asked


async def test_roots_are_loaded_before_the_first_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading them can take 30 ms, for which the first exchange would wait."""
    file = tls.ca_file(tmp_path)
    routes = {
        "a": {"path": "/a", "upstream": "https://127.0.0.1:9", "auth": "none"},
        "b": {
            "path": "/b",
            "upstream": "https://127.0.0.1:9",
            "auth": "none",
            "ca_file": str(file),
        },
        "c": {"path": "/c", "upstream": "http://127.0.0.1:9"},
    }
    trust.read_anew(())
    async with running(config(routes)):
        monkeypatch.delattr(trust, "Roots")
        ready = [await trust.ready(ca_file) for ca_file in (None, file)]

    assert ready[0] is not ready[1]


async def test_a_start_that_lacks_one_address_opens_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        routes = {
            "free": {"listen": f"unix:{tmp_path}/a.sock", "upstream": "http://127.0.0.1:9"},
            "taken": {
                "listen": f"127.0.0.1:{taken.getsockname()[1]}",
                "upstream": "http://127.0.0.1:9",
            },
        }
        server = Server(config(routes), {})
        with pytest.raises(ListenFailed, match="Address already in use"):
            await server.start()

    assert server.addresses == []
    assert not list(tmp_path.iterdir())
    assert server.lifecycle.state is State.STOPPED


async def test_a_start_that_is_cancelled_leaves_nothing_open(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    metadata.inject(Held(asyncio.Event()))
    routes = {"a": {"listen": f"unix:{tmp_path}/a.sock", "upstream": "https://a.test"}}
    server = Server(config(routes), metadata.environ)
    start = asyncio.ensure_future(server.start())
    await metadata.requests.reached(1)
    assert await status_of(f"unix:{tmp_path}/a.sock", "/nowhere", "CONNECT") == 405
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start

    assert not list(tmp_path.iterdir())
    assert server.lifecycle.state is State.STOPPED


async def test_a_bug_while_routes_are_built_leaves_the_old_ones_in_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with scripted(OK) as upstream:
        route = {"upstream": url_of(upstream)}
        async with running(config({"a": route})) as server:

            def broken(*_: object) -> None:
                raise RuntimeError("a planted bug")

            more = {"a": route, "b": {"listen": f"unix:{tmp_path}/b.sock", **route}}
            with monkeypatch.context() as patch:
                patch.setattr(Builder, "build", broken)
                with pytest.raises(RuntimeError):
                    await server.reload(config(more))

            assert len(server.addresses) == len(server.plane._listeners) == 1
            assert not list(tmp_path.iterdir())
            assert await status_of(at(server), "/") == 200

            await server.reload(config(more))
            assert await status_of(f"unix:{tmp_path}/b.sock", "/") == 200


async def test_a_reload_is_not_undone_by_a_service_that_is_resolved_meanwhile(
    metadata: MetadataServer,
) -> None:
    async with scripted(OK) as upstream:
        metadata.inject(Answer(status=503), times=100)
        named = {"named": {"service": "billing", "auth": "none"}}
        async with running(config(named), metadata.environ) as server:
            metadata.clear_faults()
            held = asyncio.Event()
            metadata.inject(Held(held))
            before = len(metadata.requests)
            # Asks for another try, which then waits for the metadata server.
            server._services._not_before = 0.0
            assert await status_of(at(server), "/") == 502
            await metadata.requests.reached(before + 1)
            await server.reload(config({"a": {"upstream": url_of(upstream)}}))
            held.set()
            await asyncio.gather(*server.plane._tasks._running)

            assert [route.name for route in server.config.routes] == ["a"]
            assert await status_of(at(server), "/") == 200


async def test_a_route_serves_with_the_services_that_are_known_and_looks_for_the_others(
    metadata: MetadataServer,
) -> None:
    metadata.inject(Answer(status=503), times=100)
    services = ["stock.us-east1.42", "stock.us-west1"]
    named = {"service": services, "auth": "none", "timeouts": {"connect": "50ms"}}
    async with running(config({"named": named}), metadata.environ) as server:
        (only,) = server._builder.routes["named"].destinations
        assert only.name == "stock-42.us-east1.run.app"
        metadata.clear_faults()
        server._services._not_before = 0.0
        # Asks for the other one; there is nobody at the first.
        assert await status_of(at(server), "/") in (502, 504)
        await asyncio.gather(*server.plane._tasks._running)

        first, second = server._builder.routes["named"].destinations
        assert first.availability is only.availability
        assert second.name.endswith(".us-west1.run.app")


async def test_a_listener_that_no_route_uses_any_more_tells_its_connections_to_go() -> None:
    async with scripted(OK) as upstream:
        route = {"upstream": url_of(upstream)}
        async with running(config({"a": route})) as server:
            (old,) = server._hosts.values()
            told = [old.draining]
            await server.reload(config({"a": route}, listen="127.0.0.2:0"))
            (other,) = server._hosts.values()
            told += [old.draining, other.draining]
            server.drain()
            told += [other.draining]

            assert told == [False, True, False, True]


def _many(count: int, value: str) -> dict[str, Any]:
    """Return routes that each need an expression of their own."""
    return {
        f"r{n}": {
            "path": f"/r{n}",
            "upstream": "http://127.0.0.1:9",
            "set_headers": {f"x-{n}": value},
        }
        for n in range(count)
    }


async def test_a_reload_builds_one_route_in_a_turn_and_changes_all_in_one() -> None:
    count = 200
    async with running(config(_many(count, "a"))) as server:
        tables = [host.table for host in server._hosts.values()]
        prepared = dict(server._builder.routes)
        turns = 0
        async with asyncio.TaskGroup() as tasks:
            reload = tasks.create_task(server.reload(config(_many(count, "b"))))
            while server._builder.routes == prepared:
                assert [host.table for host in server._hosts.values()] == tables
                assert not reload.done()
                turns += 1
                await asyncio.sleep(0)
            assert [host.table for host in server._hosts.values()] != tables

        assert turns >= count
        assert {r.config.set_headers[0][1] for r in server._builder.routes.values()} == {"b"}


async def test_of_two_reloads_at_once_the_later_one_is_in_force() -> None:
    async with running(config(_many(3, "a"))) as server:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.reload(config(_many(50, "b"))))
            tasks.create_task(server.reload(config(_many(2, "c"))))

        values = {each.config.set_headers[0][1] for each in server._builder.routes.values()}
        assert (values, len(server._builder.routes)) == ({"c"}, 2)
        assert server.config.routes[0].set_headers[0][1] == "c"


async def test_a_start_says_why_there_is_no_token_while_it_waits_for_others(
    metadata: MetadataServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("proxy.server.SAY_AFTER", 0.01)
    monkeypatch.setattr("proxy.server.SAY_NAMES", 2)
    held = asyncio.Event()
    metadata.inject(Answer(status=404, body="no account"), path="/identity")
    metadata.inject(Held(held), times=3, path="/identity")
    routes = {
        name: {"path": f"/{name}", "upstream": f"https://{name}.test", "credentials": "metadata"}
        for name in ("a", "b", "c", "d")
    }
    server = Server(config(routes), metadata.environ)
    start = asyncio.ensure_future(server.start())
    async with asyncio.timeout(10):
        while len(caplog.records) < 2:  # noqa: ASYNC110 (the log has no event)
            await asyncio.sleep(0)

    before = server.lifecycle.state
    said = {record.getMessage(): record for record in caplog.records}
    (why,) = [each for each in said.values() if "no account" in each.getMessage()]
    (who,) = [each for each in said.values() if "nothing has answered" in each.getMessage()]
    assert vars(why)["route"] == "a"
    assert who.getMessage().endswith(("for b, c and 1 more", "for a, b and 2 more"))
    held.set()
    await start
    assert [before, server.lifecycle.state] == [State.STARTING, State.SERVING]
    assert len(caplog.records) == 2
    await server.stop()
