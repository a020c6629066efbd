"""A caller's transport: what is written to it, framed for this caller, and whether it is read."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from proxy.plane.head import ResponseHead
from proxy.plane.http1.chunked import LARGE, chunk, framed, last_chunk
from proxy.plane.http1.phrases import status_line
from proxy.plane.http1.turns import Turns

_LENGTH: Final = re.compile(rb"\r\n(?i:content-length):")


class CallerTransport(Turns, asyncio.Protocol):
    """Collects a response until it is flushed; what reads requests is derived from it."""

    __slots__ = (
        "_chunk", "_closed", "_delimited", "_expects", "_has_large", "_keep_alive", "_out",
        "_version",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        # For the life of the connection
        self._out: list[bytes] = []
        self._has_large = False
        """Whether a large chunk is in what was collected."""
        self._closed = False
        """Whether nothing may be written any more."""
        # For one exchange
        self._version = b"1.1"
        self._keep_alive = True
        self._expects = False
        """Whether the caller may be waiting for a 100 before it sends the body."""
        self._chunk = False
        """Whether the response is framed in chunks."""
        self._delimited = False
        """Whether only the close tells the caller where the response ends."""

    def write_informational(self, head: ResponseHead) -> None:
        """Send a 1xx; RFC 9110, 15.2: not to an HTTP/1.0 caller."""
        if self._version == b"1.1":
            if head.status == 100:  # noqa: PLR2004 (RFC 9110, 10.1.1)
                self._expects = False
            self._out.append(b"%b%b\r\n\r\n" % (status_line(head.status, head.phrase), head.fields))
            self.flush()

    def write_data(self, data: bytes) -> None:
        """Send a part of the body; see `DownstreamCodec`."""
        if not self._chunk:
            self._out.append(data)
        elif len(data) < LARGE:
            self._out.append(chunk(data))
        else:
            self._out += framed(data)
            self._has_large = True

    def flush(self) -> None:
        """Write what was collected, as one piece."""
        out = self._out
        if not out or self._closed:
            return
        if self._has_large:
            # Joined, it would be copied once more, into memory that is new each time.
            self._has_large = False
            self._transport.writelines(out)
        else:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def pause_request(self) -> None:
        """Stop reading."""
        self._pause()

    def resume_request(self) -> None:
        """Go on reading."""
        self._resume()

    @property
    def is_closed(self) -> bool:
        """Whether nothing is read or written any more."""
        return self._closed

    def _write_head(self, head: ResponseHead) -> None:
        """Write the final head with the fields that are about this connection."""
        extra = b""
        if head.length is None and not head.bodyless:
            if self._version == b"1.1":
                self._chunk = True
                extra = b"\r\nTransfer-Encoding: chunked"
            else:
                self._delimited = True
                self._keep_alive = False
        elif head.length == 0 and not (head.bodyless or _LENGTH.search(head.fields)):
            # RFC 9112, 6.3: without it the body would go on until the connection is closed. Only
            # HTTP/1.1 has to be told: in HTTP/2, and in a refusal of ours, the head can be all.
            extra = b"\r\nContent-Length: 0"
        extra += self._persistence()
        self._out.append(
            b"%b%b%b\r\n\r\n" % (status_line(head.status, head.phrase), head.fields, extra)
        )

    def _persistence(self) -> bytes:
        """Return the field that tells whether the connection persists, where one must."""
        if not self._keep_alive:
            return b"\r\nConnection: close"
        return b"\r\nConnection: keep-alive" if self._version == b"1.0" else b""

    def _write_whole(self, head: ResponseHead, body: bytes) -> None:
        """Write a response with all of its body."""
        if head.length is None and not head.bodyless:
            self._write_head(head)
            if body:
                self.write_data(body)
            if self._chunk:
                self._out.append(last_chunk(b""))
            self.flush()
            return
        if self._closed:
            return
        extra = b"" if self._keep_alive and self._version == b"1.1" else self._persistence()
        line = status_line(head.status, head.phrase)
        self._transport.write(b"%b%b%b\r\n\r\n%b" % (line, head.fields, extra, body))

    def _write_switch(self, head: ResponseHead) -> None:
        """Write a 101 (RFC 9110, 15.2.2)."""
        self._keep_alive = False
        self._out.append(
            b"%b%b\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
            % (status_line(101, head.phrase), head.fields, head.switching)
        )
