"""The codes of gRPC and its relatives for the proxy's failures, and how they travel in fields."""

from __future__ import annotations

import enum
import re

from proxy.errors import Explained, Overloaded, PlatformError


class Code(enum.IntEnum):
    """A status of gRPC (https://grpc.io/docs/guides/status-codes/).

    Connect's and Twirp's name of it is `label`; so far as used here, they are the same.
    """

    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16

    @property
    def label(self) -> str:
        """The code in snake_case."""
        return self.name.lower()


# UNAVAILABLE invites clients to repeat the call; a limit of the proxy's does not, so that
# callers that repeat at once do not keep it at its limit.
_CODES: dict[int, Code] = {
    400: Code.INTERNAL,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    405: Code.UNIMPLEMENTED,
    413: Code.RESOURCE_EXHAUSTED,
    431: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}

# What clients make of an intermediary's status themselves, Connect's and Twirp's the same
# (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
_OF_THE_PLATFORM: dict[int, Code] = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}

_UNPRINTABLE = re.compile(rb"[^ -$&-~]")


def code_of(error: Explained) -> Code:
    """Return the code that stands for `error`."""
    if isinstance(error, PlatformError):
        return _OF_THE_PLATFORM.get(error.status, Code.UNKNOWN)
    if isinstance(error, Overloaded):
        return Code.RESOURCE_EXHAUSTED
    return _CODES.get(error.status, Code.UNKNOWN)


def percent_encoded(message: str) -> str:
    """Return `message` as the value of ``grpc-message``: printable ASCII without bare percents.

    (PROTOCOL-HTTP2.md of gRPC, Responses: Percent-Encoded.)
    """
    encoded = _UNPRINTABLE.sub(
        lambda found: b"%%%02X" % found[0][0], message.encode(errors="backslashreplace")
    )
    return encoded.decode("ascii")
