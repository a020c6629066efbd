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

# What an upstream that speaks only HTTP/2 says before it reads a word: SETTINGS, or GOAWAY where
# it has read one (RFC 9113, 3.4 and 4.1). The length of either is below 65,536.
_FRAME = b"\0"
_FRAME_HEAD = re.compile(rb"\0..[\x04\x07]\0\0\0\0\0", re.DOTALL)
_FRAME_HEAD_BYTES = 9


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
    if data.startswith(_FRAME):
        check_frame(data)
        return
    if _BROKEN.search(data, searched):
        raise UpstreamMalformed("The response head has a bare CR or LF, or a NUL.")
    if not data.startswith(_PROTOCOL[: len(data)]):
        raise UpstreamMalformed("The response does not begin with `HTTP/1.`.")
    if data.find(_LINE_END) >= searched and not _STATUS_LINE.match(data):
        raise UpstreamMalformed("The status line is not `HTTP/1.1 NNN REASON`.")


def check_frame(data: bytes) -> None:
    """Look at what cannot become a response but may be HTTP/2; too short a part may go on.

    Raises:
        UpstreamMalformed: it is HTTP/2, or nothing.
    """
    if _FRAME_HEAD.match(data):
        raise UpstreamMalformed(
            "The upstream answered in HTTP/2.",
            hint="It seems to speak only HTTP/2: set `protocol: h2` on the route.",
        )
    if len(data) >= _FRAME_HEAD_BYTES:
        raise UpstreamMalformed("The response does not begin with `HTTP/1.`.")
