"""Status lines of HTTP/1.1."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


# The upstream picks the phrase; the bound keeps a hostile one from filling memory.
@lru_cache(maxsize=256)
def status_line(status: int, phrase: bytes) -> bytes:
    """Return the status line without its CRLF; a missing phrase is the standard's own."""
    return b"HTTP/1.1 %d %b" % (status, phrase or _PHRASES.get(status, b""))
