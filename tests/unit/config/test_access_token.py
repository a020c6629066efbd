"""`auth: access_token`: to whom one may go, which keys go with it, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.model import Auth, IdentityHeader
from proxy.config.show import routes_as_json, table
from tests.unit.config.reading import read, route, told, told_of_route

API = "upstream: 'https://europe-west1-aiplatform.googleapis.com', auth: access_token"
STORAGE = "https://www.googleapis.com/auth/devstorage.read_write"


def test_a_route_to_an_api_of_googles_carries_an_access_token_in_authorization() -> None:
    only = route(API)

    assert (only.auth, only.header) == (Auth.ACCESS_TOKEN, IdentityHeader.AUTHORIZATION)
    assert only.scopes == ("https://www.googleapis.com/auth/cloud-platform",)
    assert only.audience is None


@pytest.mark.parametrize(
    "host",
    [
        "storage.googleapis.com",
        "STORAGE.googleapis.com",
        "a.b.googleapis.com",
        "europe-west1-aiplatform-x.p.googleapis.com",
        "googleapis.com.:443",
    ],
)
def test_hosts_of_googles_apis_get_one(host: str) -> None:
    said = told_of_route(f"upstream: 'https://{host}', auth: access_token")

    assert bool(said) == host.startswith("googleapis")


@pytest.mark.parametrize(
    "host",
    [
        "googleapis.com",
        "evilgoogleapis.com",
        "storage.googleapis.com.evil.example",
        "storage-googleapis.com",
        "orders-abc123-uc.a.run.app",
        "localhost",
        "127.0.0.1",
        "[::1]",
    ],
)
def test_no_other_host_gets_one(host: str) -> None:
    said = told_of_route(f"upstream: 'https://{host}', auth: access_token")

    message = (
        "routes.a.upstream: an access token is for Google's APIs (*.googleapis.com) and is not "
        f"sent to {host.strip('[]')}; write auth: id_token for a service of your own, or name a "
        "host that may have it in access_token_hosts"
    )
    assert said == [message]


def test_the_problem_is_told_with_the_line_of_the_upstream() -> None:
    text = "routes:\n  a:\n    auth: access_token\n    upstream: https://orders.example\n"

    (problem,) = told(text)
    assert problem.startswith("f:4:15: routes.a.upstream: an access token is for")


@pytest.mark.parametrize(
    ("hosts", "host", "allowed"),
    [
        ("gateway.example", "gateway.example", True),
        ("gateway.example", "a.gateway.example", False),
        ("'*.gateway.example'", "a.gateway.example", True),
        ("'*.gateway.example'", "gateway.example", False),
        ("[x.example, Gateway.example]", "gateway.example", True),
        ("'[::1]'", "[::1]", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("[]", "gateway.example", False),
    ],
)
def test_the_file_may_name_further_hosts(hosts: str, host: str, *, allowed: bool) -> None:
    keys = f"upstream: 'https://{host}', auth: access_token, access_token_hosts: {hosts}"

    assert (told_of_route(keys) == []) is allowed


def test_hosts_that_cannot_be_read_are_told_alone() -> None:
    keys = "upstream: 'https://a.example', auth: access_token, access_token_hosts: '*'"

    assert told_of_route(keys) == [
        "routes.a.access_token_hosts: any host is the default; leave host out"
    ]


def test_a_service_of_cloud_run_gets_an_access_token_only_where_the_file_says_so() -> None:
    (said,) = told_of_route("service: billing, auth: access_token")
    assert said.startswith("routes.a.service: an access token is for Google's APIs")

    keys = "service: billing, auth: access_token, access_token_hosts: '*.run.app'"
    assert told_of_route(keys) == []


@pytest.mark.parametrize("hosts", ["", ", access_token_hosts: app.internal"])
def test_it_never_goes_over_plain_http_to_another_machine(hosts: str) -> None:
    said = told_of_route(f"upstream: 'http://app.internal', auth: access_token{hosts}")

    message = (
        "routes.a.auth: an access token is never sent over plain http to app.internal; "
        "write https://, or auth: none"
    )
    assert message in said


def test_over_plain_http_it_goes_to_this_machine_where_the_file_names_it() -> None:
    keys = "upstream: 'http://127.0.0.1:9', auth: access_token"

    assert len(told_of_route(keys)) == 1
    assert told_of_route(f"{keys}, access_token_hosts: 127.0.0.1") == []


@pytest.mark.parametrize("auth", ["auto", "id_token", "none"])
def test_scopes_go_with_access_tokens_alone(auth: str) -> None:
    assert told_of_route(f"upstream: 'https://a.example', auth: {auth}, scopes: {STORAGE}") == [
        "routes.a.scopes: are those of an access token; write auth: access_token, or remove them"
    ]


def test_scopes_in_defaults_are_for_those_routes_that_have_access_tokens() -> None:
    text = (
        f"defaults: {{scopes: [{STORAGE}], header: X-Serverless-Authorization}}\n"
        f"routes: {{a: {{path: /a, {API}}}, b: {{upstream: 'https://b.example'}}}}"
    )

    first, second = read(text).routes
    assert (first.scopes, first.header) == ((STORAGE,), IdentityHeader.AUTHORIZATION)
    assert second.auth is Auth.ID_TOKEN


def test_the_route_itself_may_name_another_header() -> None:
    assert route(f"{API}, header: Proxy-Authorization").header is IdentityHeader.PROXY


@pytest.mark.parametrize(
    ("scopes", "message"),
    [
        ("[]", "an empty list matches nothing; remove the key"),
        ("'a,b'", "'a,b' is not a scope; write each as an item of its own, such as "),
        ("'a b'", "'a b' is not a scope"),
        ("['a\\nb']", "is not a scope"),
        (f"[{'a' * 513}]", "is not a scope"),
    ],
)
def test_scopes_are_words(scopes: str, message: str) -> None:
    (said,) = told_of_route(f"{API}, scopes: {scopes}")

    assert said.startswith("routes.a.scopes")
    assert message in said


def test_a_scope_may_be_as_long_as_512_characters() -> None:
    assert route(f"{API}, scopes: {'a' * 512}").scopes == ("a" * 512,)


def test_a_token_file_holds_no_access_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    keys = f"{API}, credentials: {{token_file: {tmp_path}/token}}"

    (said,) = told_of_route(keys)
    assert said.startswith("routes.a.credentials: a token file holds an ID token")


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (f"{API}, audience: x", "routes.a.audience: route a sends an access token, which is for"),
        (f"{API}, credentials: gcloud, scopes: {STORAGE}", "routes.a.scopes: a gcloud login's"),
        ("upstream: 'https://a.b', access_token_hosts: a.b", "routes.a.access_token_hosts: route"),
    ],
)
def test_what_has_no_effect_is_told(keys: str, what: str) -> None:
    (found,) = read(f"routes: {{a: {{{keys}}}}}").ignored

    assert str(found).startswith(what)


def test_scopes_that_a_login_may_choose_for_another_account_are_of_use() -> None:
    keys = f"{API}, scopes: {STORAGE}, credentials: {{impersonate: a@b.c, source: gcloud}}"

    assert read(f"routes: {{a: {{{keys}}}}}").ignored == ()


def test_it_is_shown_with_its_scopes() -> None:
    config = read(f"routes: {{a: {{{API}, scopes: [openid, email]}}}}")

    assert "openid email" in table(config)
    shown = routes_as_json(config)["routes"][0]
    assert (shown["auth"], shown["scopes"]) == ("access_token", ["openid", "email"])
    assert shown["audience"] is None
