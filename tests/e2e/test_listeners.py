"""What a started proxy says of itself, and which listener answers what."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.fakes.lifelines import OK, document, scripted, status_of
from tests.fakes.program import Program

# --- what is said of the start


async def test_port_is_never_taken_and_the_line_at_the_start_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    routes = {
        "local": {"path": "/l", "upstream": "http://127.0.0.1:9", "audience": "https://x.example"}
    }
    async with (
        scripted(OK) as upstream,
        Program(document(upstream, routes=routes), env={"PORT": str(port)}) as program,
    ):
        for said in (
            "ignored: routes.local.audience: route local sends no token (auth: none)",
            "ignored: PORT: listen alone says where; ${PORT} there takes it",
        ):
            assert (await program.record(message=said))["severity"] == "WARNING"
        assert str(port) not in program.listeners[0]
        with pytest.raises(ConnectionRefusedError):
            await status_of(f"127.0.0.1:{port}", "/")


async def test_where_everything_has_its_effect_nothing_is_said_of_it() -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        await program.record(message="serving")
    assert [record for record in program.records() if record["severity"] == "WARNING"] == []


async def test_a_listener_that_others_can_reach_is_warned_of_once(tmp_path: Path) -> None:
    def open_ones(program: Program) -> list[tuple[str, str]]:
        records = program.records()
        return [(r["severity"], r["message"]) for r in records if "loopback" in r["message"]]

    async with (
        scripted(OK) as upstream,
        Program(document(upstream, listen=["0.0.0.0:0", f"unix:{tmp_path}/s"])) as program,
    ):
        [reached] = [each for each in program.listeners if each.startswith("0.0.0.0:")]
        said = (
            f"{reached} is not on loopback: whoever reaches it calls the upstreams as this service"
        )
        await program.record(message=said)
        program.signal(signal.SIGHUP)
        await program.record(message="SIGHUP: the configuration was taken")
        assert open_ones(program) == [("WARNING", said)]


# --- the two kinds of listeners


async def test_nothing_of_the_admin_listener_calls_an_upstream() -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        for path in ("/startup", "/readiness", "/liveness", "/metrics", "/status", "/"):
            assert await status_of(program.admin, path) == 200
        assert upstream.connections == []


async def test_nothing_of_the_admin_listener_is_answered_on_the_proxied_port() -> None:
    paths = ["/startup", "/readiness", "/metrics", "/status", "/"]
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        for path in paths:
            assert await status_of(program.listeners[0], path) == 200
        assert await status_of(program.listeners[0], "/quitquitquit", "POST") == 200
        # All of it was the upstream's to answer, and nobody has been asked to quit.
        assert [seen.start.split()[1].decode() for seen in upstream.requests] == [
            *paths,
            "/quitquitquit",
        ]
        assert await status_of(program.admin, "/readiness") == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_port_alone_is_served_on_both_loopback_addresses(workers: int) -> None:
    async with scripted(OK) as upstream:
        text = document(upstream, listen="0", admin=":0", workers=workers)
        async with Program(text) as program:
            for shown in (*program.listeners, program.admin):
                name, port = shown.split(":")
                assert name == "localhost"
                assert await status_of(f"127.0.0.1:{port}", "/") == 200
                assert await status_of(f"[::1]:{port}", "/") == 200
            assert len(program.listeners) == 1


@pytest.mark.parametrize(
    ("listen", "route", "status"),
    [
        ("127.0.0.1:0", {}, 403),
        ("[::1]:0", {}, 403),
        ("0", {}, 403),
        ("0", {"allow_hosts": "any"}, 200),
        ("0", {"allow_hosts": ["*.example"]}, 200),
        ("0", {"host": "evil.example"}, 200),
        ("0.0.0.0:0", {}, 200),
        ("unix:{}/socket", {}, 200),
    ],
)
async def test_a_page_cannot_point_its_own_name_at_a_loopback_listener(
    tmp_path: Path, listen: str, route: dict[str, object], status: int
) -> None:
    async with scripted(OK) as upstream:
        text = document(upstream, route=route, listen=listen.format(tmp_path))
        async with Program(text) as program:
            host = "evil.example:8081"
            assert await status_of(program.listeners[0], "/", host=host) == status
            assert len(upstream.requests) == (status == 200)


async def test_a_reload_changes_which_hosts_are_served() -> None:
    async with scripted(OK) as upstream, Program(document(upstream)) as program:
        assert await status_of(program.listeners[0], "/", host="orders.internal") == 403
        program.config_file.write_text(document(upstream, route={"allow_hosts": "orders.internal"}))
        program.signal(signal.SIGHUP)
        await program.record(message="SIGHUP: the configuration was taken")

        assert await status_of(program.listeners[0], "/", host="orders.internal") == 200
        assert await status_of(program.listeners[0], "/", host="billing.internal") == 403


async def test_without_an_admin_listener_there_is_none() -> None:
    async with scripted(OK) as upstream, Program(document(upstream, admin="off")) as program:
        assert (await program.record(message="serving"))["admin"] == "off"
        assert await status_of(program.listeners[0], "/") == 200
        assert _listening(program.pid) == 1


def _listening(pid: int) -> int:
    """Return on how many TCP ports the process listens."""
    inodes = {
        target.removeprefix("socket:[").removesuffix("]")
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if (target := _link(entry)).startswith("socket:[")
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # proc(5): state 0A is LISTEN, the tenth column is the inode.  A port may have two sockets.
    return len({row[1] for row in rows if row[3] == "0A" and row[9] in inodes})


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except FileNotFoundError:
        return ""
