"""Redirects of an upstream to itself, led back through the proxy.

An application makes absolute URLs of the ``Host`` that it sees, which is the upstream's.  A caller
that follows such a redirect leaves the proxy, and arrives without a token.  A route that rewrites
redirects turns what leads to one of its own upstreams into the address that its caller used.

Only ``Location`` is rewritten: it says where to go (RFC 9110, 10.2.2).  ``Content-Location`` says
what the content is (RFC 9110, 8.7), and nobody goes there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

from proxy.config.model import Upstream

_LOCATION: Final = re.compile(rb"(\r\n(?i:location):[ \t]*)([^\r]*)")

# RFC 3986, 4.2: a URL, one without its scheme, or a path alone; a path that is relative to that of
# the request needs no change.
_REFERENCE: Final = re.compile(rb"(?:(?:(?i:(https?)):)?//([^/?#\\]*))?(/[^?#]*)?((?:[?#].*)?)")

# How a path would begin that reads as the host of a URL without its scheme. Browsers take a
# backslash for a slash (URL Standard, 4.4).
_LIKE_HOST: Final[tuple[bytes, ...]] = (b"//", b"/\\")

_PORTS: Final = {b"http": b":80", b"https": b":443"}


@final
class Redirects:
    """What a route's upstreams call themselves, and what the route's callers call them."""

    __slots__ = ("_bases", "_path", "_scheme", "_strip")

    def __init__(self, path: str, upstreams: Iterable[Upstream], *, strip: bool) -> None:
        """`path` is the route's, and `strip` whether it is cut off on the way to `upstreams`."""
        self._path = b"" if path == "/" else path.encode()
        self._strip = strip
        self._bases: dict[bytes, list[bytes]] = {}
        """By origin: the paths that stand before every target, the longest first."""
        for upstream in upstreams:
            origins = {upstream.origin}
            if upstream.origin == f"https://{upstream.host}":
                # TLS ends at Google's front end: applications that do not look at
                # X-Forwarded-Proto take themselves for http://.
                origins.add(f"http://{upstream.host}")
            for origin in origins:
                self._bases.setdefault(origin.encode(), []).append(upstream.base.encode())
        for bases in self._bases.values():
            bases.sort(key=len, reverse=True)

    def led_back(self, fields: bytes, authority: bytes, upstream: Upstream) -> bytes:
        """Return a response's field block with its redirects led back.

        `authority` is the host with its port that the caller named, empty where it named none.
        `upstream` is whose response it is.
        """

        def replaced(found: re.Match[bytes]) -> bytes:
            back = self._led_back(found[2].rstrip(b" \t"), authority, upstream)
            return found[1] + back if back else found[0]

        return _LOCATION.sub(replaced, fields)

    def _led_back(self, value: bytes, authority: bytes, upstream: Upstream) -> bytes:
        """Return where a reference leads through the proxy, empty where it has to stay."""
        found = _REFERENCE.fullmatch(value)
        if found is None:
            return b""
        scheme, host, path, rest = found.groups()
        if host is None:
            return self._of_path(path or b"", [upstream.base.encode()], b"", rest)
        origin = _origin(scheme or upstream.scheme.encode(), host)
        bases = self._bases.get(origin, [])
        named = authority and not authority.startswith(b":")
        return self._of_path(path or b"/", bases, b"http://" + authority if named else b"", rest)

    def _of_path(self, path: bytes, bases: list[bytes], origin: bytes, rest: bytes) -> bytes:
        """Return the reference that a caller uses for a path of the upstream, empty for none."""
        base = next((each for each in bases if path.startswith(each + b"/")), None)
        if base is None:
            return b""
        path = path[len(base) :]
        if self._strip:
            path = self._path + path
        elif path != self._path and not path.startswith(self._path + b"/"):
            return b""  # Another route's, or nobody's.
        if not origin and path.startswith(_LIKE_HOST):
            return b""
        return origin + path + rest


def _origin(scheme: bytes, host: bytes) -> bytes:
    scheme = scheme.lower()
    # An empty port is the scheme's own (RFC 3986, 6.2.3).
    authority = host.lower().removesuffix(_PORTS[scheme]).removesuffix(b":")
    return scheme + b"://" + authority
