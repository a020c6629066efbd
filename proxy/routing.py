"""Which route a request takes. Pure: bytes in, a value out; never looks at a socket or a config.

One table serves one listener address.  All decisions are made while it is built; a match costs a
few dictionary look-ups, by the labels of the host and the segments of the configured paths,
however many routes there are and however long the request's path is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

from proxy.config.model import Address, Route

T = TypeVar("T")

# RFC 1035, 2.3.4, as text: no longer name can be configured, so none is looked up.
_LONGEST_HOST: Final = 253


class RoutingTable(Generic[T]):
    """The routes of one listener, each with the value that the caller has for it.

    A route that names its listeners itself comes before all others; then an exact host, a
    wildcard (the longest suffix first), any host.  Within each the longest path prefix wins, and
    where none fits the next takes its turn.
    """

    __slots__ = ("_count", "_only", "_own", "_shared", "_tiers")

    def __init__(self) -> None:
        self._count = 0
        self._own = _Tier[T]()
        self._shared = _Tier[T]()
        self._tiers: tuple[_Tier[T], ...] = ()
        self._only: T | None = None

    def add(self, route: Route, value: T) -> None:
        """Add a route; not allowed once requests are matched."""
        (self._own if route.own_listener else self._shared).add(route, value)
        self._tiers = tuple(tier for tier in (self._own, self._shared) if tier.used)
        self._count += 1
        # The most common table, one route for everything, need not look at the request.
        only = self._count == 1 and not route.host and route.path == "/"
        self._only = value if only else None

    def match(self, host: bytes, path: bytes) -> T | None:
        """Return the value of the most specific route, or None.

        `host` is a ``Host`` or ``:authority`` value: any case, with or without port, empty where
        there is none.  `path` is the raw path without its query; ``*`` (RFC 9112, 3.2.4) fits
        ``/`` only.
        """
        if self._only is not None:
            return self._only
        for tier in self._tiers:
            found = tier.match(host, path)
            if found is not None:
                return found
        return None


def add_route(tables: Mapping[Address, RoutingTable[T]], route: Route, value: T) -> None:
    """Add a route to the tables of its listeners, which are all there."""
    for address in dict.fromkeys(route.listen):
        tables[address].add(route, value)


class _Tier(Generic[T]):
    """Routes of equal rank as to their listener."""

    __slots__ = ("_any", "_exact", "_wildcard")

    def __init__(self) -> None:
        self._any: _Paths[T] = _Paths()
        self._exact: dict[bytes, _Paths[T]] = {}
        self._wildcard: dict[bytes, _Paths[T]] = {}

    def add(self, route: Route, value: T) -> None:
        for paths in self._paths_of(route):
            paths.add(route.path.encode(), value)

    def _paths_of(self, route: Route) -> Iterator[_Paths[T]]:
        if not route.host:
            yield self._any
        for host in route.host:
            name = host.encode()
            if name.startswith(b"*."):
                yield self._wildcard.setdefault(name[2:], _Paths())
            else:
                yield self._exact.setdefault(name, _Paths())

    @property
    def used(self) -> bool:
        return bool(self._exact or self._wildcard or self._any.used)

    def match(self, host: bytes, path: bytes) -> T | None:
        if self._exact or self._wildcard:
            found = self._match_host(bare_host(host), path)
            if found is not None:
                return found
        return self._any.longest(path)

    def _match_host(self, host: bytes, path: bytes) -> T | None:
        paths = self._exact.get(host)
        if paths is not None:
            found = paths.longest(path)
            if found is not None:
                return found
        if not self._wildcard or len(host) > _LONGEST_HOST:
            return None
        # From the left, so that the longest suffix comes first; the bare suffix never fits.
        dot = host.find(b".")
        while dot > 0:
            paths = self._wildcard.get(host[dot + 1 :])
            if paths is not None:
                found = paths.longest(path)
                if found is not None:
                    return found
            dot = host.find(b".", dot + 1)
        return None


class _Paths(Generic[T]):
    """Path prefixes, found by the longest that ends on a segment boundary."""

    __slots__ = ("_by_prefix", "_longest", "_root")

    def __init__(self) -> None:
        self._by_prefix: dict[bytes, T] = {}
        self._longest = 0
        self._root: T | None = None

    @property
    def used(self) -> bool:
        return self._root is not None or bool(self._by_prefix)

    def add(self, prefix: bytes, value: T) -> None:
        if prefix == b"/":
            self._root = value
        else:
            self._by_prefix[prefix] = value
            self._longest = max(self._longest, len(prefix))

    def longest(self, path: bytes) -> T | None:
        if self._by_prefix:
            # One byte more than any prefix tells whether the prefix ends there; what follows
            # cannot matter, so a path of 64 KiB costs what a short one does.
            head = path[: self._longest + 1]
            end = len(head) if len(head) <= self._longest else head.rfind(b"/")
            while end > 0:
                found = self._by_prefix.get(head[:end])
                if found is not None:
                    return found
                end = head.rfind(b"/", 0, end)
        return self._root


def bare_host(host: bytes) -> bytes:
    """Return the host in lower case, without its port and without the final dot of a full name."""
    if host.endswith(b"]"):  # An IPv6 address without a port.
        return host.lower()
    colon = host.rfind(b":")
    if colon >= 0:
        host = host[:colon]
    return host.lower().removesuffix(b".")
