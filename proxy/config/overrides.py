"""What flags and ``AUTH_PROXY_*`` variables put in place of the document's own values.

An override becomes a node of the tree, so that it is read, checked and reported as if it stood
in the file: its place is the flag's or the variable's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from proxy.config.kinds import Reader
from proxy.config.problems import Place
from proxy.config.tree import Entry, ListNode, MapNode, Node, ScalarNode
from proxy.frozen import frozen

NAMES = ("listen", "audience", "admin", "auth", "header", "workers", "log_format", "log_level")
"""Everything that a flag can set; ``log_level`` is ``--log-level`` and ``AUTH_PROXY_LOG_LEVEL``."""

_OF_ROUTES = ("auth", "header", "audience")


@frozen
class Override:
    """A value from outside the document."""

    label: str
    """The flag or variable that holds it."""
    text: str = field(repr=False)


def gather(flags: Mapping[str, str | None], env: Mapping[str, str]) -> dict[str, Override]:
    """Return what is set, a flag before its variable; an empty variable counts as unset."""
    found: dict[str, Override] = {}
    for name in NAMES:
        variable = f"AUTH_PROXY_{name.upper()}"
        if (flag := flags.get(name)) is not None:
            found[name] = Override(flag_name(name), flag)
        elif env.get(variable):
            found[name] = Override(variable, env[variable])
    return found


def flag_name(name: str) -> str:
    """Return the flag that sets `name`."""
    return f"--{name.replace('_', '-')}"


def apply(document: MapNode, overrides: Mapping[str, Override], reader: Reader) -> MapNode:
    """Return `document` with its values replaced."""
    for name, override in overrides.items():
        if name in _OF_ROUTES:
            document = _replace_in_routes(document, name, override, reader)
        elif name.startswith("log_"):
            document = _replace_in(document, "log", name.removeprefix("log_"), override)
        elif name == "admin" and override.text != "off" and _is_mapping(document, "admin"):
            document = _replace_in(document, "admin", "listen", override)
        else:
            document = document.with_entry(name, _entry(override, split=name == "listen"))
    return document


def _entry(override: Override, *, split: bool = False) -> Entry:
    place = Place(override.label)
    node: Node = ScalarNode(override.text, place, literal=True)
    if split and "," in override.text:
        texts = override.text.split(",")
        node = ListNode(
            tuple(ScalarNode(text.strip(), place, literal=True) for text in texts), place
        )
    return Entry(place, node)


def _is_mapping(document: MapNode, key: str) -> bool:
    entry = document.entries.get(key)
    return entry is not None and isinstance(entry.value, MapNode)


def _replace_in(document: MapNode, section: str, key: str, override: Override) -> MapNode:
    """Replace one key of a section and keep its others."""
    entry = document.entries.get(section)
    place = Place(override.label)
    if entry is None:
        entry = Entry(place, MapNode({}, place))
    if isinstance(entry.value, MapNode):
        entry = Entry(entry.place, entry.value.with_entry(key, _entry(override)))
    return document.with_entry(section, entry)


def _replace_in_routes(document: MapNode, key: str, override: Override, reader: Reader) -> MapNode:
    routes = document.entries.get("routes")
    if routes is None or not isinstance(routes.value, MapNode):
        return document
    if key == "audience" and len(routes.value.entries) > 1:
        # One audience for several services would let each of them call the others as us.
        message = (
            f"cannot be the audience of {len(routes.value.entries)} routes; "
            "write audience under each route instead"
        )
        reader.complain(Place(override.label), "", message)
        return document
    changed = {
        name: _replace_in_route(each, key, override) for name, each in routes.value.entries.items()
    }
    return document.with_entry("routes", Entry(routes.place, MapNode(changed, routes.value.place)))


def _replace_in_route(entry: Entry, key: str, override: Override) -> Entry:
    if not isinstance(entry.value, MapNode):
        return entry
    return Entry(entry.place, entry.value.with_entry(key, _entry(override)))
