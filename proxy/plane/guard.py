"""Keeps web pages from calling private services through a developer's localhost.

Any page that a browser shows may send requests to ``http://localhost:8081``; with the proxy
there they would arrive authenticated.  Two things tell a page's request:

- what browsers say: where it comes from (``Origin``, Fetch Standard, 3.2) and what it is for
  (``Sec-Fetch-...``, Fetch Metadata, 2);
- the host that it names.  A page whose own name was pointed at this machine (DNS rebinding)
  counts as same-origin, and its browser says nothing at all with GET over plain http. Names
  and addresses that are loopback's for every browser nobody else can own, and requests to
  those alone always say where they come from (Secure Contexts, 3.1).  So on a loopback listener
  any other name has to be in the configuration.

A client that is no browser may send an ``Origin`` too, that of the address which it calls.  A page
with that very origin came through this listener itself, unless its name was pointed here: so it
passes where the name is a loopback one, whatever ``allow_hosts`` says of others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Mapping
from typing import Final

from proxy.config.model import ANY_HOST, Route
from proxy.errors import MethodNotAllowed, OriginForbidden, UpstreamLoops
from proxy.plane.head import (
    VIA,
    RequestHead,
    ResponseHead,
    block,
    join_repeated,
    pairs,
    tokens,
    values,
)
from proxy.routing import bare_host

# https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header: "none" is the user's own doing.
_OWN_SITES: Final[tuple[bytes, ...]] = (b"none", b"same-origin")

MOST_PROXIES: Final = 16
"""Marks of which a request cannot have more: a loop may come to another instance each time."""

_SHOWN: Final = 100  # Characters of a host in an error.

_MODE: Final = b"sec-fetch-mode"

FETCH_METADATA: Final = b"sec-fetch-"
"""How the names of fields begin in which a browser says what a request is for."""

# Secure Contexts, 3.1, and RFC 6761, 6.3.  No other spelling of an address: browsers have none.
_LOOPBACK: Final = re.compile(rb"(?:.*\.)?localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]|")

# An origin (RFC 6454, 6.2), and a host with its port. Libraries for WebSockets write their own
# schemes, which no page's origin has (RFC 6455, 3).
_ORIGIN: Final = re.compile(rb"(https?|wss?)://([^/?#@]+)")
_HOST_AND_PORT: Final = re.compile(rb"(\[[^\]]+\]|[^:]+)(?::([0-9]*))?")
_PORTS: Final = {b"http": b"80", b"ws": b"80", b"https": b"443", b"wss": b"443"}

_NEVER_SERVED: Final = frozenset((b"CONNECT", b"TRACE"))

# What the listener must judge before a route serves a request: bits of `RequestHead.notable`.
METHOD: Final = 1
HOST: Final = 2
CAME_THROUGH: Final = 4


def notable(method: bytes, authority: bytes, fields: Container[bytes]) -> int:
    """Return what a listener must judge of a request; almost always nothing, which is 0.

    `fields` are the names (in lower case) of those that stand in it.  Looked at once for all
    requests that repeat a head, so that serving one costs a look at a number.
    """
    found = METHOD if method in _NEVER_SERVED else 0
    if not is_loopback(authority):
        found |= HOST
    return found | CAME_THROUGH if VIA in fields else found


def is_loopback(authority: bytes) -> bool:
    """Tell whether a ``Host`` is one of this machine's loopback, or empty as no browser sends it.

    Not names that only /etc/hosts knows, such as ``ip6-localhost``: with GET to those a browser
    does not say where the request comes from.
    """
    return _LOOPBACK.fullmatch(bare_host(authority)) is not None


def is_same_origin(origin: bytes, authority: bytes) -> bool:
    """Tell whether an ``Origin`` names the host and port that are called (RFC 6454, 5).

    `authority` is what ``Host`` says.  TLS may end in front of the listener, so both schemes will
    do; but a ``Host`` without a port means 80, for what is spoken here is plain HTTP: to it the
    page of https://localhost is a foreign one.
    """
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return False
    scheme, named = found.groups()
    one, other = (_HOST_AND_PORT.fullmatch(each) for each in (named, authority.lower()))
    if one is None or other is None:
        return False
    return one[1] == other[1] and (one[2] or _PORTS[scheme]) == (other[2] or _PORTS[b"http"])


def is_from_browser(fields: Mapping[bytes, bytes]) -> bool:
    """Tell whether a browser made a request, by its fields (names in lower case).

    Node.js is none, although its fetch and WebSocket send ``Sec-Fetch-Mode``; it sends nothing
    else of the kind, and cannot navigate.
    """
    return b"origin" in fields or _says_what_for(fields)


def _says_what_for(fields: Mapping[bytes, bytes]) -> bool:
    """Tell whether a browser's fields stand there that say what a request is for."""
    marks = [name for name in fields if name.startswith(FETCH_METADATA)]
    return bool(marks) and (marks != [_MODE] or fields[_MODE].lower() == b"navigate")


def refused_method(method: bytes) -> MethodNotAllowed:
    """Return why no route serves a method that is notable."""
    if method == b"TRACE":  # RFC 9110, 9.3.8
        return MethodNotAllowed(
            "TRACE: its answer would repeat the request, ID token included.",
            hint="Ask the service itself what it receives; no route serves TRACE.",
        )
    # RFC 9110, 9.3.6
    return MethodNotAllowed("CONNECT: the proxy opens no blind tunnels.")


