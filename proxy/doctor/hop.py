"""The last hop before an upstream that is not simply dialled: an egress proxy, or a Unix socket.

What comes after it (TLS, the request) knows addresses alone.  So a relay on loopback leads there
for as long as a route is examined.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from proxy.config.model import Address
from proxy.config.proxies import HttpProxy
from proxy.doctor.certificate import Place
from proxy.doctor.findings import Advice, Finding, Step, failed
from proxy.doctor.words import span, try_to_connect, with_curl
from proxy.errors import ProxyError, UpstreamConnectFailed
from proxy.plane.connect import HEAD_BYTES, Connect
from proxy.plane.dial import connect_unix

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]
"""An open connection, and what has come on it already."""

_PIECE_BYTES = 64 * 1024


async def through_proxy(place: Place, proxy: HttpProxy, to: Address) -> Streams:
    """Open a tunnel to `to` through `proxy`, which is at `place`.

    Raises:
        UpstreamConnectFailed: it opens none.
        OSError: there is no connection.
    """
    connect = Connect(proxy, to.host, to.port)
    reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(connect.request())
        return reader, writer, await _rest(connect, reader)
    except BaseException:
        writer.transport.abort()
        raise


async def _rest(connect: Connect, reader: asyncio.StreamReader) -> bytes:
    """Return the tunnel's first bytes, once it is open."""
    while data := await reader.read(HEAD_BYTES):
        if (rest := connect.take(data)) is not None:
            return rest
    raise connect.ended()


async def through_socket(path: str) -> Streams:
    """Connect to the Unix socket at `path`; raises OSError."""
    return *await asyncio.open_connection(sock=await connect_unix(path)), b""


@contextlib.asynccontextmanager
async def relay(dial: Callable[[], Awaitable[Streams]]) -> AsyncIterator[Place]:
    """Yield an address of loopback whose connections lead where `dial` does."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(reader, writer, dial))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield host, port
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    dial: Callable[[], Awaitable[Streams]],
) -> None:
    far_writer: asyncio.StreamWriter | None = None
    try:
        far_reader, far_writer, rest = await dial()
        writer.write(rest)
        ways = [asyncio.ensure_future(_copy(reader, far_writer))]
        ways.append(asyncio.ensure_future(_copy(far_reader, writer)))
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
    except (OSError, ProxyError):
        pass  # Whoever asked sees that the connection ends.
    finally:
        writer.close()
        if far_writer is not None:
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE_BYTES):
        writer.write(data)
        await writer.drain()


# The finding


async def try_proxy(place: Place, proxy: HttpProxy, to: Address, deadline: float) -> Finding:
    """Open one tunnel and close it again; `deadline` is a time of the loop's."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout_at(deadline):
            _, writer, _ = await through_proxy(place, proxy, to)
    except UpstreamConnectFailed as error:
        return _refused(error.detail, error.hint, proxy, to)
    except TimeoutError:
        why = f"The egress proxy {proxy} did not answer within {span(loop.time() - began)}."
        return _refused(why, "Look at its log, or raise the route's timeouts.connect.", proxy, to)
    except OSError:
        why = f"The egress proxy {proxy} broke the connection."
        return _refused(why, "Look at its log.", proxy, to)
    writer.transport.abort()
    seconds = loop.time() - began
    return Finding(
        step=Step.EGRESS_PROXY,
        text=f"{proxy} opened a tunnel to {to} (in {span(seconds)})",
        notes=(f"{proxy.variable} names it",) if proxy.variable else (),
        facts={"proxy": str(proxy), "to": str(to), "seconds": round(seconds, 4)},
    )


def _refused(why: str, fix: str, proxy: HttpProxy, to: Address) -> Finding:
    advice = Advice(
        reason="egress_proxy_failed",
        why=why,
        fix=fix,
        # Credentials are left out: curl takes those that --proxy-user asks for.
        command=with_curl(
            f"curl -v --proxy {proxy} https://{to}/", try_to_connect(proxy.host, proxy.port)
        ),
    )
    return failed(Step.EGRESS_PROXY, f"{proxy} opened no tunnel to {to}", advice)
