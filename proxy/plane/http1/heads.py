"""Reading and writing HTTP/1.x heads: llhttp validates, a few compiled expressions look things up.

A head is given to llhttp whole, up to and including its empty line, and is only looked at
after llhttp accepted all of it.  llhttp in its strict default refuses (tests/wire holds
every row): bare CR or LF, NUL, obs-fold, space before the colon, names that are no tokens,
Content-Length that is repeated, signed, listed or beside Transfer-Encoding.  So in what is
left every line ends in CRLF and begins with a token and a colon, and cutting whole lines out
of it by a regular expression cannot change the meaning of another line.

What llhttp lets through and this module decides is marked by "we".

Peers repeat themselves, and what they repeat is read once: the field block of a connection's last
request, and the lines of responses.  A head that does not come in one segment is looked at before
it is whole: what can never become one (bare LFs, a TLS handshake, a line of HTTP/0.9) might never
come to its empty line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final, final

from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from proxy.errors import HeadersTooLarge, RequestMalformed, UpstreamLoops, UpstreamMalformed
from proxy.plane.guard import is_from_browser, notable
from proxy.plane.head import LOOP, OURS, RequestHead, ResponseHead, join_repeated, tokens
from proxy.plane.message import (
    FRAMING_IN_DISGUISE,
    MOST_FIELDS,
    are_same,
    check_method,
    count,
    host_or_none,
    is_authority,
    is_host_field,
)
from proxy.unreached import WRITE_HTTPS, is_tls

_LINE_END: Final = b"\r\n"

# Bytes of a head that cannot have so many.
_FEW_BYTES: Final = 4 * MOST_FIELDS

# Members of Connection that name no other field, or one that is handled anyway.
_OBEYED: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))

# What Connection says almost always, and whether the connection persists then.
_PLAIN: Final = {b"keep-alive": True, b"close": False, b"Keep-Alive": True, b"Close": False}

# A peer that names one of these in Connection does not get it removed: they frame and route
# the message, and without them it would end or go elsewhere than its sender meant.
_UNREMOVABLE: Final = frozenset((b"content-length", b"host"))


class _Probe:
    """Tells whether a parser came to the end of the head it was fed."""

    complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


# One for the process: feeding a head is one synchronous call.
_PROBE: Final = _Probe()


def without(fields: bytes, names: list[bytes]) -> bytes:
    """Return the field block without the fields that Connection named (lower case)."""
    dropped = frozenset(names) - _UNREMOVABLE
    kept = [
        line for line in fields.split(b"\r\n")[1:] if line.partition(b":")[0].lower() not in dropped
    ]
    return b"".join([b"\r\n" + line for line in kept])


# --- requests --------------------------------------------------------------------------------

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])(?=\r\n)")
_ABSOLUTE: Final = re.compile(rb"(?i:(https?))://([^/?#]*)(.*)", re.DOTALL)

_REQUEST_LOOKUP: Final = re.compile(
    rb"\r\n(?i:(host|connection|content[-_]length|transfer[-_]encoding|te|upgrade|expect"
    rb"|origin|sec-fetch-[a-z-]+|x-auth-proxy-via)):[ \t]*([^\r]*)"
)

# Methods that llhttp knows, out of those that somebody sends.
_METHODS: Final = frozenset(
    (b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE")
)

# How a request begins, its method at least in part; behind an empty line, if need be.
_BEGIN: Final = re.compile(rb"\r?|(?:\r\n)?(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: .*)?)?", re.DOTALL)
_LONGEST_METHOD: Final = 64

# A target in origin form, every byte of which llhttp takes for a part of it (tests/unit holds
# them equal); a fragment is left to `parse_request`, which refuses it.
_REPEATED_LINE: Final = re.compile(rb"([A-Z]+) (/[!\"$-~]*) HTTP/(1\.[01])")

# Longer blocks are rare, and an idle connection keeps its last block, and the head it was in.
_LONGEST_BLOCK: Final = 4096


@final
class Recall:
    """Reads the request heads of one connection, fields that repeat only once.

    A client sends most of its requests with the same fields, down to the byte, and another target.
    What a field block means depends on nothing else in the head but the method and the version, so
    the meaning of a connection's last one is kept, and only the new request line is looked at: a
    seventh of an exchange's work in Python.  llhttp has accepted that very block behind that
    method.
    """

    __slots__ = ("_block", "_head", "_known", "_on_path")

    def __init__(self, *, on_path: bool = False) -> None:
        """`on_path` is `parse_request`'s."""
        self._on_path = on_path
        self._head = b""
        """The last head that was parsed, if it was short."""
        self._block = b""
        """The last head's lines behind its request line."""
        self._known: RequestHead | None = None
        """What it said."""

    def read(self, head: bytes) -> RequestHead:
        """Return what `parse_request` returns, and raise what it raises."""
        known = self._known
        if known is None:
            return self._learn(head)
        if head == self._head:
            return known  # Nobody changes what a head says.
        if head.endswith(self._block):
            line = _REPEATED_LINE.fullmatch(head, 0, len(head) - len(self._block))
            if line is not None:
                method, target, version = line.groups()
                if method == known.method and version == known.version:
                    return known.again(target, len(head))
        return self._learn(head)

    def _learn(self, head: bytes) -> RequestHead:
        result = parse_request(head, on_path=self._on_path)
        end = head.index(b"\r\n")
        # What an absolute target says comes before the fields; CONNECT has no target to vary.
        if len(head) - end <= _LONGEST_BLOCK and _REPEATED_LINE.fullmatch(head, 0, end):
            self._head = head if len(head) <= _LONGEST_BLOCK else b""
            self._block = head[end:]
            self._known = result
        return result


