"""The admin listener over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from proxy.config.model import Address, Admin, Config, Destination, Route, Upstream
from proxy.ops.admin import HEADERS, AdminServer, AdminView
from proxy.ops.lifecycle import Lifecycle, State
from proxy.ops.numbers import Numbers
from proxy.ops.status import Status
from tests.fakes import leaks
from tests.unit.ops.builders import busy_numbers

LISTEN = Address("127.0.0.1", 0)
CONFIG = Config(
    routes=(
        Route(
            name="orders",
            listen=(Address("127.0.0.1", 8080),),
            destinations=(
                Destination(
                    upstream=Upstream("https", "orders.run.app", 443),
                    audience="https://orders.run.app",
                ),
            ),
        ),
    ),
    source="config/proxy.yaml",
)


@dataclass
class Answer:
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Running:
    """An admin listener and what it looks at."""

    def __init__(self, admin: Admin) -> None:
        self.lifecycle = Lifecycle()
        self.numbers = busy_numbers()
        self.failing = False
        self.asked = asyncio.Event()
        self.quits = 0
        self.status = Status(self.lifecycle, lambda: CONFIG, lambda: CONFIG.listeners)
        view = AdminView(
            lifecycle=self.lifecycle, numbers=self._numbers, status=self.status, quit=self._quit
        )
        self.server = AdminServer(admin, view)
        self.address = Address()

    async def sampled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait until a point has been taken."""
        taken = asyncio.Event()
        sample = self.status.sample

        def watched(numbers: Numbers) -> None:
            sample(numbers)
            taken.set()

        monkeypatch.setattr(self.status, "sample", watched)
        await taken.wait()

    async def _numbers(self) -> Numbers:
        self.asked.set()
        if self.failing:
            raise RuntimeError("no numbers")
        return self.numbers

    def _quit(self) -> None:
        self.quits += 1

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send one request and return the response; names are written with ``_`` for ``-``."""
        if self.address.path:
            reader, writer = await asyncio.open_unix_connection(self.address.path)
        else:
            reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        fields = {"Host": str(self.address), "Connection": "close"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        raw = await reader.read()
        writer.close()
        await writer.wait_closed()
        leaks.look(f"{path} of the admin listener", raw)
        return _parse(raw)


def _parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    return Answer(int(first.split()[1]), headers, body)


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start an admin listener that is stopped afterwards."""
    running: list[Running] = []

    async def start(
        listen: Address = LISTEN, *, quit_: bool = False, sock: socket.socket | None = None
    ) -> Running:
        made = Running(Admin(listen=listen, quit=quit_))
        made.address = await made.server.start(sock)
        running.append(made)
        return made

    yield start
    for made in running:
        await made.server.stop()


@pytest.mark.parametrize(
    ("path", "moves", "status", "text"),
    [
        ("/startup", [], 503, "starting: fetching the first tokens\n"),
        ("/startup", [State.SERVING], 200, "started\n"),
        ("/startup", [State.SERVING, State.DRAINING], 200, "started\n"),
        ("/readiness", [], 503, "starting: fetching the first tokens\n"),
        ("/readiness", [State.SERVING], 200, "ready\n"),
        ("/readiness", [State.SERVING, State.DRAINING], 503, "draining\n"),
        ("/liveness", [], 200, "alive\n"),
        ("/liveness", [State.SERVING, State.DRAINING], 200, "alive\n"),
        ("/liveness", [State.SERVING, State.DRAINING, State.STOPPED], 503, "stopped\n"),
    ],
)
async def test_a_probe_answers_its_truth_and_says_why(
    start: Start, path: str, moves: list[State], status: int, text: str
) -> None:
    running = await start()
    running.lifecycle.note = "fetching the first tokens"
    for state in moves:
        running.lifecycle.move_to(state)

    answer = await running.ask(path)

    assert (answer.status, answer.text) == (status, text)


async def test_a_probe_needs_no_numbers(start: Start) -> None:
    running = await start()
    running.failing = True

    assert (await running.ask("/liveness")).status == 200
    assert (await running.ask("/status")).status == 500


async def test_head_is_answered_like_get_without_a_body(start: Start) -> None:
    answer = await (await start()).ask("/liveness", "HEAD")

    assert (answer.status, answer.body) == (200, b"")


def _names(read: Callable[[str], Iterable[Metric]], answer: Answer) -> set[str]:
    return {metric.name for metric in read(answer.text)}


async def test_metrics_are_prometheus_text(start: Start) -> None:
    answer = await (await start()).ask("/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "auth_proxy_requests" in _names(read_plain, answer)


async def test_metrics_are_openmetrics_when_asked_for(start: Start) -> None:
    answer = await (await start()).ask("/metrics", Accept="application/openmetrics-text")

    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "auth_proxy_requests" in _names(read_open, answer)


async def test_metrics_survive_an_accept_header_that_is_garbage(start: Start) -> None:
    answer = await (await start()).ask("/metrics", Accept="application/openmetrics-text;version=x")

    assert answer.status == 200


async def test_status_is_json_with_the_points_of_the_graphs_unless_declined(start: Start) -> None:
    running = await start()

    whole = await running.ask("/status")
    short = await running.ask("/status?history=0")

    assert whole.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(whole.body)["routes"][0]["name"] == "orders"
    assert "history" in json.loads(whole.body)
    assert "history" not in json.loads(short.body)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
async def test_the_page_and_its_files_are_served(
    start: Start, path: str, content_type: str
) -> None:
    answer = await (await start()).ask(path)

    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    assert answer.body


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/x.js", "/static/..%2fadmin.py", "/static/../admin.py", "/nothing", "/x/"],
)
async def test_anything_else_is_not_found(start: Start, path: str) -> None:
    assert (await (await start()).ask(path)).status == 404


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/startup", "/nothing"])
async def test_every_answer_carries_the_security_headers(start: Start, path: str) -> None:
    answer = await (await start()).ask(path)

    assert {name: answer.headers.get(name.lower()) for name in HEADERS} == HEADERS
    assert "python" not in answer.headers["server"].lower()


