"""The locked versions satisfy what pyproject.toml asks for, and each has its hashes."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SITE = (ROOT / "locks" / "docs.in").read_text().splitlines()[1:]
TOOLS = (ROOT / "locks" / "tools.in").read_text().splitlines()[1:]
HOOK = (ROOT / "locks" / "build.in").read_text().splitlines()[1:]


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Return version and number of hashes of each package in a lock file."""
    found: dict[str, tuple[str, int]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "locks" / f"{name}.txt").read_text().strip()):
        pinned = re.match(r"(?P<name>[a-z0-9.-]+)(\[.*\])?==(?P<version>[^ ;]+)", entry)
        assert pinned is not None, entry
        found[pinned["name"]] = (pinned["version"], entry.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("run", [*PROJECT["dependencies"], *EXTRAS["otel"]]),
        ("dev", [*PROJECT["dependencies"], *EXTRAS["otel"], *EXTRAS["dev"]]),
        ("build", HOOK),
        ("docs", SITE),
        ("tools", TOOLS),
    ],
)
def test_what_is_asked_for_is_locked(name: str, wanted: list[str]) -> None:
    found = locked(name)

    for each in map(Requirement, wanted):
        if each.name != PROJECT["name"]:
            version, hashes = found[each.name.lower()]
            assert each.specifier.contains(version), each
            assert hashes > 0
    assert all(hashes for _, hashes in found.values())


def test_ci_tests_the_versions_that_the_image_runs() -> None:
    run, dev = locked("run"), locked("dev")

    assert {name: dev[name] for name in run} == run


def test_what_builds_is_what_pyproject_asks_for() -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = hook["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["dependencies"]

    assert sorted(HOOK) == sorted([*hook["build-system"]["requires"], *asked])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("environment", ["", "-compiled"])
def test_what_ci_tests_is_installed_by_hash_alone(tmp_path: Path, environment: str) -> None:
    venv = tmp_path / "venv"
    told = subprocess.run(
        ["make", "-n", f"{venv}{environment}/.dev", "LOCKED=1", f"VENV={venv}"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    installs = re.findall(r"-m pip [^&\n]* (?:install|wheel) [^&\n]*", told.stdout)

    assert len(installs) >= 2
    # Neither a dependency nor what builds comes from an index without its hash.
    bare = [each for each in installs if "--require-hashes" not in each]
    assert [each for each in bare if "--no-deps" not in each] == []
    assert all("--no-build-isolation" in each or ".whl" in each for each in bare)


def test_ci_tests_the_compiled_form_with_what_is_locked() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    commands = re.findall(r"make test .*COMPILED=1.*", workflow)

    assert len(commands) == 1
    assert "LOCKED=1" in commands[0]
