"""The status as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import proxy
from proxy.clock import Clocks
from proxy.config.model import (
    Address,
    Auth,
    Config,
    Destination,
    Impersonate,
    Limits,
    Route,
    ServiceAccountFile,
    Upstream,
)
from proxy.ops.lifecycle import Lifecycle, State
from proxy.ops.numbers import Numbers, TokenView
from proxy.ops.status import Status
from proxy.plane.stats import Stats
from tests.unit.ops.builders import RESET, busy_numbers, several_destinations

TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJhdWQiOiJodHRwczovL3gucnVuLmFwcCJ9.c2lnbmF0dXJl"
NOW = 1_767_323_050.0

CONFIG = Config(
    routes=(
        Route(
            name="orders",
            listen=(Address("127.0.0.1", 8080),),
            path="/orders",
            destinations=(
                Destination(
                    upstream=Upstream("https", "orders.run.app", 443),
                    audience="https://orders.run.app",
                ),
            ),
            credentials=Impersonate("a@x", (), ServiceAccountFile(Path("/key.json"))),
            set_headers=(("X-Api-Key", "very-secret"),),
        ),
        Route(
            name="local",
            listen=(Address("127.0.0.1", 8081),),
            destinations=(Destination(upstream=Upstream("http", "127.0.0.1", 3001)),),
            auth=Auth.NONE,
            limits=Limits(connections=0),
        ),
    ),
    source="config/proxy.yaml",
)


class Bench:
    """A status whose time is turned by hand."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.steady = 100.0
        clocks = Clocks(wall=lambda: NOW, steady=lambda: self.steady)
        self.lifecycle = Lifecycle(clocks)
        self.status = Status(self.lifecycle, lambda: config, lambda: config.listeners, clocks)

    def report(self, numbers: Numbers | None = None, *, history: bool = True) -> dict[str, Any]:
        """Return the report as it arrives after its way through JSON."""
        report = self.status.report(numbers or busy_numbers(), history=history)
        arrived: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
        return arrived

    def sample(self, numbers: Numbers) -> None:
        self.steady += 5
        self.status.sample(numbers)


def test_it_says_what_runs_and_since_when() -> None:
    bench = Bench()
    bench.steady += 60
    bench.lifecycle.move_to(State.SERVING)
    bench.lifecycle.move_to(State.DRAINING, "3 exchanges in flight")
    report = bench.report()

    assert report["version"] == proxy.__version__
    assert report["build"] == proxy.build()
    assert (report["state"], report["note"]) == ("draining", "3 exchanges in flight")
    assert (report["time"], report["started_at"], report["uptime_seconds"]) == (NOW, NOW - 60, 60)
    assert (report["configuration"], report["workers"]) == ("config/proxy.yaml", 1)
    assert report["listeners"] == ["127.0.0.1:8080", "127.0.0.1:8081"]


def test_it_says_of_each_route_what_it_is() -> None:
    orders, local = Bench().report()["routes"]

    assert {name: orders[name] for name in ("name", "listen", "matches", "upstream")} == {
        "name": "orders",
        "listen": ["127.0.0.1:8080"],
        "matches": "/orders/…",
        "upstream": "https://orders.run.app",
    }
    assert (orders["audience"], orders["auth"]) == ("https://orders.run.app", "id_token")
    assert orders["header"] == "X-Serverless-Authorization"
    assert orders["credentials"] == "impersonate: a@x, source: {service_account_file: /key.json}"
    assert (local["auth"], local["audience"], local["token"]) == ("none", None, None)


def test_it_says_of_a_token_everything_but_the_token() -> None:
    orders, _ = Bench().report()["routes"]

    assert orders["token"] == {
        "state": "good",
        "expires_at": 1_767_326_645.0,
        "expires_in_seconds": 3595.0,
        "account": "app@x.iam.gserviceaccount.com",
        "source": "",
        "error": "",
        "hint": "",
        "failed_at": None,
    }


def test_a_token_that_is_not_there_expires_at_no_time() -> None:
    numbers = replace(busy_numbers(), tokens={"orders": TokenView(state="none")})

    token = Bench().report(numbers)["routes"][0]["token"]

    assert (token["expires_at"], token["expires_in_seconds"]) == (None, None)


def test_it_counts_traffic() -> None:
    orders, local = Bench().report()["routes"]

    assert orders["requests"] == 100
    assert orders["codes"] == {"200": 95, "502": 5}
    assert orders["protocols"] == {"h1": 95, "h2": 5}
    assert orders["errors"] == {"upstream_reset": 5}
    assert orders["retries"] == {"reset": 2}
    assert orders["dials"] == {"ok": 4, "upstream_connect_failed": 1}
    assert (orders["request_bytes"], orders["response_bytes"]) == (1000, 2000)
    assert orders["connections"] == {
        "idle": 1, "busy": 2, "dialling": 3, "waiting": 4, "limit": 1000,
    }  # fmt: skip
    assert (local["requests"], local["connections"]["limit"]) == (0, None)


def test_it_judges_each_route() -> None:
    orders, local = Bench().report()["routes"]

    assert orders["condition"]["level"] == "failing"
    assert orders["condition"]["why"] == "5 of 100 exchanges failed in the last minute."
    assert local["condition"]["level"] == "idle"


