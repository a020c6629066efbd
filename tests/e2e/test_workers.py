"""Several processes on one port, and the parent that keeps them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.emulator.faults import Held
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import proc
from tests.fakes.lifelines import (
    GET,
    OK,
    calling,
    document,
    living,
    scripted,
    status_of,
)
from tests.fakes.program import Program, command
from tests.fakes.proxies import Proxies
from tests.fakes.raw import RawCaller, ScriptedUpstream

TERM = signal.SIGTERM

SPREAD = 24
"""Connections at once: all of them at one of two workers has a chance of 2 in 2^24."""


def workers_of(program: Program) -> set[int]:
    """The processes below the parent."""
    return set(proc.children(program.pid))


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


async def served_by(program: Program, number: int) -> int:
    """Wait until this many workers have begun to serve, from the start on; return the last's id."""

    def begun() -> list[int]:
        return [r["pid"] for r in program.records() if r["message"].endswith(" serves")]

    await program.line(lambda _: len(begun()) >= number)
    return begun()[number - 1]


async def report(program: Program, path: str = "/status") -> str:
    async with calling_admin(program) as caller:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return (await caller.ask(request.encode())).body.decode()


@asynccontextmanager
async def calling_admin(program: Program) -> AsyncIterator[RawCaller]:
    host, _, port = program.admin.rpartition(":")
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(RawCaller, host, int(port))
    async with caller:
        yield caller


async def requests_counted(program: Program) -> int:
    """What /metrics says of the default route."""
    return await counted(program, "auth_proxy_requests_total", code="200")


async def counted(program: Program, name: str, **labels: str) -> int:
    total = 0
    for line in (await report(program, "/metrics")).splitlines():
        found = re.fullmatch(rf"{name}{{(.*)}} ([0-9.e+]+)", line)
        if found and all(f'{key}="{value}"' in found[1] for key, value in labels.items()):
            total += int(float(found[2]))
    return total


class Callers:
    """Many connections, each of which asks one request after the other until it is stopped."""

    def __init__(self, program: Program) -> None:
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        """Connections that ended in the middle; each is replaced."""
        self._program = program
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()

    async def call(self) -> None:
        while not self._stopping.is_set():
            try:
                async with calling(self._program) as caller:
                    await self._use(caller)
            except (AssertionError, OSError):
                self.broken += 1

    async def _use(self, caller: RawCaller) -> None:
        while not self._stopping.is_set():
            answer = await caller.ask(GET)
            self.statuses[answer.status] += 1
            self._news.set()

    def stop(self) -> None:
        self._stopping.set()

    async def until(self, count: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = self.statuses.total() + count
        async with asyncio.timeout(20):
            while self.statuses.total() < wanted:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def load(program: Program, callers: int = SPREAD) -> AsyncIterator[Callers]:
    """Steady calls meanwhile."""
    calls = Callers(program)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(calls.call())
        try:
            yield calls
        finally:
            calls.stop()


@asynccontextmanager
async def spread(program: Program, upstream: ScriptedUpstream) -> AsyncIterator[list[RawCaller]]:
    """Exchanges in flight at all workers: requests that the upstream has and does not answer."""
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(calling(program)) for _ in range(SPREAD)]
        for caller in callers:
            caller.send(GET)
        ends = [await upstream.accept() for _ in callers]
        for end in ends:
            await end.request()
        yield callers


# --- serving


async def test_n_processes_serve_on_one_port_beside_one_parent() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        assert len(workers_of(program)) == 2
        assert len(program.listeners) == 1
        async with load(program) as calls:
            await calls.until(500)
            used = Counter({pid: proc.cpu_seconds(pid) for pid in workers_of(program)})
            await calls.until(2000)
            busy = {pid for pid in used if proc.cpu_seconds(pid) > used[pid]}

        assert busy == workers_of(program)
        assert (calls.broken, set(calls.statuses)) == (0, {200})


