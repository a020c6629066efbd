"""Google's side of the wire as a command, for development and CI.

Starts the emulated metadata server and, before an app of yours or the one that echoes, a front
that judges ID tokens as Cloud Run's does.  What it prints is a shell script: the environment that
leads the proxy and Google's libraries there, and in comments what to type.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from proxy import PROGRAM
from proxy.config.model import Address, Config
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.peer import App
from proxy.emulator.service import ProtectedService
from proxy.emulator.serving import LOOPBACK
from proxy.plane import listen
from proxy.plane.listen import ListenFailed
from proxy.process import EXIT_UNAVAILABLE
from proxy.services import resolved_within
from proxy.system import ENDS, on_signal

KEPT = 100
"""Requests that are remembered: it may run for weeks."""

RESOLVED_WITHIN = 1.0
"""Seconds; the server that is asked runs in this process."""

_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 (looked for here, chosen by somebody else)

TEXT = """\
# Cloud Run's side of the wire, on this machine. No Google account is involved.
#
#   a private service    {service}
#   before               {app}
#   a metadata server    http://{metadata}
#
# It admits ID tokens for:
{audiences}
#
# The environment that leads the proxy and other callers there:
{environ}
#
# Without a token the service answers 403:
#   curl --cacert {ca_file} {service}/
#
# In another terminal with this environment, the proxy, which adds the token; then a call:
#   {program} {service}
#   curl http://localhost:8081/
#
# Ctrl-C ends it.
"""


def main(
    front: Address, metadata: Address, app: Address | None = None, config: Config | None = None
) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code.

    `front` and `metadata` are where the two listen.  `app` is what the front stands before, None
    for an app that echoes.  `config` is a proxy's: the front admits the audiences of its routes
    as well, and its certificate has the hosts of their upstreams.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        asyncio.run(_run(front, metadata, app, config))
    except ListenFailed as error:
        flag = "--metadata" if error.where == metadata else "--listen"
        way_out = f"; {flag} takes another" if error.in_use else ""
        sys.stderr.write(f"{PROGRAM}: {error}{way_out}\n")
        return EXIT_UNAVAILABLE
    return 0


def target(app: Address | None) -> App | None:
    """Return where an app listens, in the emulator's words."""
    if app is None:
        return None
    return Path(app.path) if app.path else (app.host, app.port)


async def _run(
    front: Address, metadata: Address, app: Address | None, config: Config | None
) -> None:
    ended = asyncio.Event()
    for number in ENDS:
        on_signal(number, ended.set)
    google = MetadataServer(host=_name(metadata, LOOPBACK))
    service = ProtectedService(google.keys, app=target(app), host=_name(front, "localhost"))
    google.requests.limit = service.requests.limit = KEPT
    async with AsyncExitStack() as stack:
        stack.push_async_callback(google.stop)
        stack.push_async_callback(service.stop)
        await google.start(await listen.bind(metadata))
        hosts: list[str] = []
        admitted: list[str] = []
        if config is not None:
            known = await resolved_within(RESOLVED_WITHIN, config, google.environ)
            destinations = [each for route in known.routes for each in route.destinations]
            hosts = [each.upstream.host for each in destinations if each.upstream is not None]
            admitted = [each.audience for each in destinations if each.audience is not None]
        service.names = (*service.names, *hosts)
        await service.start(await listen.bind(front))
        service.audiences = tuple(dict.fromkeys([service.url, *admitted]))
        sys.stdout.write(_text(service, google, app))
        sys.stdout.flush()
        await ended.wait()


def _name(address: Address, at_home: str) -> str:
    """Return the host under which an address is called: `at_home` where it is the loopback's."""
    if address.host in _EVERYWHERE:
        return socket.gethostname()
    return at_home if address.host == "localhost" else address.host


def _text(service: ProtectedService, google: MetadataServer, app: Address | None) -> str:
    ca_file = shlex.quote(str(service.ca_file))
    environ = {
        **google.environ,
        # What OpenSSL's programs, Node.js and Python's requests trust.
        "SSL_CERT_FILE": ca_file,
        "NODE_EXTRA_CA_CERTS": ca_file,
        "REQUESTS_CA_BUNDLE": ca_file,
    }
    return TEXT.format(
        service=service.url,
        app="one that echoes" if app is None else app,
        metadata=google.host,
        audiences="\n".join(f"#   {each}" for each in service.audiences or ()),
        environ="\n".join(f"export {name}={value}" for name, value in environ.items()),
        ca_file=ca_file,
        program=PROGRAM,
    )