def parse_request(head: bytes, *, on_path: bool = False) -> RequestHead:
    """Return what the bytes of one request head say, its empty line included.

    It came `on_path`, through a Unix socket, or through a port; see `message.host_or_none`.

    Raises:
        RequestMalformed: they are not exactly one head that has exactly one meaning.
        HeadersTooLarge: there are more fields than `MOST_FIELDS`.
    """
    # Its first line and its empty one are none.
    if len(head) > _FEW_BYTES and head.count(_LINE_END) > MOST_FIELDS + 2:
        raise HeadersTooLarge(f"It has more than {MOST_FIELDS} fields.")
    line = _REQUEST_LINE.match(head)
    if line is None:
        _check_plain(head)
        raise RequestMalformed("The request line is not `METHOD TARGET HTTP/1.1`.")
    method, target, minor = line.groups()
    # To llhttp a method that it does not know is an error; only CONNECT and PRI mean something
    # to it, so any other may stand for one that is nobody's.
    _validate_request(head if method in _METHODS else _renamed(method, head))
    result = RequestHead(method, target, head[line.end() : -4])
    result.raw_size = len(head)
    if minor == b"0":
        result.version = b"1.0"
        result.keep_alive = False
    found = _look_up(result)
    _set_target(result, found.get(b"host"), on_path=on_path)
    result.notable = notable(method, result.authority, found)
    return result


def _validate_request(head: bytes) -> None:
    """Have llhttp judge the head."""
    _PROBE.complete = False
    try:
        HttpRequestParser(_PROBE).feed_data(head)
    except HttpParserUpgrade:
        # Not an error: the head offers an upgrade (or is CONNECT) and has no body.
        pass
    except HttpParserError as error:
        raise RequestMalformed(f"The head was not accepted: {error}.") from None
    if not _PROBE.complete:
        raise RequestMalformed("The request head ends before its fields do.")


def _renamed(method: bytes, head: bytes) -> bytes:
    """Return the head with a method that llhttp knows."""
    check_method(method)
    return b"POST" + head[len(method) :]


