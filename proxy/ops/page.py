"""The files of the status page, read from the package once each."""

from __future__ import annotations

from functools import cache
from typing import Final

_SCRIPTS: Final = ("app.js", "dom.js", "failures.js", "format.js", "graphs.js", "routes.js")
_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(_SCRIPTS, "text/javascript; charset=utf-8"),
}


NAMES: Final = frozenset(_TYPES)
"""The files that there are."""


def read(name: str) -> tuple[bytes, str] | None:
    """Return a file and its content type; None where the page has no such file."""
    return (_load(name), _TYPES[name]) if name in _TYPES else None


@cache
def _load(name: str) -> bytes:
    from importlib import resources  # noqa: PLC0415 (10 ms, for whoever opens the page)

    return resources.files("proxy.ops").joinpath("static", name).read_bytes()
