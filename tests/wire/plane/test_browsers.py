"""Browsers: no page calls through the proxy unless the route names its origin."""

from __future__ import annotations

import dataclasses
import json

import pytest

from proxy.config.model import Auth, Destination, Route, Upstream
from tests.fakes.raw import Message
from tests.fakes.wired import ANY, Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ALLOWED = ("https://app.example", "null")


def get(*lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", "Host: a", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "lines",
    [
        ["Origin: https://evil.example"],
        ["Origin: null"],
        ["origin: HTTPS://EVIL.EXAMPLE"],
        ["Origin: http://localhost:8080"],
        ["Origin: "],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site"],
        ["Sec-Fetch-Site: Cross-Site"],
        ["Sec-Fetch-Site: none", "Origin: https://evil.example"],
        ["Origin: https://app.example", "Origin: https://evil.example"],
        ["Sec-Fetch-Site: something-new"],
        ["Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: "],
        ["Sec-Fetch-Mode: navigate"],
        ["sec-fetch-mode: Navigate"],
        ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Dest: image"],
        ["Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
        ["Sec-Fetch-User: ?1"],
        ["Sec-Fetch-Storage-Access: none"],
    ],
)
async def test_a_page_is_refused_by_default(wired: Wired, lines: list[str]) -> None:
    caller = await wired.caller()
    answer = await caller.ask(get(*lines))

    assert (answer.status, answer.value("x-auth-proxy-error")) == (403, "origin_forbidden")
    assert answer.values("access-control-allow-origin") == []
    assert wired.upstream.connections == []


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_every_method_of_a_page_is_refused(wired: Wired, method: str) -> None:
    caller = await wired.caller()
    request = get(
        "Origin: https://evil.example", "Access-Control-Request-Method: PUT", method=method
    )
    answer = await caller.ask(request)

    assert answer.status == 403


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Sec-Fetch-Site: none"],
        ["Sec-Fetch-Site: None"],
        ["Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1"],
        ["Sec-Fetch-Site: same-origin"],
        ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"],
        ["Referer: https://b/"],
        # What Node.js sends with fetch and with WebSocket (undici).
        ["Sec-Fetch-Mode: cors"],
        ["Sec-Fetch-Mode: no-cors"],
        ["Sec-Fetch-Mode: websocket"],
    ],
)
async def test_who_is_no_page_of_another_site_passes(wired: Wired, lines: list[str]) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()

    assert (await caller.ask(get(*lines))).status == 200


OWN_ORIGINS = [
    ("localhost:8081", "http://localhost:8081"),
    ("LocalHost:8081", "HTTP://LOCALHOST:8081"),
    ("localhost:8081", "https://localhost:8081"),
    ("localhost:8081", "ws://localhost:8081"),
    ("localhost:8081", "wss://localhost:8081"),
    ("localhost", "http://localhost"),
    ("localhost:80", "http://localhost"),
    ("localhost", "http://localhost:80"),
    ("localhost:443", "https://localhost"),
    ("127.0.0.1:8081", "http://127.0.0.1:8081"),
    ("[::1]:8081", "http://[::1]:8081"),
    ("app.localhost:8081", "http://app.localhost:8081"),
]
FOREIGN_ORIGINS = [
    ("localhost:8081", "http://localhost:8080"),
    ("localhost:8081", "http://localhost"),
    ("localhost", "http://localhost:8081"),
    # A page of another server, the one that speaks TLS on its own port.
    ("localhost", "https://localhost"),
    ("localhost:80", "https://localhost"),
    ("localhost:8081", "http://127.0.0.1:8081"),
    ("localhost:8081", "http://app.localhost:8081"),
    ("localhost:8081", "http://localhost.:8081"),
    ("localhost:8081", "http://localhost:8081/"),
    ("localhost:8081", "http://localhost:8081.evil.example"),
    ("localhost:8081", "http://evil.example@localhost:8081"),
    ("localhost:8081", "app://localhost:8081"),
    ("localhost:8081", "localhost:8081"),
    ("localhost:8081", "null"),
    ("localhost:8081", ""),
    ("", "http://"),
    (":8081", "http://:8081"),
    # Names that a page can have pointed here.
    ("evil.example:8081", "http://evil.example:8081"),
    ("allowed.example:8081", "http://allowed.example:8081"),
    ("192.168.1.7:8081", "http://192.168.1.7:8081"),
]


