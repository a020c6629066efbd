"""The Dockerfile's own build steps, performed without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

# The data path is compiled: a minute of one core, more on a busy machine.
BUILD_SECONDS = 600.0
pytestmark = [
    pytest.mark.timeout(BUILD_SECONDS),
    pytest.mark.skipif(shutil.which("cc") is None, reason="a C compiler is not installed"),
]

# What pip says where the package index cannot be reached.
OFFLINE = re.compile(r"Failed to establish a new connection|Could not find a version|No matching")


def instructions(stage: int) -> list[str]:
    """Return a stage's instructions as one line each, without comments; stage 0 is the base."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    stages = re.split(r"^FROM .*$", whole, flags=re.MULTILINE)[1:]
    return [line for line in stages[stage].splitlines() if line.strip()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Perform COPY and RUN of the build stage; return what becomes /opt/auth-proxy."""
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    for line in instructions(1):
        name, _, rest = line.partition(" ")
        if name == "COPY":
            copy(rest.split(), source)
        elif name == "RUN" and not rest.startswith("apt-get"):  # The machine's own compiler does.
            run_step(rest, root, source)
    return root / "opt/auth-proxy"


def copy(words: list[str], into: Path) -> None:
    for word in words[:-1]:
        if (ROOT / word).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / word, into / word, ignore=ignored)
        else:
            shutil.copy(ROOT / word, into)


def run_step(command: str, root: Path, directory: Path) -> None:
    command = re.sub(r"(?<=[ ])/(wheels|opt)\b", rf"{root}/\1", command)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-ec", command],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode and OFFLINE.search(done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr


def run(installed: Path, *argv: str) -> str:
    """Run a command of the image, with nothing of this machine's Python around it."""
    done = subprocess.run(
        [installed / "bin" / argv[0], *argv[1:]],
        env={"HOME": "/nonexistent", "PATH": os.defpath},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_of_the_image_runs(installed: Path) -> None:
    said = run(installed, "cloud-run-auth-proxy", "--version")

    assert said == f"cloud-run-auth-proxy {__version__} (compiled)\n"


def test_the_step_that_warms_the_image_up_loads_what_a_start_loads(installed: Path) -> None:
    [warm_up] = re.findall(r'python -c "(.*)"', "\n".join(instructions(2)))

    loaded = run(installed, "python", "-c", f"{warm_up}; import sys; print(*sys.modules)").split()

    assert {"proxy.server", "proxy.plane.plane", "aiohttp.web", "uvloop"} <= set(loaded)


def test_every_module_has_bytecode_that_no_file_time_can_make_stale(installed: Path) -> None:
    [package] = installed.glob("lib/python3*/site-packages/proxy")
    sources = {source.relative_to(package).with_suffix("") for source in package.rglob("*.py")}
    compiled = {
        (code.parent.parent / code.name.split(".")[0]).relative_to(package): code.read_bytes()[4:8]
        for code in package.rglob("*.pyc")
    }

    assert compiled.keys() == sources
    # PEP 552: bit 0 = checked by hash instead of time, bit 1 unset = not checked at all.
    assert set(compiled.values()) == {b"\x01\x00\x00\x00"}


def test_the_image_holds_no_installer_no_tests_and_little_else(installed: Path) -> None:
    [packages] = installed.glob("lib/python3*/site-packages")
    names = {path.name for path in packages.iterdir()}
    size = sum(path.stat().st_size for path in installed.rglob("*") if path.is_file())

    assert names.isdisjoint({"pip", "setuptools", "wheel", "tests", "pytest", "mypy"})
    assert size < 80_000_000
