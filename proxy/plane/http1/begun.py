"""Refusing at once what can never become a head, instead of waiting for its end.

A head with bare LFs, a TLS handshake or a line of HTTP/0.9 never comes to an empty line of
CRLF.  Only heads that did not come in one segment are looked at here; what passes is still
parsed when it is whole.
"""

from __future__ import annotations

import re

from proxy.errors import RequestMalformed, UpstreamMalformed

# RFC 9112, 2.2 and RFC 9110, 5.5. A CR at the end may be half of a line end.
_BROKEN = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")

_METHOD = re.compile(rb"\r?|(?:\r\n)?(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: .*)?)?", re.DOTALL)
_REQUEST_LINE = re.compile(rb"\S+ \S+ HTTP/1\.[01]\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: [^\r]*)?\r\n")
_LONGEST_METHOD = 64
_PROTOCOL = b"HTTP/1."

_LINE_END = b"\r\n"


def check_request(data: bytes, searched: int) -> None:
    """Look at an incomplete request head; before `searched` it was looked at already.

    Raises:
        RequestMalformed: it cannot become a request.
    """
    if _BROKEN.search(data, searched):
        raise RequestMalformed("The request head has a bare CR or LF, or a NUL.")
    start = 2 if data.startswith(_LINE_END) else 0
    if _METHOD.fullmatch(data[:_LONGEST_METHOD]) is None:
        raise RequestMalformed("The request does not begin with a method.")
    if data.find(_LINE_END, start) >= searched and not _REQUEST_LINE.match(data, start):
        raise RequestMalformed("The request line is not `METHOD TARGET HTTP/1.1`.")


def check_response(data: bytes, searched: int) -> None:
    """Look at an incomplete response head; see `check_request`.

    Raises:
        UpstreamMalformed: it cannot become a response.
    """
    if _BROKEN.search(data, searched):
        raise UpstreamMalformed("The response head has a bare CR or LF, or a NUL.")
    if not data.startswith(_PROTOCOL[: len(data)]):
        raise UpstreamMalformed("The response does not begin with `HTTP/1.`.")
    if data.find(_LINE_END) >= searched and not _STATUS_LINE.match(data):
        raise UpstreamMalformed("The status line is not `HTTP/1.1 NNN REASON`.")
