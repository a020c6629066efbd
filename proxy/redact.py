r"""Takes secrets out of text: out of our own lines, and more strictly out of what strangers wrote.

Nothing in this program writes a token into a message.  But exceptions of libraries, the values that
a caller chooses, and what came in place of a token end up in log lines and errors too: `redact` is
the last resort for every line, `redact_foreign` is for what a stranger answered.  Pure.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"
"""What stands where a secret stood."""

FIRST_WORDS = 60
"""Characters of a foreign body that are shown: enough to tell an HTML page from a JSON error."""

MESSAGE = 240
"""Characters of an error message of Google's that are shown."""

EXPLANATION = 800
"""Characters of what the metadata server says of a failure.  GKE's explanations have up to 400."""

# A JWT is base64url of `{"…` and so begins with eyJ (RFC 7519, 3.1); a cut one is redacted too, and
# two parts of one however short they are.
# A quote or backslash ends a credential, so that a line of JSON stays one; \\t and the like are
# white space inside JSON. A challenge (`Bearer realm=…`, RFC 6750, 3) and the words "bearer token"
# say nothing secret.
_TOKENS = r"""
    (?i:eyJ(?:[\w-]{10,}|[\w-]*\.eyJ)[\w-]*(?:\.[\w-]*)*)
  | (?i:ya29\.[\w.-]+)                              # Google's access tokens
  | \b1//0[\w-]+                                    # Google's refresh tokens
  | (?P<scheme>(?i:\bbearer)(?:\s|\\[tnr])+)
    (?!(?i:tokens?\b|realm=|error=|scope=)|\[redacted\])[^\s"'\\,;]+
"""
# Every token contains one of these, in lower case. Most lines contain none, and looking for them
# costs a small part of the expression.
_MARKS = ("eyj", "bearer", "ya29.", "1//0")

# Where nothing useful is lost, whatever might be a secret is taken for one.
_FOREIGN = (
    _TOKENS
    + r"""
  | e[wy][A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*     # base64url of '{' and white space, too
  | \b1//[\w-]+
  | (?=[A-Za-z_+-]*[0-9])[\w+-]{20,}                # other random text: long, with a digit in it
  | [A-Za-z0-9+_]{40,}
"""
)
_UNPRINTABLE = r"[\s\x00-\x1f\x7f-\x9f�]+"
_PROSE = re.compile(r"[\s<{]")
# `re` compiles the others when they are first needed, which in most runs is never: a millisecond
# of each start.


def redact(text: str) -> str:
    """Return the text without anything that looks like a JWT, Google's token or a bearer token."""
    lower = text.lower()
    if any(mark in lower for mark in _MARKS):
        return re.sub(_TOKENS, _replacement, text, flags=re.VERBOSE)
    return text


def redact_foreign(text: str, limit: int = MESSAGE) -> str:
    """Return a stranger's text on one line without any secret, cut to `limit` characters."""
    # Hidden before it is cut: a cut token would be too short to be recognised.
    line = re.sub(_UNPRINTABLE, " ", text).strip()
    line = re.sub(_FOREIGN, _replacement, line, flags=re.VERBOSE)
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
    return f"'{redact_foreign(text, limit)}'"


def _replacement(found: re.Match[str]) -> str:
    return f"{found['scheme'] or ''}{REDACTED}"
