"""How the value of a key is written: each kind reads it, describes it in JSON Schema, shows it.

One definition for the parser, the schema and docs/configuration.md, so that they cannot
disagree.  First the kinds of one value, then those that hold other keys.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from proxy.config.expand import expand
from proxy.config.model import Stamp
from proxy.config.problems import Place, Problem, nearest, problem_at, quoted
from proxy.config.tree import Entry, ListNode, MapNode, Node, ScalarNode
from proxy.config.values import TOKEN, field_key, header_name
from proxy.frozen import frozen

Schema = dict[str, Any]


BROKEN: Final = object()
"""The value of a key whose problem has been reported."""


class Reader:
    """What it takes to read one document, and the problems found so far."""

    __slots__ = ("_told", "checked_files", "directory", "env", "problems", "stamps")

    def __init__(self, env: Mapping[str, str], directory: Path) -> None:
        self.env = env
        self.directory = directory
        self.problems: list[Problem] = []
        # One answer per file and reading, however many routes name it.
        self.checked_files: dict[tuple[Path, object], str | None] = {}
        self.stamps: dict[Path, Stamp] = {}
        """Of every file that was read."""
        # A mistake in `defaults` comes up again in every route, and is reported once.
        self._told: set[tuple[Place, str]] = set()

    def complain(self, place: Place, path: str, message: str) -> None:
        """Add the problem `message` of the key `path`; a flag's name already says which key."""
        if (place, message) in self._told:
            return
        self._told.add((place, message))
        said = f"{path}: {message}" if path and place.line else message
        self.problems.append(problem_at(place, said))

    def expand(self, node: ScalarNode) -> str:
        """Return the text with its variables replaced; raises `ValueError`."""
        return node.text if node.literal else expand(node.text, self.env)


def any_of(*schemas: Schema) -> Schema:
    """Return the schema of a value that fits one of `schemas`; a choice in it is merged."""
    flat: list[Schema] = []
    for schema in schemas:
        inner = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
        flat += [each for each in inner if each not in flat]
    return {"anyOf": flat}


def or_variable(schema: Schema) -> Schema:
    """Return `schema`, or any text with a variable in it: editors cannot know its value."""
    return any_of(schema, {"$ref": "#/$defs/variable"})


def pattern(regex: str) -> Schema:
    """Return the schema of a text that fits `regex` as a whole."""
    return or_variable({"type": "string", "pattern": f"^({regex})$"})


class Kind(ABC):
    """A way of writing a value."""

    __slots__ = ()

    @abstractmethod
    def label(self) -> str:
        """Return what the value is called, with its article."""

    @abstractmethod
    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Return the value, or `BROKEN` after reporting why; `path` is its key."""

    @abstractmethod
    def schema(self) -> Schema:
        """Return the JSON Schema; it refuses nothing that `read` accepts."""

    def show(self, value: Any) -> Any:
        """Return the value as the file writes it, in JSON's types; the reverse of `read`."""
        return value


class ScalarKind(Kind):
    """A value of one word."""

    __slots__ = ()

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Expand the variables, then hand the text to `from_text`."""
        if not isinstance(node, ScalarNode):
            kind = "list" if isinstance(node, ListNode) else "mapping"
            reader.complain(node.place, path, f"must be {self.label()}, not a {kind}")
            return BROKEN
        try:
            return self._read_text(reader.expand(node), node, reader)
        except ValueError as error:
            reader.complain(node.place, path, str(error))
            return BROKEN

    def _read_text(self, text: str, node: ScalarNode, reader: Reader) -> Any:
        if node.plain and not text:
            raise ValueError(f"has no value; write {self.label()}, or remove the key")
        return self.from_text(text, node, reader)

    @abstractmethod
    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> Any:
        """Return the value of `text`; raises `ValueError`."""


@frozen
class Word(ScalarKind):
    """A value that one function reads."""

    word: str
    parse: Callable[[str], Any]
    json: Schema
    write: Callable[[Any], Any] = str
    is_text: bool = True
    """Whether an unquoted number or boolean must be refused, as the schema does."""

    def label(self) -> str:
        """Return the word given."""
        return self.word

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> Any:
        """Parse the text; refuse it unquoted where YAML reads it as another type."""
        del reader
        # Unquoted ${VAR} is text in the file, whatever the variable holds.
        typed = "string" if "$" in node.text else node.type_of(text)
        if self.is_text and typed != "string":
            raise ValueError(f"{text} is a {typed} in YAML; write it in quotes: '{text}'")
        return self.parse(text)

    def schema(self) -> Schema:
        """Return the schema given."""
        return self.json

    def show(self, value: Any) -> Any:
        """Write the value."""
        return self.write(value)


@frozen
class Choice(ScalarKind):
    """One of a few words."""

    choices: Mapping[str, Any]
    ignore_case: bool = False

    def label(self) -> str:
        """Name every choice."""
        return "one of " + ", ".join(self.choices)

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> Any:
        """Look the word up."""
        del node, reader
        for choice, value in self.choices.items():
            if text == choice or (self.ignore_case and text.lower() == choice.lower()):
                return value
        raise ValueError(f"{quoted(text)} is not {self.label()}{nearest(text, self.choices)}")

    def schema(self) -> Schema:
        """Return an enumeration, so that editors complete it."""
        schema: Schema = {"enum": list(self.choices)}
        if self.ignore_case:
            either = "|".join(map(_any_case, self.choices))
            schema = any_of(schema, {"type": "string", "pattern": f"^({either})$"})
        return or_variable(schema)

    def show(self, value: Any) -> Any:
        """Return the word that stands for `value`."""
        return next(word for word, meant in self.choices.items() if meant == value)


def _any_case(text: str) -> str:
    return "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else re.escape(c) for c in text)


@frozen
class Flag(ScalarKind):
    """``true`` or ``false``."""

    def label(self) -> str:
        """Name both."""
        return "true or false"

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> bool:
        """Read YAML 1.2's booleans only: ``yes`` and ``on`` are words there."""
        del reader
        if node.type_of(text) != "boolean":
            mend = "without quotes" if text in {"true", "false"} else "true or false"
            raise ValueError(f"{quoted(text)} is not true or false; write {mend}")
        return text.lower() == "true"

    def schema(self) -> Schema:
        """Return a boolean."""
        return or_variable({"type": "boolean"})


