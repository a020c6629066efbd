"""One GET over plain HTTP, for the metadata server only.

aiohttp speaks the protocol.  Each request has a connection of its own: a token is asked for
once an hour, and a kept connection would be dead after Cloud Run froze the instance in
between.  No redirects, no cookies, no proxies, nothing from the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

BODY_BYTES = 64 * 1024
"""More than the largest answer: a token has 1 to 2 KiB."""

HTTP_PORT = 80


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
    # Imported with the first request: it takes 0.1 s, which a proxy that needs no token saves,
    # and which others spend while their listeners are open already.
    import aiohttp  # noqa: PLC0415 (see above)

    try:
        async with _session(connect_within) as session:
            return await _ask(session, _url(host, port, target), headers)
    except aiohttp.ClientConnectorError as error:
        raise error.os_error from None
    except aiohttp.ConnectionTimeoutError:
        raise  # It is a TimeoutError.
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError):
        # The cause would bring the URL and the peer's bytes along.
        raise Broken("the connection ended before the answer was complete") from None
    except aiohttp.ClientError:
        raise Broken("what came is no valid HTTP response") from None


def _session(connect_within: float) -> aiohttp.ClientSession:
    import aiohttp  # noqa: PLC0415 (see `get`)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=1),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_within),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,
        trust_env=False,
    )


def _url(host: str, port: int, target: str) -> URL:
    """Return the URL as it stands: aiohttp would quote anew what the caller has quoted."""
    from yarl import URL  # noqa: PLC0415 (comes with aiohttp)

    name = f"[{host}]" if ":" in host else host
    return URL(f"http://{name}:{port}{target}", encoded=True)


async def _ask(session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> Answer:
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        body = await _bounded(response.content)
        fields = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, fields, body)


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > BODY_BYTES:
            raise Broken(f"the answer is longer than {BODY_BYTES} bytes")
    return bytes(body)
