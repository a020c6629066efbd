"""The verdict on a route."""

from __future__ import annotations

import pytest

from proxy.ops.history import Span
from proxy.ops.numbers import TokenView
from proxy.ops.status import condition
from proxy.plane.stats import Connections

GOOD = TokenView(state="good", expires_at=2000.0)
STALE = TokenView(state="good", expires_at=2000.0, error="metadata server: 500")
NONE = TokenView(state="backing_off", error="metadata server: 500")
UNASKED = TokenView(state="none")
FREE = Connections(idle=1)


def recent(requests: int = 0, server: int = 0, refused: int = 0) -> Span:
    return Span(60.0, requests, refused, server, refused, {})


@pytest.mark.parametrize(
    ("span", "token", "level", "why"),
    [
        (recent(), GOOD, "idle", "No exchange has ended in the last minute."),
        (recent(), UNASKED, "idle", "No exchange has ended in the last minute."),
        (recent(10), GOOD, "ok", "Exchanges are served."),
        (recent(10), None, "ok", "Exchanges are served."),
        (recent(10), NONE, "failing", "No token: metadata server: 500"),
        (recent(10), STALE, "warning", "The token cannot be refreshed: metadata server: 500"),
        (recent(100, 4), GOOD, "warning", "4 of 100 exchanges failed in the last minute."),
        (recent(100, 5), GOOD, "failing", "5 of 100 exchanges failed in the last minute."),
        (recent(100, 100), STALE, "failing", "100 of 100 exchanges failed in the last minute."),
        (
            recent(10, 0, 3),
            STALE,
            "warning",
            "3 of 10 exchanges were refused with 401 or 403 in the last minute.",
        ),
    ],
)
def test_the_worst_finding_is_the_verdict(
    span: Span, token: TokenView | None, level: str, why: str
) -> None:
    found = condition(span, token, FREE, 1000)

    assert (found.level, found.why) == (level, why)


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        (2, "3 exchanges wait for a connection; limits.connections is 2."),
        (0, "3 exchanges wait for a connection."),
    ],
)
def test_waiting_for_a_connection_is_a_warning(limit: int, why: str) -> None:
    found = condition(recent(10), GOOD, Connections(busy=2, waiting=3), limit)

    assert (found.level, found.why) == ("warning", why)


@pytest.mark.parametrize(
    ("aside", "level", "why"),
    [
        ({"a": False, "b": False}, "ok", "Exchanges are served."),
        ({"a": True, "b": False}, "warning", "Set aside: a. Calls go to the other destinations."),
        ({"a": True, "b": True}, "failing", "All destinations are set aside; each is tried in"),
    ],
)
def test_a_destination_that_is_set_aside_is_told(
    aside: dict[str, bool], level: str, why: str
) -> None:
    found = condition(recent(10), GOOD, FREE, 1000, aside)

    assert found.level == level
    assert found.why.startswith(why)
