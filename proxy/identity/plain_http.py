"""One GET over plain HTTP/1.1, for the metadata server only; llhttp reads the answer.

Importing aiohttp takes 0.15 s, half of the time within which the first authenticated answer
must come after a start; httptools is loaded anyway.  Each request has a connection of its own:
a token is asked for once an hour, and a kept connection would be dead after Cloud Run froze
the instance in between.  No redirects, no cookies, no proxies, nothing from the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field

from aiohappyeyeballs import start_connection
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy.deadlines import Within
from proxy.frozen import frozen
from proxy.resolver import Resolver

HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024
"""More than the largest answer: a token has 1 to 2 KiB."""

HTTP_PORT = 80
_ATTEMPT_DELAY = 0.25  # Seconds before the next address is tried beside the first: RFC 8305, 5.
_FIRST_FINAL_STATUS = 200


class Broken(Exception):
    """What came is not one complete HTTP response; the text says why, and quotes nothing."""


@frozen
class Response:
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated fields the last one."""
    body: bytes = field(repr=False)
    """The metadata server's is a token."""


async def get(
    host: str,
    port: int,
    target: str,
    headers: Mapping[str, str],
    *,
    connect_within: float,
    resolver: Resolver,
) -> Response:
    """Send one request and return the response.

    `target` is sent as it stands; `headers` are added to ``Host``.  `connect_within` bounds
    looking up the name and connecting, in seconds: whoever calls bounds the rest, by
    cancelling.  Raises OSError (TimeoutError included) when there is no connection, `Broken`
    when there is no whole response.
    """
    request = _request(host, port, target, headers)
    async with Within(connect_within):
        sock = await start_connection(
            await resolver.resolve(host, port),
            happy_eyeballs_delay=_ATTEMPT_DELAY,
        )
        reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(request)
        return await _Reading().read(reader)
    except ConnectionError as error:
        raise Broken("the connection ended before the answer was complete") from error
    finally:
        # Whatever else the peer has to say is of no interest.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _request(host: str, port: int, target: str, headers: Mapping[str, str]) -> bytes:
    name = f"[{host}]" if ":" in host else host
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {name}" if port == HTTP_PORT else f"Host: {name}:{port}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Reading:
    """Collects what llhttp reads; the methods whose names begin with ``on_`` are its callbacks."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._begun = False
        self._ended = False
        self._wire = 0

    def on_message_begin(self) -> None:
        self._headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").rstrip(" \t")

    def on_headers_complete(self) -> None:
        self._begun = self._parser.get_status_code() >= _FIRST_FINAL_STATUS

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        # RFC 9110, 15.2: any number of interim responses may come first.
        self._ended = self._begun

    async def read(self, reader: asyncio.StreamReader) -> Response:
        """Return the response once it is whole."""
        while not self._ended:
            data = await reader.read(BODY_BYTES)
            if not data:
                self._end_of_connection()
                break
            self._feed(data)
        return Response(self._parser.get_status_code(), self._headers, bytes(self._body))

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            if not self._ended:  # What follows the answer is of no interest.
                raise Broken("what came is no valid HTTP response") from None
        self._wire += len(data)
        if len(self._body) > BODY_BYTES:
            raise Broken(f"the answer is longer than {BODY_BYTES} bytes")
        if self._wire - len(self._body) > HEAD_BYTES and not self._ended:
            raise Broken(f"the answer has more than {HEAD_BYTES} bytes beside its body")

    def _end_of_connection(self) -> None:
        """RFC 9112, 6.3: without a length, the connection's end is the body's."""
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if framed or not self._begun:
            raise Broken("the connection ended before the answer was complete")
