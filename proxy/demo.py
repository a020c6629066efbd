"""The whole round trip on one machine, without a Google account.

Starts the emulated metadata server, the emulated private service and the proxy in front of
it, and prints what to type: the call that is refused, the same call through the proxy, a
stream.  With two regions: a call, the end of the first region, and the next call.  The
service's app is one that echoes, or one of the user's own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

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
from proxy.emulate import target
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from proxy.emulator.serving import LOOPBACK
from proxy.plane.listen import ListenFailed
from proxy.process import EXIT_UNAVAILABLE
from proxy.server import Server
from proxy.system import ENDS, SWITCHES, on_signal
from proxy.tasks import Tasks

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


OWN_APP = """\
Cloud Run Auth Proxy: the demo. All of it runs on this machine, no Google account is involved.

  the proxy            {proxy}
  a private service    {service}
  before your app      {app}
  a metadata server    {metadata}
{admin}
1. The service answers 403 to a call without an ID token, and your app sees nothing of it:

   curl --cacert {ca_file} {service}/

2. The same call through the proxy, which adds the token. Your app answers:

   curl {proxy}/

Ctrl-C ends the demo.
"""

REGIONS = """\
Cloud Run Auth Proxy: the demo. All of it runs on this machine, no Google account is involved.

  the proxy            {proxy}
  the first region     {service}
  the second region    {second}
  a metadata server    {metadata}
{admin}
1. A call goes to the first region, and x-auth-proxy-destination says so:

   curl -i {proxy}/hello

2. End the first region:

   kill -{end} {pid}

3. The next call succeeds. It was not sent to the first region, so the second takes over:

   curl -i {proxy}/hello

4. Bring the first region back; a call that tries it, a second later or some more, stays there:

   kill -{back} {pid}

Ctrl-C ends the demo.
"""


def main(
    port: int = 8081,
    admin: Address | None = None,
    regions: int = 1,
    app: Address | None = None,
) -> int:
    """Serve the demo on `port` of the loopback until SIGINT or SIGTERM; return the exit code.

    `admin` is where the admin listener goes, None for none.  `regions` is 1 or 2.
    `app` is what runs in each of them, None for an app that echoes.
    """
    try:
        asyncio.run(_run(Address("localhost", port), admin, regions, app))
    except ListenFailed as error:
        flag = "--admin" if error.where == admin else "--port"
        way_out = f"; {flag} takes another" if error.in_use else ""
        sys.stderr.write(f"{PROGRAM}: {error}{way_out}\n")
        return EXIT_UNAVAILABLE
    return 0


async def _run(listen: Address, admin: Address | None, regions: int, app: Address | None) -> None:
    ended = asyncio.Event()
    for number in ENDS:
        on_signal(number, ended.set)
    async with MetadataServer() as metadata, AsyncExitStack() as stack:
        made = [ProtectedService(app=target(app)) for _ in range(regions)]
        services = [await stack.enter_async_context(each) for each in made]
        ca_file = Path(stack.enter_context(TemporaryDirectory(prefix="demo-"))) / "ca.pem"
        ca_file.write_bytes(b"".join([_certificate(each) for each in services]))
        tasks = Tasks()
        stack.push_async_callback(tasks.end)
        server = Server(_config(listen, admin, services, ca_file), metadata.environ)
        await server.start()
        if regions > 1:
            _switch(services[0], tasks)
        try:
            sys.stdout.write(_text(server, services, metadata, ca_file, app))
            sys.stdout.flush()
            await ended.wait()
            server.drain()
            await server.drained()
        finally:
            await server.stop()


def _certificate(service: ProtectedService) -> bytes:
    return service.ca_file.read_bytes() if service.ca_file is not None else b""


def _switch(region: ProtectedService, tasks: Tasks) -> None:
    """Let signals end a region and bring it back."""
    lock = asyncio.Lock()

    async def change(*, runs: bool) -> None:
        async with lock:
            if runs and region.ca_file is None:
                await region.start()
            elif not runs and region.ca_file is not None:
                await region.stop()

    for number, runs in zip(SWITCHES, (False, True), strict=True):
        on_signal(number, lambda runs=runs: tasks.spawn(change(runs=runs), "change a region"))


def _config(
    listen: Address, admin: Address | None, services: Sequence[ProtectedService], ca_file: Path
) -> Config:
    destinations = tuple(
        [
            Destination(upstream=Upstream("https", LOOPBACK, each.port), audience=each.url)
            for each in services
        ]
    )
    route = Route(
        name="demo",
        listen=(listen,),
        destinations=destinations,
        credentials=MetadataCredentials(),
        ca_file=ca_file,
    )
    return Config(
        routes=(route,),
        admin=None if admin is None else Admin(listen=admin),
        drain=DRAIN,
        source="the demo",
    )


def _text(
    server: Server,
    services: Sequence[ProtectedService],
    metadata: MetadataServer,
    ca_file: Path,
    app: Address | None,
) -> str:
    status = f"  status and metrics   http://{server.admin_address}\n"
    common = {
        "proxy": f"http://{server.addresses[0]}",
        "service": services[0].url,
        "metadata": f"http://{metadata.host}",
        "admin": status if server.admin_address else "",
    }
    if len(services) == 1:
        text = TEXT if app is None else OWN_APP
        return text.format(**common, ca_file=ca_file, app=app)
    end, back = [number.name.removeprefix("SIG") for number in SWITCHES]
    return REGIONS.format(**common, second=services[1].url, end=end, back=back, pid=os.getpid())
