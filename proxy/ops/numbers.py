"""Everything that metrics and the status page count, in one place, and sums of it.

One process has one `Numbers`; with workers each sends its own to the parent as JSON (`dump`,
`load`), which adds them up (`add_up`).  Counters, histograms and sums are added and sent because
they are fields of `RouteStats` or `TokenMetrics`: nothing here knows their names.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, field, fields, replace
from enum import Enum
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Protocol

from proxy.frozen import frozen
from proxy.identity.fetch import Cause
from proxy.plane.stats import (
    Connections,
    DestinationStats,
    Failure,
    Histogram,
    RouteStats,
    Stats,
)


class TokenMetrics:
    """What the token caches report: hand `on_fetch` to each of them."""

    __slots__ = ("fetches", "seconds")

    def __init__(self) -> None:
        self.fetches: Counter[tuple[str, ...]] = Counter()
        """By (route that caused it, outcome), and the destination where it has several."""
        self.seconds = Histogram()

    def on_fetch(self, cause: Cause, outcome: str, seconds: float) -> None:
        """Count one fetch that ended."""
        if isinstance(cause, str):
            self.fetches[cause, outcome] += 1
        else:
            route, destination = cause
            self.fetches[route, outcome, destination] += 1
        self.seconds.observe(seconds)


@frozen(kw_only=True)
class TokenView:
    """A route's token as others may see it: everything but the token."""

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
    """What is read of identity's token cache."""

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


@frozen(kw_only=True)
class Numbers:
    """The numbers of one process, or the sum over several, at one moment."""

    stats: Stats
    tokens: Mapping[str, TokenView] = field(default_factory=dict)
    """By route; routes without authentication are missing.  Of several destinations the one that
    needs attention first."""
    destination_tokens: Mapping[str, Mapping[str, TokenView]] = field(default_factory=dict)
    """By route and destination, where a route has several."""
    fetches: TokenMetrics = field(default_factory=TokenMetrics)
    pids: tuple[int, ...] = field(default_factory=_own_pid)
    """The processes that are counted."""


def add_up(parts: Sequence[Numbers]) -> Numbers:
    """Return the sum over several processes; of tokens, what needs attention first."""
    stats, fetches = Stats(), TokenMetrics()
    for part in parts:
        for name, route in part.stats.routes.items():
            _add_fields(stats.route(name), route)
        _add_fields(fetches, part.fetches)
    failures = sorted((f for part in parts for f in part.stats.failures), key=lambda f: f.at)
    stats.failures.extend(failures)
    return Numbers(
        stats=stats,
        fetches=fetches,
        tokens=worst_tokens(part.tokens for part in parts),
        destination_tokens={
            name: worst_tokens(part.destination_tokens.get(name, {}) for part in parts)
            for name in {name: None for part in parts for name in part.destination_tokens}
        },
        pids=tuple(pid for part in parts for pid in part.pids),
    )


Owner = RouteStats | DestinationStats | TokenMetrics


def counted(owner: Owner) -> Iterator[str]:
    """Yield the names of the fields that hold numbers: all but the name of what is counted."""
    for name, field_ in vars(type(owner)).items():
        # As slots have it, and as a compiled class has it, which keeps no list of them.
        if isinstance(field_, MemberDescriptorType | GetSetDescriptorType) and name != "name":
            yield name


def _add_fields(total: Owner, part: Owner) -> None:
    for name in counted(total):
        setattr(total, name, _sum(getattr(total, name), getattr(part, name)))


def _sum(total: Any, part: Any) -> Any:
    """Return `total` and `part` together, and leave `part` as it is."""
    match total:
        case int():
            return total + part
        case Counter():
            total.update(part)
        case dict():
            for name, each in part.items():
                _add_fields(total.setdefault(name, DestinationStats(name)), each)
        case Histogram():
            total.counts = [a + b for a, b in zip(total.counts, part.counts, strict=True)]
            total.sum += part.sum
        case Connections():
            each = (getattr(total, f.name) + getattr(part, f.name) for f in fields(total))
            return Connections(*each)
        case _:  # A function, which is called when the numbers are read.
            both = _sum(total(), part())
            return lambda: both
    return total


