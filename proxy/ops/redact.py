"""Takes tokens out of text: the last resort behind "nobody logs a token".

Nothing in this program writes a token into a message, but exceptions of libraries and the
values that a caller chooses end up in log lines too, so every line passes through here.
"""

from __future__ import annotations

import re

# A JWT is base64url of `{"…` and so begins with eyJ (RFC 7519, 3.1); a cut one is redacted too.
# ya29. begins Google's access tokens. A quote or backslash ends a credential, so that a line of
# JSON stays one; \\t and the like are white space inside JSON. A challenge (`Bearer realm=…`, RFC
# 6750, 3) and the words "bearer token" say nothing secret.
_SECRETS = re.compile(
    r"""eyJ[\w-]{10,}(?:\.[\w-]*)*
      | ya29\.[\w.-]+
      | (?P<scheme>\bbearer(?:\s|\\[tnr])+)
        (?!tokens?\b|realm=|error=|scope=|\[redacted\])[^\s"'\\,;]+
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _replacement(found: re.Match[str]) -> str:
    return f"{found['scheme'] or ''}[redacted]"


def redact(text: str) -> str:
    """Return the text without anything that looks like a JWT, an access token or a bearer."""
    # Nearly every line has none of the marks, and looking for them is a small part of the cost of
    # the expression.
    lower = text.lower()
    if "eyj" in lower or "bearer" in lower or "ya29." in lower:
        return _SECRETS.sub(_replacement, text)
    return text
