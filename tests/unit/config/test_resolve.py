from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.config.model import Auth, Route, Service, Upstream
from proxy.config.resolve import default_audience, with_upstream
from tests.unit.config.reading import one_route, route, told, told_of_route


@pytest.mark.parametrize(
    ("upstream", "audience"),
    [
        ("https://orders-abc123-uc.a.run.app", "https://orders-abc123-uc.a.run.app"),
        ("https://Orders.Example.com/", "https://orders.example.com"),
        ("https://orders.example.com/base/path", "https://orders.example.com"),
        ("https://orders.example.com:443", "https://orders.example.com"),
        ("https://orders.example.com:8443/x", "https://orders.example.com:8443"),
        ("https://blue---orders-abc123-uc.a.run.app", "https://orders-abc123-uc.a.run.app"),
        ("https://v-2---orders-1.us-east1.run.app", "https://orders-1.us-east1.run.app"),
        ("https://a---b---c.run.app", "https://b---c.run.app"),
        ("https://orders.a---b.example.com", "https://orders.a---b.example.com"),
        ("https://a--b.run.app", "https://a--b.run.app"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_the_audience_is_the_origin_without_a_revision_tag(upstream: str, audience: str) -> None:
    assert route(f"upstream: '{upstream}'").first.audience == audience


def test_a_written_audience_stays_as_it_stands() -> None:
    only = route("upstream: 'https://tag---a.run.app', audience: https://Tag---A.run.app/")
    assert only.first.audience == "https://Tag---A.run.app/"


@pytest.mark.parametrize(
    ("keys", "auth"),
    [
        ("upstream: 'https://a.example'", Auth.ID_TOKEN),
        ("upstream: 'https://a.example', auth: auto", Auth.ID_TOKEN),
        ("upstream: 'https://a.example', auth: none", Auth.NONE),
        ("upstream: 'https://localhost'", Auth.ID_TOKEN),
        ("upstream: 'http://localhost:3001'", Auth.NONE),
        ("upstream: 'http://127.0.0.1:3001'", Auth.NONE),
        ("upstream: 'http://127.9.9.9:3001'", Auth.NONE),
        ("upstream: 'http://[::1]:3001'", Auth.NONE),
        ("upstream: 'http://127.0.0.1:3001', auth: id_token", Auth.ID_TOKEN),
        ("upstream: 'http://app:3001', auth: none", Auth.NONE),
        ("service: billing", Auth.ID_TOKEN),
        ("service: billing, auth: none", Auth.NONE),
    ],
)
def test_auto_sends_tokens_to_https_and_none_to_this_machine(keys: str, auth: Auth) -> None:
    assert route(keys).auth is auth


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ("upstream: 'http://app.internal:3001'", "upstream"),
        ("upstream: 'http://app.internal:3001', auth: auto", "auth"),
        ("upstream: 'http://app.internal:3001', auth: id_token", "auth"),
    ],
)
def test_a_token_is_never_sent_over_plain_http_to_another_host(keys: str, key: str) -> None:
    assert told_of_route(keys) == [
        (
            f"routes.a.{key}: an ID token is never sent over plain http to app.internal; "
            "write https://, or auth: none"
        )
    ]


def test_a_default_auth_is_refused_where_it_would_send_a_token_openly() -> None:
    lines = told(
        "defaults: {auth: id_token}\nroutes:\n"
        "  a: {upstream: 'http://one.internal'}\n  b: {upstream: 'http://two.internal', path: /b}\n"
    )

    refused = "an ID token is never sent over plain http to"
    assert lines == [
        f"f:1:18: routes.a.auth: {refused} one.internal; write https://, or auth: none",
        f"f:1:18: routes.b.auth: {refused} two.internal; write https://, or auth: none",
    ]


def test_a_word_that_is_no_auth_is_told_alone() -> None:
    message = (
        "routes.a.auth: 'token' is not one of auto, id_token, access_token, none; "
        "did you mean 'id_token'?"
    )
    assert told_of_route("upstream: 'http://app.internal', auth: token") == [message]


def test_without_tokens_there_is_no_audience() -> None:
    assert route("upstream: 'http://127.0.0.1:3001', audience: x").first.audience is None


def test_a_route_needs_a_destination() -> None:
    message = "f:1:10: routes.a: leads nowhere; write upstream: https://HOST, or service: NAME"
    assert told("routes: {a: {path: /x}}") == [message]


def test_a_route_has_one_destination() -> None:
    assert told("routes: {a: {service: s, upstream: 'https://a.example'}}") == [
        "f:1:26: routes.a.upstream: stands beside service; keep one of them"
    ]


LIST = "upstream: ['https://a.example', 'https://b.example:8443/x']"


def test_a_list_names_destinations_in_order_of_preference() -> None:
    only = route(LIST)

    assert [str(each) for each in only.destinations] == [
        "https://a.example",
        "https://b.example:8443/x",
    ]
    assert [each.audience for each in only.destinations] == [
        "https://a.example",
        "https://b.example:8443",
    ]
    assert only.first is only.destinations[0]


def test_one_audience_may_stand_for_all_destinations() -> None:
    only = route(f"{LIST}, audience: shop")
    assert [each.audience for each in only.destinations] == ["shop", "shop"]


def test_a_list_of_services_is_resolved_as_far_as_it_says() -> None:
    only = route("service: [stock.europe-west1, stock.europe-west4.42]")

    first, second = only.destinations
    assert (str(first), first.audience) == ("service stock.europe-west1", None)
    assert str(second) == "https://stock-42.europe-west4.run.app"
    assert second.audience == "https://stock-42.europe-west4.run.app"
    assert second.service == Service("stock", "europe-west4", "42")
    assert not only.is_resolved


def test_each_destination_makes_a_route_that_leads_there_alone() -> None:
    only = route(LIST)
    assert [each.destinations for each in only.each()] == [(each,) for each in only.destinations]
    assert {each.name for each in only.each()} == {"a"}


@pytest.mark.parametrize(
    ("keys", "auth"),
    [
        ("upstream: ['https://a.example', 'https://localhost']", Auth.ID_TOKEN),
        ("upstream: ['http://localhost:3001', 'http://[::1]:3002']", Auth.NONE),
        ("upstream: ['http://localhost:3001', 'https://a.example'], auth: none", Auth.NONE),
        ("upstream: ['http://localhost:3001', 'https://a.example'], auth: id_token", Auth.ID_TOKEN),
        ("upstream: ['http://a.internal', 'https://a.example'], auth: none", Auth.NONE),
        ("service: [a, b]", Auth.ID_TOKEN),
    ],
)
def test_auto_holds_for_all_destinations(keys: str, auth: Auth) -> None:
    assert route(keys).auth is auth


DIFFER = "would differ in sending an ID token; write auth: id_token or auth: none for both"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "upstream: []",
            ".upstream: an empty list leads nowhere; write a URL such as https://HOST",
        ),
        ("service: []", ".service: an empty list leads nowhere; write a service's name"),
        (
            "upstream: ['https://a.example', 'https://A.example:443/']",
            ".upstream[1]: 'https://a.example' stands in the list twice; remove one",
        ),
        ("service: [a, b, a]", ".service[2]: 'a' stands in the list twice; remove one"),
        (
            "upstream: ['https://a.example'], service: [b]",
            ".service: stands beside upstream; keep one of them",
        ),
        (
            "upstream: ['https://a.example', 'ftp://b']",
            ".upstream[1]: 'ftp' cannot be called; write https:// or http://",
        ),
        (
            "upstream: ['https://a.example', 'http://localhost:3001']",
            f".upstream[1]: http://localhost:3001 and https://a.example {DIFFER}",
        ),
        (
            "upstream: ['http://127.0.0.1:3001', 'http://[::1]:3002', 'https://a.example']",
            f".upstream[2]: https://a.example and http://127.0.0.1:3001 {DIFFER}",
        ),
        (
            "upstream: ['https://a.example', 'http://b.internal']",
            (
                ".upstream[1]: an ID token is never sent over plain http to b.internal; "
                "write https://, or auth: none"
            ),
        ),
        (
            "upstream: {a: b}",
            ".upstream: must be a URL such as https://HOST, or a list of them",
        ),
    ],
)
def test_what_is_wrong_with_a_list_of_destinations_is_told(keys: str, message: str) -> None:
    assert told_of_route(keys) == [f"routes.a{message}"]


