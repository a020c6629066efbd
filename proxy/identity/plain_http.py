"""One GET over plain HTTP/1.1, for the metadata server only.

Importing aiohttp takes 0.15 s, half of the time within which the first authenticated answer
must come after a start; this takes none.  Each request has a connection of its own: it is
asked for a token once an hour, and a kept connection would be dead after Cloud Run froze the
instance in between.  No redirects, no cookies, no proxies, nothing from the environment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

HEAD_BYTES = 16 * 1024
BODY_BYTES = 64 * 1024
"""More than the largest answer: a token has 1 to 2 KiB."""

HTTP_PORT = 80
FIRST_FINAL_STATUS = 200

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_LENGTH = re.compile(r"[0-9]{1,9}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")


class Broken(Exception):
    """What came is not one complete HTTP response; the text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of repeated fields the last one."""
    body: bytes


async def get(
    host: str, port: int, target: str, headers: Mapping[str, str], connect_within: float
) -> Answer:
    """Send one request and return the response.

    `target` is sent as it stands; `headers` are added to ``Host``.  `connect_within` bounds
    the connecting alone, in seconds: whoever calls bounds the rest, by cancelling.  Raises
    OSError (TimeoutError included) when there is no connection, `Broken` when there is no
    whole response.
    """
    request = _request(host, port, target, headers)
    async with asyncio.timeout(connect_within):
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES)
    try:
        writer.write(request)
        return await _answer(reader)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Broken("the connection ended before the answer was complete") from error
    except asyncio.LimitOverrunError as error:
        raise Broken("a line of the answer does not end") from error
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


async def _answer(reader: asyncio.StreamReader) -> Answer:
    # RFC 9110, 15.2: any number of interim responses may come first.
    while (head := _head(await reader.readuntil(b"\r\n\r\n")))[0] < FIRST_FINAL_STATUS:
        pass
    status, headers = head
    # RFC 9112, 6.3: how a response's length is found, in this order.
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise Broken("the answer has an unknown transfer coding")
        body = await _chunks(reader)
    elif (length := headers.get("content-length")) is not None:
        if not _LENGTH.fullmatch(length):
            raise Broken("the answer has no valid length")
        body = await reader.readexactly(_bounded(int(length)))
    else:
        body = await _rest(reader)
    return Answer(status, headers, body)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head[:-4].split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise Broken("the answer is not HTTP/1.1")
    fields = [line.decode("latin-1").partition(":") for line in lines]
    if not all(colon and name == name.strip() for name, colon, _ in fields):
        raise Broken("the answer has a line that is no header field")
    return int(status[1]), {name.lower(): value.strip(" \t") for name, _, value in fields}


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    # RFC 9112, 7.1. Extensions and the trailer section are of no interest.
    body = bytearray()
    while True:
        size = _CHUNK_SIZE.fullmatch(await reader.readuntil(b"\n"))
        if size is None:
            raise Broken("the answer has an invalid chunk")
        length = int(size[1], 16)
        if length == 0:
            return bytes(body)
        _bounded(len(body) + length)
        body += await reader.readexactly(length)
        if await reader.readexactly(2) != b"\r\n":
            raise Broken("the answer has an invalid chunk")


async def _rest(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while data := await reader.read(BODY_BYTES):
        body += data
        _bounded(len(body))
    return bytes(body)


def _bounded(length: int) -> int:
    if length > BODY_BYTES:
        raise Broken(f"the answer is longer than {BODY_BYTES} bytes")
    return length
