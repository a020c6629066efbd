"""Quotes what a stranger answered without ever quoting a secret.  Pure.

Error messages name what came instead of a token.  What came may *be* a token, an access
token or a key in the wrong place, so nothing that could be one survives.
"""

from __future__ import annotations

import re

SECRET = "[hidden]"  # noqa: S105 (what stands where a secret stood)

FIRST_WORDS = 60
"""Characters of a foreign body that are shown: enough to tell an HTML page from a JSON error."""

MESSAGE = 240
"""Characters of an error message of Google's that are shown."""

EXPLANATION = 800
"""Characters of what the metadata server says of a failure.  GKE's explanations have up to 400."""

_SECRETS = re.compile(
    r"""
      e[wy][A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*   # a JWT: base64url of '{' begins ew or ey
    | ya29\.[\w.-]+                                 # Google's access tokens
    | \b1//[\w-]+                                   # Google's refresh tokens
    | (?=[A-Za-z_+-]*[0-9])[\w+-]{20,}              # other random text: long, with a digit in it
    | [A-Za-z0-9+_]{40,}
    """,
    re.VERBOSE,
)
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f�]+")
_PROSE = re.compile(r"[\s<{]")


def redact(text: str, limit: int = MESSAGE) -> str:
    """Return `text` on one line, without anything token-shaped, cut to `limit` characters."""
    # Hidden before it is cut: a cut token would be too short to be recognised.
    line = _SECRETS.sub(SECRET, _UNPRINTABLE.sub(" ", text).strip())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def first_words(body: bytes | str, limit: int = FIRST_WORDS) -> str:
    """Return the beginning of `body` in quotes, or its length where it is one single word.

    `limit` is how many characters are shown.

    A page or a sentence has spaces or markup.  A single word may be a secret of any shape,
    short ones included, so of that only the length is told.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    text = text.strip()
    if not text:
        return "nothing"
    if not _PROSE.search(text):
        return f"one word of {len(text)} characters"
    return f"'{redact(text, limit)}'"
