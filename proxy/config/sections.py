"""Kinds that hold other keys: sections, headers to set, credentials, the admin listener."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.config.kinds import BROKEN, Kind, Reader, ScalarKind, Schema, any_of
from proxy.config.problems import quoted
from proxy.config.suggest import nearest
from proxy.config.tree import Entry, ListNode, MapNode, Node, ScalarNode
from proxy.config.values import TOKEN, field_key, header_name

ABSENT = object()


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its name, how its value is written, its default and its meaning."""

    name: str
    kind: Kind
    help: str
    default: Any = ABSENT
    """As the file would write it, in JSON's types."""
    shown: str = ""
    """The default in words, where it is no value of the file."""

    def schema(self) -> Schema:
        """Return the value's schema with description and default."""
        more = {} if self.default is ABSENT else {"default": self.default}
        return {"description": self.help.replace("`", ""), **self.kind.schema(), **more}


def expect_mapping(node: Node, path: str, reader: Reader) -> MapNode | None:
    """Return `node` if it is a mapping; else tell the reader."""
    if isinstance(node, MapNode):
        return node
    if isinstance(node, ScalarNode) and node.type_of(node.text) == "null":
        reader.complain(node.place, path, "has no keys; give it some, or remove it")
    else:
        written = "a list" if isinstance(node, ListNode) else quoted(node.text)
        reader.complain(node.place, path, f"must be a mapping of keys to values, not {written}")
    return None


def join(path: str, key: str) -> str:
    """Return the dotted name of `key` under `path`."""
    return f"{path}.{key}" if path else key


@dataclass(frozen=True, slots=True)
class Section(Kind):
    """A mapping with known keys."""

    keys: tuple[Key, ...]
    build: Callable[..., Any] = dict
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Keys of other places, each with a sentence that says where it belongs."""

    def label(self) -> str:
        """Name its keys."""
        return "a mapping of " + ", ".join(key.name for key in self.keys)

    def named(self, name: str) -> Key:
        """Return the key `name`."""
        return next(key for key in self.keys if key.name == name)

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Build the value; a broken key is told and left at its default."""
        mapping = expect_mapping(node, path, reader)
        return BROKEN if mapping is None else self.build(**self.values(mapping, path, reader))

    def values(self, node: MapNode, path: str, reader: Reader) -> dict[str, Any]:
        """Return the values that could be read, by key."""
        kinds = {key.name: key.kind for key in self.keys}
        found: dict[str, Any] = {}
        for name, entry in node.entries.items():
            if (kind := kinds.get(name)) is None:
                reader.complain(entry.place, path, self._unknown(name))
                continue
            value = kind.read(entry.value, join(path, name), reader)
            if value is not BROKEN:
                found[name] = value
        return found

    def _unknown(self, name: str) -> str:
        said = f"unknown key {quoted(name)}"
        if where := self.elsewhere.get(name):
            return f"{said}; {where}"
        names = [key.name for key in self.keys]
        return said + (nearest(name, names) or f"; the keys here are {', '.join(names)}")

    def merge(self, base: MapNode, over: MapNode) -> MapNode:
        """Lay `over` on `base`, mappings inside that merge key by key."""
        kinds = {key.name: key.kind for key in self.keys}
        entries = dict(base.entries)
        for name, entry in over.entries.items():
            kind, below, value = kinds.get(name), base.entries.get(name), entry.value
            if (
                isinstance(kind, Section | HeaderValues)
                and below is not None
                and isinstance(below.value, MapNode)
                and isinstance(value, MapNode)
            ):
                entry = Entry(entry.place, kind.merge(below.value, value))
            entries[name] = entry
        return MapNode(entries, over.place)

    def schema(self) -> Schema:
        """Return an object that allows no other key."""
        properties = {key.name: key.schema() for key in self.keys}
        return {"type": "object", "additionalProperties": False, "properties": properties}


@dataclass(frozen=True, slots=True)
class HeaderValues(Kind):
    """Header names, each with the value to set."""

    value: Kind

    def label(self) -> str:
        """Say what it is."""
        return "a mapping of header names to values"

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Return pairs in the order of the file."""
        mapping = expect_mapping(node, path, reader)
        if mapping is None:
            return BROKEN
        first: dict[str, Entry] = {}
        pairs: list[tuple[str, Any]] = []
        for name, entry in mapping.entries.items():
            if refusal := _refusal(name, entry, first):
                reader.complain(entry.place, path, refusal)
            pairs.append((name, self.value.read(entry.value, join(path, name), reader)))
        return BROKEN if any(value is BROKEN for _, value in pairs) else tuple(pairs)

    def merge(self, base: MapNode, over: MapNode) -> MapNode:
        """Lay `over` on `base`; another spelling of a header replaces it too."""
        replaced = {field_key(name) for name in over.entries}
        kept = {k: v for k, v in base.entries.items() if field_key(k) not in replaced}
        return MapNode({**kept, **over.entries}, over.place)

    def schema(self) -> Schema:
        """Return an object with header names as keys."""
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^{TOKEN}$"},
            "additionalProperties": self.value.schema(),
        }

    def show(self, value: Any) -> Any:
        """Return a mapping."""
        return dict(value)


def _refusal(name: str, entry: Entry, first: dict[str, Entry]) -> str:
    """Say why a header cannot be set, if so; `first` holds the headers before it."""
    try:
        header_name(name)
    except ValueError as error:
        return str(error)
    earlier = first.setdefault(field_key(name), entry)
    if earlier is entry:
        return ""
    return f"{name} is another spelling of the header at {earlier.place}; remove one"


@dataclass(frozen=True, slots=True)
class WordOrSection(Kind):
    """A word, or a mapping that says more."""

    single: ScalarKind
    section: Section
    finish: Callable[[dict[str, Any], MapNode, str, Reader], Any]
    """Makes the value of what the section held."""
    alternatives: tuple[tuple[str, ...], ...] = ()
    """Where only some keys go together: each group, the required key first."""
    write: Callable[[Any], Any] = str

    def label(self) -> str:
        """Name both ways."""
        return f"{self.single.label()}, or {self.section.label()}"

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Read whichever was written."""
        if isinstance(node, ScalarNode):
            return self.single.read(node, path, reader)
        if isinstance(node, ListNode):
            reader.complain(node.place, path, f"must be {self.label()}, not a list")
            return BROKEN
        return self.finish(self.section.values(node, path, reader), node, path, reader)

    def schema(self) -> Schema:
        """Return both ways, each group of keys as an object of its own."""
        whole = self.section.schema()
        if not self.alternatives:
            return any_of(self.single.schema(), whole)
        objects = [
            {
                **whole,
                "properties": {name: whole["properties"][name] for name in group},
                "required": [group[0]],
            }
            for group in self.alternatives
        ]
        return any_of(self.single.schema(), *objects)

    def show(self, value: Any) -> Any:
        """Write the value."""
        return self.write(value)
