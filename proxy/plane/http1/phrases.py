"""Status lines of HTTP/1.1."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
# RFC 9110, 15.5.14 and others, of which Python before 3.13 has the names of earlier RFCs.
_PHRASES |= {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}


# The upstream picks the phrase; the bound keeps a hostile one from filling memory.
@lru_cache(maxsize=256)
def status_line(status: int, phrase: bytes) -> bytes:
    """Return the status line without its CRLF; a missing phrase is the standard's own."""
    return b"HTTP/1.1 %d %b" % (status, phrase or _PHRASES.get(status, b""))