@frozen
class Count(ScalarKind):
    """A whole number."""

    minimum: int
    maximum: int | None = None

    def label(self) -> str:
        """See `Kind.label`."""
        return "a whole number"

    def from_text(self, text: str, node: ScalarNode, reader: Reader) -> int:
        """Read decimal digits."""
        del reader
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise ValueError(f"{quoted(text)} is not a whole number; write one such as 10")
        if node.type_of(text) != "number" and not node.literal:
            raise ValueError(f"{quoted(text)} is a text; write the number without quotes")
        if int(text) < self.minimum:
            raise ValueError(f"{text} is too few; write {self.minimum} or more")
        if self.maximum is not None and int(text) > self.maximum:
            raise ValueError(f"{text} is too many; write {self.maximum} at most")
        return int(text)

    def schema(self) -> Schema:
        """Return an integer with its bounds."""
        bounds = {"minimum": self.minimum}
        if self.maximum is not None:
            bounds["maximum"] = self.maximum
        return or_variable({"type": "integer", **bounds})


@frozen
class ListOf(Kind):
    """Several values of one kind, each once."""

    item: Kind
    word: str
    or_one: bool = False
    """Whether a single value may stand without brackets."""
    least: int = 0
    if_empty: str = "an empty list matches nothing; remove the key"
    """What is said of fewer than `least`."""

    def label(self) -> str:
        """Return the word given."""
        return self.word

    def read(self, node: Node, path: str, reader: Reader) -> Any:
        """Return a tuple in the order of the file."""
        if self.or_one and isinstance(node, ScalarNode):
            value = self.item.read(node, path, reader)
            return BROKEN if value is BROKEN else (value,)
        if not isinstance(node, ListNode):
            reader.complain(node.place, path, f"must be {self.label()}")
            return BROKEN
        if len(node.items) < self.least:
            reader.complain(node.place, path, self.if_empty)
            return BROKEN
        return self._read_items(node, path, reader)

    def _read_items(self, node: ListNode, path: str, reader: Reader) -> Any:
        values: dict[Any, None] = {}
        broken = False
        for index, item in enumerate(node.items):
            value = self.item.read(item, f"{path}[{index}]", reader)
            if value in values:
                message = f"{quoted(str(value))} stands in the list twice; remove one"
                reader.complain(item.place, f"{path}[{index}]", message)
            if value is BROKEN:
                broken = True
            else:
                values[value] = None
        return BROKEN if broken else tuple(values)

    def schema(self) -> Schema:
        """Return an array, or one item where that may stand alone."""
        array: Schema = {"type": "array", "items": self.item.schema()}
        if self.least:
            array["minItems"] = self.least
        return any_of(self.item.schema(), array) if self.or_one else array

    def show(self, value: Any) -> Any:
        """Return a list."""
        return [self.item.show(each) for each in value]


ABSENT = object()


@frozen
class Key:
    """One key: its name, how its value is written, its default and its meaning."""

    name: str
    kind: Kind
    help: str
    default: Any = ABSENT
    """As the file would write it, in JSON's types."""
    shown: str = ""
    """The default in words, where the file cannot express it."""

    def schema(self) -> Schema:
        """Return the value's schema with description and default."""
        more = {} if self.default is ABSENT else {"default": self.default}
        return {"description": self.help.replace("`", ""), **self.kind.schema(), **more}


def expect_mapping(node: Node, path: str, reader: Reader) -> MapNode | None:
    """Return `node` if it is a mapping; report it and return None if not."""
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


@frozen
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
        """Build the value; a key that cannot be read is reported and keeps its default."""
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
        """Merge `over` into `base`; mappings inside are merged key by key."""
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


@frozen
class HeaderValues(Kind):
    """Header names, each with the value to set."""

    value: Kind

    def label(self) -> str:
        """See `Kind.label`."""
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
        """Merge `over` into `base`; a header is replaced under any spelling of its name."""
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
    """Return why a header cannot be set, else nothing; `first` holds the headers before it."""
    try:
        header_name(name)
    except ValueError as error:
        return str(error)
    earlier = first.setdefault(field_key(name), entry)
    if earlier is entry:
        return ""
    return f"{name} is another spelling of the header at {earlier.place}; remove one"


@frozen
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
