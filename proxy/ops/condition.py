"""A verdict on a route in one word and one sentence, for whoever looks at the page.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from proxy.ops.history import Span
from proxy.ops.numbers import TokenView
from proxy.plane.stats import Connections

Level = Literal["ok", "idle", "warning", "failing"]

FAILING_SHARE: Final = 0.05
"""Share of server errors from which a route counts as failing rather than as troubled."""


@dataclass(frozen=True, slots=True)
class Condition:
    """How a route does."""

    level: Level
    why: str


def condition(
    recent: Span, token: TokenView | None, connections: Connections, limit: int
) -> Condition:
    """Judge a route by its last minute; the worst finding wins.

    `limit` bounds the connections, 0 for none.
    """
    return next(_findings(recent, token, connections, limit))


def _findings(
    recent: Span, token: TokenView | None, connections: Connections, limit: int
) -> Iterator[Condition]:
    """Yield what is to be said of a route, the worst first."""
    if token is not None and token.error and token.expires_at is None:
        yield Condition("failing", f"No ID token: {token.error}")
    if recent.server_errors:
        failing = recent.server_errors >= FAILING_SHARE * recent.requests
        yield Condition("failing" if failing else "warning", _share("failed", recent))
    if recent.refused:
        yield Condition("warning", _share("were refused with 401 or 403", recent))
    if token is not None and token.error:
        yield Condition("warning", f"The ID token cannot be refreshed: {token.error}")
    if connections.waiting:
        yield Condition("warning", _waiting(connections, limit))
    if not recent.requests:
        yield Condition("idle", "No exchange has ended in the last minute.")
    yield Condition("ok", "Exchanges are served.")


def _share(what: str, recent: Span) -> str:
    count = recent.server_errors or recent.refused
    return f"{count} of {max(count, recent.requests)} exchanges {what} in the last minute."


def _waiting(connections: Connections, limit: int) -> str:
    bound = f"; limits.connections is {limit}" if limit else ""
    return f"{connections.waiting} exchanges wait for a connection{bound}."
