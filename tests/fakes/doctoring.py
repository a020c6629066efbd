"""The command `doctor` on a machine of its own, and upstreams that are ill in all sorts of ways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.clock import Clocks
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.pages import Page
from proxy.emulator.service import ProtectedService
from tests.fakes.child import Done
from tests.fakes.program import A_TOKEN, command
from tests.fakes.tls import HTTP1, ca_file, server_context

RUN_APP = "orders-123456789012.us-central1.run.app"
HASHED = "orders-abc123-uc.a.run.app"
DOMAIN = "orders.example.com"
NAMES = (RUN_APP, HASHED, f"green---{HASHED}", DOMAIN, "localhost", "127.0.0.1")

# Python imports this module before the command: the names of the tests are this machine's, one
# has two addresses, one name server never answers, and one says that it cannot be asked.
RESOLVER = """
import socket, threading
ask = socket.getaddrinfo
def getaddrinfo(host, port, *more, **named):
    if host == "silent.example.com":
        threading.Event().wait()
    if host == "nobody.example.com":
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    if host == "two.example.com":
        return ask("127.0.0.2", port, *more, **named) + ask("127.0.0.1", port, *more, **named)
    here = isinstance(host, str) and host.endswith((".run.app", ".example.com"))
    return ask("127.0.0.1" if here else host, port, *more, **named)
socket.getaddrinfo = getaddrinfo
"""

Route = Mapping[str, Any]
Step = dict[str, Any]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Seen:
    """What the command said of several routes."""

    done: Done
    routes: dict[str, dict[str, Any]]

    def step(self, route: str, step: str) -> Step:
        """Return one step of a route; it must have been taken once."""
        (found,) = (each for each in self.routes[route]["steps"] if each["step"] == step)
        return dict(found)

    def outcomes(self, route: str) -> dict[str, str]:
        """Return how each step of a route ended."""
        return {each["step"]: each["outcome"] for each in self.routes[route]["steps"]}

    def reasons(self) -> dict[str, str | None]:
        """Return what is wrong with each route: the reason of the step that failed."""
        return {
            name: next((s["reason"] for s in route["steps"] if s["outcome"] == "failed"), None)
            for name, route in self.routes.items()
        }


class Doctor:
    """Runs the command on a machine of its own, and upstreams for it to look at."""

    def __init__(self, metadata: MetadataServer, home: Path, stack: AsyncExitStack) -> None:
        self.metadata = metadata
        self.home = home
        self.file = home / "proxy.yaml"
        self.ca = str(ca_file(home))
        self._stack = stack
        (home / "sitecustomize.py").write_text(RESOLVER)

    @property
    def machine(self) -> dict[str, str]:
        """The environment in which names are this machine's."""
        return {"HOME": str(self.home), "PYTHONPATH": str(self.home), **self.metadata.environ}

    async def run(
        self, routes: Mapping[str, Route], *arguments: str, env: Mapping[str, str] | None = None
    ) -> Done:
        """Run it with a configuration of these routes; it shows no token."""
        numbered = {
            name: {"path": f"/{number}", **route}
            for number, (name, route) in enumerate(routes.items())
        }
        self.file.write_text(json.dumps({"routes": numbered}))
        environment = {**self.machine, **(env or {})}
        done = await command("doctor", "--config", str(self.file), *arguments, env=environment)
        assert A_TOKEN.search(done.out + done.err) is None, "a token is in the report"
        return done

    async def examine(
        self, routes: Mapping[str, Route], *arguments: str, env: Mapping[str, str] | None = None
    ) -> Seen:
        """Run it and read its report."""
        done = await self.run(routes, "--format", "json", *arguments, env=env)
        assert done.err == ""
        report = json.loads(done.out)
        assert done.code == (0 if report["ok"] else 1)
        return Seen(done, {route["name"]: route for route in report["routes"]})

    # --- upstreams

    async def private(self, **more: Any) -> tuple[ProtectedService, int]:
        """Start a private service without TLS, and a front with TLS for it; return its port."""
        service = ProtectedService(self.metadata.keys, tls=False, **more)
        await self._stack.enter_async_context(service)
        return service, await self.front(("127.0.0.1", service.port))

    async def front(self, app: tuple[str, int]) -> int:
        """End TLS under all `NAMES`, and pass everything on to `app`."""

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(*app)
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                back.close()

        return await self.serve(relay, tls=server_context(*NAMES))

    async def answering(
        self, response: bytes, *, tls: bool = True, alpn: Sequence[str] = HTTP1
    ) -> int:
        """Answer every request with these bytes, and close; return the port."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()

        return await self.serve(answer, tls=server_context(*NAMES, alpn=alpn) if tls else None)

    async def serve(self, handler: Handler, tls: ssl.SSLContext | None = None) -> int:
        """Serve `handler`; callers that only look and leave are no failure."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                await handler(reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        self._stack.push_async_callback(server.wait_closed)
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    def to(self, host: str, port: int, **more: Any) -> Route:
        """Return a route to a front under one of its names."""
        return {"upstream": f"https://{host}:{port}", "ca_file": self.ca, **more}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


def page(status: int, *fields: tuple[str, str], late: float = 0.0) -> bytes:
    """Return Google's page; its clock is `late` seconds ahead of this machine's."""
    now = Clocks().wall() + late
    return Page(status, fields).render("/", now=now, close=True)


def plain(status: int, body: str = "", *fields: str) -> bytes:
    """Return a service's own response."""
    lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *fields, "", body]).encode()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Take whatever comes and never answer."""
    await reader.read()
