"""A configuration in words: for `check`, `doctor`, the status page and the log at the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from proxy.config.addresses import show_place
from proxy.config.credentials import CREDENTIALS
from proxy.config.egress import proxy_of
from proxy.config.model import Auth, Config, Credentials, Destination, Route
from proxy.config.problems import Problem

_HEADINGS = (
    "ROUTE",
    "LISTENS",
    "MATCHES",
    "UPSTREAM",
    "TOKEN FOR",
    "TOKEN IN",
    "CREDENTIALS",
    "PROTOCOL",
)
_NONE = "-"


def table(config: Config) -> str:
    """Return the routes as an aligned table, a line for each of their destinations."""
    rows = [_HEADINGS, *(row for route in config.routes for row in _rows(route))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _rows(route: Route) -> Iterator[Sequence[str]]:
    """Yield the route's line, and one below it for each further destination."""
    sends = route.auth is not Auth.NONE
    before = (
        route.name,
        ", ".join(map(str, route.listen)),
        matches(route) + " (stripped)" * route.strip_path,
    )
    behind = (
        route.header.value if sends else _NONE,
        credentials(route.credentials) if sends else _NONE,
        route.protocol.value,
    )
    for each in route.destinations:
        upstream = str(each) + " (unresolved)" * (each.upstream is None)
        if each.connect_to is not None:
            upstream += f" at {show_place(each.connect_to)}"
        if (proxy := proxy_of(route, each)) is not None:
            upstream += f" through {proxy}"
        yield (*before, upstream, _purpose(route, each), *behind)
        before, behind = ("", "", ""), ("", "", "")


def _purpose(route: Route, destination: Destination) -> str:
    """Say what the token for a destination is for: an audience, or scopes."""
    match route.auth:
        case Auth.ID_TOKEN:
            return destination.audience or "(unresolved)"
        case Auth.ACCESS_TOKEN:
            return " ".join(route.scopes)
        case Auth.NONE:
            return _NONE


def matches(route: Route) -> str:
    """Say which requests a route serves: ``host/path`` for each of its hosts."""
    path = route.path if route.path == "/" else f"{route.path}/…"
    return ", ".join(f"{host}{path}" for host in route.host) or path


def upstream(route: Route) -> str:
    """Say where a route leads: to URLs, or to services whose URL is not known yet."""
    return ", ".join(map(str, route.destinations))


def audience(route: Route) -> str:
    """Say what the route's tokens are for, as far as that is known; nothing where it has none."""
    known = dict.fromkeys(each.audience for each in route.destinations if each.audience)
    return ", ".join(known)


def egress_proxy(route: Route) -> str:
    """Say through which proxies upstreams are dialled, without credentials; nothing for none."""
    found = dict.fromkeys(proxy_of(route, each) for each in route.destinations)
    return ", ".join(str(each) for each in found if each is not None)


def connect_to(route: Route) -> str:
    """Say which places are dialled instead of the upstreams' own hosts; nothing for none."""
    return ", ".join(show_place(each) for each in route.connect_to)


def credentials(value: Credentials) -> str:
    """Say where tokens come from, on one line as the file has it: a word, or keys and values.

    Keys that have their default are left out.
    """
    name = next(name for name, kind in CREDENTIALS.items() if kind.cls is type(value))
    if not fields(value):
        return name
    first, *more = fields(value)
    written: dict[str, Any] = {name: getattr(value, first.name)}
    for field in more:
        if (detail := getattr(value, field.name)) != field.default:
            written[field.name] = detail
    return ", ".join(f"{key}: {_detail(detail)}" for key, detail in written.items())


def _detail(detail: Any) -> str:
    if isinstance(detail, tuple):
        return f"[{', '.join(detail)}]"
    if type(detail) not in {kind.cls for kind in CREDENTIALS.values()}:
        return str(detail)
    said = credentials(detail)
    return f"{{{said}}}" if fields(detail) else said


def routes_as_json(config: Config) -> dict[str, Any]:
    """Return the routes in JSON's types, and what has no effect; what is unresolved is null."""
    return {
        "routes": [_route_as_json(route) for route in config.routes],
        "ignored": [{"what": each.what, "why": each.why} for each in config.ignored],
    }


def _route_as_json(route: Route) -> dict[str, Any]:
    return {
        "name": route.name,
        "listen": [str(address) for address in route.listen],
        "host": list(route.host),
        "path": route.path,
        "strip_path": route.strip_path,
        **destination_as_json(route, route.first),
        "destinations": [destination_as_json(route, each) for each in route.destinations],
        "auth": route.auth.value,
        "scopes": list(route.scopes) if route.auth is Auth.ACCESS_TOKEN else None,
        "header": route.header.value,
        "credentials": credentials(route.credentials),
        "protocol": route.protocol.value,
    }


def destination_as_json(route: Route, destination: Destination) -> dict[str, Any]:
    """Return where a destination of `route` is, in JSON's types; what is unresolved is null."""
    upstream, service = destination.upstream, destination.service
    proxy, place = proxy_of(route, destination), destination.connect_to
    return {
        "upstream": None if upstream is None else str(upstream),
        "service": None if service is None else str(service),
        "connect_to": None if place is None else show_place(place),
        "egress_proxy": None if proxy is None else str(proxy),
        "audience": destination.audience,
    }


def problems_as_json(problems: Iterable[Problem]) -> dict[str, Any]:
    """Return the problems in JSON's types; a flag or variable has no line."""
    return {
        "problems": [
            {
                "file": problem.file,
                "line": problem.line or None,
                "column": problem.column or None,
                "message": problem.message,
            }
            for problem in problems
        ]
    }
