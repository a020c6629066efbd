"""TLS for tests: a certificate authority of our own, and the ways a certificate can be wrong.

One authority and one key pair per kind and process: making them costs milliseconds, a
test suite asks hundreds of times.  `server_context` is what a fake upstream serves with;
`ca_file` is what a route's ``ca_file`` names so that this upstream is trusted.
"""

from __future__ import annotations

import datetime as dt
import functools
import ssl
from collections.abc import Sequence
from pathlib import Path

import trustme

LOOPBACK = ("127.0.0.1", "::1", "localhost")
HTTP1 = ("http/1.1",)
HTTP2 = ("h2", "http/1.1")


@functools.cache
def authority() -> trustme.CA:
    """Return the authority that tests trust."""
    return trustme.CA()


@functools.cache
def foreign_authority() -> trustme.CA:
    """Return an authority that nobody trusts."""
    return trustme.CA(organization_name="Nobody trusts this one")


def ca_file(directory: Path) -> Path:
    """Write the trusted authority's certificate into `directory` and return the file."""
    path = directory / "ca.pem"
    path.write_bytes(authority().cert_pem.bytes())
    return path


def server_context(
    *names: str,
    alpn: Sequence[str] = HTTP1,
    issuer: trustme.CA | None = None,
    expired: bool = False,
) -> ssl.SSLContext:
    """Return a server's context whose certificate is for `names`, by default the loopback's.

    `alpn` is what the server offers, in its order; empty for a server without ALPN.
    `issuer` is the trusted authority unless given; `expired` backdates the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _leaf(issuer or authority(), names or LOOPBACK, expired).configure_cert(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_context(*, alpn: Sequence[str] = HTTP1) -> ssl.SSLContext:
    """Return a client's context that trusts only the authority of the tests."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@functools.cache
def _leaf(issuer: trustme.CA, names: tuple[str, ...], expired: bool) -> trustme.LeafCert:  # noqa: FBT001 (a cache key)
    if not expired:
        return issuer.issue_cert(*names)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    return issuer.issue_cert(*names, not_before=past - dt.timedelta(days=1), not_after=past)
