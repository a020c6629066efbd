"""The Compose files: taken by Compose's own reader, which Go builds, and of one piece."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from proxy.config.keys import TOP
from proxy.config.loading import PLACES, load
from tests.fakes import golang

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "deploy" / "compose"
FILES = ("compose.yaml", "emulator.yaml", "google.yaml")

# The library that `docker compose` reads its files with; its command prints what it has read.
READER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"


def services(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((COMPOSE / name).read_text())["services"]
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose-go")
    golang.build("install", "-ldflags=-s -w", READER, folder=folder)
    return folder / "cmd"


@pytest.mark.timeout(240)  # It may have to be built.
@pytest.mark.parametrize("name", FILES)
def test_compose_takes_each_file(reader: Path, name: str) -> None:
    done = subprocess.run(
        [reader, COMPOSE / name], capture_output=True, text=True, check=False, cwd=COMPOSE
    )

    assert done.returncode == 0, done.stdout + done.stderr
    project = yaml.safe_load(done.stdout)
    contexts = {
        each["build"]["context"] for each in project["services"].values() if "build" in each
    }
    assert contexts == {str(ROOT)}


@pytest.mark.timeout(240)
def test_a_key_that_compose_does_not_know_is_found(reader: Path, tmp_path: Path) -> None:
    text = (COMPOSE / "compose.yaml").read_text().replace("healthcheck:", "healthchek:", 1)
    (tmp_path / "compose.yaml").write_text(text)

    done = subprocess.run(
        [reader, tmp_path / "compose.yaml"], capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "healthchek" in done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_app_shares_its_network_with_the_proxy_and_waits_for_it(name: str) -> None:
    all_of_them = services(name)
    owners = {each.get("network_mode", f"service:{own}") for own, each in all_of_them.items()}

    assert len(owners) == 1
    assert all_of_them["app"]["depends_on"] == {"auth-proxy": {"condition": "service_healthy"}}
    assert "cloud-run-auth-proxy wait" in " ".join(all_of_them["auth-proxy"]["healthcheck"]["test"])


@pytest.mark.parametrize("name", FILES)
def test_the_app_calls_the_listener_that_is_the_default(name: str) -> None:
    (listen,) = (key.default for key in TOP.keys if key.name == "listen")
    called = urlsplit(services(name)["app"]["command"][-1])

    assert called.netloc == listen
    assert not any("ports" in each for each in services(name).values())


def test_the_simplest_file_runs_the_demo() -> None:
    assert services("compose.yaml")["auth-proxy"]["command"] == ["demo"]


@pytest.mark.parametrize("name", ["emulator.yaml", "google.yaml"])
def test_the_proxy_finds_the_configuration_that_is_mounted(name: str) -> None:
    one = services(name)
    mounts = [each.split(":") for each in one["auth-proxy"]["volumes"]]
    [(source, target)] = ((mount[0], mount[1]) for mount in mounts if "proxy.yaml" in mount[0])
    config = load(COMPOSE / source, {}, {})
    [route] = config.routes

    assert Path(target) in PLACES
    assert urlsplit(one["app"]["command"][-1]).path == route.path


def test_one_configuration_serves_development_and_production() -> None:
    there = {"ORDERS_URL": "https://orders-1.europe-west1.run.app"}
    urls = [
        destination.upstream and destination.upstream.origin
        for env in ({}, there)
        for route in load(COMPOSE / "proxy.yaml", env, {}).routes
        for destination in route.destinations
    ]
    page = (ROOT / "docs" / "emulator.md").read_text()
    front = re.search(r"^\| `--listen ADDR` \| `(.+?)` \|", page, re.MULTILINE)
    assert front is not None

    assert urls == [f"https://{front[1]}", there["ORDERS_URL"]]


def test_the_proxy_can_read_the_login_that_it_mounts() -> None:
    """A login is written for its owner alone (mode 600), who is not the image's user."""
    proxy = services("google.yaml")["auth-proxy"]
    login = proxy["environment"]["GOOGLE_APPLICATION_CREDENTIALS"]
    mounts = {each.split(":")[1]: each.split(":")[2] for each in proxy["volumes"]}

    assert mounts[login] == "ro"
    assert proxy["user"] == "1000:1000"


def test_what_the_emulator_writes_is_the_image_users_alone() -> None:
    emulator = services("emulator.yaml")["emulator"]
    volume = yaml.safe_load((COMPOSE / "emulator.yaml").read_text())["volumes"]["shared"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user is not None

    assert volume["driver_opts"]["o"] == f"uid={user[1]},gid={user[2]},mode=0700"
    assert emulator["volumes"] == [f"shared:{emulator['environment']['TMPDIR']}"]
    assert "shared:/shared:ro" in services("emulator.yaml")["auth-proxy"]["volumes"]


@pytest.mark.parametrize("name", FILES)
def test_no_container_may_more_than_it_needs(name: str) -> None:
    for own, each in services(name).items():
        if own != "app":
            assert each["read_only"] is True
            assert each["cap_drop"] == ["ALL"]
            assert each["security_opt"] == ["no-new-privileges:true"]
