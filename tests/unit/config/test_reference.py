from __future__ import annotations

import re

from proxy.config.keys import ROUTE, TOP
from proxy.config.reference import reference


def rows() -> dict[str, list[str]]:
    """Return the cells of each row after the key, by key; a route's keys in place of the top's."""
    found = {}
    for line in reference().splitlines():
        if line.startswith("| `"):
            key, *cells = re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))
            found[key.strip("`")] = cells
    return found


def test_every_key_has_a_row_with_its_meaning() -> None:
    for key in (*TOP.keys, *ROUTE.keys):
        assert rows()[key.name][2]


def test_keys_of_a_section_stand_below_it_with_their_dotted_names() -> None:
    names = list(rows())

    assert names.index("timeouts") < names.index("timeouts.connect") < names.index("retries")
    assert {"admin.quit", "credentials.impersonate", "limits.queue", "log.access"} <= set(names)


def test_defaults_are_shown_as_the_file_writes_them() -> None:
    shown = {name: cells[1] for name, cells in rows().items()}

    assert shown["timeouts.connect"] == "`10s`"
    assert shown["timeouts.total"] == "`off`"
    assert shown["limits.header_bytes"] == "`64KiB`"
    assert shown["limits.body_bytes"] == "`0`"
    assert shown["retries.budget"] == "`20%`"
    assert shown["retries.backoff"] == "`50ms`"
    assert shown["auth"] == "`auto`"
    assert shown["credentials"] == "`auto`"
    assert shown["strip_path"] == "`false`"
    assert shown["admin"] == "`localhost:9090`"
    assert shown["drain"] == "`8s`"
    assert shown["host"] == "any"
    assert shown["upstream"] == ""


def test_every_row_has_four_cells() -> None:
    for line in reference().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line
