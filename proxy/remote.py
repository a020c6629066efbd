"""Two questions to a running proxy's admin listener: has it started, and will it end?

For scripts and container hooks, which want a quick answer: the standard library's client
starts in a tenth of the time that aiohttp takes.
"""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from proxy import PROGRAM
from proxy.clock import Clock
from proxy.config.model import Address
from proxy.frozen import frozen
from proxy.redact import redact_foreign
from proxy.system import UNIX
from proxy.unreached import why

PAUSE = 0.1
"""Seconds between looks at ``/startup``: a proxy starts within two or three of them."""

ANSWER_WITHIN = 2.0
"""Seconds for one answer.  The listener answers from memory; whatever takes longer is stuck."""

OK, NOT_FOUND = 200, 404

_READ_AT_MOST = 4096  # Bytes: the listener's answers to these questions are one line.

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (listened on, so asked here)

_LOOPBACK = ("127.0.0.1", "::1")
"""What localhost is, without asking a resolver, as the listener does."""


@frozen
class Reply:
    """What the listener said, or why it said nothing."""

    status: int | None
    """None where there was no answer."""
    text: str
    """The first line of the answer, or the error."""
    is_ours: bool = False
    """Whether an admin listener answered, and not whatever else has the port."""

    def __str__(self) -> str:
        if self.status is None:
            return self.text
        said = f"status {self.status}" + (f" ({self.text})" if self.text else "")
        return said if self.is_ours else f"another server answers there: {said}"


def wait(
    address: Address,
    timeout: float,
    *,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return 0 as soon as the proxy has started, 1 after `timeout` seconds without.

    Then one line on stderr says what was seen last.  It asks at least once, whatever the
    timeout; ``math.inf`` waits for as long as it takes.
    """
    deadline = clock() + timeout
    seen = None
    while True:
        patience = min(ANSWER_WITHIN, max(PAUSE, deadline - clock()))
        answer = ask(address, "GET", "/startup", patience)
        if answer.status == OK:
            return 0
        # Silence in the little time that a last look has says less than what was seen before.
        if seen is None or answer.status is not None or patience == ANSWER_WITHIN:
            seen = answer
        left = deadline - clock()
        if left <= 0:
            return _complain(f"{address}: not started within {timeout:g} s: /startup: {seen}")
        sleep(min(PAUSE, left))


def shutdown(address: Address) -> int:
    """Ask the proxy to drain and exit; return 0 if it will, 1 with a line on stderr if not."""
    answer = ask(address, "POST", "/quitquitquit", ANSWER_WITHIN)
    if answer.status == OK:
        return 0
    if answer.is_ours and answer.status == NOT_FOUND:
        return _complain(
            f"{address}: asking it to quit is off; turn it on in the configuration: "
            f"admin: {{listen: {address}, quit: true}}"
        )
    return _complain(f"{address}: does not shut down: /quitquitquit: {answer}")


def ask(address: Address, method: str, path: str, timeout: float) -> Reply:
    """Send one request and return what came of it within `timeout` seconds; raises nothing."""
    connection = _Connection(address, timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        first_line = response.read(_READ_AT_MOST).decode("utf-8", "replace").partition("\n")[0]
        is_ours = response.headers.get("Server") == PROGRAM
        return Reply(response.status, redact_foreign(first_line), is_ours=is_ours)
    except TimeoutError:
        return Reply(None, f"no answer within {timeout:g} s")
    except OSError as error:
        return Reply(None, why(error).short)
    except http.client.HTTPException:
        return Reply(None, "what answers there does not speak HTTP")
    finally:
        connection.close()


class _Timed(socket.socket):
    """A connected socket whose reads end at one deadline, however slowly bytes arrive."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        super().__init__(fileno=connected.detach())
        self._deadline = deadline

    def recv_into(self, *into: Any) -> int:
        """Read as `socket.socket.recv_into` does; called by the file that http.client reads."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(*into)


class _Connection(http.client.HTTPConnection):
    """A connection to a TCP address or a Unix socket, for `timeout` seconds in all."""

    def __init__(self, address: Address, timeout: float) -> None:
        # A Unix socket has no name of its own: the host is then only what the request says.
        host = "localhost" if address.path else _EVERYWHERE.get(address.host, address.host)
        super().__init__(host, address.port or None, timeout=timeout)
        self._path = address.path
        self._deadline = time.monotonic() + timeout

    def connect(self) -> None:
        """Connect; called by `request`."""
        if self._path:
            self.sock = socket.socket(UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        else:
            self.sock = self._tcp(_LOOPBACK if self.host == "localhost" else (self.host,))
        self.sock = _Timed(self.sock, self._deadline)

    def _tcp(self, hosts: Sequence[str]) -> socket.socket:
        """Connect to the first host that takes it; raises what the first of them said."""
        errors: list[OSError] = []
        for host in hosts:
            try:
                return socket.create_connection((host, self.port), self.timeout)
            except OSError as error:
                errors.append(error)
        raise errors[0]


def _complain(line: str) -> int:
    sys.stderr.write(f"{PROGRAM}: {line}\n")
    return 1
