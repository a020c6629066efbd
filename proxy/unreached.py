"""Why a peer cannot be reached: one set of words for errors, log lines and doctor.  Pure.

Whoever dials (an upstream, an egress proxy, the metadata server, Google's APIs) has an exception of
the operating system's, of OpenSSL's or of a library's; this module says what it means, and what to
do.  Whose fault that is, and what it is called, is decided where the dial is made.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from typing import Final, Literal

from proxy.frozen import frozen

Kind = Literal["connection_refused", "connect_failed", "dns_failed", "dns_unanswered"]

CHECK_NAME: Final = "Check the spelling of the route's upstream, and DNS where the proxy runs."
CHECK_DNS: Final = (
    "The name itself may be right: check DNS where the proxy runs (resolv.conf, the name server of "
    "the VPC network, egress to its port 53)."
)
CHECK_SERVICE: Final = "Check the route's upstream and its port, and that the service runs."
CHECK_CONNECT_TO: Final = "Check the route's connect_to and its port, and that the service runs."
CHECK_SOCKET: Final = (
    "Check connect_to, that whoever listens there runs, and the socket's permissions."
)
CHECK_EGRESS: Final = "Check routes and egress where the proxy runs."
CHECK_PROXY: Final = (
    "Check the egress proxy's address (egress_proxy, HTTPS_PROXY or the like), and that it runs."
)
MORE_FILES: Final = (
    "Raise the limit of open files (ulimit -n), or lower the routes' limits.connections."
)
NO_TLS: Final = "Correct the port, or write http:// if it is a server on this machine."
WRITE_HTTPS: Final = "Write https:// in the route's upstream."


@frozen
class Why:
    """What is wrong, in three lengths."""

    kind: Kind
    said: str
    """What the system calls it: a few words in lower case."""
    there: str
    """What it means, where the place was just named."""
    at: str
    """What it means, with ``{place}`` in it."""
    hint: str
    """What to do where the place is an upstream's own."""

    @property
    def short(self) -> str:
        """What goes behind the place and a colon."""
        return f"{self.said}: {self.there}"

    def sentence(self, place: str) -> str:
        """Return a whole sentence about `place`."""
        return f"{self.at.format(place=place)} ({self.said})."


def _numbers(*names: str) -> frozenset[int]:
    # Not every system has all of them.
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


NONE_LEFT: Final = _numbers("EMFILE", "ENFILE", "WSAEMFILE")
"""This process, or the machine, may open no more files: nobody else's fault."""
_REFUSED: Final = _numbers("ECONNREFUSED", "WSAECONNREFUSED")
_FORBIDDEN: Final = _numbers("EACCES", "EPERM", "WSAEACCES")
_NO_WAY: Final = _numbers(
    "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN", "EADDRNOTAVAIL", "WSAENETUNREACH",
    "WSAEHOSTUNREACH", "WSAEADDRNOTAVAIL",
)  # fmt: skip

# Answers that say that there is no such name; other errors say that nobody could be asked.
ABSENT: Final = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
)

# What happy eyeballs and urllib3 make of several errors is a text with their numbers in it.
_NUMBER: Final = re.compile(r"\[Errno (-?\d+)\]")


_REFUSED_WHY: Final = Why(
    "connection_refused",
    "connection refused",
    "nothing listens there",
    "Nothing listens at {place}",
    CHECK_SERVICE,
)
_ABSENT_WHY: Final = Why(
    "connect_failed",
    "no such file",
    "there is no such socket",
    "There is no socket {place}",
    CHECK_SOCKET,
)
_FULL_WHY: Final = Why(
    "connect_failed",
    "too many open files",
    "this process has no file descriptor left",
    "The process has no file descriptor left for a connection to {place}",
    MORE_FILES,
)

# Of several errors, one for each address, the first row that fits tells most.
_WORDS: Final[tuple[tuple[frozenset[int], str, str], ...]] = (
    (_FORBIDDEN, "this process may not connect there", "This process may not connect to {place}"),
    (_NO_WAY, "there is no way there from here", "There is no way to {place} from here"),
)


def why(error: BaseException) -> Why:
    """Say why there is no connection; `error` may be a library's, with the system's in its text."""
    numbers = _numbers_in(error)
    if numbers & NONE_LEFT:
        return _FULL_WHY
    if isinstance(error, socket.gaierror) or any(number < 0 for number in numbers):
        return _unresolved(error, numbers)
    if numbers & _REFUSED:
        return _REFUSED_WHY
    if errno.ENOENT in numbers:
        return _ABSENT_WHY
    said = _said(error, numbers)
    for some, there, at in _WORDS:
        if numbers & some:
            return Why("connect_failed", said, there, at, CHECK_EGRESS)
    return Why("connect_failed", said, "no connection", "{place} cannot be connected", CHECK_EGRESS)


def is_told(error: BaseException) -> bool:
    """Tell whether the system's own error is in a library's."""
    return bool(_numbers_in(error))


def _numbers_in(error: BaseException) -> frozenset[int]:
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(number, int) and not isinstance(error, socket.gaierror):
        return frozenset((number,))
    return frozenset(map(int, _NUMBER.findall(str(error))))


def _unresolved(error: BaseException, numbers: frozenset[int]) -> Why:
    said = (error.strerror if isinstance(error, OSError) else None) or ""
    if numbers & ABSENT:
        said = said or "Name or service not known"
        at = "The name {place} does not exist"
        return Why("dns_failed", said, "the name does not exist", at, CHECK_NAME)
    said = said or "Temporary failure in name resolution"
    at = "No name server has answered for {place}"
    return Why("dns_unanswered", said, "no name server has answered", at, CHECK_DNS)


def _said(error: BaseException, numbers: frozenset[int]) -> str:
    if len(numbers) == 1:
        return os.strerror(next(iter(numbers))).lower()
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


Hop = Literal["upstream", "connect_to", "socket", "proxy"]
"""What was dialled: the upstream itself, what ``connect_to`` names (a Unix socket apart), or the
egress proxy."""


def check(found: Why, hop: Hop) -> str:
    """Return what to do, which depends on the key that led there."""
    if found.hint in (CHECK_DNS, MORE_FILES):
        return found.hint
    if hop == "proxy":
        return CHECK_PROXY
    if hop == "socket":
        return CHECK_SOCKET
    if hop == "connect_to" and found.hint == CHECK_SERVICE:
        return CHECK_CONNECT_TO
    return found.hint


def unanswered(host: str, time: str) -> str:
    """Return the sentence about a name that no name server has told within `time`, in words."""
    return f"No name server has answered for {host} within {time}."


# TLS

# OpenSSL's reasons where what came is no record of TLS.
_NOT_TLS: Final = frozenset(
    ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
)

# A record begins with its type, an alert or a handshake, and the version 3.x (RFC 8446, 5.1).
_RECORD: Final = (b"\x15\x03", b"\x16\x03")


def speaks_no_tls(error: BaseException) -> bool:
    """Tell whether a handshake failed because the peer does not speak TLS at all.

    `error` may be a library's, with OpenSSL's in its text.
    """
    if isinstance(error, ssl.SSLError):
        return error.reason in _NOT_TLS
    return any(f"[SSL: {reason}]" in str(error) for reason in _NOT_TLS)


def no_tls(place: str) -> str:
    """Return the sentence about such a peer."""
    return f"What listens at {place} does not speak TLS."


def is_tls(data: bytes) -> bool:
    """Tell whether a peer that should speak plain HTTP begins to speak TLS."""
    return data.startswith(_RECORD)
