"""The library chart and the chart that uses it, rendered by Helm, which Go builds."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

import proxy
from proxy.config.loading import PLACES, parse
from proxy.config.overrides import gather
from tests.fakes import golang

DEPLOY = Path(__file__).parents[3] / "deploy"
PROGRAM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
OLDEST = "1.29"

# It may have to be built.
pytestmark = pytest.mark.timeout(240)

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm, in a copy of deploy/helm whose example has what it depends on."""
    home = tmp_path_factory.mktemp("helm")
    found = shutil.which("helm")
    program = Path(found) if found else home / "helm"
    if found is None:
        golang.build("install", "-ldflags=-s -w", PROGRAM, folder=home)
    charts = shutil.copytree(DEPLOY / "helm", home / "charts")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], cwd=charts, env={"HOME": str(home)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run("dependency", "update", "example")
    assert done.returncode == 0, done.stderr
    return run


def render(helm: Helm, *settings: str) -> subprocess.CompletedProcess[str]:
    set_them = [word for each in settings for word in ("--set", f"cloud-run-auth-proxy.{each}")]
    return helm("template", "shop", "example", "--kube-version", OLDEST, *set_them)


@pytest.fixture(scope="module")
def manifests(helm: Helm) -> dict[str, dict[str, Any]]:
    """What is deployed, by its kind."""
    rendered = render(helm)
    assert rendered.returncode == 0, rendered.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(rendered.stdout)}


def test_helm_finds_nothing_to_say_against_the_charts(helm: Helm) -> None:
    verdict = helm(
        "lint", "--strict", "--quiet", "--kube-version", OLDEST, "cloud-run-auth-proxy", "example"
    )

    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_kubernetes_takes_what_is_rendered(
    manifests: dict[str, dict[str, Any]], version: str
) -> None:
    assert set(manifests) == {"ConfigMap", "ServiceAccount", "Deployment"}
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def test_the_sidecar_is_the_one_of_the_example_for_gke(
    manifests: dict[str, dict[str, Any]],
) -> None:
    examples = yaml.safe_load_all((DEPLOY / "gke" / "sidecar.yaml").read_text())
    [example] = (each for each in examples if each["kind"] == "Deployment")
    [expected] = pod_of(example)["initContainers"]
    [rendered] = pod_of(manifests["Deployment"])["initContainers"]
    # There the configuration says so.
    more = {
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "AUTH_PROXY_ADMIN", "value": "0.0.0.0:9090"}],
    }

    assert rendered == {**expected, **more}


def test_the_app_calls_the_proxy_as_it_is_configured(
    manifests: dict[str, dict[str, Any]],
) -> None:
    pod = pod_of(manifests["Deployment"])
    [sidecar], [app], [volume] = pod["initContainers"], pod["containers"], pod["volumes"]
    [mount] = sidecar["volumeMounts"]
    env = {each["name"]: each["value"] for each in sidecar["env"]}
    [(file, text)] = manifests["ConfigMap"]["data"].items()
    text = text.replace("PROJECT_NUMBER", "1").replace("REGION", "europe-west1")
    config = parse(text, source=file, env={}, overrides=gather({}, env))
    urls = [urlsplit(each["value"]) for each in app["env"]]

    assert {url.path for url in urls} == {route.path for route in config.routes}
    assert {url.port for url in urls} == {address.port for address in config.listeners}
    assert {address.host for address in config.listeners} == {"localhost"}
    assert config.admin is not None
    assert config.admin.listen.port == sidecar["startupProbe"]["httpGet"]["port"]
    assert volume["configMap"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
    assert mount["name"] == volume["name"]
    assert Path(mount["mountPath"]) / file in PLACES


def test_another_configuration_makes_other_pods(helm: Helm) -> None:
    rendered = [render(helm), render(helm, "config.drain=9s")]
    hashes = [re.findall(r"auth-proxy/config: (\w{64})", each.stdout) for each in rendered]

    assert [len(each) for each in hashes] == [1, 1]
    assert hashes[0] != hashes[1]


def test_numbers_stay_as_they_are_written(helm: Helm) -> None:
    """Helm reads every number as a float."""
    rendered = render(helm, "config.defaults.limits.body_bytes=104857600").stdout

    assert "body_bytes: 104857600\n" in rendered


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("image=", "cloud-run-auth-proxy.image is missing"),
        ("config.routes=null", "/config/routes"),
        ("config.admin=off", "/config/admin"),
        ("imag=x", "'imag' not allowed"),
    ],
)
def test_a_value_that_would_not_do_is_refused(helm: Helm, setting: str, complaint: str) -> None:
    rendered = render(helm, setting)

    assert rendered.returncode != 0
    assert complaint in rendered.stderr


def test_the_charts_are_of_this_version() -> None:
    library = yaml.safe_load((DEPLOY / "helm/cloud-run-auth-proxy/Chart.yaml").read_text())
    example = yaml.safe_load((DEPLOY / "helm/example/Chart.yaml").read_text())
    [dependency] = example["dependencies"]

    assert library["version"] == library["appVersion"] == proxy.__version__
    assert dependency["version"] == library["version"]
    assert dependency["name"] == library["name"]
