"""The tables of docs/configuration.md, made from the same tables that the parser reads by."""

from __future__ import annotations

import json
from collections.abc import Iterator

from proxy.config.keys import DEFAULTS, ROUTE, TOP
from proxy.config.kinds import ABSENT, Key, Kind, Section, WordOrSection

_HEAD = "| key | value | default | meaning |\n|---|---|---|---|\n"


def reference() -> str:
    """Return two Markdown tables: the top level, and the keys of a route."""
    top = _HEAD + "".join(_rows(TOP.keys, ""))
    route = _HEAD + "".join(_rows(ROUTE.keys, ""))
    return f"{top}\nEach route:\n\n{route}"


def _rows(keys: tuple[Key, ...], prefix: str) -> Iterator[str]:
    """Yield a row for each key, and for the keys of its section below it."""
    for key in keys:
        name = f"`{prefix}{key.name}`"
        yield f"| {name} | {_value(key.kind)} | {_default(key)} | {_cell(key.help)} |\n"
        below = _section(key.kind)
        if below is not None and below is not DEFAULTS:
            yield from _rows(below.keys, f"{prefix}{key.name}.")


def _section(kind: Kind) -> Section | None:
    if isinstance(kind, WordOrSection):
        return kind.section
    return kind if isinstance(kind, Section) else None


def _value(kind: Kind) -> str:
    if isinstance(kind, WordOrSection):
        return _cell(f"{kind.single.label()}, or a mapping")
    return "a mapping" if isinstance(kind, Section) else _cell(kind.label())


def _default(key: Key) -> str:
    if key.default is ABSENT:
        return _cell(key.shown)
    shown = key.default if isinstance(key.default, str) else json.dumps(key.default)
    return f"`{_cell(shown)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
