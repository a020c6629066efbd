"""What an exchange may have to wait for before an attempt: a place, a token, a connection.

Each has its own deadline.  A failure to connect is repeated here as the route's policy says:
nothing was sent, so nothing has to be undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.deadlines import Within
from proxy.errors import Overloaded, ProxyError
from proxy.identity.token import Token
from proxy.plane.codec import UpstreamCodec
from proxy.plane.destination import Destination
from proxy.plane.destinations import Choice
from proxy.plane.gate import GateFull
from proxy.plane.limit import Applicant
from proxy.plane.pools import Connector
from proxy.plane.prepared import PreparedRoute
from proxy.retry import Attempt, cause_of, pause_before, redials


@dataclass(slots=True)
class Pursuit:
    """The wait for one attempt, and what is known when it begins."""

    route: PreparedRoute
    destination: Destination
    attempt: Attempt
    """The attempt before; number 0 where there was none."""
    jitter: Callable[[], float]
    connector: Connector
    redials: bool = True
    """Whether a failed dial may be repeated: not where another destination is tried instead."""
    fresh: bool = False
    """Whether only a connection will do that served nobody yet."""

    async def enter(self) -> None:
        """Wait for a place at the route's gate.

        Raises:
            Overloaded: there is none, and none to wait in; or none became free in time.
        """
        gate, timeout = self.route.gate, self.route.config.timeouts.connect
        if gate is None:
            return
        try:
            async with Within(timeout):
                await gate.enter()
        except GateFull:
            limits = self.route.config.limits
            raise Overloaded(
                f"{limits.in_flight} exchanges are in flight and {limits.queue} wait already.",
                retry_after=1,
            ) from None
        except TimeoutError:
            raise Overloaded(f"No place became free within {timeout:g} s.", retry_after=1) from None

    async def token(self) -> Token | None:
        """Wait for the token; None where the route sends none.

        Raises:
            TokenUnavailable, TokenTimedOut: there is none; nothing may be sent.
        """
        destination, cache = self.destination, self.destination.token_cache
        if cache is None:
            return None
        return await cache.get(destination.cause, self.route.config.timeouts.connect)

    async def another_token(self, refused: Token) -> Token | None:
        """Make one fetch after a token was refused; return another one, None if none came."""
        destination, cache = self.destination, self.destination.token_cache
        if cache is None:
            return None
        timeout = self.route.config.timeouts.connect
        return await cache.another(refused, destination.cause, timeout)

    async def connection(self, applicant: Applicant) -> UpstreamCodec:
        """Wait for a connection for `applicant`, dialling again as the policy allows.

        Raises:
            ProxyError: see `Pool.acquire`.
        """
        route, policy = self.route, self.route.config.retries
        number = self.attempt.number
        while True:
            number += 1
            try:
                return await self.connector.acquire(
                    route.config.timeouts.connect, applicant, fresh=self.fresh
                )
            except ProxyError as error:
                failed = Attempt(number, self.attempt.method, self.attempt.replayable)
                if not (self.redials and redials(error, failed, policy, route.budget)):
                    raise
                route.stats.retries[cause_of(error)] += 1
            # Behind the handler: see "Compiled and pure" in ARCHITECTURE.md.
            await rest(pause_before(number, policy, None, self.jitter))


class Seeker(Applicant, Protocol):
    """What needs a token and a connection: an exchange."""

    @property
    def choice(self) -> Choice | None:
        """What it has tried of several destinations; None where there is one."""

    def pursuit(self, *, fresh: bool = False) -> Pursuit:
        """Return the wait for an attempt at the destination that it is at."""


async def equip(seeker: Seeker, *, fresh: bool) -> tuple[Token | None, UpstreamCodec]:
    """Wait for a token and a connection, at another destination where the first lacks either.

    Raises:
        ProxyError: the last destination's.
    """
    while True:
        pursuit = seeker.pursuit(fresh=fresh)
        try:
            return await pursuit.token(), await pursuit.connection(seeker)
        except ProxyError as error:
            if seeker.choice is None or not seeker.choice.moves_on(error):
                raise


async def rest(seconds: float) -> None:
    """Wait before a repeat."""
    if seconds > 0:
        await asyncio.sleep(seconds)