def _look_up(head: RequestHead) -> Mapping[bytes, bytes]:
    """Fill in what the fields say about the message itself; return those that were looked at."""
    pairs = [
        (name.lower(), value.strip(b" \t")) for name, value in _REQUEST_LOOKUP.findall(head.fields)
    ]
    found = dict(pairs)
    if len(found) < len(pairs):
        found = join_repeated(pairs)
        if [name for name, _ in pairs].count(b"host") > 1:
            raise RequestMalformed("The request has two Host fields.")
    if not FRAMING_IN_DISGUISE.isdisjoint(found):
        raise RequestMalformed("A field's name reads like one that frames the message elsewhere.")
    _set_framing(head, found.get(b"content-length"), found.get(b"transfer-encoding"))
    if b"te" in found:
        head.has_trailers_te = b"trailers" in tokens(found[b"te"])
    connection = found.get(b"connection")
    if connection in _PLAIN:
        head.keep_alive = _PLAIN[connection]
    elif connection is not None:
        _set_connection(head, connection, found.get(b"upgrade", b""))
    head.expects_continue = b"expect" in found
    head.guarded = is_from_browser(found)
    return found


def _set_framing(head: RequestHead, length: bytes | None, coding: bytes | None) -> None:
    """Set where the body ends (RFC 9112, 6.3); llhttp has refused both, and two lengths."""
    if coding is not None:
        _check_coding(coding, head.version)
        head.chunked = True
        head.length = None
    elif length is not None:
        head.length = count(length)
        if head.length is None:
            raise RequestMalformed("Content-Length is beyond counting, or has leading zeros.")


def _check_coding(coding: bytes, version: bytes) -> None:
    # RFC 9112, 6.1: "chunked" must come once and last, and HTTP/1.0 knows no codings. llhttp
    # accepts `gzip, chunked`; we do not decode gzip, and to drop or to keep it could both be
    # read otherwise by the upstream.
    if coding.strip(b" \t").lower() != b"chunked":
        raise RequestMalformed("Transfer-Encoding is not `chunked`, once.")
    if version == b"1.0":
        raise RequestMalformed("An HTTP/1.0 request cannot have Transfer-Encoding.")


def _set_connection(head: RequestHead, connection: bytes, upgrade: bytes) -> None:
    """Split Connection into what the codec itself obeys and the fields that it names.

    RFC 9110, 7.8: nobody may act on an Upgrade that Connection does not name, and anybody may
    ignore one. We do where the request has a body: some servers (uvicorn with httptools) do not
    read it as such, but as the next request.
    """
    names = tokens(connection)
    head.keep_alive = b"close" not in names and (head.keep_alive or b"keep-alive" in names)
    if upgrade and b"upgrade" in names and head.version == b"1.1" and head.length == 0:
        # `h2c` by upgrade is obsolete (RFC 9113, 3.1) and is not passed on: the upstream
        # would answer in HTTP/2 on a connection whose caller is counted as HTTP/1.1.
        offers = [offer.strip() for offer in upgrade.split(b",")]
        head.upgrade = b", ".join([o for o in offers if o and o.lower() != b"h2c"])
    head.connection = b",".join([name for name in names if name not in _OBEYED])


def _set_target(head: RequestHead, host: bytes | None, *, on_path: bool) -> None:
    """Bring the target into origin form and find the authority (RFC 9112, 3.2 and 3.3)."""
    _check_host(head, host, on_path=on_path)
    target = head.target
    if b"#" in target:
        raise RequestMalformed("The request target has a fragment.")
    if head.method == b"CONNECT":
        # RFC 9110, 9.3.6: what follows is for the tunnel that is not opened, and no request.
        head.keep_alive = False
    elif not target.startswith(b"/") and not (target == b"*" and head.method == b"OPTIONS"):
        _set_absolute(head, target, on_path=on_path)


def _check_host(head: RequestHead, host: bytes | None, *, on_path: bool) -> None:
    if host is None:
        if head.version == b"1.1":
            raise RequestMalformed("An HTTP/1.1 request needs a Host field.")
    elif on_path:
        head.authority = host_or_none(host)
    elif not is_host_field(host):
        raise RequestMalformed("The Host field is not a host with an optional port.")
    else:
        head.authority = host


