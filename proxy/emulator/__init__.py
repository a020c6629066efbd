"""Google's side of the wire on this machine, for the demo and for tests, yours included.

A metadata server that signs real RS256 tokens, and a private service that accepts only
them.  Everything between the two is what you want to test::

    import asyncio
    from proxy.emulator import Answer, MetadataServer, ProtectedService

    async def test_orders_survives_a_metadata_hiccup():
        service = ProtectedService(app=("127.0.0.1", 3000))
        async with MetadataServer() as metadata, service as orders:
            metadata.inject(Answer(status=503))
            # Start what you test with metadata.environ in its environment, trusting
            # orders.ca_file, and let it call orders.url.  Then:
            assert metadata.asked == {orders.url: 2}
            assert [request.target for request in orders.admitted] == ["/orders/1"]

For access tokens `ApiService` stands for one of Google's APIs, and shares `AccessTokens` with the
metadata server, which issues them.  `TokenServices` is where key files, logins, impersonation and
workload identity federation get theirs, and ID tokens.

All servers take a free port of the loopback, keep what arrived in ``requests``
(``await server.requests.reached(3)`` waits for the third), accept a clock of yours, and
share one key unless given others.  `faults` says how the metadata server misbehaves on
request.  A handler that breaks makes ``stop`` raise, so that a test fails.

Nothing here is fit to protect anything: the private key is in the process, and everybody
on the machine can ask for a token.
"""

from proxy.emulator.access import AccessTokens, Grant
from proxy.emulator.api import ApiService
from proxy.emulator.claims import Instance, ServiceAccount, id_token_claims
from proxy.emulator.faults import Answer, Exchange, Fault, Held, Minted, NoFlavor, Reset
from proxy.emulator.google import TokenRequest, TokenServices
from proxy.emulator.keys import Keys
from proxy.emulator.metadata import MetadataRequest, MetadataServer
from proxy.emulator.service import ProtectedService, ServiceRequest
from proxy.emulator.verify import Refusal, verify

__all__ = [
    "AccessTokens",
    "Answer",
    "ApiService",
    "Exchange",
    "Fault",
    "Grant",
    "Held",
    "Instance",
    "Keys",
    "MetadataRequest",
    "MetadataServer",
    "Minted",
    "NoFlavor",
    "ProtectedService",
    "Refusal",
    "Reset",
    "ServiceAccount",
    "ServiceRequest",
    "TokenRequest",
    "TokenServices",
    "id_token_claims",
    "verify",
]
