"""Addresses of names, looked up in threads of our own.

getaddrinfo(3) blocks, cannot be interrupted, and takes up to half a minute where a name server
does not answer.  The loops' own threads for it are few (libuv has four, and gives two of them to
names) and are waited for at the end of the process: two names that do not resolve would stop
every dial, and the exit.  Here a name has at most one look-up under way, whoever waits for it;
names that were slow cannot take the threads of the others; and no thread is waited for at the end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

from proxy.clock import Clock
from proxy.unreached import ABSENT

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""Family, type, protocol, canonical name and address, as getaddrinfo(3) gives them."""

LookUp = Callable[[str], Sequence[AddressInfo]]
"""Takes a name and returns its addresses, with any port; blocks, and raises OSError."""

FRESH = 1.0
"""Seconds for which a result serves without another look-up: a burst of dials asks once.  Not
longer, because the operating system does not tell times to live, and Compose and Cloud Run move
a name at any moment."""

STALE = 60.0
"""Seconds for which a result serves while the name server does not answer."""

PATIENCE = 0.25
"""Seconds that a look-up may take before a stale result serves instead."""

THREADS = 128
"""Look-ups that run at once, each of another name.  A thread that waits costs some 40 KB."""

_SLOW = 2.0  # Seconds.  An answer takes milliseconds; glibc asks again after five seconds.

_MOST_NAMES = 1024  # Names come from the configuration alone; reloads bring new ones.

_LOOPBACK: Sequence[AddressInfo] = (
    (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 0, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0)),
)
"""What `localhost` is (RFC 6761, 6.3), in getaddrinfo's order (RFC 6724, 6)."""


def system_look_up(host: str) -> Sequence[AddressInfo]:
    """Ask the operating system."""
    return socket.getaddrinfo(  # type: ignore[return-value]  # typeshed: AF_PACKET too
        host, 0, type=socket.SOCK_STREAM
    )


