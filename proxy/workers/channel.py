"""What the parent and a worker say to each other, and the sockets that it hands over.

Messages are pickled: both ends are the same program, connected by a socket pair that nobody
else can open.  Listening sockets travel beside them (SCM_RIGHTS, unix(7)) on a second pair,
because event loops read streams without looking at what comes along.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import pickle
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from proxy.config.model import Address, Config
from proxy.frozen import frozen
from proxy.plane.listen import Sockets

_LENGTH: Final = struct.Struct("!I")
_MOST_SOCKETS: Final = 253  # SCM_MAX_FD of Linux, for one message.


@frozen
class Serve:
    """To the worker: serve by this configuration, from here on or for the first time."""

    config: Config
    listeners: tuple[Address, ...]
    """The listeners whose sockets come along: those that the worker does not have yet."""


@frozen
class Ask:
    """To the worker: report your numbers."""


@frozen
class Drain:
    """To the worker: drain, and go on serving meanwhile."""


@frozen
class AskIdle:
    """To the worker: report as soon as nothing is in flight."""


@frozen
class Finish:
    """To the worker: end, within these seconds; what is in flight then is cut."""

    seconds: float


@frozen
class Serving:
    """From the worker: `Serve` was done, or why not."""

    config: Config
    """With the URLs of services, as far as they could be found."""
    failure: str = ""


@frozen
class Report:
    """From the worker: its numbers, as `ops.numbers.dump` writes them."""

    numbers: str
    config: Config


@frozen
class Idle:
    """From the worker: nothing is in flight."""

    at_once: bool
    """Whether that was so when it was asked."""


@frozen
class Finished:
    """From the worker, its last word: how many exchanges were cut."""

    cut: int


Message = Serve | Ask | Drain | AskIdle | Finish | Serving | Report | Idle | Finished


class Channel:
    """One end; `open` it before anything else."""

    def __init__(self, control: socket.socket, passing: socket.socket) -> None:
        """Own both sockets."""
        self._control = control
        self._passing = passing
        # A worker that hangs must not stop the parent.
        passing.setblocking(False)  # noqa: FBT003 (the socket module's own order)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Join the running loop."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._control)

    def send(self, message: Message, sockets: Mapping[Address, Sockets] | None = None) -> None:
        """Send a message and, for `Serve`, the sockets of its listeners in their order.

        Raises:
            OSError: the far end does not take any more.
        """
        if self._writer is None:
            raise AssertionError("the channel is not open")
        if self._writer.transport.is_closing():
            # uvloop's transport raises RuntimeError, asyncio's writes a warning.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        for group in (sockets or {}).values():
            # Before the message: whoever reads it finds them there.
            socket.send_fds(self._passing, [b"."], [sock.fileno() for sock in group])
        data = pickle.dumps(message)
        self._writer.write(_LENGTH.pack(len(data)) + data)

    async def receive(self) -> Message | None:
        """Return the next message, None when the far end has gone."""
        if self._reader is None:
            raise AssertionError("the channel is not open")
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        message: Message = pickle.loads(data)  # noqa: S301 (only our own parent or child writes)
        return message

    def take(self, listeners: tuple[Address, ...]) -> dict[Address, Sockets]:
        """Return the sockets that came along with a `Serve`."""
        return {address: self._take_group() for address in listeners}

    def _take_group(self) -> Sockets:
        # Python 3.11: `socket.recv_fds` drops its flags, and programs that the worker starts would
        # inherit the sockets.
        size = array.array("i").itemsize
        _, ancillary, _, _ = self._passing.recvmsg(
            1, socket.CMSG_LEN(_MOST_SOCKETS * size), socket.MSG_CMSG_CLOEXEC
        )
        numbers = array.array("i")
        for _level, _kind, data in ancillary:
            numbers.frombytes(data[: len(data) - len(data) % size])
        return tuple(socket.socket(fileno=number) for number in numbers)

    async def flush(self) -> None:
        """Wait until what was sent has left; nothing can be sent afterwards."""
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):  # The far end may have gone.
                await self._writer.wait_closed()

    def close(self) -> None:
        """Close this end, whatever has not left yet; the far one notices."""
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._control.close()
        self._passing.close()


def pairs() -> tuple[tuple[socket.socket, socket.socket], tuple[socket.socket, socket.socket]]:
    """Return the sockets of two channels' ends: (control, passing) of either side."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # A message is one group of sockets, and SEQPACKET keeps messages apart.
    my_passing, its_passing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return (mine, my_passing), (its, its_passing)
