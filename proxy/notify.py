"""Tells a service manager the state of the process (sd_notify(3)).

Without ``NOTIFY_SOCKET`` in the environment nothing is sent, and no failure to send is one of
the proxy's: the service manager has its own timeouts.
"""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from contextlib import suppress

from proxy.clock import Clock
from proxy.system import UNIX


class Notifier:
    """Sends the states of the process, each once it is reached."""

    def __init__(self, environ: MutableMapping[str, str], steady: Clock) -> None:
        """Remove the socket's name from the environment: it is not meant for child processes."""
        name = environ.pop("NOTIFY_SOCKET", "")
        # unix(7): a leading @ stands for the NUL of the abstract namespace.
        self._name = b"\0" + name[1:].encode() if name.startswith("@") else name.encode()
        self._steady = steady

    def ready(self) -> None:
        """The start, or a reload, has ended."""
        self._send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """A reload has begun; ``Type=notify-reload`` wants to know since when."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._steady() * 1e6)}")

    def stopping(self) -> None:
        """The drain has begun."""
        self._send("STOPPING=1", "STATUS=draining")

    def _send(self, *lines: str) -> None:
        if not self._name:
            return
        with suppress(OSError), socket.socket(UNIX, socket.SOCK_DGRAM) as sock:
            # A manager that does not read must not stop the proxy.
            sock.setblocking(False)  # noqa: FBT003 (the socket module's own order)
            sock.sendto("\n".join(lines).encode(), self._name)
