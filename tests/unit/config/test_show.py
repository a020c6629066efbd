from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.config import show
from proxy.config.credentials import CREDENTIALS
from proxy.config.model import (
    Address,
    AutoCredentials,
    Credentials,
    Destination,
    GcloudCredentials,
    Impersonate,
    MetadataCredentials,
    Route,
    Service,
    ServiceAccountFile,
    TokenFile,
    Upstream,
)
from proxy.config.problems import Problem
from proxy.config.show import problems_as_json, routes_as_json, table
from tests.unit.config.reading import read

TEXT = """\
routes:
  orders:
    path: /orders
    strip_path: true
    upstream: https://orders.example.com
    credentials: {impersonate: a@b.c}
    protocol: h2
  billing:
    host: [billing.internal, "*.billing.internal"]
    service: billing
    header: Authorization
  search:
    listen: [localhost:8082, unix:/run/search.sock]
    upstream: http://127.0.0.1:3001/base
"""


def test_the_table_is_aligned_and_shows_what_each_route_does() -> None:
    lines = table(read(TEXT)).splitlines()

    cells = [[cell for cell in line.split("  ") if cell] for line in lines]
    assert [[cell.strip() for cell in row] for row in cells] == [
        [
            "ROUTE",
            "LISTENS",
            "MATCHES",
            "UPSTREAM",
            "TOKEN FOR",
            "TOKEN IN",
            "CREDENTIALS",
            "PROTOCOL",
        ],
        [
            "orders",
            "localhost:8081",
            "/orders/… (stripped)",
            "https://orders.example.com",
            "https://orders.example.com",
            "X-Serverless-Authorization",
            "impersonate: a@b.c",
            "h2",
        ],
        [
            "billing",
            "localhost:8081",
            "billing.internal/, *.billing.internal/",
            "service billing (unresolved)",
            "(unresolved)",
            "Authorization",
            "auto",
            "auto",
        ],
        [
            "search",
            "localhost:8082, unix:/run/search.sock",
            "/",
            "http://127.0.0.1:3001/base",
            "-",
            "-",
            "-",
            "auto",
        ],
    ]
    column = lines[0].index("UPSTREAM")
    assert {line[column - 2 : column] for line in lines} == {"  "}
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_program_gets_the_same_as_data() -> None:
    orders, billing, search = routes_as_json(read(TEXT))["routes"]

    assert orders == {
        "name": "orders",
        "listen": ["localhost:8081"],
        "host": [],
        "path": "/orders",
        "strip_path": True,
        "upstream": "https://orders.example.com",
        "service": None,
        "connect_to": None,
        "egress_proxy": None,
        "audience": "https://orders.example.com",
        "destinations": [
            {
                "upstream": "https://orders.example.com",
                "service": None,
                "connect_to": None,
                "egress_proxy": None,
                "audience": "https://orders.example.com",
            }
        ],
        "auth": "id_token",
        "scopes": None,
        "header": "X-Serverless-Authorization",
        "credentials": "impersonate: a@b.c",
        "protocol": "h2",
    }
    assert (billing["upstream"], billing["service"], billing["audience"]) == (None, "billing", None)
    assert (search["auth"], search["audience"]) == ("none", None)


def test_each_further_destination_has_a_line_of_its_own() -> None:
    config = read("routes: {a: {service: [b.us-east1, b.us-west1.42]}}")

    _, first, second = table(config).splitlines()
    assert first.split("  ")[0] == "a"
    assert "service b.us-east1 (unresolved)  (unresolved)" in first
    assert second.split() == ["https://b-42.us-west1.run.app"] * 2
    (shown,) = routes_as_json(config)["routes"]
    assert [each["service"] for each in shown["destinations"]] == ["b.us-east1", "b.us-west1.42"]
    assert (shown["upstream"], shown["service"]) == (None, "b.us-east1")


def test_the_audience_is_said_once_where_all_destinations_have_it() -> None:
    lead = "upstream: ['https://a.example', 'https://b.example']"
    (own,) = read(f"routes: {{a: {{{lead}}}}}").routes
    (shared,) = read(f"routes: {{a: {{{lead}, audience: shop}}}}").routes
    (none,) = read(f"routes: {{a: {{{lead}, auth: none}}}}").routes

    assert show.audience(own) == "https://a.example, https://b.example"
    assert (show.audience(shared), show.audience(none)) == ("shop", "")


def test_credentials_in_files_are_shown_by_name(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("secret")
    for key in ("token_file", "service_account_file"):
        text = f"routes: {{a: {{service: b, credentials: {{{key}: x}}}}}}"
        config = read(text, directory=tmp_path)
        assert f"{key}: {tmp_path}/x" in table(config)


def test_problems_are_data_too() -> None:
    problems = [Problem("f", 1, 2, "wrong"), Problem("--listen", 0, 0, "wrong")]

    assert problems_as_json(problems) == {
        "problems": [
            {"file": "f", "line": 1, "column": 2, "message": "wrong"},
            {"file": "--listen", "line": None, "column": None, "message": "wrong"},
        ]
    }


SHOWN: tuple[tuple[Credentials, str], ...] = (
    (AutoCredentials(), "auto"),
    (MetadataCredentials(), "metadata"),
    (GcloudCredentials(), "gcloud"),
    (ServiceAccountFile(Path("/k.json")), "service_account_file: /k.json"),
    (TokenFile(Path("/t")), "token_file: /t"),
    (Impersonate("a@x"), "impersonate: a@x"),
    (Impersonate("a@x", (), GcloudCredentials()), "impersonate: a@x, source: gcloud"),
    (
        Impersonate("a@x", ("b@x", "c@x"), ServiceAccountFile(Path("/k.json"))),
        "impersonate: a@x, delegates: [b@x, c@x], source: {service_account_file: /k.json}",
    ),
)


@pytest.mark.parametrize(("value", "words"), SHOWN)
def test_credentials_are_shown_as_the_file_has_them(value: Credentials, words: str) -> None:
    assert show.credentials(value) == words


def test_every_kind_of_credentials_is_shown_by_its_own_name() -> None:
    assert {type(value) for value, _ in SHOWN} == {kind.cls for kind in CREDENTIALS.values()}
    for value, words in SHOWN:
        assert CREDENTIALS[words.partition(":")[0]].cls is type(value)


def route(**keys: Any) -> Route:
    return Route(name="orders", listen=(Address(),), **keys)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (route(), "/"),
        (route(path="/orders"), "/orders/…"),
        (route(host=("a.internal",)), "a.internal/"),
        (route(host=("a.x", "*.a.x"), path="/b"), "a.x/b/…, *.a.x/b/…"),
    ],
)
def test_a_route_says_what_it_matches(made: Route, words: str) -> None:
    assert show.matches(made) == words


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Destination(upstream=Upstream("https", "x.run.app", 443, "/a")), "https://x.run.app/a"),
        (Destination(service=Service("billing", "europe-west1")), "service billing.europe-west1"),
    ],
)
def test_a_route_says_where_it_leads(made: Destination, words: str) -> None:
    assert show.upstream(route(destinations=(made,))) == words
    assert show.upstream(route(destinations=(made, made))) == f"{words}, {words}"
