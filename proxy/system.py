"""What an operating system may lack, asked for in one place.

The proxy is made for Linux and runs on developers' Windows and macOS as well.  What is missing
there is left out, or said in one line by whoever was asked for it.  Looked at is the name that is
needed rather than that of the system: other systems lack the same.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final, Literal, TypeVar

T = TypeVar("T")

HAS_UNIX_SOCKETS: Final = hasattr(socket, "AF_UNIX")
"""Python has none on Windows."""

UNIX: Final[int] = getattr(socket, "AF_UNIX", 1)
"""Their family; where there are none, the number that it has elsewhere, which no socket has."""

REUSE_PORT: Final[int] = getattr(socket, "SO_REUSEPORT", 0)
"""The option by which several sockets share a port; only with `HAS_WORKERS`."""

HAS_WORKERS: Final = bool(REUSE_PORT) and hasattr(socket, "MSG_CMSG_CLOEXEC")
"""Whether processes can serve beside each other, and hand each other sockets.

Windows can do neither.  macOS lacks the second name (as it lacks SOCK_SEQPACKET between Unix
sockets), and gives all connections to a shared port to one of its sockets.
"""

EXCLUSIVE: Final[int | None] = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
"""Windows' option that keeps others from a port; SO_REUSEADDR there lets them take it."""

RESET: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""The value of SO_LINGER with which closing sends RST: on, 0 s (struct linger)."""


def _signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return those of the signals that there are."""
    return tuple(found for name in names if (found := getattr(signal, name, None)) is not None)


ENDS: Final = _signals("SIGTERM", "SIGINT", "SIGBREAK")
"""What ends the program; the last one is Ctrl-Break, which only Windows has."""

RELOADS: Final = _signals("SIGHUP")
"""What has it read its configuration anew; nothing on Windows."""


SWITCHES: Final = _signals("SIGUSR1", "SIGUSR2")
"""What ends a region of the demo, and brings it back; the proxy ignores them.  None on Windows."""


def on_signal(number: int, callback: Callable[..., object], *args: object) -> None:
    """Have the running loop call `callback` for each signal of this number."""
    import asyncio  # noqa: PLC0415 (the configuration is read without it)

    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, callback, *args)
    except NotImplementedError:
        # Windows: the interpreter's handler runs between two instructions of the main thread, which
        # the loop's wake-up socket sees to (signal.set_wakeup_fd).
        def wake(*_: object) -> None:
            with suppress(RuntimeError):  # The loop is closed: the program is ending.
                loop.call_soon_threadsafe(callback, *args)

        signal.signal(number, wake)


def ignore_signal(number: int) -> None:
    """Ignore it from now on.  The end of a loop takes its handlers along: the default would end.

    The running loop's own is removed; what comes between that and the end of this call is ignored.
    """
    import asyncio  # noqa: PLC0415 (as above)

    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])


def polling(descriptor: int, event: Literal["POLLIN", "POLLOUT"]) -> Callable[[int], object] | None:
    """Return what asks poll(2) for an event of one descriptor, waiting some milliseconds.

    None on Windows, which has no such call.
    """
    if (make := getattr(select, "poll", None)) is None:
        return None
    polled = make()
    polled.register(descriptor, getattr(select, event))
    ask: Callable[[int], object] = polled.poll
    return ask


_DUMPABLE: Final = 4
"""PR_SET_DUMPABLE of Linux' prctl.h."""


def forbid_dumps() -> None:
    """Keep the memory of this process, tokens and keys in it, to itself.

    prctl(2): no core dump is written, and processes of the same user can neither trace it nor read
    its memory.  It does not outlive execve(2): each process asks for itself.  Linux has it.
    """
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):  # A Python without libffi.
            import ctypes  # noqa: PLC0415 (2 ms that only those with secrets spend)

            ctypes.CDLL(None).prctl(_DUMPABLE, 0, 0, 0, 0)


KEPT_BYTES: Final = 4 * 1024 * 1024
"""How much freed memory at the end of the heap is kept."""
LARGEST_BYTES: Final = 1024 * 1024
"""Blocks of more than that still come from the kernel and go back there."""

# glibc's malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Keep a few freed MiB rather than give them back; return whether the C library can do that.

    A segment of a large body is a quarter of a MiB, and so is what becomes of it under TLS.  By
    itself glibc returns such blocks to the kernel and asks for them again with the next segment,
    where each of their pages is a fault: two thirds of the kernel's time for an upload.  It holds
    for the whole process, so it is for the program to say, not for a proxy inside another one.
    See mallopt(3); musl, macOS and Windows have nothing like it.
    """
    try:
        import ctypes  # noqa: PLC0415 (as in `forbid_dumps`)

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError, TypeError):
        return False
    return bool(
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, LARGEST_BYTES)
    )


def event_loop() -> Literal["uvloop", "asyncio"]:
    """Return whose event loop serves: uvloop's where it is installed, else asyncio's own."""
    return "asyncio" if find_spec("uvloop") is None else "uvloop"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on the event loop that serves; return what it returns."""
    if event_loop() == "uvloop":
        import uvloop  # noqa: PLC0415 (30 ms that only those who serve need)

        return uvloop.run(main)
    import asyncio  # noqa: PLC0415 (as above)

    return asyncio.run(main)
