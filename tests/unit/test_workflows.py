"""The workflows: judged by their linters, and each command in them is one that is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import golang

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {
    file.stem: yaml.safe_load(file.read_text()) for file in FILES
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
# The newest that the module proxy had, and what it is built by.
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name, as ``workflow.job``, and contents of every job."""
    for name, workflow in WORKFLOWS.items():
        for job, contents in workflow["jobs"].items():
            yield f"{name}.{job}", contents


def steps() -> Iterator[dict[str, Any]]:
    """Every step of every job."""
    for _, job in jobs():
        yield from job.get("steps", [])


@pytest.mark.timeout(240)  # It may have to be built.
def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    golang.build("install", ACTIONLINT, folder=tmp_path)

    judged = subprocess.run(
        [tmp_path / "actionlint", "-no-color", *FILES], capture_output=True, text=True, check=False
    )

    assert (judged.returncode, judged.stdout) == (0, "")


def test_zizmor_finds_nothing() -> None:
    zizmor = shutil.which("zizmor", path=Path(sys.executable).parent)
    assert zizmor is not None

    judged = subprocess.run(
        [zizmor, "--offline", "--no-progress", "--quiet", "--persona", "pedantic", GITHUB],
        capture_output=True,
        text=True,
        check=False,
    )

    assert judged.returncode == 0, judged.stdout


def test_each_action_is_named_by_one_commit_and_says_its_version() -> None:
    """A tag can be moved, a commit cannot; Dependabot raises both."""
    pinned = re.compile(r"uses: (\S+?)@([0-9a-f]{40}) # (v[0-9.]+)\n")
    text = "".join(file.read_text() for file in FILES)
    found = pinned.findall(text)

    assert len(found) == text.count("uses: ") - text.count("uses: ./")
    assert len({action for action, _, _ in found}) == len(set(found))


def test_a_job_has_the_rights_that_it_needs_and_no_others() -> None:
    assert [name for name, workflow in WORKFLOWS.items() if workflow["permissions"] != {}] == []
    assert {
        name: {right for right, kind in job["permissions"].items() if kind == "write"}
        for name, job in jobs()
        if "write" in job["permissions"].values()
    } == {
        "scorecard.analysis": {"security-events", "id-token"},
        "release.attest": {"id-token", "attestations"},
        "release.image": {"packages"},
        "release.index": {"packages", "id-token", "attestations"},
        "release.pypi": {"id-token"},
        "release.page": {"contents"},
    }


def test_nothing_is_published_before_everything_is_tested() -> None:
    release = WORKFLOWS["release"]["jobs"]

    def before(job: str) -> set[str]:
        needed = release[job].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct.union(*map(before, direct))

    for job in ("attest", "index", "pypi", "page"):
        assert {"version", "ci", "sdist"} <= before(job), job
        assert release[job]["if"] == "github.ref_type == 'tag'"
    assert "wheels" in before("pypi")
    assert release["page"]["needs"] == ["pypi", "index"]


def test_a_job_that_publishes_waits_for_somebody_to_agree() -> None:
    release = WORKFLOWS["release"]["jobs"]
    named = {
        job: contents["environment"]
        for job, contents in release.items()
        if "environment" in contents
    }

    assert named.keys() == {"index", "pypi", "page"}


def test_every_command_of_make_in_a_workflow_is_one() -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", MAKEFILE, re.MULTILINE))
    wanted = {
        word
        for step in steps()
        for words in re.findall(r"\bmake ([^\n]+)", step.get("run", ""))
        for word in re.sub(r'[A-Z]+=("[^"]*"|\S+)', "", words).split()
    }

    assert wanted >= {"lint", "types", "test", "count", "sdist", "wheel", "wheels", "sbom"}
    assert wanted - targets == set()


def test_every_script_in_a_workflow_is_there() -> None:
    run = "\n".join(step.get("run", "") for step in steps())
    scripts = set(re.findall(r"python3? ([\w/]+\.py)", run))
    modules = set(re.findall(r"python3? -m (tools\.\w+)", run))

    assert scripts == {"tools/smoke.py"}
    assert modules == {"tools.release"}
    assert [script for script in scripts if not (ROOT / script).exists()] == []
    assert ".ci/run programs" in run


def test_every_python_that_is_supported_is_tested_and_gets_a_wheel() -> None:
    supported = [
        found[1]
        for each in PROJECT["project"]["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
    ]
    wheels = PROJECT["tool"]["cibuildwheel"]["build"].split()

    assert WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == supported
    assert wheels == [f"cp{version.replace('.', '')}-*" for version in supported]


KEPT = {
    "github-actions": ".github/workflows/*.yml",
    "pip": "run.txt",
    "npm": "package-lock.json",
    "gomod": "go.mod",
    "cargo": "Cargo.toml",
    "docker": "Dockerfile",
    "docker-compose": "compose.yaml",
    "terraform": "versions.tf",
}
"""Where each kind of package that Dependabot knows has its versions."""


def test_dependabot_looks_wherever_versions_are_kept() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]

    looked_at = {
        (each["package-ecosystem"], ROOT / folder.strip("/"))
        for each in updates
        for folder in each.get("directories", [each.get("directory")])
    }

    assert looked_at == {
        (kind, ROOT if kind == "github-actions" else file.parent)
        for kind, name in KEPT.items()
        for file in ROOT.glob(name if "/" in name else f"**/{name}")
        if not {"node_modules", "build"} & set(file.parts) and "/.venv" not in str(file)
    }
