"""The tree of a document: every value with its place, nothing typed or expanded yet.

What a word means is decided by the key that it stands under (`kinds`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from proxy.config.problems import Place
from proxy.frozen import frozen

# YAML 1.2, 10.3.2: how an unquoted word is typed.
_TYPES: tuple[tuple[re.Pattern[str], Literal["null", "boolean", "number"]], ...] = (
    (re.compile(r"~|null|Null|NULL|"), "null"),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), "boolean"),
    (
        re.compile(
            r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        "number",
    ),
)


@frozen
class ScalarNode:
    """One word or text as it was written, before variables are expanded."""

    text: str = field(repr=False)
    place: Place
    plain: bool = False
    """Written without quotes, so that it may stand for a number or a boolean."""
    literal: bool = False
    """From a flag or a variable of its own: ``$`` is a dollar."""

    def type_of(self, text: str) -> Literal["null", "boolean", "number", "string"]:
        """Return the type that YAML gives to `text`, this node's text with its variables expanded.

        A variable may stand for a number or a boolean with quotes, too: inside ``{ }`` and
        ``[ ]`` YAML leaves no other way to write one.
        """
        if self.plain or ("$" in self.text and not self.literal):
            for pattern, name in _TYPES:
                if pattern.fullmatch(text):
                    return name
        return "string"


@frozen
class ListNode:
    """A sequence."""

    items: tuple[Node, ...]
    place: Place


@frozen
class Entry:
    """A key with its place, and its value."""

    place: Place
    value: Node


@frozen
class MapNode:
    """A mapping: keys are plain text, in the order of the file."""

    entries: Mapping[str, Entry]
    place: Place

    def with_entry(self, key: str, entry: Entry) -> MapNode:
        """Return this mapping with `key` replaced or added."""
        return MapNode({**self.entries, key: entry}, self.place)


Node = ScalarNode | ListNode | MapNode