def from_origin(host: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


@pytest.mark.parametrize(("host", "origin"), OWN_ORIGINS)
async def test_the_origin_that_is_called_is_no_foreign_page(
    wired: Wired, host: str, origin: str
) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()

    for listener in (None, b"localhost"):
        wired.host.loopback_name = listener
        answer = await caller.ask(from_origin(host, f"Origin: {origin}"))
        assert (answer.status, answer.values("access-control-allow-origin")) == (200, [])
    # An upgrade of a WebSocket's client, which says where it calls.
    upgrade = from_origin(host, "Connection: Upgrade", "Upgrade: websocket", f"Origin: {origin}")
    assert (await caller.ask(upgrade)).status == 200
    assert [seen.values("origin") for seen in wired.upstream.requests] == [[origin]] * 3


@pytest.mark.parametrize(("host", "origin"), FOREIGN_ORIGINS)
async def test_another_origin_than_the_one_that_is_called_is_refused(
    wired: Wired, host: str, origin: str
) -> None:
    await wired.serve(allow_hosts=("allowed.example",))
    caller = await wired.caller()

    for listener in (None, b"localhost"):
        wired.host.loopback_name = listener
        answer = await caller.ask(from_origin(host, f"Origin: {origin}"))
        assert (answer.status, answer.value("x-auth-proxy-error")) == (403, "origin_forbidden")
    assert wired.upstream.connections == []


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"], 200),
        (["Sec-Fetch-Mode: websocket"], 200),
        (["Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site: same-site"], 403),
        (["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Mode: navigate"], 403),
        (["Sec-Fetch-Dest: empty"], 403),
        (["Origin: https://evil.example"], 403),
        (["Origin: http://localhost:8081"], 403),
    ],
)
async def test_what_else_a_browser_says_counts_beside_its_own_origin(
    wired: Wired, lines: list[str], status: int
) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    answer = await caller.ask(
        from_origin("localhost:8081", "Origin: http://localhost:8081", *lines, method="POST")
    )

    assert answer.status == status


async def test_the_origin_of_an_absolute_target_is_the_one_that_counts(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    for target, status in (("http://localhost:1/", 200), ("http://localhost:2/", 403)):
        request = f"GET {target} HTTP/1.1\r\nHost: \r\nOrigin: http://localhost:1\r\n\r\n"
        assert (await caller.ask(request.encode())).status == status


@pytest.mark.parametrize("origin", ["https://app.example", "HTTPS://App.Example", "null"])
async def test_an_allowed_origin_passes_and_may_read(wired: Wired, origin: str) -> None:
    wired.upstream.automatic = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    answer = await caller.ask(get(f"Origin: {origin}", "Sec-Fetch-Site: cross-site"))

    assert answer.status == 200
    assert answer.values("access-control-allow-origin") == [origin]
    assert answer.values("vary") == ["Accept", "Origin"]
    assert wired.upstream.requests[0].values("origin") == [origin]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil",
        "https://app.example:8443",
        "http://app.example",
    ],
)
async def test_an_origin_that_is_not_named_is_refused(wired: Wired, origin: str) -> None:
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()

    assert (await caller.ask(get(f"Origin: {origin}"))).status == 403


async def test_a_preflight_of_an_allowed_origin_is_answered_here(wired: Wired) -> None:
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    caller.send(
        get(
            "Origin: https://app.example",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: x-a, content-type",
            method="OPTIONS",
        )
    )
    answer = await caller.answer()

    assert answer.status == 204
    assert answer.value("access-control-allow-origin") == "https://app.example"
    assert answer.value("access-control-allow-methods") == "PUT"
    assert answer.value("access-control-allow-headers") == "x-a, content-type"
    assert answer.values("vary") == ["Origin"]
    assert answer.values("date") == ["Fri, 15 Jan 2027 08:00:00 GMT"]
    assert wired.upstream.connections == []


def credentials(answer: Message) -> list[list[str]]:
    """Return what an answer says of credentials and origins, each value of each field."""
    names = ("access-control-allow-credentials", "access-control-allow-origin", "vary")
    return [answer.values(name) for name in names]


UPSTREAMS_OWN = (
    b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nAccess-Control-Allow-Credentials: %b\r\n"
    b"Access-Control-Expose-Headers: x-a\r\nVary: %b\r\nContent-Length: 2\r\n\r\nok"
)


