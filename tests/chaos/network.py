"""The parties around a proxy that are all in trouble, and the faults between them, by a seed.

Each *lane* is a route with callers of its own, and one place where its connections meet faults:
before the proxy, behind it (TLS, plain, HTTP/2), on the way through an egress proxy, in the name
server, or where tokens come from.  The control lanes meet none: their tokens outlast the run and
their services can be reached, so that each of their calls has to succeed, and soon.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc

from proxy.emulator.keys import Keys
from proxy.emulator.service import ProtectedService
from tests.chaos import invariants, names, relay
from tests.chaos.app import App
from tests.chaos.grpc_calls import GrpcCalls
from tests.chaos.http2_peers import Http2Calls, Http2Service
from tests.chaos.relay import Relay
from tests.chaos.sources import Sources
from tests.chaos.traffic import TOKENLESS, WELL_BEHAVED, Traffic
from tests.fakes import tls
from tests.fakes.egress import ForwardProxy
from tests.fakes.grpc_service import GrpcService
from tests.fakes.program import Program

CONTROL = "control"
TIMEOUTS = {"connect": "3s", "response": "3s", "idle": "3s"}

LASTING = (CONTROL, "grpc", "http2", "two-regions")
"""What is in the audiences whose tokens outlast a run."""

EXPIRY = "auth_proxy_token_expiry_timestamp_seconds"

STEADY: Mapping[str, int] = {**WELL_BEHAVED, "small upload": 10, "events": 4}
STREAMS: Mapping[str, int] = {**STEADY, "leave early": 2, "leave an upload": 2}
WITH_RESETS: Mapping[str, int] = {**STREAMS, "old": 3}
"""For callers that see a reset as one."""
WITH_ENDS: Mapping[str, int] = {**WITH_RESETS, "until the end": 4}
"""Over TLS, which tells an end from a cut."""


class Callers(Protocol):
    """`Traffic`, `GrpcCalls` and `Http2Calls`."""

    outcomes: Counter[str]
    problems: list[str]
    tokenless: list[tuple[float, float]]
    slowest: float

    def start(self) -> None: ...
    async def stop(self) -> None: ...
    @property
    def good(self) -> int: ...
    @property
    def bad(self) -> dict[str, int]: ...


class Impostors:
    """Servers with certificates that are not the upstream's; whoever tells them anything fails."""

    def __init__(self) -> None:
        self.told = 0
        """Bytes that came through a handshake that must not succeed."""
        self.addresses: dict[str, relay.Address] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Impostors]:
        contexts = {
            "foreign certificate": tls.server_context(issuer=tls.foreign_authority()),
            "expired certificate": tls.server_context(expired=True),
            "another's certificate": tls.server_context("another.example"),
        }
        async with AsyncExitStack() as stack:
            for name, context in contexts.items():
                server = await asyncio.start_server(self._hear, "127.0.0.1", 0, ssl=context)
                stack.callback(server.close)
                self.addresses[name] = "127.0.0.1", server.sockets[0].getsockname()[1]
            yield self

    def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        self.told += 1
        writer.transport.abort()


@dataclass
class Lane:
    """A route, and who calls it."""

    name: str
    route: dict[str, Any]
    actions: Mapping[str, int] = field(default_factory=lambda: WITH_ENDS)
    steady: Mapping[str, int] = field(default_factory=lambda: STEADY)
    """What must succeed if all is well."""
    callers: int = 3
    speaks_http2: bool = False
    never: tuple[str, ...] = invariants.UNANSWERED
    """What no call may come to."""
    is_before: bool = False
    """Whether its faults are before the proxy."""
    downstream: Relay | None = None
    """What stands there."""

    @property
    def is_control(self) -> bool:
        return self.name.startswith(CONTROL)

    def traffic(self, program: Program, seed: int, *, recovered: bool = False) -> Callers:
        """Return callers; who should succeed with all they do if all has `recovered`."""
        place = self.downstream.address if self.downstream else program.address
        if "host" in self.route:
            address = "{}:{}".format(*place)
            return GrpcCalls(address, self.route["host"], callers=self.callers, seed=seed)
        prefix, callers = self.route["path"], self.callers
        if self.speaks_http2:
            return Http2Calls(place, prefix, callers=callers, seed=seed, leaves=not recovered)
        actions = self.steady if recovered else self.actions
        return Traffic(place, actions, callers=callers, seed=seed, prefix=prefix)


