"""`wait` and `shutdown`: a running proxy is asked from outside."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy import PROGRAM, remote
from proxy.config.model import Address
from proxy.emulator.service import ProtectedService
from tests.fakes.emulated import app
from tests.fakes.program import command
from tests.fakes.proxies import Proxies
from tests.fakes.raw_server import raw_server


@asynccontextmanager
async def admin(
    *statuses: int, path: str = "/startup", server: str = PROGRAM
) -> AsyncIterator[str]:
    """Answer with these statuses, one after the other; the last one goes on."""
    left = list(statuses)

    async def answer(request: web.Request) -> web.Response:
        assert request.path == path
        status = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(status=status, text="starting\nmore\n", headers={"Server": server})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def closed_port() -> str:
    """Return an address where nothing listens at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


# wait


async def test_wait_returns_when_the_proxy_has_started(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service)

    done = await command("wait", "--admin", proxy.admin)

    assert (done.code, done.out, done.err) == (0, "", "")


async def test_wait_finds_the_admin_listener_by_the_variable(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service)
    nowhere = closed_port()

    by_variable = await command("wait", env={"AUTH_PROXY_ADMIN": proxy.admin})
    by_flag = await command("wait", "--admin", proxy.admin, env={"AUTH_PROXY_ADMIN": nowhere})

    assert (by_variable.code, by_flag.code) == (0, 0)


async def test_wait_goes_on_until_startup_says_200() -> None:
    async with admin(503, 503, 200) as address:
        done = await command("wait", "--admin", address)

    assert (done.code, done.err) == (0, "")


async def test_wait_says_what_it_saw_last() -> None:
    nowhere = closed_port()
    async with admin(503) as starting, admin(404) as strange, raw_server(b"220 hello\r\n") as mail:
        refused = await command("wait", "--admin", nowhere, "--timeout", "200ms")
        early = await command("wait", "--admin", starting, "--timeout", "200ms")
        other = await command("wait", "--admin", strange, "--timeout", "0s")
        no_http = await command("wait", "--admin", f"127.0.0.1:{mail.port}", "--timeout", "0s")

    assert {refused.code, early.code, other.code, no_http.code} == {1}
    assert refused.err == (
        f"cloud-run-auth-proxy: {nowhere}: not started within 0.2 s: "
        "/startup: connection refused: nothing listens there\n"
    )
    assert early.err.endswith("/startup: status 503 (starting)\n")
    assert other.err.endswith("/startup: status 404 (starting)\n")
    assert no_http.err.endswith("/startup: what answers there does not speak HTTP\n")


async def test_wait_ends_in_time_before_a_listener_that_never_answers() -> None:
    async with raw_server(hold=True) as server:
        done = await command(
            "wait", "--admin", f"127.0.0.1:{server.port}", "--timeout", "300ms", seconds=10
        )

    assert done.code == 1
    assert "/startup: no answer within " in done.err


async def test_wait_and_shutdown_end_in_time_however_an_answer_drips() -> None:
    """A timeout for each read would never come: there is always one more field."""
    fields = [b"X-Drip: %d\r\n" % n for n in range(10_000)]

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for each in fields:
            writer.write(each)
            await asyncio.sleep(0.05)
            if writer.is_closing():
                break

    async with app(drip) as (host, port):
        address = f"{host}:{port}"
        waited = await command("wait", "--admin", address, "--timeout", "300ms", seconds=10)
        asked = await command("shutdown", "--admin", address, seconds=10)

    assert (waited.code, asked.code) == (1, 1)
    assert "/startup: no answer within " in waited.err
    assert asked.err.endswith("/quitquitquit: no answer within 2 s\n")


async def test_wait_tells_what_was_said_before_a_last_look_that_was_too_short() -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\nServer: cloud-run-auth-proxy\r\n"
    silent = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not silent.is_set():
            writer.write(head + b"Content-Length: 9\r\n\r\nstarting\n")
            silent.set()
        await reader.read()

    async with app(once) as (host, port):
        done = await command("wait", "--admin", f"{host}:{port}", "--timeout", "300ms", seconds=10)

    assert done.code == 1
    assert done.err.endswith("/startup: status 503 (starting)\n")


async def test_another_server_on_the_port_is_told_apart() -> None:
    """What it lacks is not the proxy's configuration."""
    async with (
        admin(404, server="nginx") as served,
        admin(404, path="/quitquitquit", server="nginx") as other,
    ):
        waited = await command("wait", "--admin", served, "--timeout", "0s")
        quits = await command("shutdown", "--admin", other)

    told = "another server answers there: status 404 (starting)\n"
    assert (waited.code, quits.code) == (1, 1)
    assert waited.err.endswith("/startup: " + told)
    assert quits.err.endswith("/quitquitquit: " + told)


