"""What is written and has no effect: said once at the start, because nobody can see it otherwise.

Nothing here is a mistake for certain: a variable may be meant for another program, and a key
may wait for the day on which another one is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from proxy.config.model import Address, Auth, Ignored, Route
from proxy.config.overrides import NAMES
from proxy.config.suggest import nearest
from proxy.config.tree import Entry, MapNode

FILE_VARIABLE = "AUTH_PROXY_CONFIG"
TEXT_VARIABLE = "AUTH_PROXY_CONFIG_YAML"

_PREFIX = "AUTH_PROXY_"
_VARIABLES = frozenset({*(_PREFIX + name.upper() for name in NAMES), FILE_VARIABLE, TEXT_VARIABLE})


def in_document(
    routes: Iterable[tuple[Route, Entry]], written: Mapping[str, Entry], listen: Iterable[Address]
) -> Iterator[Ignored]:
    """Yield what of a document has no effect.

    `routes` come with what stands under their names, without ``defaults``; `written` are the
    top-level keys, `listen` the top-level addresses.
    """
    routes = list(routes)
    used = {address for route, _ in routes for address in route.listen}
    if "listen" in written:
        for address in listen:
            if address not in used:
                yield Ignored("listen", f"{address} is not opened, for no route uses it")
    for route, entry in routes:
        keys = entry.value.entries if isinstance(entry.value, MapNode) else {}
        yield from _in_route(route, keys)


def _in_route(route: Route, keys: Mapping[str, Entry]) -> Iterator[Ignored]:
    if route.auth is Auth.NONE:
        for key in ("audience", "credentials"):
            if key in keys:
                place = keys[key].place
                what = f"routes.{route.name}.{key}" if place.line else place.source
                yield Ignored(what, f"route {route.name} sends no ID token (auth: none)")
    if "ca_file" in keys and route.upstream is not None and not route.upstream.tls:
        yield Ignored(f"routes.{route.name}.ca_file", "the upstream is plain http")


def in_environment(env: Mapping[str, str], source: str, text: str) -> Iterator[Ignored]:
    """Yield the variables that look as if they were for the proxy and are not taken.

    `source` is where the configuration came from, `text` what it says: a variable that it
    names is taken.
    """
    present = {name for name, value in env.items() if value and "${" + name not in text}
    if "PORT" in present:
        # On Cloud Run it is the port of the container that serves the outside, which a sidecar
        # must not take away.
        yield Ignored("PORT", "listen alone says where; ${PORT} there takes it")
    if TEXT_VARIABLE in present and source != TEXT_VARIABLE:
        yield Ignored(TEXT_VARIABLE, f"the configuration is {source}")
    known = {name.removeprefix(_PREFIX): name for name in _VARIABLES}
    for name in sorted(present - _VARIABLES):
        if name.startswith(_PREFIX) and (guess := nearest(name.removeprefix(_PREFIX), known)):
            yield Ignored(name, f"there is no such variable{_in_full(guess)}")


def _in_full(guess: str) -> str:
    return guess.replace("'", f"'{_PREFIX}", 1)
