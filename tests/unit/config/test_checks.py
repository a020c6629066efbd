from __future__ import annotations

import pytest

from tests.unit.config.reading import one_route, read, told

SAME = "give one of them another host, path or listen"


def test_a_destination_in_a_list_must_not_be_a_listener_of_the_proxy() -> None:
    keys = "listen: 8085, upstream: ['http://localhost:3001', 'http://127.0.0.1:8085']"
    (line,) = told(one_route(keys))
    assert "routes.a.upstream[1]: localhost:8085 is a listener of this proxy" in line


def two(first: str, second: str, top: str = "") -> str:
    """Return a document with the routes ``a`` and ``b``, which hold these keys."""
    upstream = "upstream: 'https://a.example'"
    return f"{top}\nroutes:\n  a: {{{upstream}, {first}}}\n  b: {{{upstream}, {second}}}\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", ""),
        ("path: /", ""),
        ("path: /x", "path: /x/"),
        ("host: A.internal", "host: a.internal."),
        ("host: [a.internal, b.internal]", "host: [c.internal, b.internal]"),
        ("host: '*.internal', path: /x", "host: '*.INTERNAL', path: /x"),
        ("listen: 8081", "listen: localhost:8081"),
        ("listen: [8081, 8082]", "listen: [8083, 8082]"),
        ("listen: unix:/run/x", "listen: unix:/run/x"),
    ],
)
def test_two_routes_that_match_the_same_requests_are_refused(first: str, second: str) -> None:
    line = f"f:4:3: routes.b: matches the same requests as route 'a' at f:3:3; {SAME}"
    assert told(two(first, second)) == [line]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("path: /x", ""),
        ("path: /x", "path: /xy"),
        ("path: /x", "path: /X"),
        ("host: a.internal", ""),
        ("host: a.internal", "host: '*.a.internal'"),
        ("host: a.internal", "host: a.internal, path: /x"),
        ("listen: 8081", "listen: 8082"),
        ("listen: 8081", ""),
        ("listen: 8080", ""),
        ("listen: unix:/run/x", "listen: unix:/run/y"),
    ],
)
def test_routes_that_differ_in_one_rule_are_fine(first: str, second: str) -> None:
    assert told(two(first, second)) == []


def test_each_route_that_repeats_another_is_told_once() -> None:
    upstream = "upstream: 'https://a.example'"
    text = "routes:\n" + "".join(f"  {name}: {{{upstream}}}\n" for name in "abc")

    assert [line.split(": ")[0] for line in told(text)] == ["f:3:3", "f:4:3"]


@pytest.mark.parametrize("key", ["host: '*'", "path: x", "listen: x"])
def test_a_rule_that_could_not_be_read_is_not_compared(key: str) -> None:
    assert len(told(two("", key))) == 1


def admin_clash(listen: str, admin: str) -> bool:
    text = two(f"listen: '{listen}'", "path: /b", top=f"admin: '{admin}'\nlisten: 7999")
    lines = told(text)
    assert all("is a listener of route" in line for line in lines)
    return bool(lines)


@pytest.mark.parametrize(
    ("listen", "admin"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("8080", ":8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("localhost:8080", "127.0.0.1:8080"),
        ("localhost:8080", "[::1]:8080"),
        ("localhost:8080", "0.0.0.0:8080"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_admin_cannot_share_a_listeners_address(listen: str, admin: str) -> None:
    assert admin_clash(listen, admin)


@pytest.mark.parametrize(
    ("listen", "admin"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8081"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:8080", "127.0.0.2:8080"),
        ("127.0.0.1:8080", "[::1]:8080"),
        ("0.0.0.0:8080", "[::1]:8080"),
        ("localhost:8080", "10.0.0.1:8080"),
        ("unix:/run/x", "unix:/run/y"),
        ("unix:/run/x", "0"),
        ("8080", "off"),
    ],
)
def test_admin_may_have_any_other_address(listen: str, admin: str) -> None:
    assert not admin_clash(listen, admin)


def test_the_clash_is_told_where_admin_stands() -> None:
    mend = "give admin another port, or write admin: off"
    assert told(one_route(top="admin: 8081")) == [
        f"f:1:8: admin: localhost:8081 is a listener of route 'a' too; {mend}"
    ]


def test_the_clash_with_the_default_admin_is_told_where_the_listener_stands() -> None:
    mend = "give admin another port, or write admin: off"
    assert told("routes:\n  a:\n    upstream: https://a.example\n    listen: 9090\n") == [
        f"f:4:13: admin: localhost:9090 is a listener of route 'a' too; {mend}"
    ]


def test_listeners_of_which_only_one_could_be_opened_are_refused() -> None:
    assert told(two("listen: 0.0.0.0:8080", "listen: 127.0.0.1:8080")) == [
        (
            "f:4:46: routes.b.listen: 127.0.0.1:8080 and 0.0.0.0:8080 cannot both be opened; "
            "write one of them for both"
        )
    ]


def test_listeners_with_ports_of_their_own_are_fine() -> None:
    config = read(two("listen: 0.0.0.0:8080", "listen: 127.0.0.1:8081"))
    assert [str(address) for address in config.listeners] == ["0.0.0.0:8080", "127.0.0.1:8081"]


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http://localhost:8080/x"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
    ],
)
def test_an_upstream_that_is_the_proxy_itself_is_refused(listen: str, upstream: str) -> None:
    (line,) = told(one_route(f"upstream: '{upstream}'", top=f"listen: '{listen}'"))

    assert line.endswith(
        f"routes.a.upstream: {listen} is a listener of this proxy, which would call itself; "
        "name the service's own port, or listen elsewhere"
    )


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8081"),
        ("127.0.0.1:8080", "http://127.0.0.2:8080"),
        ("127.0.0.1:443", "https://a.example"),
        ("unix:/run/x", "http://127.0.0.1:8080"),
    ],
)
def test_an_upstream_elsewhere_is_fine(listen: str, upstream: str) -> None:
    assert told(one_route(f"upstream: '{upstream}'", top=f"listen: '{listen}'")) == []


def test_every_listener_on_the_port_is_compared_with_the_upstream() -> None:
    top = "listen: [127.0.0.1:8080, 127.0.0.2:8080]"
    (line,) = told(one_route("upstream: 'http://127.0.0.1:8080'", top=top))
    assert "127.0.0.1:8080 is a listener of this proxy" in line
