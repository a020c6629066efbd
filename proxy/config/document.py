"""The whole document as tables of keys: the top level, `defaults`, and one route."""

from __future__ import annotations

import re
from typing import Any, Final

from proxy.config.keys import ADDRESSES, section
from proxy.config.kinds import BROKEN, Kind, Reader, Schema
from proxy.config.model import Config, Limits, Retries, Route, Timeouts
from proxy.config.problems import quoted
from proxy.config.sections import Key, Section, expect_mapping, join
from proxy.config.tree import Node

ROUTE_NAME = r"[A-Za-z0-9_.-]{1,63}"

_OF_ONE_ROUTE = ("listen", "host", "path", "strip_path", "upstream", "service")
"""What a route matches and where it leads; no default can stand for these."""


class Routes(Kind):
    """Names, each with a route's keys."""

    __slots__ = ()

    def label(self) -> str:
        """Say what it is."""
        return "a mapping of names to routes"

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Return the entries that are mappings; their keys are read once `defaults` are known."""
        mapping = expect_mapping(node, path, reader)
        if mapping is None:
            return BROKEN
        if not mapping.entries:
            reader.complain(mapping.place, path, "needs at least one route; write NAME: {...}")
        for name, entry in mapping.entries.items():
            if not re.fullmatch(ROUTE_NAME, name):
                message = f"{quoted(name)} is not a route's name; write letters, digits, _ . or -"
                reader.complain(entry.place, path, message)
        return {
            name: entry
            for name, entry in mapping.entries.items()
            if expect_mapping(entry.value, join(path, name), reader)
        }

    def schema(self) -> Schema:
        """Return an object with names as keys."""
        return {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": f"^{ROUTE_NAME}$"},
            "additionalProperties": {"$ref": "#/$defs/route"},
        }


_CONFIG_KEYS = section(Config).keys

_IN_SECTIONS: Final = {
    key.name: f"it belongs under {name}"
    for name, cls in (("limits", Limits), ("retries", Retries), ("timeouts", Timeouts))
    for key in section(cls).keys
}
_AT_TOP: Final = dict.fromkeys(
    ("defaults", "routes", *(key.name for key in _CONFIG_KEYS)),
    "it belongs to the top level of the document",
)

ROUTE: Final = section(Route, dict, elsewhere={**_IN_SECTIONS, **_AT_TOP})

DEFAULTS: Final = Section(
    tuple(key for key in ROUTE.keys if key.name not in _OF_ONE_ROUTE),
    elsewhere={
        **ROUTE.elsewhere,
        **dict.fromkeys(_OF_ONE_ROUTE, "it belongs to each route and has no default"),
    },
)

TOP: Final = Section(
    (
        Key(
            "listen",
            ADDRESSES,
            "where routes without a `listen` of their own are served: one address or a list",
            "localhost:8081",
        ),
        *(key for key in _CONFIG_KEYS if key.name == "admin"),
        Key("defaults", DEFAULTS, "keys for every route that does not write them itself"),
        Key("routes", Routes(), "what is served: a name for each route, and its keys"),
        *(key for key in _CONFIG_KEYS if key.name != "admin"),
    ),
    elsewhere={
        **_IN_SECTIONS,
        **{key.name: "it belongs to a route, under routes.NAME" for key in ROUTE.keys},
        **{key.name: "it belongs to a route, or to defaults" for key in DEFAULTS.keys},
    },
)