def _set_absolute(head: RequestHead, target: bytes, *, on_path: bool) -> None:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RequestMalformed("The request target is neither a path nor an http URL.")
    scheme, authority, rest = absolute.groups()
    host = head.authority
    if on_path:
        authority = host_or_none(authority) or host
    elif not is_authority(authority):
        raise RequestMalformed("The URL in the request line has no valid host.")
    # RFC 9112, 3.2.2 lets a proxy ignore Host here. We refuse a contradiction: what was meant
    # cannot be known, and nothing that speaks through HTTP_PROXY sends one.
    if host and not are_same(host, authority, scheme):
        raise RequestMalformed("Host contradicts the URL in the request line.")
    head.authority = authority
    # RFC 9112, 3.2.4: OPTIONS for a URL without a path is for the server as a whole.
    empty = b"*" if head.method == b"OPTIONS" and not rest else b"/" + rest
    head.target = rest if rest.startswith(b"/") else empty
    head.path = head.target.partition(b"?")[0]


def check_request(data: bytes, searched: int) -> None:
    """Look at an incomplete request head; before `searched` it was looked at already.

    What passes is still parsed when it is whole.

    Raises:
        RequestMalformed: it cannot become a request.
    """
    _check_plain(data)
    if _is_broken(data, searched):
        raise RequestMalformed("The request head has a bare CR or LF, or a NUL.")
    start = 2 if data.startswith(_LINE_END) else 0
    if _BEGIN.fullmatch(data[:_LONGEST_METHOD]) is None:
        raise RequestMalformed("The request does not begin with a method.")
    if data.find(_LINE_END, start) >= searched and not _REQUEST_LINE.match(data, start):
        raise RequestMalformed("The request line is not `METHOD TARGET HTTP/1.1`.")


def _is_broken(data: bytes, searched: int) -> bool:
    """Tell whether a CR or LF stands alone, or a NUL anywhere (RFC 9112, 2.2; RFC 9110, 5.5).

    Counted, because an expression that looks at what stands around each takes thirty times as long.
    """
    feeds = data.count(b"\n", searched)
    returns = data.count(b"\r", searched) - data.endswith(b"\r", searched)  # Half of a line end?
    pairs = data.count(_LINE_END, searched)
    straddles = searched > 0 and data.startswith(_LINE_END, searched - 1)
    return feeds != pairs + straddles or returns != pairs or data.find(b"\0", searched) >= 0


def _check_plain(data: bytes) -> None:
    """Raise RequestMalformed if a caller begins to speak TLS."""
    if is_tls(data):
        raise RequestMalformed(
            "The caller speaks TLS, and this listener plain HTTP.",
            hint="Call http:// instead of https://: the proxy speaks TLS to the upstream itself.",
        )


# --- responses -------------------------------------------------------------------------------

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_LENGTH_LINE: Final = re.compile(rb"\r\n(?i:content-length):[^\r]*")
_PROTOCOL: Final = b"HTTP/1."

# What an upstream that speaks only HTTP/2 says before it reads a word: SETTINGS, or GOAWAY where
# it has read one (RFC 9113, 3.4 and 4.1). The length of either is below 65,536.
_FRAME: Final = b"\0"
_FRAME_HEAD: Final = re.compile(rb"\0..[\x04\x07]\0\0\0\0\0", re.DOTALL)
_FRAME_HEAD_BYTES: Final = 9

# RFC 9110, 7.6.1, and what older specifications and Go's and nginx' practice add to it.
_HOP_BY_HOP: Final = frozenset(
    (
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade",
        b"proxy-authenticate", b"proxy-authentication-info",
    )
)  # fmt: skip

# Lines are remembered up to this length and number; then all are forgotten, so that lines which
# no other response has (a date, a trace) cannot fill memory.
_LONGEST_LINE: Final = 128
_MOST_LINES: Final = 1024

# So many lines are taken out of the list one by one, which is quickest for what is usual.
_FEW: Final = 8

# RFC 9110, 15.5.14 and others, of which Python before 3.13 has the names of earlier RFCs.
_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus} | {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    422: b"Unprocessable Content",
}

ParsedResponse = tuple[ResponseHead, bool, bool, bytes]
"""A head; whether the connection persists after it; whether its body is chunked; and the value of
Keep-Alive, empty where there is none."""


