"""The whole round trip on one machine, without a Google account.

Starts the emulated metadata server, the emulated private service and the proxy in front of
it, and prints what to type: the call that is refused, the same call through the proxy, a
stream.
"""

from __future__ import annotations

import asyncio
import sys

from proxy import PROGRAM
from proxy.config.model import (
    Address,
    Admin,
    Config,
    Destination,
    MetadataCredentials,
    Route,
    Upstream,
)
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from proxy.emulator.serving import LOOPBACK
from proxy.plane.listen import ListenFailed
from proxy.process import EXIT_UNAVAILABLE
from proxy.server import Server
from proxy.system import ENDS, on_signal

DRAIN = 1.0  # Seconds: whoever presses Ctrl-C while watching a stream does not want the rest.

TEXT = """\
Cloud Run Auth Proxy: the demo. All of it runs on this machine, no Google account is involved.

  the proxy            {proxy}
  a private service    {service}
  a metadata server    {metadata}
{admin}
1. The service answers 403 to a call without an ID token:

   curl --cacert {ca_file} {service}/hello

2. The same call through the proxy, which adds the token. The answer shows what arrived:

   curl {proxy}/hello

3. A stream, line by line:

   curl -N {proxy}/stream

Ctrl-C ends the demo.
"""


def main(port: int = 8081, admin: Address | None = None) -> int:
    """Serve the demo on `port` of the loopback until SIGINT or SIGTERM; return the exit code.

    `admin` is where the admin listener goes, None for none.
    """
    try:
        asyncio.run(_run(Address("localhost", port), admin))
    except ListenFailed as error:
        flag = "--admin" if error.where == admin else "--port"
        way_out = f"; {flag} takes another" if error.in_use else ""
        sys.stderr.write(f"{PROGRAM}: {error}{way_out}\n")
        return EXIT_UNAVAILABLE
    return 0


async def _run(listen: Address, admin: Address | None) -> None:
    ended = asyncio.Event()
    for number in ENDS:
        on_signal(number, ended.set)
    async with MetadataServer() as metadata, ProtectedService() as service:
        server = Server(_config(listen, admin, service), metadata.environ)
        await server.start()
        try:
            sys.stdout.write(_text(server, service, metadata))
            sys.stdout.flush()
            await ended.wait()
            server.drain()
            await server.drained()
        finally:
            await server.stop()


def _config(listen: Address, admin: Address | None, service: ProtectedService) -> Config:
    route = Route(
        name="demo",
        listen=(listen,),
        destinations=(
            Destination(upstream=Upstream("https", LOOPBACK, service.port), audience=service.url),
        ),
        credentials=MetadataCredentials(),
        ca_file=service.ca_file,
    )
    return Config(
        routes=(route,),
        admin=None if admin is None else Admin(listen=admin),
        drain=DRAIN,
        source="the demo",
    )


def _text(server: Server, service: ProtectedService, metadata: MetadataServer) -> str:
    status = f"  status and metrics   http://{server.admin_address}\n"
    return TEXT.format(
        proxy=f"http://{server.addresses[0]}",
        service=service.url,
        metadata=f"http://{metadata.host}",
        admin=status if server.admin_address else "",
        ca_file=service.ca_file,
    )
