"""What a message may say, whichever version of HTTP says it.

Both codecs judge by these, so that a caller in HTTP/2 cannot make the proxy say in HTTP/1.1 what a
caller in HTTP/1.1 may not, and the other way round.  How a message is written is the codecs'
business: llhttp and `http1.heads` know lines, `http2.fields` and `http2.heads` know fields.

Where the RFCs leave something to the recipient, what not every server reads alike is refused.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import RequestMalformed

# RFC 9110, 9.1: a token, and case-sensitive, but not every server reads it so. PRI is reserved
# (RFC 9113, 11.6).
_METHOD: Final = re.compile(rb"(?!PRI$)[!#$%&'*+.^_`|~0-9A-Z-]+")

# RFC 3986, 3.3 and 3.4, and what is no part of either but travels all the same: no fragment, no
# white space, nothing beyond ASCII.
_PATH: Final = re.compile(rb"/[!\"$-~]*")

# RFC 3986, 3.2.2 and 3.2.3, without user information: a name, an address, or one in brackets.
# Stricter than the RFC: no comma, which would read as a list of two hosts elsewhere.
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]+)(?::[0-9]*)?"
)
_NO_HOST: Final = re.compile(rb"(?::[0-9]*)?")
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}

MOST_FIELDS: Final = 1000
"""Fields that a head may have; pseudo-headers count.

Tiny ones cost more than their bytes tell: ten thousand would fit into what `header_bytes` allows,
and everybody would wait while they are read.  Servers take 100 (Apache, Envoy) to 2,000 (Node.js).
"""

# We stop where every recipient still counts right (2^59).
_LENGTH_DIGITS: Final = 18

FRAMING_IN_DISGUISE: Final = frozenset((b"content_length", b"transfer_encoding"))
"""Names (in lower case) that some servers read as those that frame a message.

CGI and its heirs turn hyphens into underscores, and then `Transfer_Encoding` stands where
`Transfer-Encoding` would: to them the message would end elsewhere than for us.
"""


def check_method(method: bytes) -> None:
    """Raise RequestMalformed for what is no method in capitals, or a reserved one."""
    if not _METHOD.fullmatch(method):
        raise RequestMalformed("The method is no token in capitals, or is reserved.")


def is_path(target: bytes) -> bool:
    """Tell whether a target is a path, with or without a query (RFC 9112, 3.2.1)."""
    return _PATH.fullmatch(target) is not None


def is_authority(value: bytes) -> bool:
    """Tell whether it is a host with an optional port."""
    return _AUTHORITY.fullmatch(value) is not None


def is_host_field(value: bytes) -> bool:
    """Tell whether Host may say so: an authority, or none (RFC 9112, 3.2).

    RFC 9113, 8.3.1 allows the latter only to lines.
    """
    return is_authority(value) or _NO_HOST.fullmatch(value) is not None


def host_or_none(value: bytes) -> bytes:
    """Return an authority, empty where the value is none or has been made of a path.

    It is for listeners that are Unix sockets: their callers have only a path to name, and put it
    where a host belongs, as it is or percent-encoded, or leave that empty.  No host has a percent
    sign, although RFC 3986, 3.2.2 allows it.
    """
    return value if is_authority(value) and b"%" not in value else b""


def are_same(one: bytes, other: bytes, scheme: bytes) -> bool:
    """Tell whether two authorities name the same port of the same host (RFC 9110, 4.2.3)."""
    return _normal(one, scheme) == _normal(other, scheme)


def is_scheme(scheme: bytes) -> bool:
    """Tell whether it is one that is served here."""
    return scheme.lower() in _DEFAULT_PORTS


def count(value: bytes) -> int | None:
    """Return a length, or None where not every recipient reads it alike.

    Signs, lists and other digits are none (RFC 9110, 8.6); some take leading zeros for octal.
    """
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        return None
    return None if value.startswith(b"0") and value != b"0" else int(value)


def _normal(authority: bytes, scheme: bytes) -> bytes:
    lower = authority.lower()
    return lower.removesuffix(_DEFAULT_PORTS[scheme.lower()]).removesuffix(b":")
