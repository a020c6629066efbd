"""Google's own library for Node takes our emulated metadata server for the real one."""

from __future__ import annotations

from proxy.emulator.metadata import MetadataServer
from proxy.identity.plain_http import get
from proxy.resolver import Resolver
from tests.fakes.node import run_node

AUDIENCE = "https://orders-123456789012.europe-west1.run.app"
IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/identity"


async def test_googles_library_for_node_obtains_the_same_token(metadata: MetadataServer) -> None:
    # METADATA_SERVER_DETECTION: the library would otherwise look at this machine's BIOS.
    env = {**metadata.environ, "METADATA_SERVER_DETECTION": "assume-present"}
    theirs = await run_node("google_auth.mjs", AUDIENCE, env=env, prints_a_token=True)

    host, _, port = metadata.host.partition(":")
    headers = {"Metadata-Flavor": "Google"}
    target = f"{IDENTITY}?audience={AUDIENCE}&format=full"
    ours = await get(host, int(port), target, headers, connect_within=5, resolver=Resolver())
    assert theirs["token"] == ours.body.decode()
