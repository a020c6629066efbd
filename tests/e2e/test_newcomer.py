"""A newcomer's path, from an empty environment to a mistake that is found and mended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes.child import plain_environment, run
from tests.fakes.program import free_ports

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("newcomer.sh")
SECONDS = 260.0

pytestmark = pytest.mark.skipif(
    os.environ.get("TESTED_BUILD") == "compiled",
    reason="it installs a wheel of its own, the pure one",
)


def wheel(folder: Path) -> Path:
    """Build the pure wheel of this checkout."""
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
    [built] = folder.glob("*.whl")
    return built


def app_of_compose(port: int) -> list[str]:
    """Return what the Compose file's app runs, after the name of its image, on `port`."""
    file = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())
    services = file["services"]
    assert services["auth-proxy"]["command"] == ["demo"]
    assert services["app"]["image"].startswith("curlimages/curl:")
    return [
        word.replace("localhost:8081", f"localhost:{port}") for word in services["app"]["command"]
    ]


def parts(out: str) -> dict[str, str]:
    """Return what the script wrote, by the headings that it gave."""
    _, *found = re.split(r"^== (.+)\n", out, flags=re.MULTILINE)
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.mark.timeout(SECONDS + 40)
async def test_a_newcomer_gets_from_nothing_to_a_mended_mistake(tmp_path: Path) -> None:
    listen, admin, front, metadata = free_ports(4)
    built = wheel(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    ports = {"LISTEN": listen, "ADMIN": admin, "FRONT": front, "METADATA": metadata}
    more = {name: str(value) for name, value in ports.items()} | {"PYTHON": sys.executable}
    # Where packages come from is the one thing that is not the newcomer's own.
    more |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}

    done = await run(
        ["sh", SCRIPT, built, ROOT / "locks" / "run.txt", *app_of_compose(listen)],
        env=plain_environment(tmp_path, more),
        cwd=here,
        seconds=SECONDS,
    )

    said = parts(done.out)
    if list(said) == ["an empty environment, and the wheel"]:
        pytest.skip(f"what the wheel needs cannot be had: {done.err.splitlines()[-1:]}")
    assert done.code == 0, done
    assert "(pure)" in said["an empty environment, and the wheel"]
    assert "HTTP/1.1 200" in said["the services of the Compose file, as processes"]
    assert said["a call that fails"].split() == ["401"]
    doctor = said["doctor finds it"]
    assert "✗ request" in doctor
    assert "does not accept tokens for https://orders.example.com" in " ".join(doctor.split())
    assert "leave it out" in " ".join(doctor.split())
    status, answer = said["the same call"].strip().split("\n", 1)
    assert status == "200"
    assert '"path": "/orders/42"' in answer
    assert "The route works." in said["doctor again"]
    assert "the end" in said
