"""A configuration as `check` shows it: a table for people, plain data for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from proxy.config import credentials
from proxy.config.model import Auth, Config, Route
from proxy.config.problems import Problem

_HEADINGS = (
    "ROUTE",
    "LISTENS",
    "MATCHES",
    "UPSTREAM",
    "AUDIENCE",
    "ID TOKEN IN",
    "CREDENTIALS",
    "PROTOCOL",
)
_NONE = "-"


def table(config: Config) -> str:
    """Return the routes as an aligned table, a line for each."""
    rows = [_HEADINGS, *(_row(route) for route in config.routes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _row(route: Route) -> Sequence[str]:
    sends = route.auth is Auth.ID_TOKEN
    return (
        route.name,
        ", ".join(map(str, route.listen)),
        _matches(route),
        _upstream(route),
        (route.audience or "(unresolved)") if sends else _NONE,
        route.header.value if sends else _NONE,
        credentials.show(route.credentials) if sends else _NONE,
        route.protocol.value,
    )


def _matches(route: Route) -> str:
    path = f"{route.path} (stripped)" if route.strip_path else route.path
    return f"{', '.join(route.host)} {path}" if route.host else path


def _upstream(route: Route) -> str:
    if route.upstream is not None:
        return str(route.upstream)
    return f"service {route.service} (unresolved)"


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
        "upstream": None if route.upstream is None else str(route.upstream),
        "service": None if route.service is None else str(route.service),
        "audience": route.audience,
        "auth": route.auth.value,
        "header": route.header.value,
        "credentials": credentials.show(route.credentials),
        "protocol": route.protocol.value,
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