class _Name:
    """What is known of one name."""

    __slots__ = (
        "addresses", "asked_at", "fresh_until", "known_at", "pending", "slow", "started_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.addresses: Sequence[AddressInfo] = ()
        """The last result, empty if there was none or it is withdrawn."""
        self.known_at = self.fresh_until = 0.0
        self.asked_at = self.started_at = 0.0
        """When the look-up was asked for, and when it got a thread."""
        self.pending: asyncio.Future[Sequence[AddressInfo] | OSError] | None = None
        """The look-up under way.  A failure is a result: nobody may be left to take it."""
        self.slow = False
        """Whether the last look-up was slow, or failed for want of an answer."""


class Resolver:
    """The names of one event loop."""

    __slots__ = (
        "_clock", "_look_up", "_names", "_patience", "_queues", "_running", "_slow_running",
        "_slow_threads", "_threads",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock = time.monotonic,
        look_up: LookUp = system_look_up,
        *,
        threads: int = THREADS,
        patience: float = PATIENCE,
    ) -> None:
        """`threads` bounds the look-ups at once; see `PATIENCE` (seconds).

        Names whose last look-up was slow can have half of the threads.
        """
        self._clock = clock
        self._look_up = look_up
        self._threads = threads
        self._slow_threads = max(1, threads // 2)
        self._patience = patience
        self._names: dict[str, _Name] = {}
        self._running = self._slow_running = 0
        self._queues: tuple[deque[str], deque[str]] = (deque(), deque())
        """Names that wait for a thread; those that were slow apart."""

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """Return the addresses of `host` in the operating system's order, with `port`.

        Whoever is cancelled here ends nobody else's look-up.

        Raises:
            OSError: there are none; `socket.gaierror` where the name is the reason.
        """
        found = _without_look_up(host)
        if found is None:
            found = await self._addresses(host)
        return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in found]

    def doubt(self, host: str) -> None:
        """Look `host` up again for the next dial: none of its addresses accepted this one."""
        name = self._names.get(host)
        if name is not None:
            name.fresh_until = 0.0

    async def _addresses(self, host: str) -> Sequence[AddressInfo]:
        name = self._name(host)
        now = self._clock()
        if name.addresses and now < name.fresh_until:
            return name.addresses
        pending = name.pending or self._begin(host, name, now)
        stale = name.addresses if now < name.known_at + STALE else ()
        timeout = max(0.0, name.asked_at + self._patience - now) if stale else None
        _ = await asyncio.wait((pending,), timeout=timeout)
        if not pending.done():
            return stale
        outcome = pending.result()
        if isinstance(outcome, OSError):
            if stale and outcome.errno not in ABSENT:
                return stale
            # A new one each time: raising adds to an exception's traceback.
            raise type(outcome)(*outcome.args)
        return outcome

    def _name(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= _MOST_NAMES:
                self._names = {h: n for h, n in self._names.items() if n.pending is not None}
            name = self._names[host] = _Name()
        return name

    # --- look-ups ------------------------------------------------------------------------

    def _begin(
        self, host: str, name: _Name, now: float
    ) -> asyncio.Future[Sequence[AddressInfo] | OSError]:
        """Begin a look-up, as soon as there is a thread for it; return its outcome."""
        pending = name.pending = asyncio.get_running_loop().create_future()
        name.asked_at = now
        self._queues[name.slow].append(host)
        self._serve()
        return pending

    def _serve(self) -> None:
        """Give threads to waiting names, first to those that were quick."""
        quick, slow = self._queues
        while self._running < self._threads:
            if quick:
                self._start(quick.popleft())
            elif slow and self._slow_running < self._slow_threads:
                self._start(slow.popleft())
            else:
                return

    def _start(self, host: str) -> None:
        name = self._names[host]
        loop = asyncio.get_running_loop()
        name.started_at = self._clock()
        self._running += 1
        self._slow_running += name.slow

        def work() -> None:
            outcome = self._call(host)
            with suppress(RuntimeError):  # The loop was closed meanwhile.
                loop.call_soon_threadsafe(self._end, name, outcome)

        try:
            Thread(target=work, name=f"look up {host}", daemon=True).start()
        except RuntimeError:  # The system has no more threads.
            _ = loop.call_soon(self._end, name, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    def _call(self, host: str) -> Sequence[AddressInfo] | OSError:
        """Look up, in a thread: a failure is a result."""
        try:
            return self._look_up(host) or socket.gaierror(socket.EAI_NONAME, "No address")
        except OSError as error:
            return error.with_traceback(None)
        except UnicodeError:  # Python's IDNA codec, for labels that are empty or too long.
            return socket.gaierror(socket.EAI_NONAME, "Not a host name")
        except Exception as error:  # noqa: BLE001 (those who wait must hear of it)
            return OSError(errno.EIO, f"the look-up failed ({type(error).__name__})")

    def _end(self, name: _Name, outcome: Sequence[AddressInfo] | OSError) -> None:
        """Keep the outcome and give it to all who wait."""
        now = self._clock()
        self._running -= 1
        self._slow_running -= name.slow
        name.slow = now - name.started_at > _SLOW
        if not isinstance(outcome, OSError):
            name.addresses = outcome
            name.known_at = now
            name.fresh_until = now + FRESH
        elif outcome.errno in ABSENT:
            name.addresses = ()
        else:
            name.slow = True  # Nobody has answered; the next time it may take longer.
        pending, name.pending = name.pending, None
        if pending is not None and not pending.done():
            pending.set_result(outcome)
        self._serve()


def _without_look_up(host: str) -> Sequence[AddressInfo] | None:
    """Return the addresses of an IP address or of localhost; else None."""
    if host.lower().removesuffix(".") == "localhost":
        return _LOOPBACK
    if not host or not (host[-1].isdigit() or ":" in host):
        return None  # No address: the last label of a name is not numeric (RFC 3696, 2).
    try:
        return socket.getaddrinfo(  # type: ignore[return-value]  # typeshed: AF_PACKET too
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return None