@pytest.mark.parametrize("path", ["/metrics", "/status", "/", "/startup"])
async def test_what_only_reads_refuses_to_be_posted_to(start: Start, path: str) -> None:
    assert (await (await start()).ask(path, "POST")).status == 405


async def test_quit_begins_the_drain(start: Start) -> None:
    running = await start(quit_=True)

    answer = await running.ask("/quitquitquit", "POST", Content_Length="0")

    assert (answer.status, answer.text, running.quits) == (200, "draining\n", 1)


async def test_quit_must_be_posted(start: Start) -> None:
    running = await start(quit_=True)

    answer = await running.ask("/quitquitquit")

    assert (answer.status, answer.headers["allow"], running.quits) == (405, "POST", 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_quit_there_is_no_such_path(start: Start, method: str) -> None:
    running = await start()

    assert (await running.ask("/quitquitquit", method)).status == 404
    assert running.quits == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize(("path", "method"), [("/status", "GET"), ("/quitquitquit", "POST")])
async def test_pages_of_other_sites_neither_read_nor_trigger_anything(
    start: Start, path: str, method: str, headers: dict[str, str]
) -> None:
    running = await start(quit_=True)

    answer = await running.ask(path, method, **headers)

    assert (answer.status, running.quits) == (403, 0)
    assert answer.text.startswith("refused: ")


async def test_a_page_of_the_listeners_own_is_answered(start: Start) -> None:
    running = await start()
    own = f"http://{running.address}"

    assert (await running.ask("/status", Sec_Fetch_Site="same-origin", Origin=own)).status == 200


async def test_quit_is_refused_to_callers_from_other_machines(start: Start) -> None:
    outside = _own_address()
    running = await start(Address("0.0.0.0", 0), quit_=True)  # noqa: S104 (for this test)
    running.address = Address(outside, running.address.port)

    answer = await running.ask("/quitquitquit", "POST", Content_Length="0")

    assert (answer.status, running.quits) == (403, 0)
    assert (await running.ask("/readiness")).status == 503
    assert (await running.ask("/status", Host="proxy.prod.svc.cluster.local")).status == 200


def _own_address() -> str:
    """An address of this machine that is not loopback, without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(sock.getsockname()[0])


async def test_a_unix_socket_serves_and_is_removed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    running = await start(Address("", 0, str(path)), quit_=True)

    assert running.address == Address(path=str(path))
    assert (await running.ask("/liveness")).status == 200
    assert (await running.ask("/quitquitquit", "POST", Content_Length="0")).status == 200

    await running.server.stop()

    assert not path.exists()


async def test_an_inherited_socket_is_used(start: Start) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]

    running = await start(Address("127.0.0.1", 1), sock=sock)

    assert running.address == Address("127.0.0.1", port)
    assert (await running.ask("/liveness")).status == 200


async def test_localhost_is_served_on_both_loopback_addresses_of_one_port(start: Start) -> None:
    running = await start(Address("localhost", 0))

    assert running.address == Address("localhost", running.address.port)
    for host in ("127.0.0.1", "::1"):
        running.address = Address(host, running.address.port)
        assert (await running.ask("/liveness")).status == 200


async def test_a_port_in_use_is_an_os_error(start: Start) -> None:
    running = await start()

    with pytest.raises(OSError, match=r"Address already in use"):
        await start(running.address)


async def test_after_stop_nobody_listens(start: Start) -> None:
    running = await start()
    await running.server.stop()

    with pytest.raises(ConnectionRefusedError):
        await running.ask("/liveness")


async def test_a_connection_kept_open_does_not_hold_up_the_stop(start: Start) -> None:
    running = await start()
    reader, writer = await asyncio.open_connection(running.address.host, running.address.port)
    writer.write(b"GET /liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"alive\n")

    async with asyncio.timeout(5):
        await running.server.stop()

        assert await reader.read() == b""

    writer.close()


async def test_points_are_taken_while_it_runs(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Status, "sample_seconds", 0.001)
    running = await start()
    await running.sampled(monkeypatch)
    status = json.loads((await running.ask("/status")).body)

    assert status["history"]["at"]
    assert len(status["routes"][0]["history"]["requests"]) == len(status["history"]["at"])


async def test_a_point_that_cannot_be_taken_is_logged_and_the_next_one_is(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Status, "sample_seconds", 0.001)
    running = await start()
    running.failing = True
    running.asked.clear()
    await running.asked.wait()
    await asyncio.sleep(0)

    assert "cannot sample the numbers" in caplog.text

    running.failing = False
    await running.sampled(monkeypatch)

    assert json.loads((await running.ask("/status")).body)["sampled_at"] is not None
