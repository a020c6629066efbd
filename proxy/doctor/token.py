"""`token`: print one ID token, as the proxy would send it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping

from proxy import PROGRAM
from proxy.config.misplaced import looks_like, shown
from proxy.config.model import Auth, AutoCredentials, Config, Credentials, Route, Timeouts
from proxy.config.problems import ConfigError, Problem, nearest
from proxy.config.resolve import default_audience
from proxy.doctor import running
from proxy.doctor.identity import PATIENCE, World, open_world
from proxy.doctor.words import sentence
from proxy.errors import TokenTimedOut, TokenUnavailable
from proxy.frozen import frozen
from proxy.identity.source import FixedAudience, TokenSourceError
from proxy.identity.token import Token

FAILED = 1


@frozen
class Order:
    """Which token is wanted."""

    route: Route | None
    """The route whose token it is, None for an audience alone."""
    audience: str | None
    """None where it follows from the route's service."""
    credentials: Credentials
    within: float
    """The longest it may take, in seconds."""


def main(word: str, config: Config | None, *, claims: bool) -> int:
    """Print the ID token for `word`, a route's name or an audience; return the exit code.

    `claims` prints what the token says instead, as JSON.  `config` is None where there is none.
    """
    order = order_for(word, config)
    try:
        token, fixed = running.run(_fetch(order, os.environ))
    except (TokenUnavailable, TokenTimedOut, TokenSourceError) as error:
        return _complain(error.detail, error.hint)
    if fixed:
        audience = token.claims.get("aud")
        _note(f"the audience cannot be chosen with a gcloud login: this token's is {audience}")
    sys.stdout.write(json.dumps(dict(token.claims), indent=2) if claims else token.value)
    sys.stdout.write("\n")
    return 0


def order_for(word: str, config: Config | None) -> Order:
    """Return what `word` asks for.

    The name of a route stands for its audience and credentials.  Another word is an
    audience if a route has it or it looks like one: with the credentials of the routes that
    have it, if those agree, else `auto`.  Raises `ConfigError` for any other word: a mistyped
    name must not become a token that some service happens to accept.
    """
    routes = {route.name: route for route in config.routes} if config is not None else {}
    if (route := routes.get(word)) is not None:
        return Order(route, route.first.audience, route.credentials, route.timeouts.connect)
    alike = {
        route.credentials
        for route in routes.values()
        if word in {each.audience for each in route.destinations}
    }
    guess = nearest(word, routes)
    if not alike and not _is_like_an_audience(word, guess):
        told = "there is no configuration with a route of this name"
        if config is not None:
            told = f"no route of {config.source} has this name"
        message = f"{told}, and an audience looks like https://billing.example.com{guess}"
        raise ConfigError([Problem(shown(word), 0, 0, message)])
    credentials = alike.pop() if len(alike) == 1 else AutoCredentials()
    return Order(None, word, credentials, Timeouts().connect)


def _is_like_an_audience(word: str, guess: str) -> bool:
    """Tell whether `word` may be an audience; `guess` names a route with a similar name."""
    if looks_like(word):
        return False
    # A URL, or IAP's NUMBER-NAME.apps.googleusercontent.com. Names of routes have dots, too.
    return "/" in word or ":" in word or ("." in word and not guess)


async def _fetch(order: Order, environ: Mapping[str, str]) -> tuple[Token, bool]:
    """Return the token, and whether its audience is fixed; raises what the caller expects."""
    if order.route is not None and order.route.auth is Auth.NONE:
        raise TokenSourceError(
            f"route {order.route.name} sends no token (auth: none)",
            hint="Name an audience instead, or set auth: id_token on the route.",
        )
    world = open_world(environ)
    within = min(order.within, PATIENCE)
    name = order.route.name if order.route is not None else ""
    try:
        async with asyncio.timeout(within):
            audience = order.audience or await _audience_of_service(order, world)
            cache = world.caches.cache(order.credentials, audience)
            if (error := await cache.prefetch(name)) is not None:
                raise error
            token = await cache.get(name, within)
    except TimeoutError:
        source = world.caches.source(order.credentials).describe()
        raise TokenTimedOut(f"{source}: no answer within {within:g} s", hint="") from None
    finally:
        await world.caches.close()
    return token, isinstance(cache.source, FixedAudience) and bool(cache.source.fixed_audience)


async def _audience_of_service(order: Order, world: World) -> str:
    service = order.route.first.service if order.route is not None else None
    if service is None:
        raise AssertionError("only the audience of a route with a service is not known")
    return default_audience(await world.caches.names.resolve(service))


def _complain(detail: str, hint: str | None) -> int:
    _note(detail)
    if hint:
        sys.stderr.write(f"{sentence(hint)}\n")
    return FAILED


def _note(line: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {line}\n")