async def test_workers_share_a_unix_socket(tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/proxy.sock"
    async with scripted(OK) as upstream:
        async with Program(document(upstream, listen=listen, workers=2)) as program:
            for _ in range(8):
                assert await status_of(program.listeners[0], "/") == 200
        assert not list(tmp_path.iterdir())


async def test_tokens_are_added_by_every_worker(
    proxies: Proxies, service: ProtectedService
) -> None:
    program = await proxies.to(service, workers=2)

    statuses = {await status_of(program.listeners[0], "/") for _ in range(16)}

    assert statuses == {200}
    assert len(service.admitted) == 16


async def test_startup_waits_for_the_tokens_of_all_workers(metadata: MetadataServer) -> None:
    held = asyncio.Event()
    metadata.inject(Held(held), times=2)
    private = {"private": {"upstream": "https://private.test"}}
    program = Program(document(None, routes=private, workers=2), env=metadata.environ)
    async with living(program, serving=False):
        await metadata.requests.reached(2)
        assert not [record for record in program.records() if record["message"] == "serving"]

        held.set()
        await program.record(message="serving")
        program.signal(TERM)


async def test_the_parent_stays_small() -> None:
    async with scripted(OK) as upstream:
        text = document(upstream, workers=2, admin="off")
        async with Program(text) as program:
            # Nothing of the data path, of token sources or of the admin listener is loaded.
            assert program.rss_bytes() < 32 * 1024 * 1024


# --- sums


async def test_the_admin_listener_sums_over_workers() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        for _ in range(32):
            assert await status_of(program.listeners[0], "/") == 200

        assert await requests_counted(program) == 32
        status = json.loads(await report(program))
        assert (status["workers"], status["state"]) == (2, "serving")
        (route,) = status["routes"]
        assert (route["requests"], route["in_flight"]) == (32, 0)
        assert route["connections"]["idle"] == len(upstream.connections) == 2


async def test_gauges_sum_over_workers_and_return_to_0() -> None:
    async with scripted() as upstream, Program(document(upstream, workers=2)) as program:
        async with spread(program, upstream) as callers:
            assert await counted(program, "auth_proxy_in_flight", route="default") == SPREAD
            for end in upstream.connections:
                end.send(OK)
            for caller in callers:
                assert (await caller.answer()).status == 200

        assert await counted(program, "auth_proxy_in_flight", route="default") == 0
        assert await requests_counted(program) == SPREAD


async def test_the_status_shows_a_service_as_workers_have_resolved_it(
    metadata: MetadataServer,
) -> None:
    named = {"named": {"service": "billing.europe-west1.123", "auth": "none"}}
    text = document(None, routes=named, workers=2)
    async with Program(text, env=metadata.environ) as program:
        (route,) = json.loads(await report(program))["routes"]

        assert route["upstream"] == "https://billing-123.europe-west1.run.app"


# --- a worker that dies


async def test_a_killed_worker_is_back_within_a_second_and_the_others_serve_meanwhile() -> None:
    async with scripted(OK) as upstream:
        program = Program(document(upstream, workers=2))
        began = time.monotonic()
        async with program:
            started_in = time.monotonic() - began
            async with load(program) as calls:
                await calls.until(200)
                victim = await served_by(program, 1)
                before = time.monotonic()
                kill(victim)
                successor = await served_by(program, 3)
                back_after = time.monotonic() - before
                await calls.until(200)

            # Beside the load, on a machine that is busy with more, half a second becomes two:
            # there the whole program's start, with no load beside it, is the measure.
            assert back_after < max(1.0, 2 * started_in)
            assert {victim, successor} & workers_of(program) == {successor}
        assert set(calls.statuses) == {200}
        # What it had in flight is lost, and nothing else: each connection breaks once at most.
        assert calls.broken <= SPREAD


async def test_callers_that_come_while_a_worker_is_away_wait_and_are_served() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        kill(await served_by(program, 1))

        # Half of them come to the queue that nobody empties for the moment.
        statuses = await asyncio.gather(
            *(status_of(program.listeners[0], "/") for _ in range(SPREAD))
        )

        assert set(statuses) == {200}


async def test_counters_do_not_go_back_when_a_worker_dies() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        for _ in range(16):
            assert await status_of(program.listeners[0], "/") == 200
        assert await requests_counted(program) == 16

        for pid in sorted(workers_of(program)):
            kill(pid)
        await served_by(program, 4)

        assert await requests_counted(program) == 16
        assert await counted(program, "auth_proxy_upstream_connections") == 0
        assert await status_of(program.listeners[0], "/") == 200
        assert await requests_counted(program) == 17


async def test_a_worker_that_dies_again_and_again_is_given_time_and_its_callers_to_others() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        for number in range(3, 6):
            kill(await served_by(program, 1 if number == 3 else number - 1))
            record = await program.record(
                message=_death(program, {3: "0", 4: "0.5", 5: "1"}[number])
            )
            assert record["severity"] == "ERROR"
            # During the pause, the other one gets everybody.
            for _ in range(SPREAD if number > 3 else 0):
                assert await status_of(program.listeners[0], "/") == 200
            await served_by(program, number)

        for _ in range(SPREAD):
            assert await status_of(program.listeners[0], "/") == 200


def _death(program: Program, pause: str) -> str:
    """The message about the death of the worker that was first to serve."""
    first = next(r for r in program.records() if r["message"].endswith(" serves"))
    return f"worker {first['worker']} was ended by SIGKILL: starting another in {pause} s"


async def test_nobody_is_ready_while_no_worker_serves() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        assert await status_of(program.admin, "/readiness") == 200
        pids = sorted(workers_of(program))
        for pid in pids:
            kill(pid)
        statuses = set()
        async with asyncio.timeout(20):
            # An interpreter takes some tenths of a second to start: many looks.
            while 503 not in statuses:
                statuses.add(await status_of(program.admin, "/readiness"))
        await served_by(program, 4)

        assert await status_of(program.admin, "/readiness") == 200
        assert await status_of(program.admin, "/liveness") == 200


async def test_a_successor_serves_by_the_latest_configuration() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as program:
        limited = document(upstream, workers=2, route={"limits": {"header_bytes": 64}})
        program.config_file.write_text(limited)
        program.signal(signal.SIGHUP)
        await program.record(message="SIGHUP: the configuration was taken")
        for pid in sorted(workers_of(program)):
            kill(pid)
        await served_by(program, 4)

        statuses = {await status_of(program.listeners[0], f"/{'x' * 64}") for _ in range(8)}
        assert statuses == {431}


async def test_a_worker_that_cannot_reload_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_NO_RELOAD)
    env = {"PYTHONPATH": str(tmp_path)}
    async with (
        scripted(OK) as upstream,
        Program(document(upstream, workers=2), env=env) as program,
    ):
        limited = document(upstream, workers=2, route={"limits": {"header_bytes": 64}})
        program.config_file.write_text(limited)
        program.signal(signal.SIGHUP)
        await served_by(program, 4)

        statuses = {await status_of(program.listeners[0], f"/{'x' * 64}") for _ in range(8)}
        assert statuses == {431}
        for number in (1, 2):
            text = f"worker {number} could not reload and is replaced: a planted bug"
            await program.record(message=text)