def test_it_gives_recent_rates_and_percentiles() -> None:
    bench = Bench()
    bench.steady += 10

    recent = bench.report()["routes"][0]["recent"]

    assert (recent["seconds"], recent["requests"], recent["server_errors"]) == (10, 100, 5)
    assert recent["percentiles"]["p99"] == 3600


def test_it_adds_up_what_all_routes_do() -> None:
    totals = Bench().report()["totals"]

    assert totals["in_flight"] == 3
    assert (totals["recent"]["requests"], totals["recent"]["server_errors"]) == (107, 5)


def test_traffic_that_no_route_matched_stands_apart() -> None:
    assert Bench().report()["unmatched"]["codes"] == {"404": 7}
    assert Bench().report(Numbers(stats=Stats()))["unmatched"] is None


def test_the_last_failures_come_first_with_their_explanation() -> None:
    numbers = busy_numbers()
    numbers.stats.failures.append(replace(RESET, at=NOW, reason="something_else"))

    late, early = Bench().report(numbers)["failures"]

    assert (late["at"], late["title"]) == (NOW, "something_else")
    assert early == {
        "at": 1_767_323_045.5,
        "route": "orders",
        "reason": "upstream_reset",
        "status": 502,
        "title": "The upstream closed the connection",
        "detail": "https://orders.run.app closed the connection.",
        "hint": "Look at the upstream's own log.",
        "times": 5,
    }


def test_of_equal_failures_the_last_is_shown_and_how_many_there_were() -> None:
    numbers = busy_numbers()
    numbers.stats.route("orders").errors["upstream_reset"] = 1000
    numbers.stats.failures.extend(replace(RESET, at=NOW + number) for number in range(50))

    (failure,) = Bench().report(numbers)["failures"]

    assert (failure["at"], failure["times"]) == (NOW + 49, 1000)


def test_a_failure_is_remembered_when_many_others_have_pushed_it_out() -> None:
    bench, numbers = Bench(), busy_numbers()
    bench.sample(numbers)
    flood = replace(RESET, at=NOW, reason="token_unavailable", status=503)
    numbers.stats.failures.extend([flood] * 50)

    assert [failure["reason"] for failure in bench.report(numbers)["failures"]] == [
        "token_unavailable",
        "upstream_reset",
    ]


@pytest.mark.parametrize(("kinds", "shown"), [(49, 49), (50, 50), (51, 50)])
def test_the_number_of_failures_in_a_report_is_bounded(kinds: int, shown: int) -> None:
    numbers = Numbers(stats=Stats())
    bench = Bench()
    for number in range(kinds):
        numbers.stats.failures.append(replace(RESET, route=f"r{number}"))
        bench.sample(numbers)

    assert len(bench.report(numbers)["failures"]) == shown


def test_a_caller_that_went_away_is_no_failure() -> None:
    numbers = busy_numbers()
    numbers.stats.failures.append(replace(RESET, reason="downstream_gone", status=499))

    assert [failure["reason"] for failure in Bench().report(numbers)["failures"]] == [
        "upstream_reset"
    ]


def test_points_are_given_per_route_and_only_where_asked_for() -> None:
    bench = Bench()
    bench.sample(busy_numbers())
    whole, short = bench.report(), bench.report(history=False)

    assert whole["history"] == {"at": [NOW], "seconds": [5]}
    assert whole["routes"][0]["history"]["requests"] == [100]
    assert whole["routes"][1]["history"]["requests"] == [0]
    assert whole["unmatched"]["history"]["requests"] == [7]
    assert "history" not in short
    assert all("history" not in route for route in (*short["routes"], short["unmatched"]))
    assert (whole["sampled_at"], short["sampled_at"]) == (NOW, NOW)


def test_without_any_point_there_is_nothing_sampled() -> None:
    assert Bench().report()["sampled_at"] is None


def test_a_reload_changes_what_is_reported() -> None:
    bench = Bench()
    configs = iter([CONFIG, Config(routes=CONFIG.routes[1:])])
    bench.status._config = lambda: next(configs)

    assert [route["name"] for route in bench.report()["routes"]] == ["orders", "local"]
    assert [route["name"] for route in bench.report()["routes"]] == ["local"]


@pytest.mark.parametrize("where", ["failure", "hint", "token"])
def test_no_token_and_no_header_value_is_on_it(where: str) -> None:
    numbers = busy_numbers()
    if where == "token":
        view = TokenView(state="backing_off", error=f"got {TOKEN}")
        numbers = replace(numbers, tokens={"orders": view})
    elif where == "failure":
        numbers.stats.failures.append(replace(RESET, detail=TOKEN))
    else:
        numbers.stats.failures.append(replace(RESET, hint=TOKEN))

    text = json.dumps(Bench().report(numbers))

    assert "[redacted]" in text
    assert "eyJ" not in text
    assert "very-secret" not in text


def test_each_of_several_destinations_is_shown() -> None:
    (orders, _) = CONFIG.routes
    config = replace(CONFIG, routes=(orders, replace(orders, name="stock")))
    report = Bench(config).report(several_destinations())

    plain, stock = report["routes"]
    assert plain["destinations"] == []
    first, second = stock["destinations"]
    assert (first["name"], first["available"]) == ("a.run.app", False)
    assert (second["name"], second["available"]) == ("b.run.app:8443", True)
    assert second["connections"]["busy"] == 2
    assert second["token"]["expires_at"] == 1_767_327_000.0
    assert (first["dials"], stock["dials"]) == ({"ok": 1}, {"ok": 3})
