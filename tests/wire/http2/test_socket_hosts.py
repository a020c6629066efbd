"""Unix sockets over HTTP/2: the same rules as in `tests/wire/plane/test_socket_hosts.py`."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.config.model import Auth, Destination, Protocol, Route, Upstream
from tests.fakes.framed import GET, Pairs
from tests.fakes.framed_world import frame_caller
from tests.fakes.wired import ANY, Wired

WITHOUT = tuple(pair for pair in GET if pair[0] != ":authority")
PATHS = ["", "/run/proxy.sock", "%2Frun%2Fproxy.sock", "unix:/run/proxy.sock", "a b.sock"]


async def serve_two(wired: Wired) -> None:
    """Serve everybody, and hosts that end like a socket's path by another route."""
    upstream = Upstream("http", "127.0.0.1", wired.upstream.port)
    rest = Route(
        name="rest",
        listen=(ANY,),
        destinations=(Destination(upstream=upstream),),
        auth=Auth.NONE,
        protocol=Protocol.H1,
    )
    sock = dataclasses.replace(
        rest, name="sock", host=("*.sock",), set_headers=(("x-route", "sock"),)
    )
    await wired.serve_routes(rest, sock)


async def statuses(wired: Wired, *requests: Pairs) -> list[int]:
    """Send each request twice, since a head that repeats is read once; return the statuses."""
    found = []
    async with await frame_caller(wired) as caller:
        for number, pairs in enumerate(each for each in requests for _ in range(2)):
            found.append((await caller.ask(2 * number + 1, pairs)).status)
    return found


@pytest.mark.parametrize(
    "pairs",
    [
        WITHOUT,
        *((*WITHOUT, (":authority", path)) for path in PATHS),
        *((*WITHOUT, ("host", path)) for path in PATHS),
        (*WITHOUT, (":authority", ""), ("host", "/run/proxy.sock")),
    ],
)
async def test_what_is_no_host_counts_as_none(wired: Wired, pairs: Pairs) -> None:
    await serve_two(wired)
    wired.host.on_path = True
    assert await statuses(wired, pairs) == [200] * 2
    assert [seen.values("x-route") for seen in wired.upstream.requests] == [[]] * 2
    # Through a port a host must be named, which may have percent signs (RFC 3986, 3.2.2).
    wired.host.on_path = False
    assert await statuses(wired, pairs) == [200 if "%" in str(pairs) else 400] * 2


@pytest.mark.parametrize(
    "pairs",
    [
        (*WITHOUT, (":authority", "a.sock")),
        (*WITHOUT, (":authority", ""), ("host", "a.sock")),
        (*WITHOUT, (":authority", "a.sock"), ("host", "/run/proxy")),
        (*WITHOUT, (":authority", "A.sock:80"), ("host", "a.sock")),
    ],
)
async def test_a_host_is_one_on_a_socket_too(wired: Wired, pairs: Pairs) -> None:
    await serve_two(wired)
    wired.host.on_path = True
    assert await statuses(wired, pairs) == [200] * 2
    assert [seen.values("x-route") for seen in wired.upstream.requests] == [["sock"]] * 2


async def test_two_hosts_that_differ_are_refused_on_a_socket_too(wired: Wired) -> None:
    await serve_two(wired)
    wired.host.on_path = True
    pairs = (*WITHOUT, (":authority", "a.sock"), ("host", "b.sock"))
    assert await statuses(wired, pairs) == [400] * 2
