"""The dashboard and the alert rules ask only for what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.ops.metrics import render
from tests.unit.ops.builders import RELOAD, several_destinations

DEPLOY = Path(__file__).parents[3] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
RULES = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"][0]["rules"]

# What Prometheus itself adds: the metric of every scrape, and the labels of every series.
OF_PROMETHEUS = {"up": set[str]()}
TARGET = {"job", "instance"}

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed"
)


def metrics() -> dict[str, set[str]]:
    """Return every series that the program has, and its labels."""
    text = render(several_destinations((os.getpid(),)), RELOAD)[0].decode()
    found = dict(OF_PROMETHEUS)
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            found[sample.name] = found.get(sample.name, set()) | set(sample.labels)
    return found


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def variables() -> list[str]:
    """Return what the dashboard's variables ask for, as queries."""
    asked = [one["query"]["query"] for one in DASHBOARD["templating"]["list"][1:]]
    return [re.fullmatch(r"label_values\((.+), \w+\)", one)[1] for one in asked]  # type: ignore[index] # a miss fails the test


def alerts() -> list[str]:
    return [rule["expr"] for rule in RULES]


NAME = re.compile(r"\b(?:auth_proxy|process)_\w+|\bup\b")
SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")


@pytest.mark.parametrize("query", [*queries(), *variables(), *alerts()])
def test_every_query_names_metrics_and_labels_that_exist(query: str) -> None:
    known = metrics()
    names = set(NAME.findall(query))

    assert names
    assert names - set(known) == set()
    for name, matchers in SELECTOR.findall(query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels - known[name] - TARGET == set()
    grouped = {
        label
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
        for label in labels.split(", ")
    }
    assert grouped - set().union(*(known[name] for name in names)) - TARGET == set()


def test_the_dashboard_shows_every_metric_of_the_program() -> None:
    shown = {name for query in queries() for name in NAME.findall(query)}
    ours = {name for name in metrics() if name.startswith("auth_proxy_")}

    missing = {name for name in ours - shown if not name.endswith(("_sum", "_count"))}
    assert missing == set()


def test_every_panel_is_named_and_has_its_place() -> None:
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in DASHBOARD["panels"]]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert all(panel["title"] for panel in DASHBOARD["panels"])
    assert len(set(ids)) == len(ids)
    assert all(x + w <= 24 for x, _, w, _ in places)
    cells = [(a, b) for x, y, w, h in places for a in range(x, x + w) for b in range(y, y + h)]
    assert len(set(cells)) == len(cells)


def test_the_dashboard_belongs_to_no_data_source_of_somebody() -> None:
    sources = {
        target["datasource"]["uid"] for panel in panels() for target in (panel, *panel["targets"])
    }

    assert sources == {"${datasource}"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    raised = {
        check["alertname"]
        for test in tests
        for check in test["alert_rule_test"]
        if check["exp_alerts"]
    }

    assert raised == {rule["alert"] for rule in RULES}


def run_promtool(*arguments: str, cwd: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yaml"),
        ("check", "config", "scrape.yaml"),
        ("test", "rules", "alerts_test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_what_is_deployed(arguments: tuple[str, ...]) -> None:
    done = run_promtool(*arguments)

    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries())
    ]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})
    )

    done = run_promtool("check", "rules", "rules.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def collectors() -> dict[str, Any]:
    """Return what Managed Prometheus is told on either platform, by kind."""
    files = [PROMETHEUS / f"{name}-monitoring.yaml" for name in ("run", "pod")]
    return {document["kind"]: document for document in map(load, files)}


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def test_managed_prometheus_calls_the_job_as_the_alerts_do() -> None:
    jobs = {match for query in alerts() for match in re.findall(r'job="(.+?)"', query)}
    names = {kind: document["metadata"]["name"] for kind, document in collectors().items()}

    assert {kind: {name} for kind, name in names.items()} == dict.fromkeys(
        ("RunMonitoring", "PodMonitoring"), jobs
    )


def test_the_collector_of_cloud_run_looks_where_the_proxy_answers() -> None:
    monitoring = collectors()["RunMonitoring"]
    service = load(DEPLOY / "cloudrun" / "service-metrics.yaml")["spec"]["template"]
    _, proxy, collector = service["spec"]["containers"]
    [mount] = collector["volumeMounts"]
    [volume] = service["spec"]["volumes"]
    [item] = volume["secret"]["items"]

    assert monitoring["spec"]["endpoints"] == [
        {
            "port": proxy["startupProbe"]["httpGet"]["port"],
            "path": "/metrics",
            "interval": "30s",
        }
    ]
    # Where the collector looks for its configuration.
    assert f"{mount['mountPath']}/{item['path']}" == "/etc/rungmp/config.yaml"
    assert mount["name"] == volume["name"]
    # It works between requests.
    assert service["metadata"]["annotations"]["run.googleapis.com/cpu-throttling"] == "false"


def test_the_collector_of_gke_looks_where_the_proxy_answers() -> None:
    spec = collectors()["PodMonitoring"]["spec"]
    manifests = yaml.safe_load_all((DEPLOY / "gke" / "sidecar.yaml").read_text())
    [template] = (each["spec"]["template"] for each in manifests if each["kind"] == "Deployment")
    [proxy] = template["spec"]["initContainers"]
    [port] = proxy["ports"]

    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert spec["endpoints"] == [{"port": port["name"], "path": "/metrics", "interval": "30s"}]
    assert port["containerPort"] == proxy["startupProbe"]["httpGet"]["port"]
