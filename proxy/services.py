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
from proxy.config.model import Config, Route
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
        """Return what the routing table holds for routes without an upstream."""
        return {
            route.name: self._unresolved(route) for route in config.routes if route.upstream is None
        }

    async def resolve(self, config: Config) -> Config:
        """Return `config` with every upstream that could be found; itself if nothing changed."""
        if all(route.upstream is not None for route in config.routes):
            return config
        self._trying = True
        try:
            routes = tuple([await self._resolved(route) for route in config.routes])
        finally:
            self._trying = False
            self._not_before = self._clock() + PAUSE
        return replace(config, routes=routes)

    async def _resolved(self, route: Route) -> Route:
        if route.upstream is not None or route.service is None:
            return route
        try:
            upstream = await self._names.resolve(route.service)
        except TokenSourceError as error:
            self._errors[route.name] = error
            extra = {"route": route.name, "reason": "service_unresolved", "hint": error.hint}
            log.warning("%s", error.detail, extra=extra)
            return route
        return with_upstream(route, upstream)

    def _unresolved(self, route: Route) -> Unresolved:
        error = self._errors.get(route.name)
        detail = error.detail if error else f"service {route.service} is not resolved yet"
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