@pytest.mark.parametrize("own", [b"false", b"true"])
@pytest.mark.parametrize(
    ("vary", "varies"),
    [
        (b"Accept", ["Accept", "Origin"]),
        (b"Accept, origin", ["Accept, origin"]),
        (b"*", ["*"]),
        (b"X-Origin", ["X-Origin", "Origin"]),
    ],
)
async def test_credentials_are_allowed_once_whatever_the_upstream_says(
    wired: Wired, own: bytes, vary: bytes, varies: list[str]
) -> None:
    wired.upstream.automatic = UPSTREAMS_OWN % (own, vary)
    await wired.serve(allow_origins=ALLOWED, allow_credentials=True)
    caller = await wired.caller()
    answer = await caller.ask(
        get("Origin: https://app.example", "Cookie: a=b", "Authorization: Basic eA==")
    )

    assert credentials(answer) == [["true"], ["https://app.example"], varies]
    assert answer.values("access-control-expose-headers") == ["x-a"]
    (seen,) = wired.upstream.requests
    assert (seen.values("cookie"), seen.values("authorization")) == (["a=b"], ["Basic eA=="])


async def test_credentials_are_allowed_in_preflights_and_errors_too(wired: Wired) -> None:
    await wired.serve(allow_origins=ALLOWED, allow_credentials=True)
    caller = await wired.caller()
    asked = "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"
    preflight = await caller.ask(get("Origin: null", *asked, method="OPTIONS"))
    await wired.upstream.stop()
    error = await caller.ask(get("Origin: null"))

    assert (preflight.status, error.status) == (204, 502)
    for answer in (preflight, error):
        assert credentials(answer) == [["true"], ["null"], ["Origin"]]
    assert preflight.values("access-control-allow-methods") == ["PUT"]
    assert preflight.values("access-control-allow-headers") == ["authorization"]


async def test_without_the_key_credentials_are_the_upstreams_to_allow(wired: Wired) -> None:
    wired.upstream.automatic = UPSTREAMS_OWN % (b"true", b"Accept")
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    answer = await caller.ask(get("Origin: null"))
    preflight = get("Origin: null", "Access-Control-Request-Method: PUT", method="OPTIONS")

    assert credentials(answer) == [["true"], ["null"], ["Accept", "Origin"]]
    assert credentials(await caller.ask(preflight)) == [[], ["null"], ["Origin"]]


@pytest.mark.parametrize("origins", [ALLOWED, ()])
async def test_credentials_are_allowed_to_nobody_but_named_origins(
    wired: Wired, origins: tuple[str, ...]
) -> None:
    await wired.serve(allow_origins=origins, allow_credentials=True)
    caller = await wired.caller()
    for request in (
        get("Origin: https://evil.example"),
        get("Origin: https://evil.example", "Access-Control-Request-Method: PUT", method="OPTIONS"),
    ):
        answer = await caller.ask(request)
        assert (answer.status, credentials(answer)) == (403, [[], [], []])
    wired.upstream.automatic = OK
    for own in ((), ("Origin: http://localhost",)):
        answer = await caller.ask(from_origin("localhost", *own))
        assert (answer.status, credentials(answer)) == (200, [[], [], []])


async def test_options_that_is_no_preflight_is_passed_on(wired: Wired) -> None:
    wired.upstream.automatic = OK
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()

    assert (await caller.ask(get("Origin: https://app.example", method="OPTIONS"))).status == 200
    assert wired.upstream.requests[0].start == b"OPTIONS / HTTP/1.1"


async def test_an_allowed_origin_may_read_the_proxys_errors(wired: Wired) -> None:
    await wired.upstream.stop()
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    answer = await caller.ask(get("Origin: https://app.example"))

    assert answer.status == 502
    assert answer.value("access-control-allow-origin") == "https://app.example"


# --- pages that have pointed their own name here

LOOPBACK_HOSTS = [
    "localhost", "localhost:8081", "LOCALHOST:1", "localhost.", "app.localhost:8081",
    "127.0.0.1", "127.0.0.1:8081", "127.255.1.2", "[::1]", "[::1]:8081", "", ":8081",
]  # fmt: skip
FOREIGN_HOSTS = [
    "evil.example:8081", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
    "notlocalhost", "localhost.localdomain", "ip6-localhost", "auth-proxy", "0.0.0.0:8081",
    "192.168.1.7", "[::]:8081", "[::ffff:127.0.0.1]", "127.0.0.1a", "1127.0.0.1", "127.0.0",
]  # fmt: skip


@pytest.fixture
def loopback(wired: Wired) -> Wired:
    """The proxy on a listener that only this machine can reach, answering everything."""
    wired.host.loopback_name = b"localhost"
    wired.upstream.automatic = OK
    return wired


