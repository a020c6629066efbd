"""Routes that name a service instead of a URL: resolved once, tried again while somebody asks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from random import Random

from proxy.clock import Clock
from proxy.config import show
from proxy.config.model import Config, Destination, Route
from proxy.config.resolve import with_upstream
from proxy.identity.metadata import Metadata
from proxy.identity.names import Names
from proxy.identity.source import TokenSourceError
from proxy.plane.prepared import Unresolved

log = logging.getLogger("proxy.services")

PAUSE = 1.0  # Seconds between attempts: the metadata server limits its rate.


class Services:
    """Puts upstreams and audiences into routes that have a service."""

    def __init__(self, names: Names, clock: Clock, ask: Callable[[], None]) -> None:
        """`ask` is called when a request comes for a route that is not resolved."""
        self._names = names
        self._clock = clock
        self._ask = ask
        self._errors: dict[str, TokenSourceError] = {}
        self._trying = False
        self._not_before = -math.inf

    def may_try(self) -> bool:
        """Tell whether another attempt may begin."""
        return not self._trying and self._clock() >= self._not_before

    def unresolved(self, config: Config) -> dict[str, Unresolved]:
        """Return what the routing table holds for routes of which no upstream is known."""
        return {
            route.name: self._unresolved(route)
            for route in config.routes
            if all(each.upstream is None for each in route.destinations)
        }

    async def resolve(self, config: Config) -> Config:
        """Return `config` with every upstream that could be found; itself if nothing changed."""
        if all(route.is_resolved for route in config.routes):
            return config
        self._trying = True
        try:
            routes = tuple([await self._resolved(route) for route in config.routes])
        finally:
            self._trying = False
            self._not_before = self._clock() + PAUSE
        return config if routes == config.routes else replace(config, routes=routes)

    async def _resolved(self, route: Route) -> Route:
        if route.is_resolved:
            return route
        destinations = tuple([await self._found(each, route) for each in route.destinations])
        return replace(route, destinations=destinations)

    async def _found(self, destination: Destination, route: Route) -> Destination:
        if destination.upstream is not None or destination.service is None:
            return destination
        try:
            upstream = await self._names.resolve(destination.service)
        except TokenSourceError as error:
            self._errors[route.name] = error
            extra = {"route": route.name, "reason": "service_unresolved", "hint": error.hint}
            log.warning("%s", error.detail, extra=extra)
            return destination
        return with_upstream(destination, route, upstream)

    def _unresolved(self, route: Route) -> Unresolved:
        error = self._errors.get(route.name)
        detail = error.detail if error else f"{show.upstream(route)} is not resolved yet"
        hint = error.hint if error else None
        return Unresolved(route.name, f"The {detail}.", hint, self._ask, language=route.errors)


async def resolved_within(seconds: float, config: Config, environ: Mapping[str, str]) -> Config:
    """Return `config` with what the metadata server tells of its services in so many seconds.

    Without an answer, or where it knows nothing of them, they stay as they are.
    """
    names = Names(Metadata(environ, Random()))  # noqa: S311 (spreads attempts over time)
    services = Services(names, time.monotonic, lambda: None)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await services.resolve(config)
    return config
