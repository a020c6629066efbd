"""The JSON Schema of the configuration, for editors: completion, descriptions, early mistakes.

It refuses nothing that the parser accepts.  It accepts more: what one key means for another,
files, and whatever a variable may hold are the parser's business.
"""

from __future__ import annotations

from proxy.config.keys import DEFAULTS, ROUTE, TOP
from proxy.config.kinds import Schema

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> Schema:
    """Return the schema as JSON's types, keys in the order of the reference."""
    top = TOP.schema()
    properties = {**top["properties"], "defaults": _defaults()}
    return {
        "$schema": _DIALECT,
        "title": "Configuration of Cloud Run Auth Proxy",
        **top,
        "properties": properties,
        "required": ["routes"],
        "$defs": {"route": _route(), "variable": _variable()},
    }


def _variable() -> Schema:
    # Any text with a dollar may become something else once variables are expanded.
    said = "${VAR}, or ${VAR:-default}; $$ is a dollar"
    return {"description": said, "type": "string", "pattern": "\\$"}


def _route() -> Schema:
    one_of = [{"required": ["upstream"]}, {"required": ["service"]}]
    return {**ROUTE.schema(), "oneOf": one_of}


def _defaults() -> Schema:
    route = "#/$defs/route/properties"
    properties = {key.name: {"$ref": f"{route}/{key.name}"} for key in DEFAULTS.keys}
    return {
        "description": TOP.named("defaults").help,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
