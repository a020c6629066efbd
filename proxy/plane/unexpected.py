"""What an exception that nobody expected comes to: a bug, or memory that cannot be had.

It ends the exchange in which it came and the connections that this one had, because nobody knows
what they have taken and what not: to read on behind a hole could pass a body on as a head.  The
loop and every other exchange go on.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from proxy.errors import InternalError, OutOfMemory, ProxyError
from proxy.plane.codec import ResponseSink
from proxy.plane.state import FINISHED

_log = logging.getLogger("proxy.plane")


def failure(error: BaseException, where: str, route: str = "") -> ProxyError:
    """Log an exception; return what the caller is told of it.

    `where` is a sentence for the log.  A lack of memory is the machine's, and no trace explains
    it: it has one line a minute.
    """
    # What is said of it must not keep it from being handled: there may be no memory for that.
    with suppress(Exception):
        if isinstance(error, MemoryError):
            extra = {"reason": "no_memory_left", "hint": OutOfMemory.default_hint, "per_minute": 1}
            _log.error("no memory is left: exchanges are ended", extra=extra)
        else:
            _log.error(where, exc_info=error, extra={"route": route} if route else None)
    if isinstance(error, MemoryError):
        return OutOfMemory("This exchange asked for more than the system gave.")
    return InternalError("The proxy met a condition that it does not know.")


def end(sink: ResponseSink, error: BaseException) -> None:
    """End an attempt whose connection is closed because of `error`, and its exchange.

    One that has finished was about to give the last of its answer to the caller, who would wait
    for that for ever.
    """
    was_finished = sink.state is FINISHED
    try:
        sink.broken(failure(error, "A bug in the data path; the exchange is ended."))
    except Exception:  # noqa: BLE001 (the second one: what can still be done is to cut)
        was_finished = True
    if was_finished:
        sink.collapse()


def is_ours(error: BaseException | None) -> bool:
    """Tell whether a connection was lost by an exception of ours.

    What the peer and the kernel do is an OSError, or none.
    """
    return error is not None and not isinstance(error, OSError)
