"""YAML text in, a tree out. The only module that knows pyyaml.

The tree is made from parse events rather than by a loader, so that nothing is typed, resolved
or constructed on the way: YAML 1.1 would read ``on`` and ``off`` as booleans and ``8:30`` as a
number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from proxy.config.problems import ConfigError, Place, Problem, problem_at, quoted
from proxy.config.tree import Entry, ListNode, MapNode, Node, ScalarNode

_PARSER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

DEEPEST = 16  # Levels of nesting; a configuration has six.
MOST_VALUES = 200_000  # Values once aliases are followed: about 10,000 full routes.

# YAML 1.2, 5.1: what a document may not hold.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_tree(text: str, source: str, problems: list[Problem]) -> Node:
    """Return the document's tree; duplicate keys and the like are added to `problems`.

    Raises `ConfigError` where the text is not YAML at all.
    """
    _check_characters(text, source)
    try:
        return _Composer(text, source, problems).document()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_problem(error, text, source)]) from None


def _check_characters(text: str, source: str) -> None:
    if found := _UNPRINTABLE.search(text):
        at = found.start()
        message = f"the character U+{ord(found[0]):04X} is not allowed in YAML; remove it"
        column = at - (text.rfind("\n", 0, at) + 1) + 1
        raise ConfigError([Problem(source, text.count("\n", 0, at) + 1, column, message)])


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, source: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.split("\n")
    written = lines[line] if line < len(lines) else ""
    says = error.problem or "it cannot be parsed"
    mend = _mend(written, written[column:], says, error.context or "")
    return Problem(source, line + 1, column + 1, f"not valid YAML: {says}{mend}")


def _mend(line: str, rest: str, says: str, context: str) -> str:
    """Say how to mend the most common slips; `rest` is the part of `line` that was not parsed."""
    if rest.startswith("\t"):
        return "; indent with spaces, not with tabs"
    if "alias" in context:
        return '; write a value that begins with * in quotes: "*.example.com"'
    if "${" in line and "flow" in context:
        return "; inside { } and [ ] write a value with ${...} in quotes"
    if rest[:1] in {"@", "`", "%"}:
        return f"; write a value that begins with {rest[0]} in quotes"
    if "mapping values" in says:
        return "; check the indentation, and write a value that holds ': ' in quotes"
    return "; check the indentation, quotes and brackets here and in the line before"


class _Composer:
    """Builds the tree from parse events."""

    __slots__ = ("_anchors", "_events", "_open", "_problems", "_source", "_values")

    def __init__(self, text: str, source: str, problems: list[Problem]) -> None:
        # Any: the stubs give no common type to events that carry a tag or an anchor.
        self._events: Iterator[Any] = yaml.parse(text, Loader=_PARSER)
        self._source = source
        self._problems = problems
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._open: set[str] = set()
        self._values = 0

    def document(self) -> Node:
        """Return the only document's root."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise self._fatal(event, "only one document is allowed; remove this '---'")
                root = self._node(next(self._events), 0)
        if root is None or (isinstance(root, ScalarNode) and root.type_of(root.text) == "null"):
            raise ConfigError(
                [Problem(self._source, 1, 1, "the document is empty; it needs at least 'routes:'")]
            )
        return root

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > DEEPEST:
            raise self._fatal(event, f"nested deeper than {DEEPEST} levels")
        if event.tag is not None:
            self._complain(event, f"tags have no meaning here; remove {quoted(event.tag)}")
        before = self._values
        self._count(event, 1)
        if event.anchor is None:
            return self._content(event, depth)
        self._open.add(event.anchor)
        node = self._content(event, depth)
        self._open.discard(event.anchor)
        self._anchors[event.anchor] = node, self._values - before
        return node

    def _content(self, event: Any, depth: int) -> Node:
        place = self._place(event)
        if isinstance(event, yaml.ScalarEvent):
            return ScalarNode(event.value, place, plain=event.style in (None, ""))
        if isinstance(event, yaml.SequenceStartEvent):
            return ListNode(tuple(self._items(depth)), place)
        return MapNode(self._entries(depth), place)

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] | None = None
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, ScalarNode):
                self._complain(event, "a key must be one word")
            elif key.plain and key.text == "<<":
                if merged is not None:
                    self._complain(event, "a second '<<'; write <<: [*first, *second] once")
                merged = self._merge(value)
            elif (first := entries.get(key.text)) is not None:
                self._complain(
                    event, f"duplicate key {quoted(key.text)}; the first one is at {first.place}"
                )
            else:
                entries[key.text] = Entry(self._place(event), value)
        return {**merged, **entries} if merged else entries

    def _merge(self, value: Node) -> dict[str, Entry]:
        """Return what ``<<: *anchor`` or ``<<: [*first, *second]`` brings in."""
        merged: dict[str, Entry] = {}
        for source in value.items if isinstance(value, ListNode) else (value,):
            if isinstance(source, MapNode):
                merged = {**source.entries, **merged}
            else:
                message = "'<<' merges mappings; write <<: *anchor, or a list of those"
                self._problems.append(problem_at(source.place, message))
        return merged

    def _alias(self, event: yaml.AliasEvent) -> Node:
        name = event.anchor
        if name in self._open:
            raise self._fatal(event, f"*{name} stands inside the value that it repeats")
        if name not in self._anchors:
            raise self._fatal(
                event,
                f"*{name} repeats a value marked &{name}, and there is none before it; "
                "write a value that begins with * in quotes",
            )
        node, values = self._anchors[name]
        self._count(event, values)
        return node

    def _count(self, event: Any, values: int) -> None:
        """Refuse aliases that multiply ("billion laughs") before anything walks the tree."""
        self._values += values
        if self._values > MOST_VALUES:
            raise self._fatal(
                event, f"more than {MOST_VALUES} values once aliases are followed; use fewer"
            )

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._source, mark.line + 1, mark.column + 1)

    def _complain(self, event: Any, message: str) -> None:
        self._problems.append(problem_at(self._place(event), message))

    def _fatal(self, event: Any, message: str) -> ConfigError:
        return ConfigError([*self._problems, problem_at(self._place(event), message)])
