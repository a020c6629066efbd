"""The deployment examples: well-formed, accepted by our own parser, consistent in themselves."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from proxy.cli import USAGE
from proxy.config.loading import PLACES, find, load, parse
from proxy.config.model import Config
from proxy.config.overrides import gather

ROOT = Path(__file__).parents[2]
PLATFORMS = ("cloudrun", "compose", "gke")
FILES = sorted(file for name in PLATFORMS for file in (ROOT / "deploy" / name).glob("*.yaml"))
IMAGE = "REGION-docker.pkg.dev/PROJECT_ID/REPOSITORY/cloud-run-auth-proxy:TAG"

# What people replace, by something that our parser accepts in its place.
FILLED_IN = {"PROJECT_NUMBER": "123456789012", "REGION": "europe-west1", "PROJECT_ID": "shop-1"}


NO_VARIABLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Example:
    """One workload with the proxy beside its app."""

    file: Path
    annotations: dict[str, str]
    containers: dict[str, dict[str, Any]]
    config: Config

    @property
    def proxy(self) -> dict[str, Any]:
        return self.containers["auth-proxy"]

    @property
    def app(self) -> dict[str, Any]:
        return next(one for name, one in self.containers.items() if name != "auth-proxy")


def fill_in(text: str) -> str:
    for word, value in FILLED_IN.items():
        text = text.replace(word, value)
    return text


def parse_config(text: str, source: str, env: Mapping[str, str] = NO_VARIABLES) -> Config:
    return parse(fill_in(text), source=source, env={}, overrides=gather({}, env))


def documents(file: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that has a spec with containers, wherever it is nested."""
    if isinstance(value, dict):
        if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
            yield value
        for inner in value.values():
            yield from pods(inner)


