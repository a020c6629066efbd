"""One request to the upstream, with the route's own token, made as the proxy would make it.

Speaks HTTP/1.1, which Google's front ends understand whatever the service behind them does.
"""

from __future__ import annotations

import asyncio
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from proxy import PROGRAM, __version__
from proxy.clock import Clocks
from proxy.config.model import Route, Upstream
from proxy.doctor.answers import Answer
from proxy.doctor.certificate import Place
from proxy.doctor.findings import Reason
from proxy.doctor.words import span
from proxy.frozen import frozen
from proxy.identity.header import quota_project
from proxy.identity.source import QUOTA_FIELD
from proxy.identity.token import Token
from proxy.plane.front_end import PAGE_BYTES
from proxy.plane.trust import HTTP1, whole_context

BODY_BYTES = PAGE_BYTES + 1
"""How much of an error's body is read: the whole of what can be one of Google's pages."""

BODY_WITHIN = 5.0
"""The time for that, in seconds: a stream may go on for hours, and says nothing about the route."""

_LOWEST_ERROR = 400


@frozen
class Question:
    """What is asked of every route."""

    method: str = "GET"
    path: str = "/"


@frozen
class Silence:
    """There was no answer."""

    reason: Reason
    text: str


@frozen
class Target:
    """Where the request goes, and what it carries."""

    route: Route
    upstream: Upstream
    place: Place
    """The IP address and port where the upstream was reached."""
    token: Token | None


async def ask(
    target: Target, question: Question, within: float, clocks: Clocks
) -> Answer | Silence:
    """Send one request, and wait up to `within` seconds for the head of the response."""
    bytes_at_most = target.route.limits.header_bytes or 1 << 20
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=_Known(*target.place),
            ssl=whole_context(target.route.ca_file, HTTP1),
            force_close=True,
        ),
        # Neither the environment nor an earlier answer changes the request.
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
        max_line_size=bytes_at_most,
        max_field_size=bytes_at_most,
    )
    async with session:
        return await _exchange(session, target, question, within, clocks)


async def _exchange(
    session: aiohttp.ClientSession,
    target: Target,
    question: Question,
    within: float,
    clocks: Clocks,
) -> Answer | Silence:
    began = clocks.steady()
    try:
        async with asyncio.timeout(within):
            response = await session.request(
                question.method,
                f"{target.upstream}{question.path}",
                headers=_fields(target.route, target.token),
                # The token must not follow a redirect to another host.
                allow_redirects=False,
            )
    except TimeoutError:
        return Silence("upstream_timed_out", f"it gave no answer within {span(within)}")
    except (aiohttp.ClientError, OSError) as error:
        return _silence(error)
    seconds, received_at = clocks.steady() - began, clocks.wall()
    async with response:
        body = await _beginning(response) if response.status >= _LOWEST_ERROR else ""
        fields: dict[str, str] = {}
        for name, value in response.headers.items():
            fields.setdefault(name.lower(), value)
        return Answer(response.status, fields, body, seconds, received_at)


def _fields(route: Route, token: Token | None) -> dict[str, str]:
    # Not compressed, or no page could be recognised.
    fields = {
        "User-Agent": f"{PROGRAM}/{__version__} doctor",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    fields |= dict(route.set_headers)
    if token is not None:
        fields[route.header.value] = f"Bearer {token.value}"
        if project := quota_project(token).decode():
            fields.setdefault(QUOTA_FIELD, project)
    return fields


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Return as much of the body as comes in time, also of one that breaks off."""
    body = b""
    try:
        async with asyncio.timeout(BODY_WITHIN):
            while len(body) < BODY_BYTES and (more := await response.content.read(BODY_BYTES)):
                body += more
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    return body[:BODY_BYTES].decode("utf-8", "replace")


def _silence(error: Exception) -> Silence:
    # The exceptions' own texts may hold the request's headers, so only their kind is told.
    match error:
        case aiohttp.ClientConnectorError():
            return Silence("upstream_connect_failed", "the second connection was refused")
        case aiohttp.ServerDisconnectedError() | ConnectionError():
            return Silence("upstream_reset", "it closed the connection without an answer")
        case aiohttp.ClientResponseError():
            return Silence("upstream_malformed", "what came is not HTTP/1.1")
        case _:
            return Silence("upstream_reset", f"the connection broke ({type(error).__name__})")


class _Known(AbstractResolver):
    """Resolves to the address that was reached before: names are not looked up twice."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._port = port

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 (the interface)
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 (the interface)
    ) -> list[ResolveResult]:
        """Return the one address."""
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=self._port,
                family=socket.AF_INET6 if ":" in self._address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is kept open."""
