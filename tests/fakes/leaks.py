"""Token material where it must never be: one search for whatever the suite reads of the proxy.

Processes, callers and pages hand in what they have read (`look`).  The fixture
``no_token_is_shown`` of tests/conftest.py fails the test in which something was found: a find
within a callback of the loop would otherwise be lost.
"""

from __future__ import annotations

import re

# Header and claims of a JWT are base64 of JSON objects: both begin with `{"`.  Without its
# signature, too, it says more than anybody should read.  `ya29.` begins Google's access tokens.
# `[redacted]` is what the last net of the log and the status page leaves of any of them: that
# it had to hold is a fault, too.  What services echo is a token that Google's front end has made
# useless and says so.
MATERIAL = re.compile(
    rb"eyJ[\w-]++\.eyJ[\w-]++(?!\.SIGNATURE_REMOVED_BY_GOOGLE)"
    rb"|ya29\.[\w-]+|PRIVATE KEY-----|\[redacted\]"
)

_found: list[str] = []


def look(where: str, text: bytes | str) -> None:
    """Search `text`, which came from `where`; a find is kept for the end of the test."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    found = MATERIAL.search(data)
    if found is not None:
        # What was found is not quoted: the report of a failed test is a place like any other.
        before = data[: found.start()][-60:].decode("utf-8", "replace")
        _found.append(f"{where}, after {before!r}")


def take() -> list[str]:
    """Return the places where something was found since the last call, and forget them."""
    places = list(_found)
    _found.clear()
    return places
