"""Every limit of a route holds for a request that takes the short way: all is known and at hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields
from typing import Any

import pytest

from proxy.config.model import Limits, Timeouts
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"

Way = tuple[Wired, RawCaller, UpstreamEnd]


async def busy(way: Way, number: int) -> None:
    """Let so many exchanges begin and not end; the first takes the idle connection."""
    wired, caller, end = way
    caller.send(GET)
    await end.head()
    for _ in range(number - 1):
        (await wired.caller()).send(GET)


async def long_head(way: Way) -> RawCaller:
    # For another route the listener takes more; and the fields are those that the connection knows.
    way[0].host.head_limit = 1 << 20
    way[1].send(GET.replace(b" / ", b" /" + b"x" * (8192 - len(GET) + 1) + b" "))
    return way[1]


async def large_body(way: Way) -> RawCaller:
    way[1].send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
    return way[1]


async def one_more(way: Way) -> RawCaller:
    await busy(way, 1)
    late = await way[0].caller()
    late.send(GET)
    return late


async def one_more_than_may_wait(way: Way) -> RawCaller:
    await busy(way, 2)
    gate = way[0].builder.routes["default"].gate
    assert gate is not None
    await way[0].until(lambda: gate.waiting == 1, "the second to wait")
    late = await way[0].caller()
    late.send(GET)
    return late


async def one_more_tunnel(way: Way) -> RawCaller:
    wired, caller, end = way
    caller.send(UPGRADE)
    await end.head()
    end.send(SWITCH)
    assert (await caller.answer()).status == 101
    late = await wired.caller()
    late.send(UPGRADE)
    return late


Beyond = Callable[[Way], Awaitable[RawCaller]]
BEYOND: Mapping[str, tuple[dict[str, Any], Beyond, int, str]] = {
    "connections": ({"connections": 1}, one_more, 503, "overloaded"),
    "tunnels": ({"tunnels": 1}, one_more_tunnel, 503, "overloaded"),
    "in_flight": ({"in_flight": 1}, one_more, 503, "overloaded"),
    "queue": ({"in_flight": 1, "queue": 1}, one_more_than_may_wait, 503, "overloaded"),
    "header_bytes": ({"header_bytes": 8192}, long_head, 431, "headers_too_large"),
    "body_bytes": ({"body_bytes": 10}, large_body, 413, "body_too_large"),
}
"""How each limit is set, what goes beyond it, and how that is answered."""


def test_every_limit_is_here() -> None:
    # `resets` is the listener's: tests/wire/http2/test_resets.py.
    assert {*BEYOND, "resets"} == {field.name for field in fields(Limits)}


@pytest.mark.parametrize("name", BEYOND)
async def test_a_limit_holds_where_everything_is_at_hand(wired: Wired, name: str) -> None:
    limits, go_beyond, status, reason = BEYOND[name]
    wired.half_open = True
    await wired.serve(limits=Limits(**limits), timeouts=Timeouts(connect=0.2))
    caller = await wired.caller()
    caller.send(GET)
    end = await wired.upstream.accept()
    await end.serve(OK)
    await caller.take(OK)
    caller.send(GET)
    await end.serve(OK)
    await caller.take(OK)

    refused = await (await go_beyond((wired, caller, end))).answer()

    assert (refused.status, refused.value("x-auth-proxy-error")) == (status, reason)
