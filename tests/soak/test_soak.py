"""Two minutes of everything at once: every call ends as it should, memory stays level.

`AUTH_PROXY_SOAK_SECONDS=7200` makes it two hours, as `make soak SECONDS=7200` does with a report.
"""

from __future__ import annotations

import os

import pytest

import proxy
from tests.soak.run import soak

SECONDS = float(os.environ.get("AUTH_PROXY_SOAK_SECONDS", "120"))

KINDS = (
    "HTTP/1.1: good", "WebSocket", "stream of events", "gRPC ask", "gRPC listen", "gRPC tell",
    "gRPC converse", "gRPC err", "gRPC wait", "gRPC leave", "trouble: cut", "trouble: left",
    "trouble: error upstream_malformed", "trouble: error upstream_timed_out",
)  # fmt: skip


@pytest.mark.timeout(120 + 2 * SECONDS)
@pytest.mark.skipif(proxy.build() == "compiled", reason="once is enough: the pure form has it")
async def test_everything_at_once_leaves_nothing_behind() -> None:
    found = await soak(SECONDS)

    assert found.problems == []
    assert [kind for kind in KINDS if not any(kind in each for each in found.outcomes)] == []
    assert sum(found.outcomes.values()) > 10 * SECONDS
    assert found.reloads >= SECONDS // 20
    assert found.failovers >= SECONDS // 40
    # Each is used until another one is to be had; see `TOKEN_LIFETIME`.
    assert found.tokens >= SECONDS // 40
