"""What stands for a host where callers come through a Unix socket, and have none to name."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.config.model import Auth, Destination, Route, Upstream
from tests.fakes.wired import ANY, Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

NO_HOSTS = [
    "",
    "/run/proxy.sock",
    "%2Frun%2Fproxy.sock",
    "%2frun%2fproxy.sock:80",
    "unix:/run/proxy.sock",
    "unix:///run/proxy.sock",
    "./proxy.sock",
    "run/proxy.sock",
    "@abstract.sock",
    "a b.sock",
    "a.sock, b.sock",
    "me@a.sock",
    ":80",
    "a:b:c.sock",
    "\u00e4.sock",
]
HOSTS = ["a.sock", "A.SOCK:80", "a.sock."]


async def serve_two(wired: Wired) -> None:
    """Serve everybody, and hosts that end like a socket's path by another route."""
    wired.upstream.automatic = OK
    upstream = Upstream("http", "127.0.0.1", wired.upstream.port)
    rest = Route(
        name="rest", listen=(ANY,), destinations=(Destination(upstream=upstream),), auth=Auth.NONE
    )
    sock = dataclasses.replace(
        rest, name="sock", host=("*.sock",), set_headers=(("x-route", "sock"),)
    )
    await wired.serve_routes(rest, sock)


def to(host: str, target: str = "/") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")


async def routes_of(wired: Wired, *requests: bytes) -> list[bool]:
    """Send requests on one connection; return of each whether the route by host took it."""
    caller = await wired.caller()
    for request in requests:
        assert (await caller.ask(request)).status == 200
    return [bool(seen.values("x-route")) for seen in wired.upstream.requests]


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_what_is_no_host_counts_as_none(wired: Wired, host: str) -> None:
    wired.host.on_path = True
    await serve_two(wired)

    # The second and the third repeat the fields of the first.
    assert await routes_of(wired, to(host), to(host), to(host, "/x")) == [False] * 3
    own = f"127.0.0.1:{wired.upstream.port}"
    assert [seen.values("host") for seen in wired.upstream.requests] == [[own]] * 3


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_is_one_on_a_socket_too(wired: Wired, host: str) -> None:
    wired.host.on_path = True
    await serve_two(wired)

    assert await routes_of(wired, to(host), to(host, "/x")) == [True] * 2


@pytest.mark.parametrize("host", [host for host in NO_HOSTS if "/" in host or "@" in host])
async def test_through_a_port_it_is_refused(wired: Wired, host: str) -> None:
    await serve_two(wired)
    caller = await wired.caller()
    answer = await caller.ask(to(host))

    assert (answer.status, answer.value("x-auth-proxy-error")) == (400, "request_malformed")
    assert wired.upstream.connections == []


@pytest.mark.parametrize(
    ("request_", "is_by_host"),
    [
        (to("/run/x", "http://a.sock/x"), True),
        (to("a.sock", "http://%2Frun%2Fb.sock/x"), True),
        (to("/run/x", "http://%2Frun%2Fb.sock/x"), False),
        (b"GET http:///x HTTP/1.1\r\nHost: /run/x.sock\r\n\r\n", False),
    ],
)
async def test_of_two_names_the_one_that_is_a_host_counts(
    wired: Wired,
    request_: bytes,
    is_by_host: bool,  # noqa: FBT001 (a row of the table)
) -> None:
    wired.host.on_path = True
    await serve_two(wired)

    assert await routes_of(wired, request_) == [is_by_host]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: /a\r\nHost: /a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: /a\nX: y\r\n\r\n",
        to("b.sock", "http://a.sock/x"),
        to("/a", "unix://a.sock/x"),
    ],
)
async def test_the_other_rules_of_hosts_hold_on_a_socket(wired: Wired, request_: bytes) -> None:
    wired.host.on_path = True
    await serve_two(wired)
    caller = await wired.caller()

    assert (await caller.ask(request_)).status == 400
    assert wired.upstream.connections == []