async def test_a_worker_that_hangs_holds_nobody_up() -> None:
    async with (
        scripted(OK) as upstream,
        living(Program(document(upstream, workers=2, drain="200ms"))) as program,
    ):
        for _ in range(8):
            assert await status_of(program.listeners[0], "/") == 200
        assert await requests_counted(program) == 8
        hanging = await served_by(program, 1)
        kill(hanging, signal.SIGSTOP)

        # It is counted by its last numbers.
        assert await requests_counted(program) == 8
        program.signal(TERM)
        await program.record(message=f"worker process {hanging} did not end and is killed")


# --- the end


async def test_a_drain_lets_all_workers_finish_what_they_have() -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, workers=2))) as program,
        spread(program, upstream) as callers,
    ):
        program.signal(TERM)
        await program.record(message="SIGTERM: draining")
        assert await status_of(program.admin, "/readiness") == 503
        # It waits for an answer of each worker, which has heard of the drain before.
        assert await status_of(program.admin, "/status") == 200
        # Answered one after the other: workers become idle at different times.
        for end in upstream.connections:
            end.send(OK)

        for caller in callers:
            answer = await caller.answer()
            assert (answer.status, answer.value("connection")) == (200, "close")
        await program.record(message="drained", cut=0)


async def test_all_workers_serve_until_the_last_one_is_idle() -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, workers=2))) as program,
        calling(program) as holder,
    ):
        holder.send(GET)
        held = await upstream.accept()
        await held.request()
        program.signal(TERM)
        await program.record(message="SIGTERM: draining")
        # One of the workers has nothing to do; those whom the kernel sends there are served.
        upstream.automatic = OK
        for _ in range(SPREAD):
            assert await status_of(program.listeners[0], "/") == 200
        held.send(OK)

        assert (await holder.answer()).status == 200


async def test_what_is_cut_is_counted_over_all_workers() -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, workers=2, drain="200ms"))) as program,
        spread(program, upstream) as callers,
    ):
        program.signal(TERM)

        for caller in callers:
            await caller.refusal(503, "draining")
        text = f"{SPREAD} exchanges were cut when the drain was over"
        assert (await program.record(message=text))["cut"] == SPREAD


async def test_an_idle_crew_stays_for_sigterm_delay_and_serves() -> None:
    async with (
        scripted(OK) as upstream,
        living(Program(document(upstream, workers=2, sigterm_delay="500ms"))) as program,
    ):
        began = time.monotonic()
        program.signal(TERM)
        await program.record(message="SIGTERM: draining")

        for _ in range(8):
            assert await status_of(program.listeners[0], "/") == 200
        await program.exit_code()
        assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_all_at_once(number: signal.Signals, code: int) -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, workers=2, drain="1m")), code=code) as program,
        spread(program, upstream),
    ):
        program.signal(number)
        await program.record(message=f"{number.name}: draining")
        program.signal(number)
        # Its end of the log is closed once no worker holds it open.
        assert await program.exit_code() == code


async def test_quit_ends_all_with_0() -> None:
    async with (
        scripted(OK) as upstream,
        living(Program(document(upstream, workers=2))) as program,
    ):
        assert (await command("shutdown", "--admin", program.admin)).code == 0


