"""What an index gets: an sdist and a wheel, and the README as it shows it."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from readme_renderer import markdown

from hatch_build import for_index
from proxy import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCE = PROJECT["urls"]["Source"]
TOP = f"cloud_run_auth_proxy-{__version__}"


def build(target: str, *, at: Path, into: Path) -> Path:
    """Build an sdist or a pure wheel of the sources in the folder `at`; return the file."""
    before = set(into.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into],
        cwd=at, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [made] = set(into.iterdir()) - before
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", at=ROOT, into=tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return folder / TOP


@pytest.fixture(scope="module")
def metadata(unpacked: Path) -> Message:
    return message_from_string((unpacked / "PKG-INFO").read_text())


@pytest.fixture(scope="module")
def page(metadata: Message) -> str:
    """The description as PyPI renders it."""
    rendered = markdown.render(str(metadata.get_payload()), variant="GFM")
    assert rendered is not None
    return rendered


# What is in them


def test_the_sdist_holds_every_file_of_the_repository(unpacked: Path) -> None:
    """A distribution's packagers run the tests from it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("this is no checkout")
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    held = {each.relative_to(unpacked).as_posix() for each in unpacked.rglob("*") if each.is_file()}

    assert held - tracked == {"PKG-INFO"}
    assert tracked - held == set()


def test_a_wheel_of_the_sdist_is_the_wheel_of_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    from_checkout = build("wheel", at=ROOT, into=tmp_path / "a")
    from_sdist = build("wheel", at=unpacked, into=tmp_path / "b")

    assert from_checkout.name == from_sdist.name
    assert from_checkout.read_bytes() == from_sdist.read_bytes()


def test_the_wheel_holds_both_packages_marked_as_typed_and_no_tests(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", at=ROOT, into=tmp_path)) as wheel:
        names = set(wheel.namelist())

    packages = {name.partition("/")[0] for name in names} - {f"{TOP}.dist-info", f"{TOP}.data"}
    assert packages == {"proxy", "cloud_run_auth_proxy"}
    assert {f"{package}/py.typed" for package in packages} <= names
    assert {name.partition(".data/data/")[2] for name in names if ".data/" in name} == {
        "share/bash-completion/completions/cloud-run-auth-proxy",
        "share/fish/vendor_completions.d/cloud-run-auth-proxy.fish",
        "share/man/man1/cloud-run-auth-proxy.1",
        "share/zsh/site-functions/_cloud-run-auth-proxy",
    }
    assert {"proxy/ops/static/index.html", f"{TOP}.dist-info/licenses/LICENSE"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_metadata_says_where_the_project_lives(metadata: Message) -> None:
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))

    assert set(urls) >= {"Documentation", "Source", "Issues", "Changelog"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"]


def test_each_python_that_is_tested_is_a_classifier() -> None:
    named = re.findall(r"Python :: (3\.[0-9]+)", "\n".join(PROJECT["classifiers"]))

    assert named == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_repository_has_one_address() -> None:
    """Whoever moves it changes what this finds."""
    pages = [ROOT / "pyproject.toml", ROOT / "Dockerfile", *ROOT.glob("*.md")]
    pages += [*ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.*"), *ROOT.glob(".github/**/*.*")]
    pages += [each for each in ROOT.glob("proxy/**/*") if each.suffix not in {".pyc", ""}]
    written = {
        address
        for each in pages
        if each.suffix not in {".png", ".so"}
        for address in re.findall(
            r"(?:github\.com/|ghcr\.io/|--repo )([\w.-]+/cloud-run-auth-proxy)\b", each.read_text()
        )
    }

    assert written == {SOURCE.removeprefix("https://github.com/")}


# The README on an index


def test_every_link_of_the_page_holds_outside_of_the_repository(page: str) -> None:
    targets = re.findall(r'(?:href|src)="([^"]+)"', page)

    assert len(targets) > 20
    assert [each for each in targets if not each.startswith(("https://", "#"))] == []


def test_every_link_into_the_repository_names_a_file_of_this_version(page: str) -> None:
    into = re.findall(rf'"{re.escape(SOURCE)}/(?:blob|raw)/v([^/]+)/([^"#]+)', page)

    assert {version for version, _ in into} == {__version__}
    assert [name for _, name in into if not (ROOT / name).exists()] == []


def test_the_page_shows_no_source_of_a_diagram_and_each_image_once(page: str) -> None:
    assert "flowchart" not in page
    assert page.count("<img") == 1
    assert "status-page-light.png" in page
    assert "gh-light-mode-only" not in page


def test_the_page_asks_for_no_checkout(page: str) -> None:
    assert "pip install cloud-run-auth-proxy" in page
    assert "cloud-run-auth-proxy demo" in page
    assert re.findall(r"pip install \.\s|make demo|from a checkout", page) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pip install .   # from a checkout\na", "pip install cloud-run-auth-proxy\na"),
        ("`pip install .` a", "`pip install cloud-run-auth-proxy` a"),
        ("pip install ./a", "pip install ./a"),
        ('`make demo ARGS="--port 1"`', "`cloud-run-auth-proxy demo --port 1`"),
        ("make demo\n", "cloud-run-auth-proxy demo\n"),
        ("[a](docs/a.md)", "[a](S/blob/v1/docs/a.md)"),
        ("[a](docs/a.md#b)", "[a](S/blob/v1/docs/a.md#b)"),
        ("[`a`](deploy/gke) [b](c.md)", "[`a`](S/blob/v1/deploy/gke) [b](S/blob/v1/c.md)"),
        ("[a](https://b.example/c)", "[a](https://b.example/c)"),
        ("[a](#b)", "[a](#b)"),
        ("![a](b.png)", "![a](S/raw/v1/b.png)\n"),
        ("![a](b.png#gh-light-mode-only)\n", "![a](S/raw/v1/b.png)\n"),
        ("![a](b.png#gh-dark-mode-only)\n", ""),
        ("![a](https://b.example/c.svg)", "![a](https://b.example/c.svg)"),
        ("a\n\n```mermaid\nx\n```\n\nb\n", "a\n\nb\n"),
        ("```sh\n# [a]\n```\n", "```sh\n# [a]\n```\n"),
        ("<!-- a:begin -->\n| b |\n<!-- a:end -->\n", "| b |\n"),
    ],
)
def test_what_an_index_shows_of_a_line(text: str, shown: str) -> None:
    assert for_index(text, "S", "1") == shown