def worst_tokens(parts: Iterable[Mapping[str, TokenView]]) -> dict[str, TokenView]:
    """Return of each name the usable token that expires first, with the latest error of any."""
    worst: dict[str, TokenView] = {}
    for tokens in parts:
        for name, token in tokens.items():
            worst[name] = _worse(worst[name], token) if name in worst else token
    return worst


def _worse(a: TokenView, b: TokenView) -> TokenView:
    # A worker that has served nothing yet has no token, which is not an error.
    shown = min(a, b, key=lambda token: token.expires_at or float("inf"))
    failed = max(a, b, key=lambda token: token.failed_at or 0.0)
    return replace(shown, error=failed.error, hint=failed.hint, failed_at=failed.failed_at)


# The way from a worker process to its parent. Both ends are the same program of the same version,
# so the form carries no version and is not validated; nothing else reads it.


def dump(numbers: Numbers) -> str:
    """Return the numbers as one line of JSON."""
    stats = numbers.stats
    values = {
        "stats": {
            "routes": {name: _dump_fields(route) for name, route in stats.routes.items()},
            "failures": [asdict(failure) for failure in stats.failures],
        },
        "tokens": {name: asdict(token) for name, token in numbers.tokens.items()},
        "destination_tokens": {
            route: {name: asdict(token) for name, token in tokens.items()}
            for route, tokens in numbers.destination_tokens.items()
        },
        "fetches": _dump_fields(numbers.fetches),
        "pids": numbers.pids,
    }
    return json.dumps(values, separators=(",", ":"))


def load(text: str) -> Numbers:
    """Return what `dump` was given."""
    values = json.loads(text)
    stats, fetches = Stats(), TokenMetrics()
    for name, route in values["stats"]["routes"].items():
        _load_fields(stats.route(name), route)
    stats.failures.extend(Failure(**failure) for failure in values["stats"]["failures"])
    _load_fields(fetches, values["fetches"])
    return Numbers(
        stats=stats,
        fetches=fetches,
        tokens={name: TokenView(**token) for name, token in values["tokens"].items()},
        destination_tokens={
            route: {name: TokenView(**token) for name, token in tokens.items()}
            for route, tokens in values["destination_tokens"].items()
        },
        pids=tuple(values["pids"]),
    )


def _dump_fields(owner: Owner) -> dict[str, Any]:
    return {name: _as_json(getattr(owner, name)) for name in counted(owner)}


def _as_json(value: Any) -> Any:
    match value:
        case int():
            return value
        case Counter():
            return list(value.items())  # A list of pairs, because a key may be a tuple.
        case dict():
            return {name: _dump_fields(each) for name, each in value.items()}
        case Histogram():
            return [value.counts, value.sum]
        case Connections():
            return asdict(value)
        case _:  # A function, which is called when the numbers are read.
            return _as_json(value())


def _load_fields(owner: Owner, values: Mapping[str, Any]) -> None:
    for name in counted(owner):
        setattr(owner, name, _from_json(getattr(owner, name), values[name]))


def _from_json(empty: Any, value: Any) -> Any:
    """Return what `_as_json` was given, which was of the kind of `empty`."""
    match empty:
        case int():
            return value
        case Counter():
            empty.update({_key(key): count for key, count in value})
        case dict():
            for name, each in value.items():
                _load_fields(empty.setdefault(name, DestinationStats(name)), each)
        case Histogram():
            empty.counts, empty.sum = value
        case Connections():
            return Connections(**value)
        case _:  # A function, which is called when the numbers are read.
            there = _from_json(empty(), value)
            return lambda: there
    return empty


def _key(key: Any) -> Any:
    return tuple(key) if isinstance(key, list) else key
