"""The identity header: how it is written, and which of the caller's headers must go.  Pure.

Cloud Run takes a token from ``X-Serverless-Authorization`` or from ``Authorization``, and looks
only at the former where both are sent (https://cloud.google.com/run/docs/authenticating/
service-to-service).  It answers 401 to a request with several of them, so the caller's own
copies are removed before ours is added.
"""

from __future__ import annotations

import re

from proxy.config.model import IdentityHeader
from proxy.identity.access_token import AccessToken
from proxy.identity.source import QUOTA_FIELD
from proxy.identity.token import Token

FORWARDED_AUTHORIZATION = b"X-Forwarded-Authorization"
"""Where a caller's ``Authorization`` travels if the identity header takes its place; Google's
ESPv2 uses the same name."""

QUOTA_PROJECT = QUOTA_FIELD.encode()
"""The header that names the project on which a call of Google's APIs counts."""

_LINE_BEGINNINGS = {header: f"{header.value}: Bearer ".encode() for header in IdentityHeader}


def spelling(name: bytes) -> bytes:
    """Return a regex for every spelling of a header's `name` that some receiver reads as it.

    In lower case, to be compiled with `re.IGNORECASE`; `name` may be any of them.  An
    underscore stands for a dash, because CGI and WSGI turn both into
    ``HTTP_X_SERVERLESS_AUTHORIZATION`` (RFC 3875, 4.1.18).
    """
    return b"[-_]".join(map(re.escape, re.split(b"[-_]", name.lower())))


def identity_line(header: IdentityHeader, token: Token) -> bytes:
    r"""Return the header line with `token`, ``\r\n`` included (RFC 6750, 2.1)."""
    # ASCII without white space: `read_token` and `read_access_token` let nothing else pass.
    return b"%b%b\r\n" % (_LINE_BEGINNINGS[header], token.value.encode("ascii"))


def quota_project(token: Token) -> bytes:
    """Return the project on which calls with `token` count, empty where it names none."""
    return token.quota_project.encode("ascii") if isinstance(token, AccessToken) else b""
