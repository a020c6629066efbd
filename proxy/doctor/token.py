"""`token`: print one token, as the proxy would send it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from proxy import PROGRAM
from proxy.config.misplaced import looks_like, shown
from proxy.config.model import Auth, AutoCredentials, Config, Credentials, Route, Timeouts
from proxy.config.problems import ConfigError, Problem, nearest
from proxy.config.resolve import default_audience
from proxy.doctor import running
from proxy.doctor.identity import PATIENCE, World, open_world, wanted_of
from proxy.doctor.words import sentence
from proxy.errors import TokenTimedOut, TokenUnavailable
from proxy.frozen import frozen
from proxy.identity.access_token import Scopes, Wanted
from proxy.identity.source import CLOUD_PLATFORM, FixedAudience, TokenSourceError
from proxy.identity.token import Token

FAILED = 1


@frozen
class Order:
    """Which token is wanted."""

    route: Route | None
    """The route whose token it is, None for an audience or scopes alone."""
    wanted: Wanted | None
    """An audience, or scopes; None where it follows from the route's service."""
    credentials: Credentials
    within: float
    """The longest it may take, in seconds."""


def main(
    word: str | None, config: Config | None, *, claims: bool, scopes: tuple[str, ...] | None
) -> int:
    """Print the token for `word`, a route's name or an audience; return the exit code.

    `claims` prints what the token says instead, as JSON.  `config` is None where there is none.
    `scopes` asks for an access token with these, those of the route or the default if it is empty;
    `word` may be None then.
    """
    order = order_for(word, config) if word is not None else _order_by_default()
    if scopes is not None:
        order = with_scopes(order, scopes)
    if claims and isinstance(order.wanted, Scopes):
        message = "an access token is opaque and has no claims; leave it out"
        raise ConfigError([Problem("--claims", 0, 0, message)])
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


def _order_by_default() -> Order:
    return Order(None, None, AutoCredentials(), Timeouts().connect)


def with_scopes(order: Order, scopes: tuple[str, ...]) -> Order:
    """Return an order for an access token with `scopes`, or those of the route, or the default.

    Raises `ConfigError` for an audience, which goes with ID tokens.
    """
    if order.route is None and order.wanted is not None:
        message = f"{shown(str(order.wanted))} is an audience, which goes with ID tokens; leave it"
        raise ConfigError([Problem("--access", 0, 0, f"{message} out, or name a route")])
    names = scopes or (order.route.scopes if order.route is not None else CLOUD_PLATFORM)
    return replace(order, wanted=Scopes(names))


def order_for(word: str, config: Config | None) -> Order:
    """Return what `word` asks for.

    The name of a route stands for its audience and credentials.  Another word is an
    audience if a route has it or it looks like one: with the credentials of the routes that
    have it, if those agree, else `auto`.  Raises `ConfigError` for any other word: a mistyped
    name must not become a token that some service happens to accept.
    """
    routes = {route.name: route for route in config.routes} if config is not None else {}
    if (route := routes.get(word)) is not None:
        return Order(route, wanted_of(route), route.credentials, route.timeouts.connect)
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
    sends_none = order.route is not None and order.route.auth is Auth.NONE
    if order.route is not None and sends_none and not isinstance(order.wanted, Scopes):
        raise TokenSourceError(
            f"route {order.route.name} sends no token (auth: none)",
            hint="Name an audience instead, or set auth: id_token on the route.",
        )
    world = open_world(environ)
    within = min(order.within, PATIENCE)
    name = order.route.name if order.route is not None else ""
    try:
        async with asyncio.timeout(within):
            wanted = order.wanted or await _audience_of_service(order, world)
            egress = order.route.egress_proxy if order.route is not None else None
            cache = world.caches.cache(order.credentials, wanted, egress)
            if (error := await cache.prefetch(name)) is not None:
                raise error
            token = await cache.get(name, within)
    except TimeoutError:
        source = world.caches.source(order.credentials).describe()
        raise TokenTimedOut(f"{source}: no answer within {within:g} s", hint="") from None
    finally:
        await world.caches.close()
    fixed = isinstance(cache.source, FixedAudience) and bool(cache.source.fixed_audience)
    return token, fixed and not isinstance(wanted, Scopes)


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
