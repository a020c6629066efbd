"""The route's identity: its credentials, its account and the token that it would send."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from dataclasses import field
from random import Random

from proxy.clock import Clocks
from proxy.config.model import Auth, Route
from proxy.doctor.clock import SHOW_CLOCKS
from proxy.doctor.credentials import EMAIL_KEY, Surroundings, account_found, find_origin
from proxy.doctor.findings import Advice, Finding, Outcome, Step, failed, skipped
from proxy.doctor.words import advice_in, again, email, sentence, span, with_curl
from proxy.errors import ProxyError, TokenTimedOut
from proxy.frozen import frozen
from proxy.identity.access_token import AccessToken, Scopes, Wanted, kind_of
from proxy.identity.cache import TokenCache
from proxy.identity.caches import TokenCaches
from proxy.identity.metadata import Metadata
from proxy.identity.source import FixedAudience, TokenSource
from proxy.identity.token import Token

PATIENCE = 30.0
"""The longest wait for a token or a connection, in seconds.  A person is waiting, so it may be
shorter than the route's own."""


@frozen
class World:
    """What every examination needs; shared by all routes."""

    environ: Mapping[str, str] = field(repr=False)
    clocks: Clocks
    source: str
    """Where the configuration came from: `Config.source`."""
    caches: TokenCaches
    metadata: Metadata


def open_world(environ: Mapping[str, str], source: str = "") -> World:
    """Return the same that a running proxy would use."""
    clocks, jitter = Clocks(), Random()  # noqa: S311 (spreads attempts over time)
    return World(
        environ=environ,
        clocks=clocks,
        source=source,
        caches=TokenCaches(clocks=clocks, jitter=jitter, environ=environ),
        metadata=Metadata(environ, jitter),
    )


@frozen
class Identity:
    """The identity with which a route calls."""

    findings: tuple[Finding, ...]
    token: Token | None = None
    """None if none could be fetched, or the route sends none."""
    account: str = ""
    """The account's email, empty if it is not known."""
    fixed_audience: bool = False
    """Whether the token's audience could not be chosen."""


async def identify(route: Route, world: World, within: float) -> Identity:
    """Fetch the route's token as the proxy would; each step takes up to `within` seconds."""
    if route.auth is Auth.NONE:
        return Identity((skipped(Step.TOKEN, "auth: none, requests carry no token"),))
    wanted = wanted_of(route)
    if wanted is None:
        return Identity((skipped(Step.TOKEN, "not known yet for which audience"),))
    around = Surroundings(world.environ, world.metadata, world.caches, within)
    origin = await find_origin(route.credentials, around)
    if not origin.usable:
        accounts = (origin.account,) if origin.account else ()
        return Identity((origin.finding, *accounts, skipped(Step.TOKEN, "not asked for")))
    cache = world.caches.cache(route.credentials, wanted, route.egress_proxy)
    account = origin.account or await _account(cache.source, within)
    token, error = await _fetch(route, cache, within)
    if token is None:
        finding = _no_token(route, error, _look_closer(route, origin.finding, world.source))
    else:
        finding = _token(token, cache.source, world.clocks.wall())
        if token.email and not account.facts:
            account = account_found(email(token.email))
    return Identity(
        findings=(origin.finding, account, finding),
        token=token,
        account=email(token.email if token else None) or str(account.facts.get("email", "")),
        fixed_audience=_is_fixed(cache.source),
    )


async def _account(source: TokenSource, within: float) -> Finding:
    try:
        async with asyncio.timeout(within):
            told = await source.account()
    except TimeoutError:
        told = None
    return account_found(email(told))


async def _fetch(
    route: Route, cache: TokenCache, within: float
) -> tuple[Token | None, ProxyError | None]:
    """Make one attempt; return the token, or why there is none."""
    error: ProxyError | None
    try:
        async with asyncio.timeout(within):
            error = await cache.prefetch(route.name)
    except TimeoutError:
        error = TokenTimedOut(f"{cache.source.describe()}: no answer within {span(within)}")
    return cache.current(route.name), error


def _no_token(route: Route, error: ProxyError | None, look_closer: str) -> Finding:
    detail = error.detail if error else "it expired at once"
    hint = error.hint if error and error.hint != error.default_hint else None  # Run this command.
    fix, command = advice_in(hint)
    if hint and "clock" in hint:
        command = SHOW_CLOCKS
    advice = Advice(
        reason="token_timed_out" if isinstance(error, TokenTimedOut) else "token_unavailable",
        why=sentence(f"no {_purpose(route)}: {detail}"),
        fix=fix,
        command=command or look_closer,
    )
    return failed(Step.TOKEN, "none", advice)


def _look_closer(route: Route, origin: Finding, source: str) -> str:
    """Return the command that shows why there is no token, without showing one."""
    match origin.facts.get("source"):
        case "metadata":
            url = f"http://{origin.facts['host']}/computeMetadata/v1/{EMAIL_KEY}"
            asked = f"curl -i -H 'Metadata-Flavor: Google' {shlex.quote(url)}"
            return with_curl(asked, again("token", route, source))
        case "token_file":
            return f"ls -l {shlex.quote(str(origin.facts['file']))}"
        case _:
            words = again("token", route, source)
            return words if route.auth is Auth.ACCESS_TOKEN else f"{words} --claims"


def wanted_of(route: Route) -> Wanted | None:
    """Return what the token of the route's first destination is for, None if it is not known."""
    return Scopes(route.scopes) if route.auth is Auth.ACCESS_TOKEN else route.first.audience


def _purpose(route: Route) -> str:
    wanted = wanted_of(route) or ""
    return f"{kind_of(wanted)} for {wanted}"


def _token(token: Token, source: TokenSource, now: float) -> Finding:
    if isinstance(token, AccessToken):
        return _access_token(token, now)
    left = token.expires_at - now
    audience = _audience(token)
    notes = [f"aud    {audience}", f"email  {email(token.email) or 'not in the token'}"]
    if _is_fixed(source):
        notes.append(
            "A gcloud login's token has gcloud's own audience. Cloud Run accepts it from people "
            "who may invoke the service; IAP and others do not."
        )
    return Finding(
        step=Step.TOKEN,
        outcome=Outcome.OK,
        text=f"expires in {span(left)}",
        notes=tuple(notes),
        facts={
            "aud": audience,
            "email": email(token.email) or None,
            "issued_at": token.claims.get("iat"),
            "expires_at": token.expires_at,
            "expires_in": round(left),
        },
    )


def _access_token(token: AccessToken, now: float) -> Finding:
    left = token.expires_at - now
    notes = [f"scopes  {token.scopes}", f"email   {email(token.email) or 'not told'}"]
    if token.fixed_scopes:
        notes[0] = "scopes  those that the gcloud login was made with"
    if token.quota_project:
        notes.append(f"counted on the project {token.quota_project}")
    return Finding(
        step=Step.TOKEN,
        outcome=Outcome.OK,
        text=f"access token, expires in {span(left)}",
        notes=tuple(notes),
        facts={
            "scopes": None if token.fixed_scopes else list(token.scopes.names),
            "email": email(token.email) or None,
            "quota_project": token.quota_project or None,
            "expires_at": token.expires_at,
            "expires_in": round(left),
        },
    )


def _audience(token: Token) -> str:
    audience = token.claims.get("aud")
    only = audience[0] if isinstance(audience, list) and len(audience) == 1 else audience
    return only if isinstance(only, str) else ""


def _is_fixed(source: TokenSource) -> bool:
    return isinstance(source, FixedAudience) and source.fixed_audience is not None
