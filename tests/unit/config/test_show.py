from __future__ import annotations

from pathlib import Path

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
            "AUDIENCE",
            "ID TOKEN IN",
            "CREDENTIALS",
            "PROTOCOL",
        ],
        [
            "orders",
            "localhost:8081",
            "/orders (stripped)",
            "https://orders.example.com",
            "https://orders.example.com",
            "X-Serverless-Authorization",
            "impersonate: a@b.c",
            "h2",
        ],
        [
            "billing",
            "localhost:8081",
            "billing.internal, *.billing.internal /",
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
        "audience": "https://orders.example.com",
        "auth": "id_token",
        "header": "X-Serverless-Authorization",
        "credentials": "impersonate: a@b.c",
        "protocol": "h2",
    }
    assert (billing["upstream"], billing["service"], billing["audience"]) == (None, "billing", None)
    assert (search["auth"], search["audience"]) == ("none", None)


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