class Network:
    """All parties of one run, and the faults between them."""

    def __init__(self, seed: int, folder: Path, **top: Any) -> None:
        """`top` are keys of the configuration."""
        self.seed = seed
        self._top = top
        self.lanes: list[Lane] = []
        self.relays: list[Relay] = []
        self.services: list[ProtectedService] = []
        self.seen: dict[str, invariants.Seen] = {}
        """What came to the service of a lane."""
        self.grpc_services: list[GrpcService] = []
        self.roots = folder / "roots.pem"
        self.names: names.NameServer | None = None
        self.impostors = Impostors()
        self.app = App()
        self.folder = folder
        self.keys = Keys.shared()
        self.sources = Sources(seed, self, self.keys, LASTING)
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Program]:
        """All is up and well inside, but for the proxy, which is not started."""
        async with self._stack as stack:
            self.app = await stack.enter_async_context(self.app)
            await stack.enter_async_context(self.impostors.serving())
            await self._make_lanes()
            await stack.enter_async_context(self.sources.serving())
            self.roots.write_bytes(
                tls.authority().cert_pem.bytes()
                + b"".join(each.ca_file.read_bytes() for each in self.services if each.ca_file)
            )
            within = names.asking(self.names, self.folder) if self.names else ()
            yield Program(self.document(), env=self.sources.environ, within=within)

    def be(self, *, calm: bool) -> None:
        """Let faults happen from now on, or let all be well."""
        for each in self.relays:
            each.be(calm=calm)
        if self.names is not None:
            self.names.be(calm=calm)
        self.sources.be(calm=calm)

    @property
    def met(self) -> Counter[str]:
        """Faults that happened."""
        found: Counter[str] = Counter()
        for each in self.relays:
            found += Counter({f"{each.name}: {fault}": n for fault, n in each.met.items()})
        found += self.sources.met
        if self.names is not None:
            found += Counter({f"names: {fault}": n for fault, n in self.names.met.items()})
        return found

    def breaches(self) -> list[str]:
        """Return what came to a party and must not."""
        found = invariants.wrongly_admitted([*self.services, self.http2_service])
        found += [f"gRPC came with {each}" for one in self.grpc_services for each in one.refused]
        if self.impostors.told:
            found.append(f"{self.impostors.told} handshakes with a wrong certificate")
        if bad := self.app.bad_uploads + self.http2_service.bad_uploads:
            found.append(f"{bad} uploads came whole and wrong")
        return found

    def look_at_tokens(self, metrics: str) -> None:
        """Note until when routes with access tokens have one, as the proxy says: nobody else can.

        What it says counts from when it asked, which the issuer of a token does not know.
        """
        now = time.time()  # noqa: TID251 (as tokens have it)
        for lane in self.lanes:
            if lane.route.get("auth") == "access_token":
                until = invariants.total(metrics, EXPIRY, f'route="{lane.name}"')
                self.seen[lane.name].tokens.setdefault(until, now)

    def tokenless(self, lane: Lane, callers: Callers) -> list[str]:
        """Return the calls that failed for want of a token although there was one."""
        tokens = self.seen[lane.name].tokens if lane.name in self.seen else {}
        found = invariants.needlessly_tokenless(callers.tokenless, tokens)
        return [f"{lane.name}: {each}" for each in found]

    async def stand_before(self, program: Program) -> None:
        """Put relays between the proxy and the callers of some lanes."""
        for lane in self.lanes:
            if lane.is_before:
                lane.downstream = await self.relay(lane.name, program.address, relay.PLAIN)

    def direct_callers(self) -> dict[str, Callers]:
        """Return callers of services that no proxy stands before; they show how busy all is."""
        name, open_to_all = f"{CONTROL}-grpc past the proxy", self.open_grpc
        return {
            f"{CONTROL} past the proxy": Traffic(self.app.address, STEADY, callers=1),
            name: GrpcCalls(open_to_all.address, open_to_all.address, callers=1, seed=self.seed),
        }

    # --- the parties

    async def relay(
        self, name: str, target: relay.Address, faults: tuple[str, ...], **more: Any
    ) -> Relay:
        made = Relay(name, target, faults, seed=self.seed, **more)
        self.relays.append(made)
        return await self._stack.enter_async_context(made)

    @property
    def app_address(self) -> tuple[str, int]:
        """Where the app is that stands behind services."""
        return self.app.address

    async def serve(self, lane: str, service: ProtectedService) -> None:
        """Start the service of a lane, and look at what comes to it."""
        service.requests = self.seen[lane] = invariants.Seen()
        self.services.append(service)
        await self._stack.enter_async_context(service)

    async def _service(self, lane: str, **more: Any) -> ProtectedService:
        made = ProtectedService(self.keys, app=self.app.address, **more)
        await self.serve(lane, made)
        return made

    def lane(self, name: str, route: Mapping[str, Any], **more: Any) -> None:
        shared: dict[str, Any] = {"ca_file": str(self.roots), "credentials": "metadata"}
        if not name.startswith(CONTROL):
            # Others wait for a service that a busy machine has made slow.
            shared["timeouts"] = TIMEOUTS
        if any(word in route.get("audience", "") for word in LASTING):
            more["never"] = (*more.get("never", invariants.UNANSWERED), *TOKENLESS)
        if "host" not in route:
            shared |= {"path": f"/{name}", "strip_path": True}
        self.lanes.append(Lane(name, {**shared, **route}, **more))

    async def _make_lanes(self) -> None:
        service = await self._service(CONTROL)
        audience = f"https://{CONTROL}.example"
        service.audiences = (audience,)
        self.lane(CONTROL, {"upstream": service.url, "audience": audience}, actions=STEADY)
        await self._make_tls()
        await self._make_plain()
        await self._make_egress()
        await self._make_downstream()
        await self._make_two_regions()
        if not names.WHY_NOT:
            await self._make_named()
        await self._make_grpc()
        await self._make_http2()

    async def _make_tls(self) -> None:
        service = await self._service("tls")
        there = await self.relay("tls", _of(service), relay.TLS, impostors=self.impostors.addresses)
        route = {"upstream": service.url, "connect_to": _place(there)}
        retries = {"attempts": 3, "backoff": "10ms", "on": ["connect_failed", "reset", "503"]}
        self.lane("tls", {**route, "retries": retries}, callers=6)

    async def _make_plain(self) -> None:
        """Over TCP, or over a Unix socket, which knows no resets."""
        service = await self._service("plain", tls=False)
        at = self.folder / "plain.sock" if self.seed % 2 else None
        there = await self.relay("plain", _of(service), relay.PLAIN, at=at)
        route = {"upstream": service.url, "connect_to": _place(there), "auth": "id_token"}
        self.lane("plain", route, actions=WITH_RESETS)

    async def _make_egress(self) -> None:
        service = await self._service("egress", host="egress.example")
        forward = await self._stack.enter_async_context(ForwardProxy().serving())
        there = await self.relay("egress", ("127.0.0.1", forward.port), relay.PLAIN)
        route = {"upstream": service.url, "egress_proxy": f"http://{_place(there)}"}
        self.lane("egress", route)

    async def _make_downstream(self) -> None:
        """Callers of both kinds, who have trouble to reach the proxy."""
        for name, more in (
            ("downstream", {"actions": STREAMS}),
            ("downstream-http2", {"speaks_http2": True}),
        ):
            service = await self._service(name)
            route = {"upstream": service.url}
            self.lane(name, route, callers=6, never=(), is_before=True, **more)

    async def _make_two_regions(self) -> None:
        """The first of them meets faults, the second none: what was not sent is never lost."""
        first, second = await self._service("two-regions"), await self._service("the second")
        audience = "https://two-regions.example"
        first.audiences = second.audiences = (audience,)
        impostors = self.impostors.addresses
        there = await self.relay("two-regions", _of(first), relay.TLS, impostors=impostors)
        route = {
            "upstream": [first.url, second.url],
            "connect_to": [_place(there), "{}:{}".format(*_of(second))],
            "audience": audience,
            # Whoever is starved of a processor cannot make the second region unreachable.
            "timeouts": {**TIMEOUTS, "connect": "10s"},
        }
        # Of larger bodies not all is kept, so that they cannot go on to the second one.
        actions = {"small": 30, "small upload": 10, "large": 4, "chunks": 4, "events": 4}
        self.lane("two-regions", route, actions=actions, steady=actions, never=invariants.UNSENT)

    async def _make_named(self) -> None:
        hosts = "127.0.0.1", "127.53.0.2"
        self.names = names.NameServer(hosts, "127.53.0.9", seed=self.seed)
        await self._stack.enter_async_context(self.names)
        service = await self._service("named", host="orders.example")
        there = await self.relay("named", _of(service), relay.CUTS, hosts=hosts)
        route = {"upstream": service.url, "connect_to": f"orders.example:{there.port}"}
        self.lane("named", route)

    async def _make_grpc(self) -> None:
        self.open_grpc = self._stack.enter_context(GrpcService())
        await self._make_grpc_lane(f"{CONTROL}-grpc", callers=1)
        await self._make_grpc_lane("grpc", relay.TLS)
        await self._make_grpc_lane("downstream-grpc", never=(), is_before=True)

    async def _make_grpc_lane(self, name: str, faults: tuple[str, ...] = (), **more: Any) -> None:
        leaf = tls.authority().issue_cert(*tls.LOOPBACK)
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])
        service = self._stack.enter_context(GrpcService(credentials, keys=self.keys))
        service.audience = f"https://{name}.example"
        self.grpc_services.append(service)
        route: dict[str, Any] = {
            "host": f"{name}.internal",
            "upstream": service.url,
            "audience": service.audience,
        }
        if faults:
            impostors = self.impostors.addresses
            there = await self.relay(name, ("127.0.0.1", service.port), faults, impostors=impostors)
            route["connect_to"] = _place(there)
        self.lane(name, route, **more)

    async def _make_http2(self) -> None:
        """Two lanes between HTTP/1.1 and HTTP/2, one in each direction."""
        audience, impostors = "https://http2.example", self.impostors.addresses
        other = await self._stack.enter_async_context(Http2Service(self.keys, audience).serving())
        self.http2_service, self.seen["to-http2"] = other, other.requests
        there = await self.relay(
            "to-http2", ("127.0.0.1", other.port), relay.TLS, impostors=impostors
        )
        route = {
            "upstream": f"https://localhost:{other.port}",
            "connect_to": _place(there),
            "audience": audience,
            "protocol": "h2",
        }
        # An upgrade always uses HTTP/1.1, which this service does not speak.
        steady, actions = _without_upgrades(STEADY), _without_upgrades(WITH_RESETS)
        self.lane("to-http2", route, actions=actions, steady=steady)
        service = await self._service("from-http2")
        there = await self.relay("from-http2", _of(service), relay.TLS, impostors=impostors)
        route = {"upstream": service.url, "connect_to": _place(there)}
        self.lane("from-http2", route, callers=6, speaks_http2=True)

    def document(self, *, changed: bool = False) -> str:
        """Return the configuration; whatever has `changed` since the last one is built anew."""
        for lane in self.lanes:
            if changed and not lane.is_control:
                limits = lane.route.setdefault("limits", {"connections": 100})
                limits["connections"] = 300 - limits["connections"]
        return json.dumps(
            {
                "listen": "127.0.0.1:0",
                "admin": "127.0.0.1:0",
                **self._top,
                "routes": {each.name: each.route for each in self.lanes},
            }
        )


def _without_upgrades(actions: Mapping[str, int]) -> Mapping[str, int]:
    return {name: weight for name, weight in actions.items() if name != "chat"}


def _of(service: ProtectedService) -> tuple[str, int]:
    return "127.0.0.1", service.port


def _place(there: Relay) -> str:
    return f"unix:{there.at}" if there.at else "{}:{}".format(*there.address)
