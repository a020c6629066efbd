"""How the process starts and ends: signals, drain, quit, exit codes."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import stat
import time
from pathlib import Path

import pytest

from proxy.emulator.faults import Held
from proxy.emulator.metadata import MetadataServer
from tests.fakes.child import Done
from tests.fakes.lifelines import (
    GET,
    OK,
    between,
    calling,
    calling_at,
    document,
    living,
    scripted,
    status_of,
)
from tests.fakes.program import Program, command
from tests.fakes.proxies import Proxies
from tests.fakes.raw import RawCaller

TERM, INT = signal.SIGTERM, signal.SIGINT

BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"
BEGUN_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"


async def head_of(caller: RawCaller) -> str:
    """Take the head of a response, in lower case."""
    await caller.until(lambda: b"\r\n\r\n" in caller.received, "the head of a response")
    head, _, rest = bytes(caller.received).partition(b"\r\n\r\n")
    caller.received[:] = rest
    return head.decode("latin-1").lower()


# --- the start


async def test_calls_are_served_while_the_first_tokens_are_still_being_fetched(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    held = asyncio.Event()
    metadata.inject(Held(held))
    listen, admin = f"unix:{tmp_path}/proxy.sock", f"unix:{tmp_path}/admin.sock"
    async with scripted(OK) as upstream:
        private = {"private": {"upstream": "https://private.test", "path": "/private"}}
        text = document(upstream, listen=listen, admin=admin, routes=private)
        async with living(Program(text, env=metadata.environ), serving=False) as program:
            await metadata.requests.reached(1)
            await _answers(admin)

            assert await status_of(listen, "/") == 200
            assert await status_of(admin, "/startup") == 503
            assert await status_of(admin, "/readiness") == 503
            assert await status_of(admin, "/liveness") == 200

            held.set()
            await program.record(message="serving")
            assert await status_of(admin, "/startup") == 200
            assert await status_of(admin, "/readiness") == 200
            program.signal(TERM)


async def test_probes_are_answered_while_services_are_being_looked_up(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    held = asyncio.Event()
    metadata.inject(Held(held))
    admin = f"unix:{tmp_path}/admin.sock"
    async with scripted(OK) as upstream:
        routes = {"billing": {"service": "billing", "path": "/billing"}}
        text = document(upstream, admin=admin, routes=routes)
        async with living(Program(text, env=metadata.environ), serving=False) as program:
            await metadata.requests.reached(1)
            await _answers(admin)

            assert await status_of(admin, "/startup") == 503
            assert await status_of(admin, "/liveness") == 200

            held.set()
            serving = await program.record(message="serving")
            (billing,) = (each for each in serving["routes"] if each["name"] == "billing")
            assert billing["upstream"] == "https://billing-123456789012.us-central1.run.app"
            assert await status_of(admin, "/startup") == 200
            program.signal(TERM)


async def _answers(address: str) -> None:
    """Wait until somebody listens on a Unix socket."""
    path = Path(address.removeprefix("unix:"))
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110 (inotify would need a library)
            await asyncio.sleep(0.01)


async def test_as_many_files_may_be_open_as_the_hard_limit_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    try:
        async with scripted(OK) as upstream, Program(document(upstream)) as program:
            limits = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert limits == (before[1], before[1])


# --- one signal


@pytest.mark.parametrize("number", [TERM, INT], ids=["SIGTERM", "SIGINT"])
async def test_an_idle_proxy_ends_at_once_with_0(number: signal.Signals) -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        began = time.monotonic()
        program.signal(number)

        assert await program.exit_code() == 0
        assert time.monotonic() - began < 5
        await program.record(message="drained", cut=0)


async def test_an_idle_kept_connection_does_not_hold_the_end_up() -> None:
    async with between(OK) as (_, program, caller):
        await caller.ask(GET)
        program.signal(TERM)

        assert await caller.take_all() == b""
        assert not caller.was_reset
        assert await program.exit_code() == 0


async def test_a_response_whose_head_comes_during_the_drain_is_complete_and_the_last() -> None:
    async with between() as (upstream, program, caller):
        caller.send(GET)
        end = await upstream.accept()
        await end.request()
        await _begin_to_drain(program)
        end.send(OK)

        answer = await caller.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.value("connection") == "close"
        assert await caller.take_all() == b""
        assert await program.exit_code() == 0


@pytest.mark.parametrize(
    ("begun", "rest", "body"),
    [(BEGUN, b"56789", b"0123456789"), (BEGUN_CHUNKED, b"2\r\n56\r\n0\r\n\r\n", b"0123456")],
    ids=["length", "chunked"],
)
async def test_a_body_that_is_under_way_is_completed(
    begun: bytes, rest: bytes, body: bytes
) -> None:
    async with between() as (upstream, program, caller):
        caller.send(GET)
        end = await upstream.accept()
        await end.request()
        end.send(begun)
        await caller.until(lambda: b"01234" in caller.received, "the first half")
        await _begin_to_drain(program)
        end.send(rest)

        assert (await caller.answer()).body == body
        await program.record(message="drained", cut=0)
        assert await program.exit_code() == 0


async def test_a_slow_reader_gets_the_end_of_what_the_upstream_has_finished() -> None:
    size = 20_000_000
    async with (
        scripted() as upstream,
        living(Program(document(upstream, log={"access": "all"}))) as program,
        calling(program) as caller,
    ):
        caller.send(GET)
        end = await upstream.accept()
        await end.request()
        end.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await _begin_to_drain(program)
        # Read piece by piece until the exchange has ended for the proxy: then the last bytes
        # wait in its memory for room in the kernel's.
        while not any("GET / → 200" in record["message"] for record in program.records()):
            await caller.until(lambda: caller.received, "more")
            caller.received.clear()
            caller.pause()
            await asyncio.sleep(0.005)
            caller.resume()
        caller.pause()
        # Longer than what is left would get without the rest of the drain.
        await asyncio.sleep(1.5)
        caller.resume()

        await caller.take_all()
        assert len(caller.history.partition(b"\r\n\r\n")[2]) == size


async def test_an_upload_that_is_under_way_is_completed() -> None:
    async with between() as (upstream, program, caller):
        caller.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234")
        end = await upstream.accept()
        await end.until(lambda: b"01234" in end.received, "the first half")
        await _begin_to_drain(program)
        caller.send(b"56789")

        assert (await end.serve(OK)).body == b"0123456789"
        assert (await caller.answer()).status == 200
        assert await program.exit_code() == 0


async def test_a_tunnel_goes_on_during_the_drain_and_its_end_ends_it() -> None:
    async with between() as (upstream, program, caller):
        caller.send(UPGRADE)
        end = await upstream.accept()
        await end.head()
        end.send(SWITCHED)
        await head_of(caller)
        await _begin_to_drain(program)

        caller.send(b"ping")
        await end.take(b"ping")
        end.send(b"pong")
        await caller.take(b"pong")
        end.finish()
        caller.finish()
        assert await program.exit_code() == 0
        await program.record(message="drained", cut=0)


async def test_exchanges_that_begin_during_the_drain_are_served() -> None:
    async with between() as (upstream, program, holder):
        holder.send(GET)
        held = await upstream.accept()
        await held.request()
        await _begin_to_drain(program)

        assert await status_of(program.admin, "/readiness") == 503
        assert await status_of(program.admin, "/startup") == 200
        async with calling(program) as newcomer:
            newcomer.send(GET)
            await (await upstream.accept()).serve(OK)
            answer = await newcomer.answer()
            assert (answer.status, answer.value("connection")) == (200, "close")
        held.send(OK)
        assert (await holder.answer()).status == 200
        assert await program.exit_code() == 0


# --- when the drain is over


async def test_what_has_no_answer_when_the_drain_is_over_is_told_so_and_counted() -> None:
    async with (
        scripted() as upstream,
        Program(document(upstream, drain="200ms")) as program,
        calling(program) as first,
        calling(program) as second,
    ):
        for caller in (first, second):
            caller.send(GET)
            await (await upstream.accept()).request()
        program.signal(TERM)

        for caller in (first, second):
            await caller.refusal(503, "draining")
        await program.record(message="2 exchanges were cut when the drain was over", cut=2)
        assert await program.exit_code() == 0


@pytest.mark.parametrize("begun", [BEGUN, BEGUN_CHUNKED], ids=["length", "chunked"])
async def test_a_body_that_is_cut_is_visibly_cut(begun: bytes) -> None:
    async with between(drain="200ms") as (upstream, program, caller):
        caller.send(GET)
        end = await upstream.accept()
        await end.request()
        end.send(begun)
        await caller.until(lambda: b"01234" in caller.received, "the first half")
        program.signal(TERM)

        got = await caller.take_all()
        assert got.endswith((b"\r\n\r\n01234", b"5\r\n01234\r\n"))
        await program.record(message="1 exchanges were cut when the drain was over", cut=1)
        assert await program.exit_code() == 0


async def test_a_body_that_only_the_close_ends_is_cut_with_a_reset() -> None:
    async with between(drain="200ms") as (upstream, program, caller):
        caller.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        end = await upstream.accept()
        await end.request()
        end.send(BEGUN_CHUNKED)
        await caller.until(lambda: b"01234" in caller.received, "the first half")
        program.signal(TERM)

        await caller.take_all()
        await caller.until(lambda: caller.closed, "the reset")
        assert caller.was_reset
        assert await program.exit_code() == 0


async def test_a_tunnel_is_cut_with_a_reset_when_the_drain_is_over() -> None:
    async with between(drain="200ms") as (upstream, program, caller):
        caller.send(UPGRADE)
        end = await upstream.accept()
        await end.head()
        end.send(SWITCHED)
        await head_of(caller)
        program.signal(TERM)

        await caller.until(lambda: caller.closed, "the end of the tunnel")
        assert caller.was_reset
        await end.until(lambda: end.ended, "the end of the tunnel")
        await program.record(message="1 exchanges were cut when the drain was over")
        assert await program.exit_code() == 0


async def test_the_drain_takes_no_longer_than_configured() -> None:
    async with between(drain="300ms") as (upstream, program, caller):
        caller.send(GET)
        await (await upstream.accept()).request()
        began = time.monotonic()
        program.signal(TERM)
        await program.exit_code()

        # Ending an interpreter takes a part of a second of its own.
        assert 0.3 <= time.monotonic() - began < 3


# --- sigterm_delay


async def test_an_idle_proxy_stays_for_sigterm_delay_and_serves() -> None:
    async with (
        scripted(OK) as upstream,
        Program(document(upstream, sigterm_delay="500ms")) as program,
    ):
        began = time.monotonic()
        await _begin_to_drain(program)

        assert await status_of(program.listeners[0], "/") == 200
        assert await program.exit_code() == 0
        assert time.monotonic() - began >= 0.5


async def test_the_drain_ends_a_longer_sigterm_delay() -> None:
    async with (
        scripted(OK) as upstream,
        Program(document(upstream, sigterm_delay="1m", drain="200ms")) as program,
    ):
        program.signal(TERM)

        assert await program.exit_code(10) == 0
        await program.record(message="drained", cut=0)


# --- before the start has ended


async def test_a_signal_before_the_start_has_ended_ends_it_at_once(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    metadata.inject(Held(asyncio.Event()))
    private = {"private": {"upstream": "https://private.test"}}
    text = document(None, listen=f"unix:{tmp_path}/proxy.sock", admin="off", routes=private)
    async with living(Program(text, env=metadata.environ), serving=False) as program:
        await metadata.requests.reached(1)
        program.signal(TERM)

    assert not list(tmp_path.iterdir())


async def test_an_exchange_that_began_before_the_start_had_ended_is_completed(
    metadata: MetadataServer, tmp_path: Path
) -> None:
    metadata.inject(Held(asyncio.Event()))
    listen = f"unix:{tmp_path}/proxy.sock"
    private = {"private": {"upstream": "https://private.test", "path": "/private"}}
    async with scripted() as upstream:
        text = document(upstream, listen=listen, admin="off", routes=private)
        async with living(Program(text, env=metadata.environ), serving=False) as program:
            await metadata.requests.reached(1)
            async with calling_at(listen) as caller:
                caller.send(GET)
                end = await upstream.accept()
                await end.request()
                await _begin_to_drain(program)
                end.send(OK)
                assert (await caller.answer()).status == 200


# --- two signals


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(TERM, TERM, 143), (INT, INT, 130), (INT, TERM, 143), (TERM, INT, 130)],
)
async def test_a_second_signal_ends_it_at_once(
    first: signal.Signals, second: signal.Signals, code: int
) -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, drain="1m")), code=code) as program,
        calling(program) as caller,
    ):
        caller.send(GET)
        await (await upstream.accept()).request()
        program.signal(first)
        await program.record(message=f"{first.name}: draining")
        program.signal(second)

        await program.record(message=f"{second.name} again: ending at once")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
async def test_a_signal_that_ends_nothing_does_not_at_the_very_end(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    # When the interpreter ends, the loop is closed, and its handlers are gone with it.
    (tmp_path / "sitecustomize.py").write_text(
        f"import atexit, os\natexit.register(os.kill, os.getpid(), {number.value})\n"
    )
    async with scripted() as upstream:
        text = document(upstream, workers=workers)
        async with living(Program(text, env={"PYTHONPATH": str(tmp_path)})) as program:
            program.signal(TERM)
            await program.record(message="drained")


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_socket_file_is_left_behind_however_it_ends(tmp_path: Path, workers: int) -> None:
    listen, admin = f"unix:{tmp_path}/proxy.sock", f"unix:{tmp_path}/admin.sock"
    async with scripted() as upstream:
        text = document(upstream, listen=listen, admin=admin, drain="1m", workers=workers)
        async with Program(text) as program:
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
            assert modes == {"proxy.sock": 0o660, "admin.sock": 0o660}
        assert not list(tmp_path.iterdir())

        async with living(Program(text), code=143) as program, calling(program) as caller:
            caller.send(GET)
            await (await upstream.accept()).request()
            await _begin_to_drain(program)
            program.signal(TERM)
        assert not list(tmp_path.iterdir())


# --- quit


async def test_a_job_whose_last_line_asks_the_sidecar_to_quit_ends_with_0() -> None:
    async with (
        scripted(OK) as upstream,
        # What a signal would wait for is not waited for: the app itself has said that it is done.
        Program(document(upstream, sigterm_delay="1m")) as program,
    ):
        done = await command("shutdown", "--admin", program.admin)

        assert done == Done(0, "", "")
        assert await program.exit_code() == 0
        await program.record(message="asked to quit: draining")


async def test_quit_lets_what_is_in_flight_finish() -> None:
    async with between() as (upstream, program, caller):
        caller.send(GET)
        end = await upstream.accept()
        await end.request()
        assert await status_of(program.admin, "/quitquitquit", "POST") == 200
        await program.record(message="asked to quit: draining")
        # Whoever asks again changes nothing.
        assert await status_of(program.admin, "/quitquitquit", "POST") == 200
        end.send(OK)

        assert (await caller.answer()).status == 200
        assert await program.exit_code() == 0


async def test_after_quit_the_second_signal_ends_it_at_once() -> None:
    async with (
        scripted() as upstream,
        living(Program(document(upstream, drain="1m")), code=143) as program,
        calling(program) as caller,
    ):
        caller.send(GET)
        await (await upstream.accept()).request()
        assert await status_of(program.admin, "/quitquitquit", "POST") == 200
        program.signal(TERM)
        await program.record(message="SIGTERM: draining already")
        program.signal(TERM)


async def test_nobody_can_ask_to_quit_unless_that_is_configured() -> None:
    async with scripted(OK) as upstream:
        text = document(upstream, admin="127.0.0.1:0")
        async with Program(text) as program:
            assert await status_of(program.admin, "/quitquitquit", "POST") == 404
            assert await status_of(program.listeners[0], "/") == 200


# --- what stands in the way of a start


async def test_a_port_in_use_is_one_line_and_69(proxies: Proxies) -> None:
    async with scripted(OK) as upstream:
        running = await proxies.run(document(upstream))
        text = document(upstream, listen=running.listeners[0])

        done = await _started_with(text)

        assert done.code == 69
        assert done.err == (
            f"cloud-run-auth-proxy: cannot listen on {running.listeners[0]}: "
            "Address already in use; --listen takes another\n"
        )


async def test_a_port_in_use_is_one_json_line_where_the_log_is_json(proxies: Proxies) -> None:
    async with scripted(OK) as upstream:
        running = await proxies.run(document(upstream))
        text = document(upstream, listen=running.listeners[0], log={"format": "json"})

        done = await _started_with(text)

        assert done.code == 69
        (line,) = done.err.splitlines()
        record = json.loads(line)
        assert record["severity"] == "ERROR"
        assert record["message"].endswith("Address already in use; --listen takes another")


async def test_an_admin_port_in_use_is_one_line_and_69(proxies: Proxies) -> None:
    async with scripted(OK) as upstream:
        running = await proxies.run(document(upstream))
        text = document(upstream, admin=running.admin)

        done = await _started_with(text)

        assert done.code == 69
        assert done.err == (
            f"cloud-run-auth-proxy: cannot listen on {running.admin}: Address already in use; "
            "--admin takes another\n"
        )


async def _started_with(text: str) -> Done:
    return await command("run", env={"AUTH_PROXY_CONFIG_YAML": text})


async def _begin_to_drain(program: Program) -> None:
    program.signal(TERM)
    await program.record(message="SIGTERM: draining")
