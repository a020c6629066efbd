"""Puts the README into the metadata in the form that a package index can show.

On GitHub and in a checkout its links are relative.  An index shows the same text somewhere else, so
each link gets the address of the released version, what only GitHub draws is left out, and commands
of a checkout become those of the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_IMAGE = re.compile(r"!\[([^]]*)\]\((?!https?:)([^)#]+)(#[^)]*)?\)\n?")
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!https?:|#|mailto:)([^)]+)\)")
_DIAGRAM = re.compile(r"^```mermaid\n.*?^```\n+", re.MULTILINE | re.DOTALL)
_FROM_CHECKOUT = (
    (re.compile(r"\bpip install \.(?=[`\s])(?: +#.*)?"), "pip install cloud-run-auth-proxy"),
    (re.compile(r'\bmake demo ARGS="([^"]*)"'), r"cloud-run-auth-proxy demo \1"),
    (re.compile(r"\bmake demo\b"), "cloud-run-auth-proxy demo"),
    (re.compile(r"\(Python 3\.11\+ and make\)"), "(Python 3.11+)"),
)
_MARKER = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


class ReadmeHook(MetadataHookInterface):
    """Sets `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README of the version that is built."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_index(text, metadata["urls"]["Source"], metadata["version"]),
        }


def for_index(text: str, source: str, version: str) -> str:
    """Return the README `text` with links into the tag of `version` of the repository `source`."""

    def image(found: re.Match[str]) -> str:
        alternative, target, fragment = found.groups()
        if fragment == "#gh-dark-mode-only":
            return ""  # An index would show it beside its light twin.
        return f"![{alternative}]({source}/raw/v{version}/{target})\n"

    def link(found: re.Match[str]) -> str:
        return f"[{found[1]}]({source}/blob/v{version}/{found[2]})"

    for pattern, command in _FROM_CHECKOUT:
        text = pattern.sub(command, text)
    return _LINK.sub(link, _IMAGE.sub(image, _MARKER.sub("", _DIAGRAM.sub("", text))))