def test_a_destination_in_a_list_is_told_with_its_own_place() -> None:
    text = "routes:\n  a:\n    upstream:\n      - https://a.example\n      - https://a.example\n"
    assert told(text)[0].startswith("f:5:9: routes.a.upstream[1]: ")


def test_a_service_stays_unresolved_while_a_part_is_missing() -> None:
    only = route("service: billing.us-central1")

    assert only.first.service == Service("billing", "us-central1")
    assert (only.first.upstream, only.first.audience) == (None, None)


def test_a_service_with_all_its_parts_is_resolved() -> None:
    only = route("service: billing.us-central1.123456789012")

    host = "billing-123456789012.us-central1.run.app"
    assert only.first.upstream == Upstream("https", host, 443)
    assert only.first.audience == f"https://{host}"
    assert only.first.service == Service("billing", "us-central1", "123456789012")


def resolved(only: Route) -> Route:
    upstream = Upstream("https", "billing-42.europe-west1.run.app", 443)
    return replace(only, destinations=(with_upstream(only.first, only, upstream),))


def test_a_route_whose_service_was_found_has_its_url_as_audience() -> None:
    found = resolved(route("service: billing"))

    assert str(found.first.upstream) == "https://billing-42.europe-west1.run.app"
    assert found.first.audience == "https://billing-42.europe-west1.run.app"


