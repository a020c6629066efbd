"""What is served when open files run out: the admin listener always, callers with a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes.child import Child, plain_environment
from tests.fakes.program import COMMAND, command
from tests.fakes.proxies import config_for

FILES = 160
REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Few:
    """A proxy with few descriptors; `listener` and `admin` are the paths of its sockets."""

    def __init__(self, child: Child, folder: Path) -> None:
        self.child = child
        self.listener = folder / "proxy.sock"
        self.admin = folder / "admin.sock"
        self.stack = AsyncExitStack()

    async def connect(self, path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection that stays until `close`."""
        reader, writer = await asyncio.open_unix_connection(path)
        self.stack.callback(writer.close)
        return reader, writer

    async def head(self, path: Path, request: bytes = REQUEST) -> bytes:
        """Ask on a connection that stays; return the head of the answer, empty without one."""
        reader, writer = await self.connect(path)
        try:
            writer.write(request)
            return await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            return b""

    async def ready(self) -> bytes:
        """Return the status line of the readiness probe."""
        return (await self.head(self.admin, b"GET /readiness HTTP/1.1\r\n\r\n"))[:15]

    def said(self) -> list[str]:
        """Return the messages that are no exchange's."""
        records = [json.loads(line) for line in self.child.lines if line.startswith("{")]
        return [each["message"] for each in records if each.get("logger") == "proxy.plane"]


@asynccontextmanager
async def few(
    tmp_path: Path, metadata: MetadataServer, service: ProtectedService
) -> AsyncIterator[Few]:
    """Run a proxy that may open `FILES` files."""
    world = Few(Child([], env={}), tmp_path)
    document = config_for(
        service, route={}, listen=f"unix:{world.listener}", admin=f"unix:{world.admin}"
    )
    (tmp_path / "proxy.yaml").write_text(document)
    script = f'ulimit -n {FILES} && exec "$@"'
    arguments: list[str | Path] = [
        "sh",
        "-c",
        script,
        "sh",
        COMMAND,
        "run",
        "--config",
        tmp_path / "proxy.yaml",
    ]
    child = world.child = Child(arguments, env=plain_environment(tmp_path, metadata.environ))
    await child.spawn()
    try:
        assert (await command("wait", "--admin", f"unix:{world.admin}")).code == 0
        async with asyncio.timeout(30), world.stack:
            yield world
        assert "Traceback" not in child.output
    finally:
        await child.kill()


async def test_callers_beyond_the_descriptors_are_told_and_probes_answered(
    tmp_path: Path, metadata: MetadataServer, service: ProtectedService
) -> None:
    async with few(tmp_path, metadata, service) as world:
        served = 0
        while (head := await world.head(world.listener)).startswith(b"HTTP/1.1 200 "):
            served += 1

        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"x-auth-proxy-error: overloaded\r\n" in head.lower()
        assert b"\r\nretry-after: 1\r\n" in head.lower()
        assert b"\r\nconnection: close\r\n" in head.lower()
        assert FILES // 3 < served < FILES - 64

        for _ in range(2 * FILES):  # Silent ones, who take what is left if they can.
            await world.connect(world.listener)
        assert await world.ready() == b"HTTP/1.1 200 OK"
        assert world.said() == ["no file descriptor is left: connections are refused"]

        await world.stack.aclose()
        while not (head := await world.head(world.listener)).startswith(b"HTTP/1.1 200 "):
            assert head[:13] in {b"", b"HTTP/1.1 503 "}


async def test_silent_callers_of_the_admin_listener_take_nothing_from_the_data_path(
    tmp_path: Path, metadata: MetadataServer, service: ProtectedService
) -> None:
    async with few(tmp_path, metadata, service) as world:
        for _ in range(2 * FILES):
            await world.connect(world.admin)

        assert (await world.head(world.listener)).startswith(b"HTTP/1.1 200 ")
        assert await world.ready() == b"HTTP/1.1 200 OK"
