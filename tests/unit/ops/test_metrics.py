"""What Prometheus reads."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess

import pytest
from prometheus_client import openmetrics
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

import proxy
from proxy.ops.lifecycle import Reload
from proxy.ops.metrics import render
from proxy.ops.numbers import Numbers
from proxy.plane.stats import DURATION_BOUNDS, Stats
from tests.fakes.scraping import FORMATS, METRICS, OF_DESTINATIONS, OPEN, PROMETHEUS, Parser
from tests.unit.ops.builders import RELOAD, busy_numbers, several_destinations


def families(numbers: Numbers, accept: str = "", parser: Parser = read_plain) -> dict[str, Metric]:
    return {metric.name: metric for metric in parser(render(numbers, RELOAD, accept)[0].decode())}


def values(metric: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    name = metric.name + suffix
    return {
        tuple(sample.labels.values()): sample.value
        for sample in metric.samples
        if sample.name == name
    }


@pytest.mark.parametrize(("problem", "successful"), [("", 1.0), ("no file", 0.0)])
def test_the_last_reload_is_told(problem: str, successful: float) -> None:
    text = render(busy_numbers(), Reload(succeeded_at=12.5, problem=problem))[0].decode()

    assert f"\nauth_proxy_config_last_reload_successful {successful}\n" in text
    assert "\nauth_proxy_config_last_reload_success_timestamp_seconds 12.5\n" in text


@FORMATS
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [(busy_numbers(), METRICS), (several_destinations(), {**METRICS, **OF_DESTINATIONS})],
    ids=["one destination", "several"],
)
def test_every_metric_has_its_name_type_and_labels(
    numbers: Numbers, expected: object, accept: str, parser: Parser
) -> None:
    found = {
        name: (
            metric.type,
            {label for sample in metric.samples for label in sample.labels} - {"le"},
        )
        for name, metric in families(numbers, accept, parser).items()
    }

    assert found == expected


@FORMATS
def test_several_destinations_are_told_apart_and_others_have_no_such_label(
    accept: str, parser: Parser
) -> None:
    found = families(several_destinations(), accept, parser)

    first, second = "a.run.app", "b.run.app:8443"
    assert values(found["auth_proxy_destination_available"]) == {
        (first, "stock"): 0.5,
        (second, "stock"): 1,
    }
    assert values(found["auth_proxy_failovers"], "_total") == {("connect_failed", "stock"): 4}
    assert values(found["auth_proxy_upstream_dials"], "_total") == {
        (first, "ok", "stock"): 1,
        (second, "ok", "stock"): 2,
        ("ok", "orders"): 4,
        ("upstream_connect_failed", "orders"): 1,
    }
    connections = values(found["auth_proxy_upstream_connections"])
    assert connections[first, "stock", "busy"] == 2
    assert connections["orders", "busy"] == 2
    assert ("stock", "busy") not in connections
    assert values(found["auth_proxy_token_fetches"], "_total") == {
        (first, "fetched", "stock"): 1,
        ("fetched", "orders"): 1,
        ("failed", "orders"): 1,
    }
    assert values(found["auth_proxy_token_expiry_timestamp_seconds"]) == {
        (first, "stock"): 1_767_326_000.0,
        (second, "stock"): 1_767_327_000.0,
        ("orders",): 1_767_326_645.0,
    }


@FORMATS
def test_every_metric_says_what_it_is(accept: str, parser: Parser) -> None:
    assert all(metric.documentation for metric in families(busy_numbers(), accept, parser).values())


@FORMATS
def test_counts_arrive_unchanged(accept: str, parser: Parser) -> None:
    found = families(busy_numbers(), accept, parser)

    # The encoders sort labels by name.
    assert values(found["auth_proxy_requests"], "_total") == {
        ("200", "h1", "orders"): 90,
        ("200", "h2", "orders"): 5,
        ("502", "h1", "orders"): 5,
        ("404", "h1", ""): 7,
    }
    assert values(found["auth_proxy_errors"], "_total") == {("upstream_reset", "orders"): 5}
    assert values(found["auth_proxy_retries"], "_total") == {("reset", "orders"): 2}
    assert values(found["auth_proxy_upstream_dials"], "_total") == {
        ("ok", "orders"): 4,
        ("upstream_connect_failed", "orders"): 1,
    }
    assert values(found["auth_proxy_request_bytes"], "_total")["orders",] == 1000
    assert values(found["auth_proxy_response_bytes"], "_total")["orders",] == 2000
    assert values(found["auth_proxy_token_fetches"], "_total") == {
        ("fetched", "orders"): 1,
        ("failed", "orders"): 1,
    }


@FORMATS
def test_gauges_of_known_routes_are_always_there(accept: str, parser: Parser) -> None:
    found = families(busy_numbers(), accept, parser)

    assert values(found["auth_proxy_in_flight"]) == {("orders",): 3, ("billing",): 0, ("",): 0}
    connections = values(found["auth_proxy_upstream_connections"])
    assert [connections["orders", state] for state in ("idle", "busy", "dialling")] == [1, 2, 3]
    assert [connections["billing", state] for state in ("idle", "busy", "dialling")] == [0, 0, 0]


@FORMATS
def test_a_token_that_is_not_there_has_no_expiry(accept: str, parser: Parser) -> None:
    expiry = families(busy_numbers(), accept, parser)["auth_proxy_token_expiry_timestamp_seconds"]

    assert values(expiry) == {("orders",): 1_767_326_645.0}


@FORMATS
def test_histograms_are_cumulative_and_complete(accept: str, parser: Parser) -> None:
    metric = families(busy_numbers(), accept, parser)["auth_proxy_request_duration_seconds"]
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in metric.samples
        if sample.name.endswith("_bucket") and sample.labels["route"] == "orders"
    }

    assert list(buckets) == [*DURATION_BOUNDS, float("inf")]
    # 0.0005 and 0.001 are at most 0.001; 0.02 follows; 4000 is beyond all bounds.
    assert [buckets[bound] for bound in (0.001, 0.01, 0.025, 3600.0)] == [2, 2, 3, 3]
    assert buckets[float("inf")] == values(metric, "_count")["orders",] == 4
    assert values(metric, "_sum")["orders",] == pytest.approx(4000.0215)


def test_the_fetch_histogram_has_no_labels() -> None:
    metric = families(busy_numbers())["auth_proxy_token_fetch_seconds"]

    assert values(metric, "_count") == {(): 2}
    assert values(metric, "_sum") == {(): 2.02}


def test_the_build_says_what_runs() -> None:
    (sample,) = families(busy_numbers())["auth_proxy_build_info"].samples

    assert sample.labels == {
        "version": proxy.__version__,
        "python": platform.python_version(),
        "build": proxy.build(),
    }
    assert sample.value == 1


def test_nothing_counted_yet_is_still_valid() -> None:
    numbers = Numbers(stats=Stats(), pids=())

    assert values(families(numbers)["auth_proxy_requests"], "_total") == {}
    assert values(families(numbers, OPEN, read_open)["auth_proxy_build_info"])


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", openmetrics.exposition.CONTENT_TYPE_LATEST),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=x", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_what_is_asked_for(accept: str, content_type: str) -> None:
    assert render(busy_numbers(), RELOAD, accept)[1] == content_type


def test_prometheus_is_given_openmetrics() -> None:
    text, content_type = render(busy_numbers(), RELOAD, PROMETHEUS)

    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert text.endswith(b"# EOF\n")


def test_the_processes_are_added_up() -> None:
    one = families(Numbers(stats=Stats(), pids=(os.getpid(),)))
    two = families(Numbers(stats=Stats(), pids=(os.getpid(), os.getpid())))

    assert one["process_resident_memory_bytes"].samples[0].value > 1_000_000
    assert one["process_cpu_seconds"].samples[0].value > 0
    assert two["process_open_fds"].samples[0].value > one["process_open_fds"].samples[0].value * 1.5
    assert (
        two["process_start_time_seconds"].samples[0].value
        == one["process_start_time_seconds"].samples[0].value
    )


def test_a_process_that_has_ended_is_no_failure() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    assert "process_open_fds" not in families(Numbers(stats=Stats(), pids=(child.pid,)))


def test_odd_route_names_are_escaped() -> None:
    stats = Stats()
    stats.route('a"b\\c\nd').in_flight = 1

    in_flight = families(Numbers(stats=stats, pids=()))["auth_proxy_in_flight"]

    assert values(in_flight) == {('a"b\\c\nd',): 1}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_improve() -> None:
    numbers = busy_numbers((os.getpid(),))

    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=render(numbers, RELOAD)[0],
        capture_output=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
