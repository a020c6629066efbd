"""The installed command as a subprocess, the way a user runs it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fakes import leaks
from tests.fakes.child import Child, Done, plain_environment, run

COMMAND = Path(sys.executable).parent / "cloud-run-auth-proxy"

# Header and claims of a JWT are base64 of JSON objects: both begin with `{"`.
A_TOKEN = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+")

SHOWN = (
    ("/metrics", "*/*"),
    ("/metrics", "application/openmetrics-text"),
    ("/status", "*/*"),
    ("/", "text/html"),
)
"""What the admin listener shows, by path and what is accepted."""

ADMIN_SECONDS = 10.0


def free_ports(count: int) -> list[int]:
    """Return so many ports that are free just now, for what has to know its port beforehand."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


async def command(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 30.0,
    prints_a_token: bool = False,
) -> Done:
    """Run the command to its end, in an empty directory unless `cwd` is given; see `run`."""
    with tempfile.TemporaryDirectory() as empty:
        return await run(
            [COMMAND, *arguments],
            env=plain_environment(Path(empty), env or {}),
            cwd=cwd or Path(empty),
            seconds=seconds,
            prints_a_token=prints_a_token,
        )


class Program(Child):
    """A running proxy.  As a context: serving inside, drained with exit code 0 at the end.

    `config` is the text of a configuration file, or None where `arguments` say it all.
    Ports are 0 in it; what they became is read from the log line that the program writes
    when it serves, whose members ``listeners`` and ``admin`` hold the real addresses.
    """

    def __init__(
        self,
        config: str | None,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """`within` is a command that becomes the proxy, which it is given, after its own work."""
        self._home = tempfile.TemporaryDirectory(prefix="auth-proxy-")
        home = Path(self._home.name)
        self.config_file = home / "proxy.yaml"
        if config is not None:
            self.config_file.write_text(config)
            arguments = ("run", "--config", str(self.config_file), *arguments)
        argv = [*within, str(COMMAND), *arguments]
        super().__init__(argv, env=plain_environment(home, env or {}), cwd=home)
        self.listeners: list[str] = []
        self.admin = ""

    @property
    def url(self) -> str:
        """The first listener, as a URL."""
        return f"http://{self.listeners[0]}"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first listener."""
        host, _, port = self.listeners[0].rpartition(":")
        return host, int(port)

    @property
    def admin_url(self) -> str:
        """The admin listener, as a URL."""
        return f"http://{self.admin}"

    def records(self) -> list[dict[str, Any]]:
        """Return the log so far: one JSON object a line; other lines are left out."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    async def record(self, **members: Any) -> dict[str, Any]:
        """Wait for the log record that has these members with these values."""

        def wanted(line: str) -> bool:
            if not line.startswith("{"):
                return False
            record = json.loads(line)
            return all(record.get(name) == value for name, value in members.items())

        found: dict[str, Any] = json.loads(await self.line(wanted))
        return found

    async def start(self) -> None:
        """Start it and wait until it serves."""
        assert COMMAND.exists(), f"{COMMAND.name} is not installed; `make test` does that"
        await self.spawn()
        serving = json.loads(await self.line(_says_listeners))
        self.listeners = list(serving["listeners"])
        self.admin = serving["admin"].removeprefix("off")

    async def admin_answer(self, path: str, accept: str = "*/*") -> bytes:
        """Return a page of the admin listener, head and body; it may show no token."""
        async with asyncio.timeout(ADMIN_SECONDS):
            if self.admin.startswith("unix:"):
                opening = asyncio.open_unix_connection(self.admin.removeprefix("unix:"))
                reader, writer = await opening
            else:
                host, _, port = self.admin.rpartition(":")
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            head = f"Host: localhost\r\nAccept: {accept}\r\nConnection: close\r\n"
            writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
            answer = await reader.read()
            writer.close()
        assert answer.startswith(b"HTTP/1.1 200 "), f"{path}: {answer[:200]!r}"
        leaks.look(f"{path} of the admin listener", answer)
        return answer

    async def terminate(self) -> None:
        """Search what the admin listener shows for tokens, and send SIGTERM."""
        if self.admin:
            for path, accept in SHOWN:
                await self.admin_answer(path, accept)
        self.signal(signal.SIGTERM)

    async def stop(self, expected: int = 0) -> None:
        """Drain by SIGTERM and assert the exit code, and that the log shows no token."""
        if self.running:
            await self.terminate()
        code = await self.exit_code()
        assert code == expected, f"exit code {code}:\n{self.output}"
        assert A_TOKEN.search(self.output) is None, "a token is in the log"

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self._release()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.stop()
        finally:
            await self._release()

    async def _release(self) -> None:
        await self.kill()
        # pytest shows it beside a failure, and nowhere else.
        print(f"--- {self.name}\n{self.output}")
        self._home.cleanup()


def _says_listeners(line: str) -> bool:
    return line.startswith("{") and "listeners" in json.loads(line)
