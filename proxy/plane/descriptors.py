"""How many open files the process has left, and for whom the last ones are kept.

open(2) gives the lowest number that is free, so the number of a new socket says how many are in
use, without counting.  Connections of callers and to upstreams leave the last `RESERVE` to what
must go on when they have taken the others: the admin listener, tokens, look-ups, the log.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Final

from proxy.errors import Overloaded
from proxy.unreached import MORE_FILES

_log = logging.getLogger("proxy.plane")

RESERVE: Final = 64
"""The 32 connections of the admin listener, and as many for all else."""

REFUSALS: Final = 16
"""Of the reserve, what callers may take who are told that they cannot be served."""


# What is tried where the hard limit is refused: macOS says that there is none, but its kernel has
# one that differs from machine to machine (kern.maxfilesperproc). The last is OPEN_MAX, which
# setrlimit(2) there always takes.
_TRIED: Final = (1_048_576, 245_760, 122_880, 61_440, 24_576, 10_240)


def _limits() -> ModuleType | None:
    """Return the module for a process's limits, None on Windows, where sockets are no files."""
    try:
        return import_module("resource")
    except ImportError:
        return None


_resource: Final = _limits()


def soft_limit() -> int:
    """Return how many open files the process may have."""
    if _resource is None:
        return sys.maxsize
    soft: int = _resource.getrlimit(_resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == _resource.RLIM_INFINITY else soft


def raise_soft_limit() -> None:
    """Allow as many open files as the hard limit does.

    The soft limit of a shell, 1024, is for programs that use select(2); a proxy needs two
    descriptors for each exchange, and callers beyond the limit cannot even be answered.
    """
    if _resource is None:
        return
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    if soft in (hard, _resource.RLIM_INFINITY):
        return
    for limit in (hard, *_TRIED):
        if limit <= soft and limit != _resource.RLIM_INFINITY:
            return
        with suppress(OSError, ValueError):  # Too many for the kernel; some sandboxes forbid any.
            _resource.setrlimit(_resource.RLIMIT_NOFILE, (limit, hard))
            return


def beyond(number: int) -> int:
    """Return how far a connection's descriptor lies within the reserve: 0 where it is before it.

    Logged, once a minute, where it is not.
    """
    limit = soft_limit()
    first_kept = max(limit - RESERVE, limit // 2)
    if number < first_kept:
        return 0
    extra = {"reason": "no_descriptor_left", "hint": MORE_FILES, "per_minute": 1}
    _log.warning("no file descriptor is left: connections are refused", extra=extra)
    return number - first_kept + 1


def overloaded() -> Overloaded:
    """Return what is answered where no descriptor is left."""
    detail = "The process has no file descriptor left for another connection."
    return Overloaded(detail, hint=MORE_FILES, retry_after=1)