def test_an_audience_that_is_written_is_kept() -> None:
    assert resolved(route("service: billing.us-central1, audience: me")).first.audience == "me"


def test_a_service_without_tokens_gets_no_audience() -> None:
    assert resolved(route("service: billing, auth: none")).first.audience is None


def test_the_default_audience_of_an_upstream_can_be_asked_for() -> None:
    upstream = Upstream("https", "tag---a.run.app", 443, "/base")
    assert default_audience(upstream) == "https://a.run.app"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("X-Serverless-Authorization", "X-Serverless-Authorization"),
        ("X-Serverless-Authorization", "x-serverless-authorization"),
        ("X-Serverless-Authorization", "X_Serverless-AUTHORIZATION"),
        ("Authorization", "authorization"),
        ("Proxy-Authorization", "proxy_authorization"),
    ],
)
@pytest.mark.parametrize("auth", ["id_token", "none"])
def test_the_identity_header_cannot_be_touched(header: str, name: str, auth: str) -> None:
    keys = f"header: {header}, auth: {auth}, set_headers: {{X-A: b, {name}: c}}, "
    keys += f"remove_headers: [Cookie, {name}]"

    said = f"{name} carries the token and is the proxy's own; leave it out"
    assert told_of_route(keys) == [
        f"routes.a.set_headers: {said}",
        f"routes.a.remove_headers[1]: {said}",
    ]


def test_a_header_that_carries_no_token_here_may_be_set_and_removed() -> None:
    only = route("set_headers: {Authorization: Basic x}, remove_headers: [Proxy-Authorization]")

    assert only.set_headers == (("Authorization", "Basic x"),)
    assert only.remove_headers == ("Proxy-Authorization",)


def test_an_identity_header_in_defaults_is_found_in_the_route_that_uses_it() -> None:
    text = one_route("header: Authorization", top="defaults: {set_headers: {authorization: x}}")
    assert told(text) == [
        (
            "f:1:26: routes.a.set_headers: authorization carries the token "
            "and is the proxy's own; leave it out"
        )
    ]
