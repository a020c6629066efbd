"""What a request to the upstream says about its own connection."""

from __future__ import annotations

from proxy.plane.head import RequestHead, tokens


def are_offered(protocols: bytes, offers: bytes) -> bool:
    """Tell whether a 101 may switch to `protocols` (RFC 9110, 7.8: only to what was named)."""
    switched = tokens(protocols)
    return bool(switched) and set(switched) <= set(tokens(offers))


def connection_fields(head: RequestHead) -> bytes:
    """Return the fields that are about this connection: framing, upgrade, trailers."""
    options = []
    lines = b""
    if head.length is None:
        lines += b"\r\nTransfer-Encoding: chunked"
    if head.has_trailers_te:
        # RFC 9110, 10.1.4: a sender of TE must name it in Connection.
        options.append(b"TE")
        lines += b"\r\nTE: trailers"
    if head.upgrade:
        options.append(b"Upgrade")
        lines += b"\r\nUpgrade: " + head.upgrade
    if options:
        lines += b"\r\nConnection: " + b", ".join(options)
    return lines
