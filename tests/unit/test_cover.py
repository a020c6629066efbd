"""When a module of the data path is tested too little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cover import main, shortfalls


def report(name: str, share: float) -> dict[str, Any]:
    """Return what coverage reports of one module of which a line and two branches were not run."""
    summary = {"percent_covered": share}
    return {name: {"summary": summary, "missing_lines": [7], "missing_branches": [[6, 7], [9, -3]]}}


@pytest.mark.parametrize(("share", "code"), [(94.99, 1), (95.0, 0), (95.01, 0)])
def test_a_module_of_the_data_path_is_held_to_its_share(
    share: float, code: int, tmp_path: Path
) -> None:
    file = tmp_path / "coverage.json"
    files = report("proxy/plane/http2/frames.py", share)
    file.write_text(json.dumps({"files": files, "totals": {"percent_covered": share}}))

    assert main(str(file)) == code


def test_what_was_not_run_is_named() -> None:
    (line,) = shortfalls(report("proxy/plane/exchange.py", 50.0))

    assert line == (
        "proxy/plane/exchange.py: 50.00 %, at least 95 % are wanted; "
        "lines not run: 7; branches not taken: 6->7, 9->0"
    )


def test_other_modules_are_not_held() -> None:
    assert list(shortfalls(report("proxy/demo.py", 10.0))) == []
