"""Short ways to read a document in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxy.config.loading import parse
from proxy.config.model import Config, Route
from proxy.config.problems import ConfigError

UPSTREAM = "https://orders.example.com"


def read(text: str, env: Mapping[str, str] | None = None, directory: Path | None = None) -> Config:
    """Return the configuration of `text`, named ``f`` in messages."""
    return parse(text, source="f", env=env or {}, directory=directory)


def told(
    text: str, env: Mapping[str, str] | None = None, directory: Path | None = None
) -> list[str]:
    """Return the problems of `text` as lines, none if it is valid."""
    try:
        read(text, env, directory)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def route(keys: str = "", env: Mapping[str, str] | None = None, top: str = "") -> Route:
    """Return the only route, which holds `keys` (flow style) beside its upstream."""
    return read(one_route(keys, top), env).routes[0]


def told_of_route(
    keys: str, env: Mapping[str, str] | None = None, directory: Path | None = None
) -> list[str]:
    """Return the problems of a route with `keys`, without their places."""
    return [line.split(": ", 1)[1] for line in told(one_route(keys), env, directory)]


def refusal(call: Callable[..., object], *arguments: object) -> str:
    """Return the sentence with which `call` refuses its arguments."""
    try:
        value = call(*arguments)
    except ValueError as error:
        return str(error)
    pytest.fail(f"{arguments} became {value!r}")


def block_route(keys: str) -> str:
    """Return a document with one route, ``a``, that holds the lines `keys` (block style)."""
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    return f"routes:\n  a:\n    upstream: {UPSTREAM}\n{lines}"


def one_route(keys: str = "", top: str = "") -> str:
    """Return a document with one route, ``a``; `keys` may bring its own destination."""
    leads = "" if "upstream:" in keys or "service:" in keys else f"upstream: {UPSTREAM}, "
    return f"{top}\nroutes: {{a: {{{leads}{keys} }}}}\n"
