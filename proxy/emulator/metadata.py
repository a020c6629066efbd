"""An emulated metadata server: what Cloud Run's answers, with tokens that really verify.

Point ``GCE_METADATA_HOST`` and ``GCE_METADATA_IP`` (google-auth's detection reads only the
latter) to `MetadataServer.host`; `MetadataServer.environ` has both.  Tokens are signed with
RS256; the public keys are at ``/oauth2/v1/certs`` (X.509) and ``/oauth2/v3/certs`` (JWK set)
on the same address.

Like the real one it answers 403 to requests without ``Metadata-Flavor: Google`` and to
forwarded ones (``X-Forwarded-For``), 400 to an identity request without audience, 404 to
keys that do not exist.  `faults` says how to make it misbehave.
"""

from __future__ import annotations

import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Self

from aiohttp import web

from proxy.emulator.access import AccessTokens
from proxy.emulator.answers import Facts, IdToken, answer
from proxy.emulator.claims import CALLER, SOMEWHERE, Instance, ServiceAccount
from proxy.emulator.faults import Exchange, Fault
from proxy.emulator.keys import Keys
from proxy.emulator.minting import ID_TOKEN_REMINT, LIFETIME, Mint
from proxy.emulator.records import InFlight, Records
from proxy.emulator.serving import LOOPBACK, Serving, Startable
from proxy.frozen import frozen


@frozen
class MetadataRequest:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def audience(self) -> str:
        """The audience that an ID token was asked for, empty for every other request."""
        return self.query.get("audience", "") if self.path.endswith("/identity") else ""


class MetadataServer(Startable):
    """The metadata server of one emulated instance, on a free port of the loopback.

    `host` is the name or address that callers are told to call it by.

    `account` None stands for an instance without service account.  `lifetime` and
    `remint_below` are seconds: see `minting.Mint`.  `access` keeps the access tokens, which an
    `ApiService` checks.  `clock` answers Unix seconds.  All but `access` may be changed while it
    runs.  After `stop`, `start` opens the same port again.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        *,
        account: ServiceAccount | None = CALLER,
        instance: Instance = SOMEWHERE,
        clock: Callable[[], float] = time.time,  # noqa: TID251 (users run the emulator alone)
        lifetime: float = LIFETIME,
        remint_below: float = ID_TOKEN_REMINT,
        access: AccessTokens | None = None,
        host: str = LOOPBACK,
    ) -> None:
        self.keys = keys or Keys.shared()
        self.account = account
        self.instance = instance
        self.mint = Mint(self.keys, clock, lifetime, remint_below, access)
        self.requests: Records[MetadataRequest] = Records()
        self.in_flight = InFlight()
        """Requests being answered; the key is the audience."""
        self._faults: deque[tuple[Fault, float, str]] = deque()
        self._serving = Serving(self._serve)
        self._host = f"[{host}]" if ":" in host else host

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, the value for ``GCE_METADATA_HOST``."""
        return f"{self._host}:{self._serving.port}"

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that lead Google's libraries here."""
        return {"GCE_METADATA_HOST": self.host, "GCE_METADATA_IP": self.host}

    @property
    def certs_url(self) -> str:
        """Where verifiers find the public keys, in X.509 form."""
        return f"http://{self.host}/oauth2/v1/certs"

    @property
    def jwks_url(self) -> str:
        """Where verifiers find the public keys, as a JWK set."""
        return f"http://{self.host}/oauth2/v3/certs"

    @property
    def asked(self) -> Counter[str]:
        """How many ID tokens were asked for, by audience."""
        return Counter(request.audience for request in self.requests if request.audience)

    def inject(self, fault: Fault, *, times: float = 1, path: str = "") -> None:
        """Answer the next `times` requests whose path contains `path` with `fault`.

        Faults are used up in the order of injection; `math.inf` lasts until `clear_faults`.
        """
        self._faults.append((fault, times, path))

    def clear_faults(self) -> None:
        """Answer regularly from now on."""
        self._faults.clear()

    async def start(self, sockets: Sequence[socket.socket] = ()) -> Self:
        """Serve on `sockets`, which it owns from now on, or else on a free port."""
        await self._serving.start(sockets)
        return self

    async def stop(self) -> None:
        """Close the port; raise what a handler raised, so that a broken fault is noticed."""
        await self._serving.stop()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        arrived = MetadataRequest(request.method, request.path, dict(request.query), headers)
        self.requests.add(arrived)
        with self.in_flight.one(arrived.audience):
            return await self._respond(request)

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        fault = self._take_fault(request.path)
        if fault is None:
            return self._answer(request, self.mint.id_token)
        exchange = Exchange(
            request,
            answer=lambda: self._answer(request, self.mint.id_token),
            mint=lambda lifetime, changes: self._answer(
                request, partial(self.mint.odd_id_token, lifetime=lifetime, changes=changes)
            ),
        )
        return await fault.respond(exchange)

    def _answer(self, request: web.Request, id_token: IdToken) -> web.Response:
        facts = Facts(self.keys, self.account, self.instance, id_token, self.mint.access_token)
        return answer(request, facts)

    def _take_fault(self, path: str) -> Fault | None:
        for place, (fault, times, part) in enumerate(self._faults):
            if part in path:
                if times > 1:
                    self._faults[place] = fault, times - 1, part
                else:
                    del self._faults[place]
                return fault
        return None
