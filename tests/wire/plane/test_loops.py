"""Routes that lead back to where they began: told at once, and no chain is taken for one."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from proxy.config.model import Auth, Destination, Protocol, Retries, Route, Upstream
from proxy.plane.guard import MOST_PROXIES
from proxy.plane.head import values
from tests.fakes.framed import GET, GRPC
from tests.fakes.framed_world import frame_caller
from tests.fakes.raw import Message
from tests.fakes.wired import ANY, Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TRIES = Retries(attempts=3, on=("connect_failed", "reset", 429, 502, 503))
LOOP = {"upstream_connect_failed": 1}


def at(wired: Wired) -> Upstream:
    """The proxy's own listener as an upstream."""
    return Upstream("http", wired.address.host, wired.address.port)


def get(*lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} /x HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def assert_loop(answer: Message) -> None:
    assert (answer.status, answer.values("x-auth-proxy-error")) == (
        502,
        ["upstream_connect_failed"],
    )
    problem = json.loads(answer.body)
    assert problem["reason"] == "upstream_connect_failed"
    assert "loop" in problem["detail"].lower()
    assert "upstream" in problem["hint"]


def marks_of(data: bytes) -> list[str]:
    return re.findall(r"(?i)\r\nx-auth-proxy-via: ([0-9a-f]{16})(?=\r\n)", data.decode("latin-1"))


@pytest.mark.parametrize("retries", [Retries(), TRIES])
async def test_a_proxy_that_calls_itself_goes_round_once(wired: Wired, retries: Retries) -> None:
    await wired.serve(upstream=at(wired), retries=retries)
    caller = await wired.caller()

    for number in (1, 2):
        assert_loop(await caller.ask(get()))
        # Once where it was noticed, and once where the caller was told.
        assert wired.refusals == {"upstream_connect_failed": 2 * number}
    assert len(wired.plane.connections) == 2
    assert wired.route_stats.retries == {}
    await wired.serve()


async def test_two_proxies_that_call_each_other_are_a_loop_to_the_caller(wired: Wired) -> None:
    async with Wired() as other:
        await other.serve(upstream=at(wired), retries=TRIES)
        await wired.serve(upstream=at(other), retries=TRIES)
        caller = await wired.caller()

        assert_loop(await caller.ask(get()))
        assert (wired.refusals, other.refusals) == ({"upstream_connect_failed": 2}, LOOP)
        assert len(other.plane.connections) == 1
        await wired.serve()


async def test_a_loop_is_refused_before_a_token_is_used(wired: Wired) -> None:
    async with Wired() as other:
        await other.serve(upstream=at(wired))
        await wired.serve(upstream=at(other), auth=Auth.ID_TOKEN)
        caller = await wired.caller()

        assert_loop(await caller.ask(get()))
        # The first way out took it; the second never came so far.
        assert wired.source.fetched == 1
        assert wired.route_stats.requests["h1", 502] == 2
        await wired.serve()


async def test_an_upgrade_that_goes_round_is_refused(wired: Wired) -> None:
    await wired.serve(upstream=at(wired))
    caller = await wired.caller()

    assert_loop(await caller.ask(get("Connection: Upgrade", "Upgrade: websocket")))
    await wired.serve()


async def test_a_loop_of_http2_is_told_in_the_callers_language(wired: Wired) -> None:
    await wired.serve(upstream=at(wired), protocol=Protocol.H2)
    async with await frame_caller(wired) as caller:
        caller.send_headers(1, GET, end=True)
        plain = await caller.finished(1)
        caller.send_headers(3, GRPC, end=True)
        call = await caller.finished(3)
    await wired.serve()

    assert (plain.status, plain.head["x-auth-proxy-error"]) == (502, "upstream_connect_failed")
    assert "loop" in json.loads(bytes(plain.body))["detail"].lower()
    assert call.head["x-auth-proxy-error"] == "upstream_connect_failed"
    assert "loop" in call.head["grpc-message"].lower()


