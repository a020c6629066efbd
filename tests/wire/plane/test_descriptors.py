"""Callers for whom no descriptor is left: they are told, if they ask soon, and then they go."""

from __future__ import annotations

import json

import pytest

from proxy.plane import descriptors
from proxy.plane.detect import CROWDED_TIMEOUT
from tests.fakes.framed import GET
from tests.fakes.framed_world import frame_caller
from tests.fakes.wired import Wired

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def lack(monkeypatch: pytest.MonkeyPatch, within: int) -> None:
    """Have each new connection lie so far within the reserve."""
    monkeypatch.setattr(descriptors, "beyond", lambda _: within)


@pytest.mark.parametrize("within", [1, descriptors.REFUSALS])
async def test_a_caller_within_the_reserve_is_told_and_its_connection_ends(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, within: int
) -> None:
    lack(monkeypatch, within)
    caller = await wired.caller()

    answer = await caller.ask(REQUEST)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "overloaded")
    assert answer.value("retry-after") == "1"
    assert answer.value("connection") == "close"
    assert "no file descriptor left" in json.loads(answer.body)["detail"]
    await caller.until(lambda: caller.at_eof, "the end of the connection")
    assert wired.upstream.connections == []


async def test_a_caller_in_http2_is_told_too(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, 1)
    async with await frame_caller(wired) as caller:
        seen = await caller.ask(1, GET)

    assert (seen.status, seen.reason) == (503, "overloaded")
    assert wired.upstream.connections == []


async def test_a_caller_beyond_what_refusals_may_take_is_dropped(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, descriptors.REFUSALS + 1)
    caller = await wired.caller()

    await caller.until(lambda: caller.closed or caller.at_eof, "the end of the connection")
    assert bytes(caller.history) == b""


async def test_a_silent_caller_within_the_reserve_goes_soon(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, 1)
    caller = await wired.caller()
    await wired.until(lambda: wired.plane.connections, "the connection")

    wired.pass_time(CROWDED_TIMEOUT - 0.1)
    await wired.standstill(lambda: len(wired.plane.connections))
    assert not caller.at_eof
    wired.pass_time(0.2)
    await caller.until(lambda: caller.closed or caller.at_eof, "the end of the connection")


async def test_who_came_before_is_served_on_and_so_is_who_comes_after(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    wired.upstream.automatic = OK
    before = await wired.caller()
    assert (await before.ask(REQUEST)).status == 200
    with monkeypatch.context() as few:
        lack(few, 1)
        assert (await (await wired.caller()).ask(REQUEST)).status == 503
        assert (await before.ask(REQUEST)).status == 200

    assert (await (await wired.caller()).ask(REQUEST)).status == 200
