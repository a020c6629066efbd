"""Google's front end where no service is behind it: every call gets a page, in both HTTPs.

The first segment of a call's path is the page's status.  The pages are the emulator's.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import h2.connection
import h2.events

from proxy.emulator.pages import INVALID_TOKEN, Page

_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


def page_for(path: str) -> Page:
    """Return the page that a call to `path` gets."""
    status = int(path.split("/")[1])
    return Page(status, (INVALID_TOKEN,) if status == 401 else ())


class _Connection(asyncio.Protocol):
    """One caller's connection, in the protocol that its first bytes are in."""

    def __init__(self) -> None:
        self._data = b""
        self._streams: h2.connection.H2Connection | None = None
        self._paths: dict[int, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._streams is None and _PREFACE.startswith(self._data[: len(_PREFACE)]):
            if len(self._data) < len(_PREFACE):
                return
            configuration = h2.config.H2Configuration(client_side=False)
            self._streams = h2.connection.H2Connection(configuration)
            self._streams.initiate_connection()
        if self._streams is not None:
            self._frames(self._streams)
        else:
            self._message()

    def _message(self) -> None:
        head, end, _ = self._data.partition(b"\r\n\r\n")
        if end:
            # The body is not read: the front end closes where it refuses.
            method, path, _ = head.split(b" ", 2)
            page = page_for(path.decode())
            self._transport.write(page.render("/", now=0.0, method=method.decode(), close=True))
            self._transport.write_eof()

    def _frames(self, streams: h2.connection.H2Connection) -> None:
        events, self._data = streams.receive_data(self._data), b""
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                self._paths[event.stream_id] = dict(event.headers)[b":path"].decode()
            elif isinstance(event, h2.events.DataReceived):
                streams.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                page = page_for(self._paths.pop(event.stream_id))
                fields = [(name.lower(), value) for name, value in page.fields("/", 0.0)]
                streams.send_headers(event.stream_id, [(":status", str(page.status)), *fields])
                streams.send_data(event.stream_id, page.content("/")[1], end_stream=True)
        self._transport.write(streams.data_to_send())


class FrontEnd:
    """The server, on a free port of the loopback."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(_Connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