def parse_response(head: bytes, method: bytes) -> ParsedResponse:
    """Return what the bytes of one response head say; `method` is the request's.

    Raises:
        UpstreamMalformed: they are not exactly one head that has exactly one meaning.
    """
    _validate_response(head)
    lines = head[:-4].split(b"\r\n")
    if len(lines) > MOST_FIELDS + 1:
        raise UpstreamMalformed(f"The response head has more than {MOST_FIELDS} fields.")
    keep_alive, status, phrase, bodyless = _status_line(lines.pop(0))
    length, hops = take_specials(lines)
    fields = b"\r\n" + b"\r\n".join(lines) if lines else b""
    result = ResponseHead(status, fields, phrase, length)
    chunked, promise = False, b""
    if hops:
        keep_alive, chunked = _apply_hops(result, hops, is_1_1=keep_alive)
        promise = hops.get(b"keep-alive", b"")
    if bodyless or method == b"HEAD":
        _set_bodyless(result)
        chunked = False
    return result, keep_alive, chunked, promise


def parse_status(head: bytes) -> tuple[int, bytes]:
    """Return status and phrase of one response head whose fields do not matter.

    Raises:
        UpstreamMalformed: they are not exactly one head.
    """
    _validate_response(head)
    _, status, phrase, _ = _status_line(head.partition(_LINE_END)[0])
    return status, phrase


def _validate_response(head: bytes) -> None:
    _PROBE.complete = False
    try:
        HttpResponseParser(_PROBE).feed_data(head)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        if head.startswith(b"\0"):
            _check_frame(head)
        _check_untold_tls(head)
        raise UpstreamMalformed(f"The head was not accepted: {error}.") from None
    if not _PROBE.complete:
        raise UpstreamMalformed("The response head ends before its fields do.")