def test_wait_looks_every_100_ms_and_once_more_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 5000.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    nowhere = Address(path=str(tmp_path / "none.sock"))
    assert remote.wait(nowhere, 1.05, clock=lambda: now, sleep=sleep) == 1

    assert sum(slept) == pytest.approx(1.05)
    assert max(slept) == remote.PAUSE
    assert capsys.readouterr().err == (
        f"cloud-run-auth-proxy: {nowhere}: not started within 1.05 s: "
        "/startup: no such file: there is no such socket\n"
    )


def test_wait_without_a_timeout_goes_on(tmp_path: Path) -> None:
    pauses = 0

    class Enough(Exception):
        """The test has seen enough."""

    def sleep(seconds: float) -> None:
        nonlocal pauses
        assert seconds == remote.PAUSE
        pauses += 1
        if pauses == 50:
            raise Enough

    with pytest.raises(Enough):
        remote.wait(Address(path=str(tmp_path / "none")), math.inf, clock=lambda: 0.0, sleep=sleep)


# shutdown


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_shutdown_ends_the_proxy_with_exit_code_0(
    proxies: Proxies, service: ProtectedService, tmp_path: Path, kind: str
) -> None:
    listen = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/admin.sock"
    proxy = await proxies.to(service, admin={"listen": listen, "quit": True})
    assert (await command("wait", "--admin", proxy.admin)).code == 0

    done = await command("shutdown", "--admin", proxy.admin)

    assert (done.code, done.out, done.err) == (0, "", "")
    assert await proxy.exit_code() == 0


async def test_shutdown_says_how_quitting_is_turned_on(
    proxies: Proxies, service: ProtectedService
) -> None:
    proxy = await proxies.to(service)

    done = await command("shutdown", "--admin", proxy.admin)

    assert done.code == 1
    assert done.err == (
        f"cloud-run-auth-proxy: {proxy.admin}: asking it to quit is off; turn it on in the "
        f"configuration: admin: {{listen: {proxy.admin}, quit: true}}\n"
    )
    assert proxy.running


async def test_shutdown_says_why_nobody_was_asked() -> None:
    nowhere = closed_port()
    async with admin(403, path="/quitquitquit") as forbidden:
        refused = await command("shutdown", "--admin", nowhere)
        told = await command("shutdown", "--admin", forbidden)

    assert (refused.code, told.code) == (1, 1)
    assert refused.err == (
        f"cloud-run-auth-proxy: {nowhere}: does not shut down: "
        "/quitquitquit: connection refused: nothing listens there\n"
    )
    assert told.err.endswith("/quitquitquit: status 403 (starting)\n")


# both


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wait", "--admin", "off"], "--admin: off leaves nothing to ask"),
        (["wait", "--admin", ":0"], "--admin: :0 is no place to ask"),
        (["wait", "--timeout", "5"], "--timeout: 5 is a number without its unit; write 5s"),
        (["shutdown", "--admin", "nowhere"], "--admin: 'nowhere' is not an address"),
        (["shutdown", "now"], "unrecognized arguments: now"),
    ],
)
async def test_unusable_flags_are_one_line_and_exit_64(arguments: list[str], says: str) -> None:
    done = await command(*arguments)

    assert (done.code, done.out) == (64, "")
    assert says in done.err
    assert len(done.err.splitlines()) == 1


async def test_the_variable_is_named_where_it_is_the_one_that_is_off() -> None:
    done = await command("wait", env={"AUTH_PROXY_ADMIN": "off"})

    assert (done.code, done.err.partition(" ")[0]) == (64, "AUTH_PROXY_ADMIN:")


@pytest.mark.parametrize(("listened", "asked"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")])  # noqa: S104 (never opened)
def test_a_listener_on_every_address_is_asked_on_the_loopback(listened: str, asked: str) -> None:
    assert remote._Connection(Address(listened, 9090), 1.0).host == asked


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_localhost_is_asked_on_the_address_where_somebody_listens(host: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nServer: cloud-run-auth-proxy\r\nContent-Length: 5\r\n\r\n"
    async with raw_server(head, b"ready", host=host) as server:
        address = Address("localhost", server.port)
        answer = await asyncio.to_thread(remote.ask, address, "GET", "/startup", 5.0)

    assert answer == remote.Reply(200, "ready", is_ours=True)


async def test_localhost_without_a_listener_is_a_refusal() -> None:
    address = Address("localhost", int(closed_port().rpartition(":")[2]))
    answer = await asyncio.to_thread(remote.ask, address, "GET", "/startup", 5.0)

    assert answer == remote.Reply(None, "connection refused: nothing listens there")


async def test_an_answer_that_does_not_end_is_not_read_to_its_end() -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    async with raw_server(head, b"x" * 1_000_000, hold=True) as server:
        address = Address("127.0.0.1", server.port)
        answer = await asyncio.to_thread(remote.ask, address, "GET", "/startup", 5.0)

    assert answer.status == 503
    assert len(answer.text) < 300
