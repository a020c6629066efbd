"""Where a redirect of an upstream leads a caller who came through the proxy."""

from __future__ import annotations

import pytest

from proxy.config.model import Upstream
from proxy.plane.redirects import Redirects

ORDERS = Upstream("https", "orders.example", 443)
BASED = Upstream("https", "orders.example", 443, "/api")
LOCAL = Upstream("http", "127.0.0.1", 3001)
IPV6 = Upstream("http", "::1", 3001)
AUTHORITY = b"localhost:8081"


def led(
    value: str,
    *upstreams: Upstream,
    path: str = "/",
    strip: bool = False,
    authority: bytes = AUTHORITY,
) -> str:
    """Return what becomes of a ``Location`` of the first of `upstreams`."""
    redirects = Redirects(path, upstreams, strip=strip)
    fields = f"\r\nA: 1\r\nLocation: {value}\r\nB: 2".encode()
    found = redirects.led_back(fields, authority, upstreams[0]).decode()
    assert found.startswith("\r\nA: 1\r\nLocation: ")
    assert found.endswith("\r\nB: 2")
    return found[len("\r\nA: 1\r\nLocation: ") : -len("\r\nB: 2")]


@pytest.mark.parametrize(
    ("value", "upstream", "expected"),
    [
        ("https://orders.example/x", ORDERS, "http://localhost:8081/x"),
        ("https://orders.example", ORDERS, "http://localhost:8081/"),
        ("https://orders.example?a=b", ORDERS, "http://localhost:8081/?a=b"),
        ("https://orders.example#f", ORDERS, "http://localhost:8081/#f"),
        ("HTTPS://Orders.Example:443/x", ORDERS, "http://localhost:8081/x"),
        ("https://orders.example:/x", ORDERS, "http://localhost:8081/x"),
        ("//orders.example/x", ORDERS, "http://localhost:8081/x"),
        ("http://orders.example/x", ORDERS, "http://localhost:8081/x"),
        ("http://127.0.0.1:3001/x", LOCAL, "http://localhost:8081/x"),
        ("//127.0.0.1:3001/x", LOCAL, "http://localhost:8081/x"),
        ("http://[::1]:3001/x", IPV6, "http://localhost:8081/x"),
        # Byte for byte, whatever stands in it.
        ("https://orders.example//a/%2F/../'b?c=//d#e?f", ORDERS,
         "http://localhost:8081//a/%2F/../'b?c=//d#e?f"),
        ("https://orders.example/?next=https://orders.example/x", ORDERS,
         "http://localhost:8081/?next=https://orders.example/x"),
    ],
)  # fmt: skip
def test_what_leads_to_the_upstream_itself_leads_back(
    value: str, upstream: Upstream, expected: str
) -> None:
    assert led(value, upstream) == expected


@pytest.mark.parametrize(
    ("value", "upstream"),
    [
        ("https://other.example/x", ORDERS),
        ("https://orders.example.evil/x", ORDERS),
        ("https://orders.example:8443/x", ORDERS),
        ("https://orders.example:80/x", ORDERS),
        ("http://orders.example:443/x", ORDERS),
        ("https://me@orders.example/x", ORDERS),
        ("https://orders.example\\@evil.example/x", ORDERS),
        ("https://127.0.0.1:3001/x", LOCAL),
        ("http://127.0.0.1:300/x", LOCAL),
        ("http://127.0.0.1/x", LOCAL),
        ("ftp://orders.example/x", ORDERS),
        ("https:/orders.example/x", ORDERS),
        ("mailto:a@orders.example", ORDERS),
        ("///orders.example/x", ORDERS),
        ("/x?y#z", ORDERS),
        ("x", ORDERS),
        ("../x", ORDERS),
        ("?a=b", ORDERS),
        ("#f", ORDERS),
        ("", ORDERS),
        ("https://orders.example/x y\t", Upstream("https", "a.example", 443)),
    ],
)
def test_what_leads_elsewhere_stays_as_it_came(value: str, upstream: Upstream) -> None:
    assert led(value, upstream) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://orders.example/api/x?a#b", "http://localhost:8081/orders/x?a#b"),
        ("https://orders.example/api/", "http://localhost:8081/orders/"),
        ("/api/x?a", "/orders/x?a"),
        ("/api//x", "/orders//x"),
        # No path of a caller leads there.
        ("https://orders.example/api", ""),
        ("https://orders.example/apis/x", ""),
        ("https://orders.example/login", ""),
        ("https://orders.example", ""),
        ("/login", ""),
        ("/orders/x", ""),
        ("x", ""),
    ],
)
def test_a_path_that_was_cut_off_is_put_back_and_the_base_taken_off(
    value: str, expected: str
) -> None:
    assert led(value, BASED, path="/orders", strip=True) == (expected or value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://orders.example/orders", "http://localhost:8081/orders"),
        ("https://orders.example/orders/x", "http://localhost:8081/orders/x"),
        ("https://orders.example/orders?a", "http://localhost:8081/orders?a"),
        # Another route's, or nobody's.
        ("https://orders.example/ordersx", ""),
        ("https://orders.example/", ""),
        ("/login", ""),
    ],
)
def test_only_to_what_the_route_serves_is_led_back(value: str, expected: str) -> None:
    assert led(value, ORDERS, path="/orders") == (expected or value)


@pytest.mark.parametrize("authority", [b"", b":8081"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://orders.example/api/x?a", "/x?a"),
        ("/api/x", "/x"),
        # They would read as hosts.
        ("https://orders.example/api//evil.example/x", ""),
        ("https://orders.example/api/\\evil.example/x", ""),
        ("/api//evil.example/x", ""),
        ("/api/\\evil.example", ""),
    ],
)
def test_who_named_no_host_is_led_by_the_path(authority: bytes, value: str, expected: str) -> None:
    assert led(value, BASED, authority=authority) == (expected or value)


def test_every_upstream_of_the_route_is_led_back_each_by_its_base() -> None:
    second = Upstream("https", "two.example", 8443, "/v2")
    deeper = Upstream("https", "orders.example", 443, "/api/eu")
    for value, expected in (
        ("https://orders.example/api/x", "http://localhost:8081/x"),
        ("https://two.example:8443/v2/x", "http://localhost:8081/x"),
        ("https://orders.example/api/eu/x", "http://localhost:8081/x"),
        ("https://two.example:8443/api/x", "https://two.example:8443/api/x"),
        # A path alone is of the one that answers.
        ("/api/x", "/x"),
        ("/v2/x", "/v2/x"),
    ):
        assert led(value, BASED, second, deeper) == expected


def test_every_spelling_and_copy_of_the_field_is_led_back_and_no_other_field() -> None:
    redirects = Redirects("/", [ORDERS], strip=False)
    fields = (
        b"\r\nlocation:https://orders.example/1 \r\nLOCATION: \thttps://orders.example/2"
        b"\r\nContent-Location: https://orders.example/3\r\nX-Location: https://orders.example/4"
        b"\r\nLink: <https://orders.example/5>\r\nLocation: https://other.example/ \t"
    )

    assert redirects.led_back(fields, AUTHORITY, ORDERS) == (
        b"\r\nlocation:http://localhost:8081/1\r\nLOCATION: \thttp://localhost:8081/2"
        b"\r\nContent-Location: https://orders.example/3\r\nX-Location: https://orders.example/4"
        b"\r\nLink: <https://orders.example/5>\r\nLocation: https://other.example/ \t"
    )