# The upstream picks the phrase; the bound keeps a hostile one from filling memory.
@lru_cache(maxsize=256)
def _status_line(line: bytes) -> tuple[bool, int, bytes, bool]:
    """Return whether it is HTTP/1.1, status, phrase, and whether no body can follow."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise UpstreamMalformed("The status line is not `HTTP/1.1 NNN REASON`.")
    minor, digits, phrase = found.groups()
    status = int(digits)
    bodyless = status < 200 or status in (204, 304)  # noqa: PLR2004 (RFC 9110, 15.2 to 15.4.5)
    return minor == b"1", status, phrase or b"", bodyless


@final
class _Line:
    """What a field line of responses means, which depends on nothing else: so it is kept.

    Most lines of a response stood in others before: the server's name, the content's type, what
    Connection says.  To look a line up costs a fraction of what an expression takes to search for
    the ten names that matter.
    """

    __slots__ = ("length", "name", "value")

    def __init__(self, name: bytes = b"", value: bytes = b"", length: int | None = None) -> None:
        self.name = name
        """In lower case, of a field that is not passed on as it came; else empty."""
        self.value = value
        self.length = length
        """Bytes of the body, where the line says so."""


_ORDINARY: Final = _Line()

_known: Final[dict[bytes, _Line]] = {}
_NONE: Final[Mapping[bytes, bytes]] = {}


def take_specials(lines: list[bytes]) -> tuple[int | None, Mapping[bytes, bytes]]:
    """Return the length of the body, and the fields that are not passed on.

    Those are about the connection, or in the proxy's own name.  `lines` are those of a head that
    llhttp has accepted: a name, a colon, a value, and one length at most.  Afterwards they are
    without those fields.  Of such a field that is repeated the values are joined (RFC 9110, 5.3).

    Raises:
        UpstreamMalformed: a length that not everybody reads alike.
        UpstreamLoops: the upstream is a proxy, and the request went round in a circle.
    """
    length: int | None = None
    hops: list[tuple[bytes, _Line]] = []
    for line in lines:
        known = _known.get(line)
        if known is None:
            known = _learn(line)
        if known is _ORDINARY:
            continue
        if known.length is not None:
            length = known.length
        else:
            hops.append((line, known))
    if not hops:
        return length, _NONE
    if len(hops) > _FEW:
        return length, _take_many(lines, hops)
    found: dict[bytes, bytes] = {}
    for line, known in hops:
        lines.remove(line)
        name, value = known.name, known.value
        found[name] = found[name] + b", " + value if name in found else value
    return length, found


def _take_many(lines: list[bytes], hops: list[tuple[bytes, _Line]]) -> Mapping[bytes, bytes]:
    """As the end of `take_specials`, in time that is linear in the lines."""
    gone = {line for line, _ in hops}
    lines[:] = [line for line in lines if line not in gone]
    return join_repeated((known.name, known.value) for _, known in hops)


def _learn(line: bytes) -> _Line:
    name, _, value = line.partition(b":")
    key = name.lower()
    known = _ORDINARY
    if key == LOOP:
        raise UpstreamLoops("A loop, says the upstream, which is a proxy like this one.")
    if key in _HOP_BY_HOP or key.startswith(OURS):
        known = _Line(key, value.strip(b" \t"))
    elif key == b"content-length":
        length = count(value.strip(b" \t"))
        if length is None:
            raise UpstreamMalformed("Content-Length is beyond counting, or has leading zeros.")
        known = _Line(length=length)
    if len(line) <= _LONGEST_LINE:
        if len(_known) >= _MOST_LINES:
            _known.clear()
        _known[line] = known
    return known


def _apply_hops(
    head: ResponseHead, hops: Mapping[bytes, bytes], *, is_1_1: bool
) -> tuple[bool, bool]:
    """Apply the fields that are about the connection to the head.

    Returns whether the connection persists, and whether the body is chunked.
    """
    keep_alive = is_1_1
    connection = hops.get(b"connection")
    if connection in _PLAIN:
        keep_alive = _PLAIN[connection]
    elif connection is not None:
        names = tokens(connection)
        keep_alive = b"close" not in names and (keep_alive or b"keep-alive" in names)
        head.fields = without(head.fields, [name for name in names if name not in _OBEYED])
    if head.status == 101:  # noqa: PLR2004 (RFC 9110, 15.2.2)
        head.switching = hops.get(b"upgrade", b"")
    coding = hops.get(b"transfer-encoding")
    if coding is None:
        return keep_alive, False
    if coding.lower() != b"chunked":
        raise UpstreamMalformed("Transfer-Encoding is not `chunked`, once.")
    if not is_1_1:
        raise UpstreamMalformed("An HTTP/1.0 response cannot have Transfer-Encoding.")
    if head.length is not None:
        raise UpstreamMalformed("The response has Transfer-Encoding and Content-Length.")
    return keep_alive, True


def _set_bodyless(head: ResponseHead) -> None:
    """Note that no body follows, whatever the fields say (RFC 9112, 6.3)."""
    head.bodyless = True
    if head.status < 200 or head.status == 204:  # noqa: PLR2004 (RFC 9110, 15.2 and 15.3.5)
        # RFC 9110, 8.6: a length must not stand there, so it is not passed on.
        if head.length is not None:
            head.fields = _LENGTH_LINE.sub(b"", head.fields)
        head.length = None


def check_response(data: bytes, searched: int) -> None:
    """Look at an incomplete response head; see `check_request`.

    Raises:
        UpstreamMalformed: it cannot become a response.
    """
    if data.startswith(_FRAME):
        _check_frame(data)
        return
    _check_untold_tls(data)
    if _is_broken(data, searched):
        raise UpstreamMalformed("The response head has a bare CR or LF, or a NUL.")
    if not data.startswith(_PROTOCOL[: len(data)]):
        raise UpstreamMalformed("The response does not begin with `HTTP/1.`.")
    end = data.find(_LINE_END)
    if end >= searched and not _STATUS_LINE.fullmatch(data, 0, end):
        raise UpstreamMalformed("The status line is not `HTTP/1.1 NNN REASON`.")


def _check_untold_tls(data: bytes) -> None:
    """Raise UpstreamMalformed if an upstream answers plain HTTP with an alert of TLS."""
    if is_tls(data):
        raise UpstreamMalformed(
            "The upstream speaks TLS on this port, and was spoken to in plain HTTP.",
            hint=WRITE_HTTPS,
        )


def _check_frame(data: bytes) -> None:
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


# The upstream picks the phrase; the bound keeps a hostile one from filling memory.
@lru_cache(maxsize=256)
def status_line(status: int, phrase: bytes) -> bytes:
    """Return the status line without its CRLF; a missing phrase is the standard's own."""
    return b"HTTP/1.1 %d %b" % (status, phrase or _PHRASES.get(status, b""))