def annotations_of(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        yield from value.get("annotations", {}).items()
        for inner in value.values():
            yield from annotations_of(inner)


def config_text(container: dict[str, Any], everything: list[dict[str, Any]]) -> str:
    """Return the configuration that the container is given: by variable, ConfigMap or secret."""
    for variable in container.get("env", []):
        if variable["name"] == "AUTH_PROXY_CONFIG_YAML":
            return str(variable["value"])
    maps = [document for document in everything if document["kind"] == "ConfigMap"]
    if not maps:
        # What the file's first lines make the secret of.
        return (ROOT / "config" / "examples" / "by-path.yaml").read_text()
    return str(maps[0]["data"]["config.yaml"])


def examples() -> list[Example]:
    found = []
    for file in FILES:
        everything = documents(file)
        for document in everything:
            for pod in pods(document):
                listed = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
                containers = {container["name"]: container for container in listed}
                if len(containers) < 2:  # doctor-job.yaml, which has no app
                    continue
                text = config_text(containers["auth-proxy"], everything)
                variables = containers["auth-proxy"].get("env", [])
                env = {each["name"]: each["value"] for each in variables}
                config = parse_config(text, file.name, env)
                found.append(Example(file, dict(annotations_of(document)), containers, config))
    return found


each_example = pytest.mark.parametrize(
    "example", examples(), ids=lambda example: str(example.file.relative_to(ROOT / "deploy"))
)


def test_every_platform_has_its_example() -> None:
    names = [str(file.relative_to(ROOT / "deploy")) for file in FILES]

    assert names == [
        "cloudrun/doctor-job.yaml",
        "cloudrun/job.yaml",
        "cloudrun/service-metrics.yaml",
        "cloudrun/service-secret.yaml",
        "cloudrun/service.yaml",
        "cloudrun/worker-pool.yaml",
        "compose/compose.yaml",
        "compose/emulator.yaml",
        "compose/google.yaml",
        "compose/proxy.yaml",
        "gke/job.yaml",
        "gke/network-policy.yaml",
        "gke/sidecar.yaml",
    ]
    assert len(examples()) == 7


@each_example
def test_the_app_calls_addresses_that_the_proxy_listens_on(example: Example) -> None:
    listeners = {address.port for address in example.config.listeners}
    urls = [urlsplit(variable["value"]) for variable in example.app["env"]]

    assert [url.hostname for url in urls] == ["localhost"] * len(urls)
    assert {url.port for url in urls} == listeners


@each_example
def test_the_app_calls_paths_that_some_route_takes(example: Example) -> None:
    routes = {route.path for route in example.config.routes}
    called = {urlsplit(variable["value"]).path or "/" for variable in example.app["env"]}

    assert called == routes


@each_example
def test_no_port_is_used_twice(example: Example) -> None:
    assert example.config.admin is not None
    ports = [address.port for address in example.config.listeners]
    ports += [port["containerPort"] for port in example.app.get("ports", [])]
    ports.append(example.config.admin.listen.port)

    assert len(ports) == len(set(ports))


@each_example
def test_probes_ask_the_admin_listener_where_they_can_reach_it(example: Example) -> None:
    assert example.config.admin is not None
    probes = {
        kind: probe["httpGet"] for kind, probe in example.proxy.items() if kind.endswith("Probe")
    }

    assert probes["startupProbe"]["path"] == "/startup"
    assert {probe["port"] for probe in probes.values()} == {example.config.admin.listen.port}
    assert {probe["path"] for probe in probes.values()} <= {"/startup", "/liveness"}
    assert ip_address(example.config.admin.listen.host).is_unspecified


@each_example
def test_the_app_starts_after_the_proxy(example: Example) -> None:
    key = "run.googleapis.com/container-dependencies"
    if key in example.annotations:
        dependencies = json.loads(example.annotations[key])

        assert dependencies == {
            name: ["auth-proxy"] for name in example.containers if name != "auth-proxy"
        }
    else:
        assert example.proxy["restartPolicy"] == "Always"


@each_example
def test_quitting_is_allowed_exactly_where_the_app_asks_for_it(example: Example) -> None:
    assert example.config.admin is not None

    assert example.config.admin.quit == ("/quitquitquit" in str(example.app.get("args")))


@each_example
def test_the_image_and_its_user_are_those_of_the_dockerfile(example: Example) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = example.proxy.get("securityContext", {}).get("runAsUser", 65532)

    assert example.proxy["image"] == IMAGE
    assert f"\nUSER {user}:{user}\n" in dockerfile


def embedded() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield each configuration in a file with the environment of its container."""
    for file in FILES:
        everything = documents(file)
        for pod in (pod for document in everything for pod in pods(document)):
            listed = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
            [proxy] = (each for each in listed if each["name"] == "auth-proxy")
            env = {each["name"]: fill_in(each["value"]) for each in proxy.get("env", [])}
            yield file.name, fill_in(config_text(proxy, everything)), env


@pytest.mark.parametrize(("name", "config", "env"), list(embedded()))
def test_check_has_nothing_to_say_against_a_configuration(
    name: str, config: str, env: dict[str, str], tmp_path: Path
) -> None:
    """The program itself, without a metadata server that could resolve names."""
    file = tmp_path / name
    file.write_text(config)
    env = {key: value for key, value in env.items() if key != "AUTH_PROXY_CONFIG_YAML"}

    done = subprocess.run(
        [Path(sys.executable).with_name("cloud-run-auth-proxy"), "check", "--config", file],
        env={"HOME": str(tmp_path), "GCE_METADATA_HOST": "127.0.0.1:1", **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.stderr, done.returncode) == ("", 0)
    assert "ROUTE" in done.stdout


def test_the_doctor_examines_what_the_service_has() -> None:
    [job] = documents(ROOT / "deploy" / "cloudrun" / "doctor-job.yaml")
    [pod] = pods(job)
    [doctor] = pod["spec"]["containers"]
    [service] = (each for each in examples() if each.file.name == "service.yaml")
    [serving] = pods(documents(service.file)[0])

    assert doctor["args"] == ["doctor"]
    assert doctor["image"] == service.proxy["image"]
    assert parse_config(config_text(doctor, [job]), "job").routes == service.config.routes
    assert pod["spec"]["serviceAccountName"] == serving["spec"]["serviceAccountName"]


def deploy_flags() -> tuple[dict[str, str], dict[str, str]]:
    """Return the flags that the one command of docs/cloud-run.md gives to the app and the proxy."""
    page = (ROOT / "docs" / "cloud-run.md").read_text()
    command = re.search(r"```sh\n(gcloud run deploy .*?)```", page, re.DOTALL)
    assert command is not None
    words = shlex.split(fill_in(command[1]).replace("\\\n", ""))
    app, proxy = (at for at, word in enumerate(words) if word == "--container")
    flags = [
        dict(zip(part[::2], part[1::2], strict=True)) for part in (words[app:proxy], words[proxy:])
    ]
    return flags[0], flags[1]


def pairs(flag: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in flag.split(","))


def test_the_one_command_for_cloud_run_fits_together() -> None:
    app, proxy = deploy_flags()
    command, url = proxy["--args"].split(",")
    env = pairs(proxy["--set-env-vars"])
    config = find(url, None, env).read(env, gather({}, env))
    probe = pairs(proxy["--startup-probe"])

    assert command == "run"
    assert app["--depends-on"] == proxy["--container"]
    assert config.admin is not None
    assert ip_address(config.admin.listen.host).is_unspecified
    assert (probe["httpGet.path"], int(probe["httpGet.port"])) == (
        "/startup",
        config.admin.listen.port,
    )
    (called,) = pairs(app["--set-env-vars"]).values()
    assert urlsplit(called).port in {address.port for address in config.listeners}
    assert int(app["--port"]) not in {address.port for address in config.listeners}


def test_a_secret_is_mounted_where_the_proxy_looks_for_its_file() -> None:
    page = (ROOT / "docs" / "cloud-run.md").read_text()
    (mounted,) = re.findall(r"--set-secrets (\S+)=auth-proxy:latest", page)
    (file,) = re.findall(r"--data-file (\S+)", page)

    assert Path(mounted) in PLACES
    assert load(ROOT / file, {}, {}).routes


def test_a_secret_becomes_the_file_that_the_proxy_looks_for() -> None:
    [example] = (each for each in examples() if each.file.name == "service-secret.yaml")
    [pod] = pods(documents(example.file)[0])
    [volume] = pod["spec"]["volumes"]
    [mount] = example.proxy["volumeMounts"]
    [item] = volume["secret"]["items"]

    assert mount["name"] == volume["name"]
    assert Path(mount["mountPath"]) / item["path"] in PLACES
    assert "--data-file config/examples/by-path.yaml\n" in example.file.read_text()


FOLDERS = sorted(folder for folder in (ROOT / "deploy").iterdir() if folder.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_each_folder_says_what_its_files_are(folder: Path) -> None:
    linked = re.findall(
        r"^\| \[`[^`]+`\]\(([^)]+)\)", (folder / "README.md").read_text(), re.MULTILINE
    )

    # A folder by one of its files.
    named = sorted(link.split("/")[0] for link in linked)
    assert named == sorted(file.name for file in folder.iterdir() if file.stem != "README")


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units as this machine's systemd may see them, with the installed command in theirs."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = Path(sys.executable).with_name("cloud-run-auth-proxy")
    said = subprocess.run(
        ["systemd-analyze", "--version"], capture_output=True, text=True, check=True
    )
    is_old = int(said.stdout.split()[1]) < 253
    for unit in (ROOT / "deploy" / "systemd").glob("cloud-run-auth-proxy.*"):
        text = unit.read_text().replace(
            "/opt/cloud-run-auth-proxy/bin/cloud-run-auth-proxy", f"{command}"
        )
        # What an older one does not know; the README says what to write there.
        (tmp_path / unit.name).write_text(
            text.replace("notify-reload", "notify") if is_old else text
        )
    return sorted(tmp_path.iterdir())


def analyze(*arguments: str | Path) -> tuple[str, int]:
    """Return what systemd says, and its exit code."""
    verdict = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )
    return verdict.stdout + verdict.stderr, verdict.returncode


def test_the_units_of_systemd_are_what_systemd_takes(units: list[Path]) -> None:
    assert analyze("verify", "--man=no", *units) == ("", 0)


def test_the_unit_is_closed_in_as_far_as_a_proxy_can_be(units: list[Path]) -> None:
    """Of 0 (all that systemd can close) to 100; a network service without a sandbox has 96."""
    [service] = (unit for unit in units if unit.suffix == ".service")

    said, code = analyze("security", "--offline=true", "--no-pager", "--threshold=16", service)

    assert code == 0, said


def test_the_unit_reads_the_file_that_its_readme_installs_and_has_time_to_drain() -> None:
    unit = (ROOT / "deploy" / "systemd" / "cloud-run-auth-proxy.service").read_text()
    keys = dict(line.split("=", 1) for line in unit.splitlines() if re.match(r"\w+=", line))
    words = keys["ExecStart"].split()
    installed = re.findall(
        r"^install -D --mode=0644 (\S+) (\S+)$",
        (ROOT / "deploy" / "systemd" / "README.md").read_text(),
        re.MULTILINE,
    )
    config = load(ROOT / installed[0][0], {"SERVICE_URL": "https://a.run.app"}, {})

    assert words[1:] == ["run", "--config", installed[0][1]]
    assert keys["RestartPreventExitStatus"] == f"{USAGE}"
    assert float(keys["TimeoutStopSec"].removesuffix("s")) > config.drain


def test_the_dockerfile_copies_only_what_the_context_holds() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]

    assert copied == [
        "pyproject.toml",
        "hatch_build.py",
        "README.md",
        "LICENSE",
        "locks",
        "proxy",
        "cloud_run_auth_proxy",
    ]
    assert [line[1:] for line in ignore if line.startswith("!")] == copied


def test_both_stages_of_the_image_are_made_of_one_base_that_nobody_can_exchange() -> None:
    """A tag can be moved to other contents, a digest cannot."""
    base, *others = re.findall(r"^FROM (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64} AS base", base)
    assert others == ["base AS build", "base"]


def test_what_the_image_takes_from_an_index_is_named_by_hashes() -> None:
    """Whatever else pip does takes files that lie there, and nothing that builds comes unasked."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    commands = re.findall(r"\bpip --.*?(?=&&|\nRUN|\nFROM)", text, re.DOTALL)

    assert len(commands) == 4
    for command in commands:
        flags = set(command.split())
        assert (
            {"--require-hashes", "--only-binary"} <= flags
            or "--no-index" in flags
            or {"--no-deps", "--no-build-isolation"} <= flags
        ), command


def test_the_image_says_where_it_comes_from_and_takes_its_times_from_outside() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    labels = re.findall(r"org\.opencontainers\.image\.(\w+)=", dockerfile)
    build = dockerfile.partition("\nFROM base\n")[0]

    assert set(labels) >= {"source", "version", "revision", "licenses"}
    # Declared in a stage, or it is not in the environment of the commands there.
    assert build.index("ARG SOURCE_DATE_EPOCH=") < build.index("HATCH_BUILD_HOOKS_ENABLE=1")


def test_the_image_ends_on_sigterm_and_needs_no_shell() -> None:
    last_stage = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]

    assert 'ENTRYPOINT ["cloud-run-auth-proxy"]\n' in last_stage
    assert "STOPSIGNAL SIGTERM\n" in last_stage
    # The program must be pid 1's child of nobody: a shell would not pass the signal on.
    assert "\nCMD" not in last_stage
