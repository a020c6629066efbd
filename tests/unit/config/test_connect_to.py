"""`connect_to`: what is dialled instead of the upstream's own host, and what follows from that."""

from __future__ import annotations

import pytest

from proxy.config import addresses, egress, show
from proxy.config.model import Address, Auth
from tests.unit.config.reading import one_route, read, refusal, route, told, told_of_route


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.5", Address("10.0.0.5", 0)),
        ("Restricted.GoogleApis.com.", Address("restricted.googleapis.com", 0)),
        ("psc.internal:8443", Address("psc.internal", 8443)),
        ("[2001:db8::1]", Address("2001:db8::1", 0)),
        ("[2001:db8::1]:443", Address("2001:db8::1", 443)),
        ("unix:/run/x.sock", Address(path="/run/x.sock")),
    ],
)
def test_a_place_is_a_host_with_or_without_port_or_a_socket(text: str, expected: Address) -> None:
    assert addresses.connect_to(text) == expected
    assert addresses.connect_to(addresses.show_place(expected)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://a.example", "is not a place to dial"),
        ("2001:db8::1", "is not a place to dial"),
        ("user:hunter2@a.example", "is not a place to dial"),
        ("a.example:0", "is not a port"),
        ("a.example:65536", "is not a port"),
        ("a_b!", "is not a host name"),
        ("", "has no host"),
        ("unix:x", "absolute path"),
    ],
)
def test_all_else_is_none(text: str, why: str) -> None:
    said = refusal(addresses.connect_to, text)

    assert why in said
    assert "hunter2" not in said


def test_the_upstreams_own_port_is_dialled_unless_another_is_named() -> None:
    for keys, dialled in (
        ("connect_to: 10.0.0.5", "10.0.0.5:443"),
        ("connect_to: '10.0.0.5:8443'", "10.0.0.5:8443"),
        ("connect_to: 10.0.0.5, upstream: 'https://a.example:444'", "10.0.0.5:444"),
        ("connect_to: 10.0.0.5, service: orders", "10.0.0.5:443"),
        ("connect_to: unix:/x", "unix:/x"),
        ("", "orders.example.com:443"),
    ):
        assert str(route(keys).first.dialled) == dialled


def test_audience_and_host_stay_the_upstreams() -> None:
    destination = route("connect_to: 10.0.0.5").first

    assert destination.audience == "https://orders.example.com"
    assert destination.upstream is not None
    assert destination.upstream.authority == "orders.example.com"


TWO = "upstream: ['https://a.example', 'https://b.example']"


@pytest.mark.parametrize(
    ("places", "dialled"),
    [
        ("10.0.0.5", ["10.0.0.5:443", "10.0.0.5:443"]),
        ("[10.0.0.5, '10.0.0.6:1']", ["10.0.0.5:443", "10.0.0.6:1"]),
    ],
)
def test_one_place_is_for_all_and_a_list_has_one_for_each(places: str, dialled: list[str]) -> None:
    found = route(f"{TWO}, connect_to: {places}")

    assert [str(each.dialled) for each in found.destinations] == dialled


def test_a_list_of_another_length_is_refused() -> None:
    (said,) = told_of_route(f"{TWO}, connect_to: [10.0.0.5, 10.0.0.6, 10.0.0.7]")
    assert "routes.a.connect_to: has 3 places for 2 upstreams; write one for each" in said
    (said,) = told_of_route("connect_to: [10.0.0.5, 10.0.0.6]")
    assert "has 2 places for 1 upstream; " in said


@pytest.mark.parametrize("auth", ["auto", "id_token", "access_token"])
def test_no_token_is_sent_over_plain_http_to_what_is_dialled(auth: str) -> None:
    """The upstream's name is of this machine, but its bytes would leave it."""
    keys = f"upstream: 'http://localhost:3001', connect_to: 10.0.0.5, auth: {auth}"

    assert any("over plain http to 10.0.0.5" in each for each in told_of_route(keys))
    assert told_of_route(keys.replace(f"auth: {auth}", "auth: none")) == []


@pytest.mark.parametrize("place", ["unix:/run/x.sock", "'127.0.0.1:3001'", "localhost"])
def test_plain_http_that_stays_on_this_machine_needs_no_word_about_tokens(place: str) -> None:
    found = route(f"upstream: 'http://orders.internal', connect_to: {place}")

    assert found.auth is Auth.NONE


@pytest.mark.parametrize(
    ("listen", "place"),
    [("8081", "'127.0.0.1:8081'"), ("8081", "'localhost:8081'"), ("unix:/x", "unix:/x")],
)
def test_a_listener_of_our_own_is_no_place_to_dial(listen: str, place: str) -> None:
    (said,) = told(one_route(f"connect_to: {place}", f"listen: {listen}"))

    assert "routes.a.connect_to" in said
    assert "is a listener of this proxy, which would call itself" in said


def test_an_upstream_at_our_own_port_is_none_of_ours_if_it_is_dialled_elsewhere() -> None:
    keys = "upstream: 'http://localhost:8081', auth: none, connect_to: 10.0.0.5"

    assert told(one_route(keys, "listen: 8081")) == []


def test_the_egress_proxy_is_chosen_by_what_is_dialled() -> None:
    env = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "10.0.0.0/8"}
    for place, is_direct in (
        ("10.0.0.5", True),
        ("192.0.2.5", False),
        ("unix:/x", True),
        ("127.0.0.1", True),
    ):
        found = route(f"connect_to: {place}", env)
        assert (egress.proxy_of(found, found.first) is None) == is_direct


def test_the_table_and_programs_are_told_the_place() -> None:
    config = read(one_route("connect_to: '[2001:db8::1]'"))

    assert "https://orders.example.com at [2001:db8::1] " in show.table(config)
    assert show.routes_as_json(config)["routes"][0]["connect_to"] == "[2001:db8::1]"
