"""How many open files the process has left, and for whom the last ones are kept.

open(2) gives the lowest number that is free, so the number of a new socket says how many are in
use, without counting.  Connections of callers and to upstreams leave the last `RESERVE` to what
must go on when they have taken the others: the admin listener, tokens, look-ups, the log.
"""

from __future__ import annotations

import errno
import logging
import sys
from typing import Final

from proxy.errors import Overloaded

_log = logging.getLogger("proxy.plane")

RESERVE: Final = 64
"""The 32 connections of the admin listener, and as many for all else."""

REFUSALS: Final = 16
"""Of the reserve, what callers may take who are told that they cannot be served."""

NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE})

_HINT: Final = "Raise the limit of open files (ulimit -n), or lower the routes' limits.connections."


def soft_limit() -> int:
    """Return how many open files the process may have."""
    if sys.platform == "win32":
        return sys.maxsize  # Sockets are no descriptors there.
    import resource  # noqa: PLC0415 (not on Windows)

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def beyond(number: int) -> int:
    """Return how far a connection's descriptor lies within the reserve: 0 where it is before it.

    Logged, once a minute, where it is not.
    """
    limit = soft_limit()
    first_kept = max(limit - RESERVE, limit // 2)
    if number < first_kept:
        return 0
    extra = {"reason": "no_descriptor_left", "hint": _HINT, "per_minute": 1}
    _log.warning("no file descriptor is left: connections are refused", extra=extra)
    return number - first_kept + 1


def overloaded() -> Overloaded:
    """Return what is answered where no descriptor is left."""
    detail = "The process has no file descriptor left for another connection."
    return Overloaded(detail, hint=_HINT, retry_after=1)
