"""The command as a service manager starts it: with sockets, and a socket to say how it stands."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.fakes.program import Program

# sd_listen_fds(3): descriptors from 3 on, in the process whose number LISTEN_PID says.  So the
# one who binds becomes the program; systemd forks, sets the variables and executes likewise.
_LAUNCH = """
import json, os, socket, sys
specs, names = json.loads(sys.argv[1]), sys.argv[2]
sockets = []
for spec in specs:
    kind = socket.SOCK_DGRAM if spec.pop("datagram", False) else socket.SOCK_STREAM
    path = spec.get("path")
    sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET, kind)
    sock.bind(path.replace("@", chr(0), 1) if path else ("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    sockets.append(sock)
    print("bound", sock.getsockname() if path else "127.0.0.1:%d" % sock.getsockname()[1])
sys.stdout.flush()
# Out of the way first: a descriptor that comes late may have a number that is needed early.
high = [os.dup2(sock.fileno(), 100 + n, False) for n, sock in enumerate(sockets)]
for n, number in enumerate(high):
    os.dup2(number, 3 + n)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(specs))}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.argv[3], sys.argv[3:])
"""


class ActivatedProgram(Program):
    """A program that inherits sockets: ``{}`` for TCP on a free port, ``{"path": …}`` for Unix."""

    def __init__(
        self,
        config: str,
        sockets: Sequence[Mapping[str, object]],
        names: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config, env=env)
        launch = [sys.executable, "-c", _LAUNCH, json.dumps(list(sockets)), names]
        self._argv = [*launch, *self._argv]

    @property
    def bound(self) -> list[str]:
        """The TCP addresses that it inherited, in order."""
        return [line.split()[1] for line in self.lines if line.startswith("bound 127.")]


class Manager:
    """The receiving end of ``NOTIFY_SOCKET``; `env` tells the program where it is."""

    def __init__(self, *, abstract: bool = False) -> None:
        self.messages: list[dict[str, str]] = []
        self._folder = tempfile.TemporaryDirectory()
        path = str(Path(self._folder.name) / "notify")
        self.env = {"NOTIFY_SOCKET": f"@{path}" if abstract else path}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(f"\0{path}" if abstract else path)
        self._sock.setblocking(False)  # noqa: FBT003 (the socket module's own order)

    async def message(self) -> dict[str, str]:
        """Wait for the next message; its lines are ``NAME=value``."""
        async with asyncio.timeout(20):
            data = await asyncio.get_running_loop().sock_recv(self._sock, 4096)
        return dict(line.split("=", 1) for line in data.decode().split("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._folder.cleanup()
