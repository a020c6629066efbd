"""Recognises secrets that stand where something else belongs, so that no message shows them.  Pure.

A key in place of the name of its file, a token in place of a route's name: the message has to say
which place is wrong, and must not put the secret into a log.
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
    """Return what kind of secret `text` may be; empty for an ordinary word."""
    for form, what in _FORMS:
        if form.match(text):
            return what
    lines = len(text.strip().splitlines())
    if lines > 1:
        return f"a text of {lines} lines"
    return f"a text of {len(text)} characters" if len(text) > LONGEST_PATH else ""


def no_file_name(text: str) -> str:
    """Return what `text` seems to be instead of a file's name; empty if it may be a name."""
    if what := looks_like(text):
        return what
    if _DOCUMENT.match(text):
        return "a document"
    longest = max(len(name.encode("utf-8", "replace")) for name in text.split("/"))
    return f"a text of {len(text)} characters" if longest > LONGEST_NAME else ""


def shown(text: str) -> str:
    """Return what a message may show of `text`: itself, or what it looks like."""
    return _in_place_of(text, looks_like(text))


def shown_file(text: str) -> str:
    """Return what a message may show of a file's name: itself, or what it looks like."""
    return _in_place_of(text, no_file_name(text))


def _in_place_of(text: str, what: str) -> str:
    return f"[{what}, not shown]" if what else text