def to(host: str, target: str = "/") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
async def test_a_loopback_name_is_served(loopback: Wired, host: str) -> None:
    caller = await loopback.caller()

    for _ in range(2):
        assert (await caller.ask(to(host))).status == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_a_name_that_a_page_could_have_pointed_here_is_refused(
    loopback: Wired, host: str
) -> None:
    await loopback.serve(auth=Auth.ID_TOKEN)
    caller = await loopback.caller()
    absolute = to(host, f"http://{host}/x")

    for request in (to(host), to(host, "/again"), absolute):
        answer = await caller.ask(request)
        assert (answer.status, answer.value("x-auth-proxy-error")) == (403, "origin_forbidden")
        problem = json.loads(answer.body)
        assert problem["route"] == "default"
        assert "allow_hosts" in problem["hint"]
        assert host.lower().removesuffix(":8081") in problem["detail"]
    assert (loopback.upstream.connections, loopback.source.fetched) == ([], 0)
    assert loopback.refusals == {"origin_forbidden": 3}
    assert (await caller.ask(to("localhost"))).status == 200


async def test_a_caller_that_names_no_host_is_no_page(loopback: Wired) -> None:
    caller = await loopback.caller()

    assert (await caller.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200


async def test_the_absolute_target_counts_not_the_host_beside_it(loopback: Wired) -> None:
    caller = await loopback.caller()

    assert (await caller.ask(to("", "http://evil.example/"))).status == 403
    assert (await caller.ask(to("", "http://localhost:8081/"))).status == 200


@pytest.mark.parametrize("host", [*FOREIGN_HOSTS, *LOOPBACK_HOSTS])
async def test_a_listener_that_others_can_reach_serves_any_host(wired: Wired, host: str) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()

    assert (await caller.ask(to(host))).status == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_any_serves_any_host(loopback: Wired, host: str) -> None:
    await loopback.serve(allow_hosts=("any",))
    caller = await loopback.caller()

    assert (await caller.ask(to(host))).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("host.docker.internal:8081", 200),
        ("HOST.docker.internal.", 200),
        ("x.host.docker.internal", 403),
        ("docker.internal", 403),
        ("a.ngrok.app", 200),
        ("a.b.ngrok.app", 200),
        ("ngrok.app", 403),
        ("angrok.app", 403),
        ("localhost", 200),
        ("evil.example", 403),
    ],
)
async def test_hosts_that_the_route_allows_are_served_beside_loopback(
    loopback: Wired, host: str, status: int
) -> None:
    await loopback.serve(allow_hosts=("host.docker.internal", "*.ngrok.app"))
    caller = await loopback.caller()

    assert (await caller.ask(to(host))).status == status


async def test_a_route_with_hosts_serves_them_and_leaves_others_to_the_rule(
    loopback: Wired,
) -> None:
    port = loopback.upstream.port
    plain = Route(
        name="rest",
        listen=(ANY,),
        destinations=(Destination(upstream=Upstream("http", "127.0.0.1", port)),),
        auth=Auth.NONE,
    )
    orders = dataclasses.replace(
        plain, name="orders", host=("orders.internal", "*.orders.internal")
    )
    await loopback.serve_routes(plain, orders)
    caller = await loopback.caller()

    assert (await caller.ask(to("a.orders.internal"))).status == 200
    assert (await caller.ask(to("orders.internal", "http://orders.internal/x"))).status == 200
    assert (await caller.ask(to("billing.internal"))).status == 403


async def test_the_name_that_the_listener_was_given_is_served(loopback: Wired) -> None:
    loopback.host.loopback_name = b"my-laptop"
    caller = await loopback.caller()

    assert (await caller.ask(to("My-Laptop:8081"))).status == 200
    assert (await caller.ask(to("your-laptop:8081"))).status == 403


async def test_an_origin_that_is_allowed_does_not_stand_for_the_host(loopback: Wired) -> None:
    await loopback.serve(allow_origins=ALLOWED)
    caller = await loopback.caller()
    page = to("evil.example").replace(b"\r\n\r\n", b"\r\nOrigin: https://app.example\r\n\r\n")

    assert (await caller.ask(page)).status == 403


async def test_a_websocket_of_a_page_is_refused_too(wired: Wired) -> None:
    caller = await wired.caller()
    answer = await caller.ask(
        get("Connection: Upgrade", "Upgrade: websocket", "Origin: https://evil.example")
    )

    assert answer.status == 403


@pytest.mark.parametrize(("length", "shown"), [(99, 99), (100, 100), (101, 100), (40_000, 100)])
async def test_so_much_of_a_refused_host_is_shown(loopback: Wired, length: int, shown: int) -> None:
    caller = await loopback.caller()
    problem = json.loads((await caller.ask(to("h" * length))).body)

    assert f" {'h' * shown} " in problem["detail"]