async def test_signals_to_the_whole_group_are_the_parents_business() -> None:
    # As a terminal and systemd send them: to the parent and to every worker.
    async with (
        scripted() as upstream,
        living(Program(document(upstream, workers=2))) as program,
        spread(program, upstream) as callers,
    ):
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT):
            for pid in [*workers_of(program), program.pid]:
                kill(pid, number)
        await program.record(message="SIGINT: draining")
        for end in upstream.connections:
            end.send(OK)

        for caller in callers:
            assert (await caller.answer()).status == 200


async def test_a_signal_while_workers_are_being_started_ends_them_all(
    metadata: MetadataServer,
) -> None:
    metadata.inject(Held(asyncio.Event()), times=2)
    private = {"private": {"upstream": "https://private.test"}}
    program = Program(document(None, routes=private, workers=2), env=metadata.environ)
    async with living(program, serving=False):
        await metadata.requests.reached(1)
        program.signal(TERM)


async def test_no_worker_outlives_its_parent() -> None:
    async with scripted(OK) as upstream:
        program = Program(document(upstream, workers=2))
        async with living(program, code=-signal.SIGKILL):
            pids = workers_of(program)
            kill(program.pid)
            # Reads to the end of the log, which workers hold open.
            await program.exit_code()

            assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


async def test_orphans_finish_what_they_have_and_give_the_port_free() -> None:
    async with scripted() as upstream:
        program = Program(document(upstream, workers=2))
        async with (
            living(program, code=-signal.SIGKILL),
            spread(program, upstream) as callers,
        ):
            kill(program.pid)
            await program.record(message="the parent process has gone: ending")
            await _until_refused(program)
            for end in upstream.connections:
                end.send(OK)

            for caller in callers:
                assert (await caller.answer()).status == 200


async def test_a_worker_whose_parent_is_killed_while_it_drains_has_no_bug() -> None:
    """It ends as it was told, and there is nobody to report that to."""
    async with scripted() as upstream:
        program = Program(document(upstream, workers=2))
        async with living(program, code=-signal.SIGKILL):
            async with spread(program, upstream) as callers:
                program.signal(TERM)
                await program.record(message="SIGTERM: draining")
                # What the workers say now is not read before the end: their ends are reset.
                kill(program.pid, signal.SIGSTOP)
                for end in upstream.connections:
                    end.send(OK)
                for caller in callers:
                    assert (await caller.answer()).status == 200
            kill(program.pid)
            # Reads to the end of the log, which workers hold open.
            await program.exit_code()

            assert not [record for record in program.records() if record.get("reason")]


async def _until_refused(program: Program) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                async with calling(program):
                    pass
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                pass  # Into the queue in the moment in which it was closed.


# --- what stands in the way of a start


async def test_a_port_that_another_crew_has_is_one_line_and_69() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, workers=2)) as running:
        text = document(upstream, workers=2, listen=running.listeners[0])
        done = await command("run", env={"AUTH_PROXY_CONFIG_YAML": text})

        assert done.code == 69
        assert done.err == (
            f"cloud-run-auth-proxy: cannot listen on {running.listeners[0]}: "
            "Address already in use; --listen takes another\n"
        )


async def test_an_admin_port_in_use_is_one_line_and_69_and_leaves_no_worker() -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as running:
        text = document(upstream, workers=2, admin=running.admin)
        # Reads to the end of what is written, which workers would hold open.
        done = await command("run", env={"AUTH_PROXY_CONFIG_YAML": text})

        assert done.code == 69
        assert done.err.endswith(
            f"cloud-run-auth-proxy: cannot listen on {running.admin}: Address already in use; "
            "--admin takes another\n"
        )


async def test_a_worker_that_cannot_start_ends_the_program_with_70(tmp_path: Path) -> None:
    # Only a bug keeps a worker from serving: here, one that is brought in from outside.
    (tmp_path / "sitecustomize.py").write_text(_BUG)
    async with scripted(OK) as upstream:
        text = document(upstream, workers=2)
        env: dict[str, Any] = {"AUTH_PROXY_CONFIG_YAML": text, "PYTHONPATH": str(tmp_path)}
        done = await command("run", env=env)

    assert done.code == 70
    assert "before all workers served" in done.err
    assert "a planted bug" in done.err


_NO_RELOAD = """
import sys
if "-c" in sys.orig_argv:
    import proxy.server
    async def broken(*_, **__):
        raise RuntimeError("a planted bug")
    proxy.server.Server.reload = broken
"""

_BUG = """
import sys
if "-c" in sys.orig_argv:
    import proxy.server
    def broken(*_, **__):
        raise RuntimeError("a planted bug")
    proxy.server.Server.__init__ = broken
"""
