"""`python -m tests.bench.memory`: bytes that one more connection, stream and route take.

The resident memory of a proxy is read before and after many of a kind have been added, in a fresh
process each; what the kernel keeps for sockets is not in it.  Memory that was free within the
process is used first, so a figure is what one more costs beside thousands, not the first one.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from tests.bench import load, machine
from tests.bench.contenders import Setup, environment, proxy_config
from tests.bench.grpc_peers import UNARY
from tests.bench.servers import PROXY_CORE, BenchError, Server, free_port
from tests.bench.upstream import Surroundings, surroundings

_CONNECTIONS: Final = 4000
_STREAMS: Final = 40
"""Connections with as many streams as the proxy allows on each."""
_EACH: Final = 100
_ROUTES: Final = 2000
_PATIENCE: Final = 30.0

_REQUEST: Final = [
    (":method", "POST"), (":scheme", "http"), (":path", UNARY), (":authority", "localhost:8081"),
    ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "grpc-go/1.80.0"),
]  # fmt: skip


@contextmanager
def _proxy(around: Surroundings, setup: Setup) -> Iterator[tuple[Server, int]]:
    """Run the proxy; yield it and its port."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(dir=around.folder))
    config = folder / "proxy.yaml"
    config.write_text(proxy_config(setup, port))
    program = Path(sys.executable).parent / "cloud-run-auth-proxy"
    argv: list[str | Path] = [program, "run", "--config", config]
    env = environment(around)
    with Server(argv, core=PROXY_CORE, log=folder / "log", env=env) as server:
        server.wait_for_port(port)
        yield server, port


def _connection(around: Surroundings) -> float:
    """Return the bytes of an idle HTTP/1.1 connection that has had one exchange."""
    with _proxy(around, Setup(around, "plain")) as (server, port):
        server.wait_for(port, "/json", b"{")
        with load.idle_connections(port, 100):
            before = server.usage().rss_bytes
            with load.idle_connections(port, _CONNECTIONS):
                return (server.usage().rss_bytes - before) / _CONNECTIONS


class _Holding:
    """An HTTP/2 service that reads requests and answers none."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()
        self._requests = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._hold, args=(sock,), daemon=True).start()

    def _hold(self, sock: socket.socket) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        with sock, suppress(OSError):
            sock.sendall(connection.data_to_send())
            while data := sock.recv(65536):
                events = connection.receive_data(data)
                with self._changed:
                    self._requests += sum(isinstance(event, RequestReceived) for event in events)
                    self._changed.notify_all()
                sock.sendall(connection.data_to_send())

    def wait_for(self, requests: int) -> None:
        """Return when so many have come in all."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._requests >= requests, _PATIENCE):
                raise BenchError(f"{self._requests} of {requests} requests have come")

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _open_streams(port: int, stack: ExitStack) -> None:
    """Open a connection with `_EACH` requests whose bodies do not end."""
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), _PATIENCE))
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    for number in range(_EACH):
        connection.send_headers(2 * number + 1, _REQUEST)
    sock.sendall(connection.data_to_send())


def _stream(around: Surroundings) -> float:
    """Return the bytes of a gRPC call in flight, with its share of the connections."""
    service = _Holding()
    around = replace(around, plain_port=service.port)
    try:
        setup = Setup(around, "plain", grpc=True)
        with _proxy(around, setup) as (server, port), ExitStack() as stack:
            _open_streams(port, stack)
            service.wait_for(_EACH)
            before = server.usage().rss_bytes
            for _ in range(_STREAMS):
                _open_streams(port, stack)
            service.wait_for(_EACH * (_STREAMS + 1))
            return (server.usage().rss_bytes - before) / (_EACH * _STREAMS)
    finally:
        service.close()


def _route(around: Surroundings) -> float:
    """Return the bytes of a route that has not been used."""
    used = []
    for routes in (2, 2 + _ROUTES):
        with _proxy(around, Setup(around, "plain", routes)) as (server, port):
            server.wait_for(port, f"/r{routes - 1}/json", b"{")
            used.append(server.usage().rss_bytes)
    return (used[1] - used[0]) / _ROUTES


MEASURED: Final[dict[str, Callable[[Surroundings], float]]] = {
    "an idle connection": _connection,
    "a gRPC call in flight": _stream,
    "a route": _route,
}


def main() -> int:
    """Print the figures."""
    machine.allow_many_files()
    with tempfile.TemporaryDirectory(prefix="memory-") as name, surroundings(Path(name)) as around:
        for what, measure in MEASURED.items():
            print(f"{what:22} {measure(around):8,.0f} bytes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
