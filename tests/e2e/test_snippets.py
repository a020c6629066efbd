"""The code of docs/clients, as it stands there: each block is run against a private service."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import golang
from tests.fakes.child import plain_environment, run
from tests.fakes.node import NODE, SCRIPTS, NodeServer
from tests.fakes.program import Program, free_ports

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "clients"
HERE = Path(__file__).parent / "clients"
RUNTIMES = HERE / "runtimes"
BUILD_SECONDS = 100

pytestmark = pytest.mark.skipif(
    os.environ.get("TESTED_BUILD") == "compiled",
    reason="what clients do to the compiled form, other tests see; these are for the pages",
)

Argv = Sequence[str | Path]


@dataclass(frozen=True)
class Snippet:
    """A block of code, and the heading under which it stands."""

    page: str
    heading: str
    language: str
    text: str


def blocks(page: Path) -> list[Snippet]:
    """Return the page's blocks of code, those of the configuration included."""
    found, heading = [], ""
    parts = re.compile(r"^## ([^\n]+)$|^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for title, language, text in parts.findall(page.read_text()):
        if title:
            heading = title
        else:
            found.append(Snippet(page.stem, heading, language, text))
    return found


BLOCKS = [block for page in sorted(PAGES.glob("*.md")) for block in blocks(page)]
SNIPPETS = [block for block in BLOCKS if block.language not in {"yaml", "proto"}]
CONFIGS = {block.page: block for block in BLOCKS if block.language == "yaml"}


# How each language is run: in a folder that has what the snippet imports.


def tool(name: str, *places: str) -> str:
    """Return where a program is; the test is skipped where it is not."""
    found = next(filter(None, map(shutil.which, [name, *places])), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def script(folder: Path, snippet: Snippet) -> Path:
    """Write a snippet beside what JavaScript's runtimes resolve its imports with."""
    (folder / "node_modules").symlink_to(SCRIPTS / "node_modules")
    shutil.copy(SCRIPTS / "package.json", folder)
    shutil.copy(HERE / "orders.proto", folder)
    (folder / "gen").mkdir()
    shutil.copy(SCRIPTS / "orders_pb.js", folder / "gen")
    file = folder / f"call.{snippet.language}"
    file.write_text(snippet.text)
    return file


def node(folder: Path, snippet: Snippet) -> Argv:
    return [NODE, script(folder, snippet)]


def bun(folder: Path, snippet: Snippet) -> Argv:
    return [runtime("@oven/bun-*/bin/bun"), "run", script(folder, snippet)]


def deno(folder: Path, snippet: Snippet) -> Argv:
    return [runtime("@deno/*/deno"), "run", "--allow-all", script(folder, snippet)]


def runtime(pattern: str) -> Path:
    """Return the binary of a runtime, which comes from npm the first time that it is wanted."""
    if missing := missing_runtimes():
        pytest.skip(missing)
    modules = RUNTIMES / "node_modules"
    return next(iter(sorted(modules.glob(pattern))), None) or pytest.skip(f"no {pattern} here")


@functools.cache
def missing_runtimes() -> str:
    """Install the runtimes unless they are there; return why that cannot be done, asked once."""
    if (RUNTIMES / "node_modules").is_dir():
        return ""
    npm = Path(sys.executable).with_name("npm")
    try:
        # In the environment of the tests: it may say how the registry is reached.
        built([npm, "--prefix", RUNTIMES, "ci", "--loglevel=error"], RUNTIMES, {**os.environ})
    except pytest.skip.Exception as skipped:
        return str(skipped)
    return ""


def python(folder: Path, snippet: Snippet) -> Argv:
    for generated in (HERE / "python").glob("*.py"):
        shutil.copy(generated, folder)
    (folder / "call.py").write_text(snippet.text)
    return [sys.executable, folder / "call.py"]


def go(folder: Path, snippet: Snippet) -> Argv:
    source = folder / "source"
    shutil.copytree(HERE / "go", source)
    (source / "main.go").write_text(snippet.text)
    golang.build("build", "-o", folder / "call", ".", folder=folder, at=source)
    return [folder / "call"]


def java(folder: Path, snippet: Snippet) -> Argv:
    (folder / "Call.java").write_text(snippet.text)
    return [tool("java"), "-Xshare:auto", folder / "Call.java"]


def rust(folder: Path, snippet: Snippet) -> Argv:
    cargo = tool("cargo", str(Path.home() / ".cargo" / "bin" / "cargo"))
    (folder / "src").mkdir()
    (folder / "src" / "main.rs").write_text(snippet.text)
    for file in (HERE / "rust").iterdir():
        shutil.copy(file, folder)
    built([cargo, "build", "--locked", "--quiet"], folder, {**os.environ})
    return [folder / "target" / "debug" / "call"]


def built(argv: Argv, at: Path, environment: dict[str, str]) -> None:
    """Run what installs or builds; the test is skipped where that cannot be done here."""
    try:
        done = subprocess.run(
            argv, cwd=at, env=environment, capture_output=True, text=True,
            timeout=BUILD_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"{Path(argv[0]).name} did not end in time")
    if done.returncode:
        pytest.skip(f"{Path(argv[0]).name}: {done.stderr.strip().splitlines()[-1:]}")


RUNNERS: dict[tuple[str, str], Callable[[Path, Snippet], Argv]] = {
    ("Node.js", "js"): node,
    ("Node.js", "ts"): node,
    ("Bun", "js"): bun,
    ("Bun", "ts"): bun,
    ("Deno", "js"): deno,
    ("Deno", "ts"): deno,
    ("Python", "python"): python,
    ("Other languages", "python"): python,
    ("Without a library", "python"): python,
    ("Go", "go"): go,
    ("Java", "java"): java,
    ("Rust", "rust"): rust,
}
"""By heading and language."""


# What they call


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def addresses() -> AsyncIterator[dict[str, str]]:
    """Where the proxy of each page listens, before one private service for all."""
    async with (
        MetadataServer() as metadata,
        NodeServer("orders_server.mjs") as app,
        NodeServer("orders_server.mjs", "--grpc") as grpc,
        ProtectedService(metadata.keys, app=app.address) as front,
    ):
        private = {"upstream": front.url, "ca_file": str(front.ca_file)}
        h2c = {"upstream": grpc.url, "auth": "id_token", "audience": "https://orders.example"}
        taken = dict(zip(CONFIGS, free_ports(len(CONFIGS)), strict=True))
        routes: dict[str, Any] = {}
        for page, block in CONFIGS.items():
            [route] = yaml.safe_load(block.text)["routes"].values()
            more = h2c if page == "grpc" else private
            routes[page] = {**route, **more, "listen": f"127.0.0.1:{taken[page]}"}
        config = json.dumps({"admin": "off", "routes": routes})
        async with Program(config, env=metadata.environ):
            yield {page: f"127.0.0.1:{port}" for page, port in taken.items()}


def test_every_page_says_how_the_proxy_is_configured() -> None:
    assert sorted(CONFIGS) == sorted(page.stem for page in PAGES.glob("*.md"))
    assert len(SNIPPETS) > 15


def test_the_service_that_a_page_shows_is_the_one_that_is_called() -> None:
    shown = [block.text for block in BLOCKS if block.language == "proto"]

    assert len(shown) == 1
    assert (HERE / "orders.proto").read_text().endswith(shown[0])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "snippet", SNIPPETS, ids=lambda each: f"{each.page}-{each.heading}-{each.language}"
)
async def test_a_snippet_calls_the_private_service(
    snippet: Snippet, addresses: dict[str, str], tmp_path: Path
) -> None:
    called = "localhost:8082" if snippet.page == "grpc" else "localhost:8081"
    assert called in snippet.text
    text = snippet.text.replace(called, addresses[snippet.page])
    here = Snippet(snippet.page, snippet.heading, snippet.language, text)
    argv = RUNNERS[snippet.heading, snippet.language](tmp_path, here)

    done = await run(argv, env=plain_environment(tmp_path, {}), cwd=tmp_path)

    assert done.code == 0, done
    assert re.search(r'\b42\b.*\bpaid"?', done.out), done
