"""What is configured and has no effect: said once at the start, since nothing else shows it.

None of it is certainly a mistake: a variable may be meant for another program, and a key may wait
for the day on which another one is changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from proxy.config.addresses import is_on_loopback
from proxy.config.egress import address_of, is_here, misunderstood, proxy_of
from proxy.config.model import Address, Auth, GcloudCredentials, Ignored, Route
from proxy.config.overrides import NAMES
from proxy.config.problems import nearest
from proxy.config.tree import Entry, MapNode

FILE_VARIABLE = "AUTH_PROXY_CONFIG"
TEXT_VARIABLE = "AUTH_PROXY_CONFIG_YAML"
STANDARD_INPUT = "-"
"""Stands for it in place of a file's name, and in messages with a line, as in other commands."""

_NAMES = {STANDARD_INPUT: "standard input"}

_PREFIX = "AUTH_PROXY_"
_IP = re.compile(r".*:.*|[0-9.]+")
_VARIABLES = frozenset({*(_PREFIX + name.upper() for name in NAMES), FILE_VARIABLE, TEXT_VARIABLE})


def in_document(
    routes: Iterable[tuple[Route, Entry]], written: Mapping[str, Entry], listen: Iterable[Address]
) -> Iterator[Ignored]:
    """Yield the parts of a document that have no effect.

    `routes` come with what stands under their names, without ``defaults``; `written` are the
    top-level keys, `listen` the top-level addresses.
    """
    routes = list(routes)
    used = {address for route, _ in routes for address in route.listen}
    if "listen" in written:
        for address in listen:
            if address not in used:
                yield Ignored("listen", f"{address} is not opened, for no route uses it")
    allowing = [route for route, _ in routes if route.allow_credentials]
    has_default = allowing and "allow_credentials" in _keys(written.get("defaults"))
    if has_default and not any(route.allow_origins for route in allowing):
        yield Ignored("defaults.allow_credentials", "no route has allow_origins")
    for route, entry in routes:
        yield from _in_route(route, _keys(entry))
    yield from _beside_others(routes)


def _keys(entry: Entry | None) -> Mapping[str, Entry]:
    """Return what a mapping holds."""
    return entry.value.entries if entry and isinstance(entry.value, MapNode) else {}


def _in_route(route: Route, keys: Mapping[str, Entry]) -> Iterator[Ignored]:
    yield from _of_identity(route, keys)
    if "allow_hosts" in keys:
        what = f"routes.{route.name}.allow_hosts"
        if route.host:
            yield Ignored(what, "the route serves its own host names alone")
        elif not any(map(_may_be_loopback, route.listen)):
            yield Ignored(what, "none of the route's listeners is on a loopback address")
    if "allow_credentials" in keys and route.allow_credentials and not route.allow_origins:
        what = f"routes.{route.name}.allow_credentials"
        yield Ignored(what, "the route has no allow_origins, so no page may call")
    if "ca_file" in keys and not any(
        each.upstream is None or each.upstream.tls for each in route.destinations
    ):
        yield Ignored(f"routes.{route.name}.ca_file", "the upstream is plain http")
    if "egress_proxy" in keys:
        yield from _beside_proxy(route)


def _beside_others(routes: Iterable[tuple[Route, Entry]]) -> Iterator[Ignored]:
    """Yield the limits of callers' connections that other routes of the same listeners exceed."""
    most: dict[Address, float] = {}
    for route, _ in routes:
        for address in route.listen:
            most[address] = max(most.get(address, 0), route.limits.resets or math.inf)
    for route, entry in routes:
        is_own = "resets" in _keys(_keys(entry).get("limits"))
        own = route.limits.resets or math.inf
        if is_own and all(most[address] > own for address in route.listen):
            what = f"routes.{route.name}.limits.resets"
            yield Ignored(what, "another route of its listener allows more")


def _beside_proxy(route: Route) -> Iterator[Ignored]:
    if route.egress_proxy.https and not route.egress_proxy.auto:
        for each in route.destinations:
            if is_here(address_of(each)[1]):
                what = f"routes.{route.name}.egress_proxy"
                yield Ignored(what, f"{each.dialled} is dialled directly")


_UNUSED: Mapping[Auth, Mapping[str, str]] = {
    Auth.NONE: {
        "audience": "sends no token (auth: none)",
        "credentials": "sends no token (auth: none)",
        "access_token_hosts": "sends no token (auth: none)",
    },
    Auth.ACCESS_TOKEN: {"audience": "sends an access token, which is for scopes"},
    Auth.ID_TOKEN: {"access_token_hosts": "sends an ID token (auth: id_token)"},
}
"""Why keys have no effect, by what the route sends."""


def _of_identity(route: Route, keys: Mapping[str, Entry]) -> Iterator[Ignored]:
    for key, why in _UNUSED[route.auth].items():
        if key in keys:
            place = keys[key].place
            what = f"routes.{route.name}.{key}" if place.line else place.source
            yield Ignored(what, f"route {route.name} {why}")
    if "scopes" in keys and isinstance(route.credentials, GcloudCredentials):
        why = "a gcloud login's access tokens have the scopes that it was made with"
        yield Ignored(f"routes.{route.name}.scopes", why)


def _may_be_loopback(listener: Address) -> bool:
    """Tell whether a listener may be on loopback; names are not resolved here."""
    return is_on_loopback(listener) or not (listener.path or _IP.fullmatch(listener.host))


def in_environment(
    env: Mapping[str, str], source: str, text: str, routes: Iterable[Route]
) -> Iterator[Ignored]:
    """Yield the variables that look as if they were meant for the proxy and are not read.

    `source` is where the configuration came from, `text` what it says: a variable that it
    names is taken.  `routes` are those of the configuration.
    """
    yield from _egress(env, routes)
    present = {name for name, value in env.items() if value and "${" + name not in text}
    if "PORT" in present:
        # On Cloud Run it is the port of the container that serves the outside, which a sidecar
        # must not take away.
        yield Ignored("PORT", "listen alone says where; ${PORT} there takes it")
    if TEXT_VARIABLE in present and source != TEXT_VARIABLE:
        yield Ignored(TEXT_VARIABLE, f"the configuration is {_NAMES.get(source, source)}")
    known = {name.removeprefix(_PREFIX): name for name in _VARIABLES}
    for name in sorted(present - _VARIABLES):
        if name.startswith(_PREFIX) and (guess := nearest(name.removeprefix(_PREFIX), known)):
            yield Ignored(name, f"there is no such variable{_in_full(guess)}")


def _egress(env: Mapping[str, str], routes: Iterable[Route]) -> Iterator[Ignored]:
    """Yield the entries of NO_PROXY that exempt nothing, where a proxy is used at all."""
    autos = [route for route in routes if route.egress_proxy.auto]
    if any(proxy_of(route, each) for route in autos for each in route.destinations):
        for variable, entry, instead in misunderstood(env):
            yield Ignored(variable, f"the entry {entry} exempts nothing; write {instead}")


def _in_full(guess: str) -> str:
    return guess.replace("'", f"'{_PREFIX}", 1)
