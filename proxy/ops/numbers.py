"""Everything that metrics and the status page count, in one place, and sums of it.

One process has one `Numbers`; with workers the parent adds up theirs (`transfer` carries them).
Nothing in here formats anything.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from proxy.plane.stats import Connections, Histogram, RouteStats, Stats


class TokenMetrics:
    """What the token caches report: hand `on_fetch` to each of them."""

    __slots__ = ("fetches", "seconds")

    def __init__(self) -> None:
        self.fetches: Counter[tuple[str, str]] = Counter()
        """By (route that caused it, outcome)."""
        self.seconds = Histogram()

    def on_fetch(self, route: str, outcome: str, seconds: float) -> None:
        """Count one fetch that ended."""
        self.fetches[route, outcome] += 1
        self.seconds.observe(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A route's ID token as others may see it: everything but the token."""

    state: str
    """A word of `proxy.identity.cache.State`."""
    expires_at: float | None = None
    """Wall clock; None where there is no usable token."""
    account: str = ""
    """The email that the token names."""
    source: str = ""
    """Where tokens come from, in a few words."""
    error: str = ""
    """Why the last fetch failed; empty once one has succeeded."""
    hint: str = ""
    failed_at: float | None = None
    """Wall clock."""


class _Error(Protocol):
    """Why a fetch failed."""

    @property
    def detail(self) -> str: ...
    @property
    def hint(self) -> str | None: ...
    @property
    def at(self) -> float: ...  # wall clock


class _Describes(Protocol):
    def describe(self) -> str: ...


class _Cache(Protocol):
    """What of identity's token cache is looked at."""

    @property
    def state(self) -> Enum: ...
    @property
    def expires_at(self) -> float | None: ...
    @property
    def email(self) -> str | None: ...
    @property
    def last_error(self) -> _Error | None: ...
    @property
    def source(self) -> _Describes: ...


def token_view(cache: _Cache) -> TokenView:
    """Return what may be shown of a token cache at this moment."""
    error = cache.last_error
    return TokenView(
        state=str(cache.state.value),
        expires_at=cache.expires_at,
        account=cache.email or "",
        source=cache.source.describe(),
        error=error.detail if error else "",
        hint=(error.hint or "") if error else "",
        failed_at=error.at if error else None,
    )


def _own_pid() -> tuple[int, ...]:
    return (os.getpid(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers of one process, or the sum over several, at one moment."""

    stats: Stats
    tokens: Mapping[str, TokenView] = field(default_factory=dict)
    """By route; routes without authentication are missing."""
    fetches: TokenMetrics = field(default_factory=TokenMetrics)
    pids: tuple[int, ...] = field(default_factory=_own_pid)
    """The processes that are counted."""


def add_up(parts: Sequence[Numbers]) -> Numbers:
    """Return the sum over several processes; of tokens, what needs attention first."""
    stats, fetches = Stats(), TokenMetrics()
    for part in parts:
        for name, route in part.stats.routes.items():
            _add_route(stats.route(name), route)
        fetches.fetches.update(part.fetches.fetches)
        _add_histogram(fetches.seconds, part.fetches.seconds)
    failures = sorted((f for part in parts for f in part.stats.failures), key=lambda f: f.at)
    stats.failures.extend(failures)
    return Numbers(
        stats=stats,
        fetches=fetches,
        tokens=_worst_tokens(part.tokens for part in parts),
        pids=tuple(pid for part in parts for pid in part.pids),
    )


def _add_route(total: RouteStats, route: RouteStats) -> None:
    for name in ("requests", "errors", "retries", "dials"):
        getattr(total, name).update(getattr(route, name))
    for name in ("in_flight", "request_bytes", "response_bytes"):
        setattr(total, name, getattr(total, name) + getattr(route, name))
    _add_histogram(total.duration, route.duration)
    _add_histogram(total.upstream_head, route.upstream_head)
    a, b = total.connections(), route.connections()
    both = Connections(
        a.idle + b.idle, a.busy + b.busy, a.dialling + b.dialling, a.waiting + b.waiting
    )
    total.connections = lambda: both


def _add_histogram(total: Histogram, part: Histogram) -> None:
    total.counts = [a + b for a, b in zip(total.counts, part.counts, strict=True)]
    total.sum += part.sum


def _worst_tokens(parts: Iterable[Mapping[str, TokenView]]) -> dict[str, TokenView]:
    """Of each route the usable token that expires first, with the latest error of any."""
    worst: dict[str, TokenView] = {}
    for tokens in parts:
        for name, token in tokens.items():
            worst[name] = _worse(worst[name], token) if name in worst else token
    return worst


def _worse(a: TokenView, b: TokenView) -> TokenView:
    # A worker that nobody has asked yet has no token, which is no trouble.
    shown = min(a, b, key=lambda token: token.expires_at or float("inf"))
    failed = max(a, b, key=lambda token: token.failed_at or 0.0)
    return replace(shown, error=failed.error, hint=failed.hint, failed_at=failed.failed_at)
