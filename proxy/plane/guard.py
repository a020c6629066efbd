"""Keeps web pages from calling private services through a developer's localhost.

Any page that a browser shows may send requests to ``http://localhost:8081``; with the proxy
there they would arrive authenticated.  Browsers say where a request comes from (``Origin``,
Fetch Standard, 3.2; ``Sec-Fetch-Site``, Fetch Metadata, 2.4), other clients do not.
"""

from __future__ import annotations

from proxy.errors import MethodNotAllowed, OriginForbidden
from proxy.plane.head import RequestHead, ResponseHead, block, pairs, values

_FOREIGN_SITES = (b"cross-site", b"same-site")

_NEVER_SERVED = frozenset((b"CONNECT", b"TRACE"))


def is_notable(method: bytes) -> bool:
    """Tell whether a request has anything that the listener must judge before a route serves it.

    Judged once for all requests that repeat a head, so that serving one costs a look at a flag.
    """
    return method in _NEVER_SERVED


def refused_method(method: bytes) -> MethodNotAllowed | None:
    """Return why no route serves the method, None where that is up to the route."""
    if method == b"CONNECT":  # RFC 9110, 9.3.6
        return MethodNotAllowed("CONNECT is not supported: the proxy opens no blind tunnels.")
    if method == b"TRACE":  # RFC 9110, 9.3.8
        return MethodNotAllowed(
            "TRACE is not supported: its answer repeats the request, ID token included.",
            hint="Ask the service itself what it receives; no route serves TRACE.",
        )
    return None


class OriginGuard:
    """The browser rule of one route."""

    __slots__ = ("_allowed",)

    def __init__(self, allowed: tuple[str, ...]) -> None:
        """`allowed` are origins as browsers write them, or ``null``."""
        self._allowed = frozenset(origin.lower().encode() for origin in allowed)

    def origin_of(self, head: RequestHead) -> bytes:
        """Return the allowed origin that the request names, empty if no page is behind it.

        Raises:
            OriginForbidden: a page is behind it that the route does not allow.
        """
        origins = values(head.fields, b"origin")
        if origins:
            if len(origins) == 1 and origins[0].lower() in self._allowed:
                return origins[0]
            raise OriginForbidden(
                "The request names a browser's Origin that the route does not allow."
            )
        if any(site.lower() in _FOREIGN_SITES for site in values(head.fields, b"sec-fetch-site")):
            raise OriginForbidden("A browser sent the request for a page of another site.")
        return b""


def is_preflight(head: RequestHead) -> bool:
    """Tell whether a browser asks for permission (Fetch Standard, 3.2.2: CORS-preflight)."""
    return head.method == b"OPTIONS" and bool(values(head.fields, b"access-control-request-method"))


def preflight_answer(head: RequestHead) -> ResponseHead:
    """Return the answer that permits what the browser asks for; origin and Vary come later."""
    answer = [
        (b"Access-Control-Allow-Methods", values(head.fields, b"access-control-request-method")[0])
    ]
    asked = values(head.fields, b"access-control-request-headers")
    if asked:
        answer.append((b"Access-Control-Allow-Headers", asked[0]))
    answer.append((b"Access-Control-Max-Age", b"600"))
    return ResponseHead(204, block(answer), bodyless=True)


def allow(fields: bytes, origin: bytes) -> bytes:
    """Return the response's field block with `origin` as the one that may read it."""
    kept = [
        (name, value)
        for name, value in pairs(fields)
        if name.lower() != b"access-control-allow-origin"
    ]
    return block([*kept, (b"Access-Control-Allow-Origin", origin), (b"Vary", b"Origin")])
