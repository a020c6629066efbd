"""Programs in Go, built where Go is to be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def build(*arguments: str | Path, folder: Path, at: Path | None = None) -> None:
    """Run ``go`` with `arguments` in the folder `at`; what it installs goes into `folder`.

    The test is skipped where the program cannot be built.
    """
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("Go is not installed")
    environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": ""}
    try:
        built = subprocess.run(
            [go, *arguments], cwd=at, env=environment,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("what is written in Go could not be built in time")
    if built.returncode:
        pytest.skip(f"Go cannot build it: {built.stderr.strip().splitlines()[-1:]}")
