"""A name server that answers well, badly, late, otherwise or not at all, and who asks no other.

The program asks the C library, in threads of its own; what that does with a name server in trouble
is the C library's own business and part of what is tested.  So nothing is injected: the program
runs with a resolv.conf of its own, in a mount namespace, and asks a real server on loopback.
Addresses of it have to be port 53, which like the namespace takes root; `WHY_NOT` says what lacks.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

FAULTS = ("SERVFAIL", "no such name", "no address", "silence", "another address", "garbage")

HEADER_BYTES = 12
TYPE_A = b"\0\1"
RCODE = {"SERVFAIL": 2, "no such name": 3}


class NameServer(asyncio.DatagramProtocol):
    """Answers every question with `addresses`, one of them first each time; a context serves.

    As long as it is calm it says what is right: the first one alone.
    """

    def __init__(self, addresses: tuple[str, ...], wrong: str, *, seed: int) -> None:
        """`wrong` is an address where nobody listens."""
        self._is_calm = True
        self.met: Counter[str] = Counter()
        self.questions = 0
        self.host = f"127.53.{seed % 250}.{1 + seed // 250 % 250}"
        self._addresses = addresses
        self._wrong = wrong
        self._choice = random.Random(f"{seed}/names")  # noqa: S311 (repeatable)
        self._transport: asyncio.DatagramTransport | None = None

    def be(self, *, calm: bool) -> None:
        """Answer badly from now on, or well."""
        self._is_calm = calm

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=(self.host, 53)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.questions += 1
        answer = self._answer(data)
        if answer and self._transport is not None:
            self._transport.sendto(answer, addr)

    def _answer(self, question: bytes) -> bytes:
        """Return the answer to one question (RFC 1035, 4.1), empty for none."""
        end = question.index(b"\0", HEADER_BYTES) + 5
        asked = question[HEADER_BYTES:end]
        fault = "" if self._is_calm or self._choice.random() < 0.5 else self._choice.choice(FAULTS)
        self.met[fault] += bool(fault)
        if fault == "silence":
            return b""
        if fault == "garbage":
            return question[:2] + self._choice.randbytes(40)
        address = self._addresses[0] if self._is_calm else self._choice.choice(self._addresses)
        address = self._wrong if fault == "another address" else address
        has_one = asked[-4:-2] == TYPE_A and fault in ("", "another address")
        flags = 0x8180 | RCODE.get(fault, 0)
        head = question[:2] + struct.pack(">5H", flags, 1, has_one, 0, 0)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
        return head + asked + record * has_one


def asking(server: NameServer, folder: Path) -> tuple[str, ...]:
    """Return what to put before a command so that the C library asks `server` alone."""
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {server.host}\noptions timeout:1 attempts:2\n")
    mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return "unshare", "-m", "sh", "-c", mount, str(conf)


def _why_not() -> str:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "mount namespaces are Linux' own"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.53.255.1", 53))
    except OSError:
        return "port 53 is not to be had"
    probe = ["unshare", "-m", "mount", "--bind", "/etc/hostname", "/etc/resolv.conf"]
    done = subprocess.run(probe, capture_output=True, check=False, timeout=30)
    return "" if done.returncode == 0 else "no mount namespace is to be had"


WHY_NOT = _why_not()
"""Why there can be no name server; empty if there can."""