async def test_a_chain_of_proxies_is_no_loop_though_applications_pass_all_fields_on(
    wired: Wired,
) -> None:
    """App → proxy → service → its own proxy → another service, with everything passed on."""
    wired.upstream.automatic = OK
    async with Wired(automatic=OK) as other:
        await other.serve()
        assert (await (await wired.caller()).ask(get())).status == 200
        (mark,) = marks_of(bytes(wired.upstream.connections[0].history))

        forwarding = await other.caller()
        for _ in range(2):
            assert (await forwarding.ask(get(f"x-auth-proxy-via: {mark}"))).status == 200
        first, own, *again = marks_of(bytes(other.upstream.connections[0].history))
        assert (first, again) == (mark, [mark, own])
        assert own != mark


async def test_who_is_called_back_may_call_on_by_another_route(wired: Wired) -> None:
    wired.upstream.automatic = OK
    upstream = Upstream("http", "127.0.0.1", wired.upstream.port)
    first = Route(
        name="first",
        listen=(ANY,),
        path="/first",
        destinations=(Destination(upstream=upstream),),
        auth=Auth.NONE,
    )
    await wired.serve_routes(first, dataclasses.replace(first, name="second", path="/second"))
    caller = await wired.caller()
    assert (await caller.ask(b"GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200
    (mark,) = marks_of(bytes(wired.upstream.connections[0].history))

    back = f" HTTP/1.1\r\nHost: localhost\r\nX-Auth-Proxy-Via: {mark}\r\n\r\n".encode()
    assert (await caller.ask(b"GET /second" + back)).status == 200
    assert_loop(await caller.ask(b"GET /first" + back))


@pytest.mark.parametrize(
    ("count", "status"), [(MOST_PROXIES - 1, 200), (MOST_PROXIES, 502), (MOST_PROXIES + 1, 502)]
)
@pytest.mark.parametrize("joined", [False, True])
async def test_no_chain_is_so_long(wired: Wired, count: int, status: int, *, joined: bool) -> None:
    """A loop may come to another instance of each proxy every time."""
    wired.upstream.automatic = OK
    marks = [f"{number:016x}" for number in range(count)]
    lines = [", ".join(marks)] if joined else marks
    caller = await wired.caller()

    answer = await caller.ask(get(*(f"X-Auth-Proxy-Via: {line}" for line in lines)))

    assert answer.status == status
    if status != 200:
        assert_loop(answer)
    else:
        # Ours is the last of them, whatever the caller named in Connection.
        assert len(marks_of(bytes(wired.upstream.connections[0].history))) == (
            1 if joined else count + 1
        )


async def test_a_caller_cannot_take_our_mark_off(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    await caller.ask(get("Connection: x-auth-proxy-via", "X-Auth-Proxy-Via: theirs"))

    history = bytes(wired.upstream.connections[0].history)
    assert len(marks_of(history)) == 1
    assert b"theirs" not in history


async def test_an_upstream_that_is_no_proxy_of_ours_keeps_its_errors(wired: Wired) -> None:
    wired.upstream.automatic = OK.replace(b"200 OK", b"508 Loop Detected")
    caller = await wired.caller()

    answer = await caller.ask(get())

    assert (answer.status, answer.values("x-auth-proxy-error")) == (508, [])


@pytest.mark.pure
async def test_fields_are_searched_for_marks_only_where_one_stands(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers by another host are served at full speed: a search takes as long as the fields."""
    searched: list[bytes] = []

    def search(fields: bytes, name: bytes) -> list[bytes]:
        searched.append(name)
        return values(fields, name)

    monkeypatch.setattr("proxy.plane.guard.values", search)
    wired.upstream.automatic = OK
    await wired.serve(host=("orders.internal",))
    caller = await wired.caller()

    plain = get().replace(b"localhost", b"orders.internal")
    assert (await caller.ask(plain)).status == 200
    assert searched == []
    marked = plain.replace(b"\r\n\r\n", b"\r\nx-auth-proxy-via: 0123456789abcdef\r\n\r\n")
    assert (await caller.ask(marked)).status == 200
    assert searched == [b"x-auth-proxy-via"]