class OriginGuard:
    """The browser rule of one route."""

    __slots__ = ("_allowed", "_credentials")

    def __init__(self, allowed: tuple[str, ...], *, credentials: bool = False) -> None:
        """`allowed` are origins as browsers write them, or ``null``.

        With `credentials` their pages may send cookies and Authorization, and read the answer.
        """
        self._allowed = frozenset(origin.lower().encode() for origin in allowed)
        self._credentials = credentials

    def permission_for(self, head: RequestHead) -> bytes:
        """Return the fields of an answer that let the page behind the request read it.

        They are a field block; empty if no page of another origin is behind it.

        Raises:
            OriginForbidden: a page is behind it that the route does not allow.
        """
        origins = values(head.fields, b"origin")
        if len(origins) == 1 and origins[0].lower() in self._allowed:
            return self._permission(origins[0])
        if origins and not _is_own(origins, head.authority):
            raise OriginForbidden(
                "The request names a browser's Origin that the route does not allow."
            )
        fields = join_repeated((name.lower(), value) for name, value in pairs(head.fields))
        if _says_what_for(fields) and not _is_own_site(head):
            raise OriginForbidden("A browser sent the request, maybe for a page of another site.")
        return b""

    def _permission(self, origin: bytes) -> bytes:
        # Fetch Standard, 3.2.5: with credentials "*" permits nothing, so the origin is named.
        fields = [(b"Access-Control-Allow-Origin", origin)]
        if self._credentials:
            fields.append((b"Access-Control-Allow-Credentials", b"true"))
        return block([*fields, (b"Vary", b"Origin")])


def _is_own(origins: list[bytes], authority: bytes) -> bool:
    """Tell whether an Origin is that of a loopback name which is called: see this module's head."""
    return len(origins) == 1 and is_loopback(authority) and is_same_origin(origins[0], authority)


def _is_own_site(head: RequestHead) -> bool:
    sites = values(head.fields, b"sec-fetch-site")
    return bool(sites) and all(site.lower() in _OWN_SITES for site in sites)


class HostGuard:
    """The hosts that a route serves on a loopback listener, besides the loopback ones."""

    __slots__ = ("_exact", "_suffixes")

    def __init__(self, allowed: Iterable[str]) -> None:
        """`allowed` are names as a route's ``host`` writes them: exact, or ``*.suffix``."""
        names = [name.encode() for name in allowed]
        self._exact = frozenset(name for name in names if not name.startswith(b"*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith(b"*."))

    def refusal(self, authority: bytes) -> OriginForbidden | None:
        """Return why a request to this ``Host``, which is no loopback one, is refused, or None."""
        name = bare_host(authority)
        if name in self._exact or name.endswith(self._suffixes):
            return None
        shown = name.decode("latin-1")[:_SHOWN]
        return OriginForbidden(
            f"The host {shown} is neither a loopback name nor allowed: a web page could have "
            "pointed its own name here.",
            hint=(
                f"Call localhost or 127.0.0.1, or add {shown} to the route's allow_hosts "
                "(allow_hosts: any for every host)."
            ),
        )


class LoopGuard:
    """Recognises requests that have come through a route of this process already.

    A mark for each route, not one for the process: an application may pass all fields of its
    caller on, and be called back by what it called, before it calls another.
    """

    __slots__ = ("_mark", "line")

    def __init__(self) -> None:
        self._mark = os.urandom(8).hex().encode()
        self.line = block([(VIA, self._mark)])
        """What a request carries from here on, as a field block."""

    def refusal(self, head: RequestHead) -> UpstreamLoops | None:
        """Return why the request is refused, None if it is not."""
        marks = tokens(b",".join(values(head.fields, VIA)))
        if self._mark in marks:
            return UpstreamLoops("A loop: the request has come through this route already.")
        if len(marks) >= MOST_PROXIES:
            return UpstreamLoops(
                f"A loop: the request has come through {len(marks)} proxies like this one."
            )
        return None


def host_guard(route: Route) -> HostGuard | None:
    """Return what judges the hosts of a route, None where it serves any that is routed to it."""
    if route.host or ANY_HOST in route.allow_hosts:
        return None
    return HostGuard(route.allow_hosts)


PERMITTED: Final = 204  # RFC 9110, 15.3.5


def is_preflight(head: RequestHead) -> bool:
    """Tell whether a browser asks for permission (Fetch Standard, 3.2.2: CORS-preflight)."""
    return head.method == b"OPTIONS" and bool(values(head.fields, b"access-control-request-method"))


def preflight_answer(head: RequestHead) -> ResponseHead:
    """Return the answer that permits what the browser asks for; the permission comes later."""
    answer = [
        (b"Access-Control-Allow-Methods", values(head.fields, b"access-control-request-method")[0])
    ]
    asked = values(head.fields, b"access-control-request-headers")
    if asked:
        answer.append((b"Access-Control-Allow-Headers", asked[0]))
    answer.append((b"Access-Control-Max-Age", b"600"))
    return ResponseHead(PERMITTED, block(answer), bodyless=True)


def allow(fields: bytes, permission: bytes) -> bytes:
    """Return the response's field block with `permission` (`OriginGuard.permission_for`).

    What it says stands there once: a browser takes two values for none (Fetch Standard, 4.10).
    """
    ours = [(name, name.lower(), value) for name, value in pairs(permission)]
    said = {name for _, name, _ in ours} - {b"vary"}
    kept = [(name, value) for name, value in pairs(fields) if name.lower() not in said]
    varies = tokens(b",".join(values(fields, b"vary")))
    added = [
        (name, value)
        for name, lower, value in ours
        if lower != b"vary" or not (b"origin" in varies or b"*" in varies)
    ]
    return block([*kept, *added])
