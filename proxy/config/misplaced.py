"""Tells what a value is that stands in the wrong place, so that no message shows it.  Pure.

A key where the name of its file belongs, a token where a route's name belongs: whoever writes
that needs to know which place is wrong, and their secret must not end up in a log for it.
"""

from __future__ import annotations

import re

LONGEST_PATH = 4096
"""Bytes of a path that Linux takes (PATH_MAX, limits.h)."""
LONGEST_NAME = 255
"""Bytes of one name in a path (NAME_MAX)."""

# In this order: a key in JSON is JSON, a key in PEM has several lines.
_FORMS = (
    (re.compile(r'\s*\{.*"', re.DOTALL), "a JSON document"),
    (re.compile(r"\s*-----BEGIN [A-Z ]*PRIVATE KEY"), "a private key"),
    (re.compile(r"\s*-----BEGIN "), "the content of a PEM file"),
    (re.compile(r"(?i:\s*bearer\s)|\s*(ya29\.|1//0|GOCSPX-|AIza[\w-]{30})"), "a token"),
    # Base64 of '{' and a quote or white space begins so: the parts of a JWT (RFC 7519), or a
    # credentials file in one word.
    (re.compile(r"\s*e(y[A-DI-L]|w[k-r0-3])[A-Za-z0-9+/_-]{10,}"), "a token"),
    # Base64 of '-----'.
    (re.compile(r"\s*LS0tLS[A-Za-z0-9+/=]+"), "the content of a PEM file"),
    # Random text: names and addresses of this length have something between their words.
    (re.compile(r"\s*(?=[A-Za-z]*[0-9])[A-Za-z0-9]{32,}={0,2}\s*\Z"), "a token"),
    (re.compile(r"\s*[A-Za-z0-9+][A-Za-z0-9+/]{30,}={1,2}\s*\Z"), "a token"),
)
_DOCUMENT = re.compile(r"\s*(\{|\w+:\s)")


def looks_like(text: str) -> str:
    """Return what `text` may be that nobody shall see; empty if it is a word like any other."""
    for form, what in _FORMS:
        if form.match(text):
            return what
    lines = len(text.strip().splitlines())
    if lines > 1:
        return f"a text of {lines} lines"
    return f"a text of {len(text)} characters" if len(text) > LONGEST_PATH else ""


def no_file_name(text: str) -> str:
    """Return what `text` may be in place of a file's name; empty if it may be one."""
    if what := looks_like(text):
        return what
    if _DOCUMENT.match(text):
        return "a document"
    longest = max(len(name.encode("utf-8", "replace")) for name in text.split("/"))
    return f"a text of {len(text)} characters" if longest > LONGEST_NAME else ""


def shown(text: str) -> str:
    """Return `text` for a message, or what it looks like instead."""
    return _in_place_of(text, looks_like(text))


def shown_file(text: str) -> str:
    """Return the name of a file for a message, or what stands in its place."""
    return _in_place_of(text, no_file_name(text))


def _in_place_of(text: str, what: str) -> str:
    return f"[{what}, not shown]" if what else text
