"""A proxy among parties that are all in trouble: one run, by a seed, and what did not hold in it.

Each *lane* is a route with callers of its own, and one place where its connections meet faults:
before the proxy, behind it (TLS, plain, HTTP/2), on the way through an egress proxy, in the name
server, or where tokens come from.  The control lanes meet none: their tokens outlast the run and
their services can be reached, so that each of their calls has to succeed, and soon.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import grpc
from aiohttp import web

from proxy.emulator.faults import Answer, Exchange, Fault, Minted, NoFlavor, Reset
from proxy.emulator.google import TokenServices
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.chaos import invariants, names, relay
from tests.chaos.app import App
from tests.chaos.grpc_calls import GrpcCalls
from tests.chaos.http2_peers import Http2Calls, Http2Service
from tests.chaos.relay import Relay
from tests.chaos.traffic import WELL_BEHAVED, Traffic
from tests.fakes import leaks, proc, tls
from tests.fakes.egress import ForwardProxy
from tests.fakes.grpc_service import GrpcService
from tests.fakes.program import Program

CONTROL = "control"
CONTROL_SECONDS = 2.5
"""What no caller of a control lane waits for: less than the timeouts that end others' calls.  On
top comes what a busy machine costs: what calls take that do not pass the proxy, and how long the
proxy waited for a processor."""

TIMEOUTS = {"connect": "3s", "response": "3s", "idle": "3s"}

SHORT = invariants.USE_MARGIN + 2.0
"""Seconds that most tokens are good for."""

LASTING = (CONTROL, "grpc", "http2", "two-regions")
"""What is in the audiences whose tokens outlast a run."""

UNANSWERED = ("silence", "silence to an upload", "refused")
"""What no call comes to that reaches the proxy undisturbed: whatever happens behind it is told."""

UNSENT = (
    *UNANSWERED,
    "error upstream_connect_failed",
    "error upstream_connect_timed_out",
    "error upstream_tls_failed",
)
"""The same, and what a call fails with of which nothing was sent."""

RECOVERY_SECONDS = 45.0
"""Until all is well again: the pause between two fetches of tokens may have become 30 s."""

STEADY: Mapping[str, int] = {**WELL_BEHAVED, "small upload": 10, "events": 4}
STREAMS: Mapping[str, int] = {**STEADY, "leave early": 2, "leave an upload": 2}
WITH_RESETS: Mapping[str, int] = {**STREAMS, "old": 3}
"""For callers that see a reset as one."""
WITH_ENDS: Mapping[str, int] = {**WITH_RESETS, "until the end": 4}
"""Over TLS, which tells an end from a cut."""

TOKEN_FAULTS: tuple[Fault, ...] = (
    Answer(status=500),
    Answer(status=429, headers={"Retry-After": "1"}),
    Answer(status=200, body="<html>not a token</html>"),
    Answer(status=200, body=b"\0\xff" * 2_000_000),
    Minted(lifetime=-60),
    Minted(lifetime=10),
    Minted(claims={"aud": "https://another.example"}),
    Minted(claims={"exp": "soon"}),
    NoFlavor(),
    Reset(),
    Reset(sent=b"HTTP/1.1 200 OK\r\nContent-Le"),
)


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


class Moody:
    """A metadata server that often has no token, and for most none that lasts.

    Those of control lanes outlast a run, and those of services that speak HTTP/2: their callers
    share a connection, which shall meet what it meets.
    """

    def __init__(self, seed: int) -> None:
        self.met: Counter[str] = Counter()
        self.is_calm = True
        """Whether every answer is a good one."""
        self._choice = random.Random(f"{seed}/tokens")  # noqa: S311 (repeatable)

    async def respond(self, exchange: Exchange) -> web.StreamResponse:
        """Answer well two times out of three."""
        if self.is_calm or self._choice.random() < 0.67:
            audience = exchange.request.query.get("audience", "")
            lasts = any(word in audience for word in LASTING)
            return exchange.mint(None if lasts else SHORT, {})
        fault = self._choice.choice(TOKEN_FAULTS)
        self.met[f"token: {_name(fault)}"] += 1
        return await fault.respond(exchange)


def _name(fault: Fault) -> str:
    match fault:
        case Answer():
            return f"{fault.status}, {len(fault.body)} bytes"
        case Minted():
            return f"lifetime {fault.lifetime}" if fault.lifetime else f"claims {fault.claims}"
        case Reset():
            return f"reset after {len(fault.sent)} bytes"
    return type(fault).__name__


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
class Outcome:
    """What a run came to."""

    seed: int
    calls: Counter[str] = field(default_factory=Counter)
    """By lane, and what they came to."""
    met: Counter[str] = field(default_factory=Counter)
    """Faults that happened, by place and kind."""
    breaches: list[str] = field(default_factory=list)
    slowest: float = 0.0
    """Seconds that the slowest call of a control lane took."""


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
    never: tuple[str, ...] = UNANSWERED
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
        if "host" in self.route:
            address = program.listeners[0]
            return GrpcCalls(address, self.route["host"], callers=self.callers, seed=seed)
        place = self.downstream.address if self.downstream else program.address
        prefix, callers = self.route["path"], self.callers
        if self.speaks_http2:
            return Http2Calls(place, prefix, callers=callers, seed=seed, leaves=not recovered)
        actions = self.steady if recovered else self.actions
        return Traffic(place, actions, callers=callers, seed=seed, prefix=prefix)


class Network:
    """All parties of one run, and the faults between them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.lanes: list[Lane] = []
        self.relays: list[Relay] = []
        self.services: list[ProtectedService] = []
        self.seen: dict[str, invariants.Seen] = {}
        """What came to the service of a lane."""
        self.grpc_services: list[GrpcService] = []
        self.roots = folder / "roots.pem"
        self.names: names.NameServer | None = None
        self.moody = Moody(seed)
        self.impostors = Impostors()
        self.app = App()
        self._folder = folder
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Program]:
        """All is up and well inside."""
        async with self._stack as stack:
            self.app = await stack.enter_async_context(self.app)
            metadata = await stack.enter_async_context(MetadataServer())
            self.keys = metadata.keys
            google = TokenServices(self.keys, lifetime=SHORT)
            self.google = await stack.enter_async_context(google)
            await stack.enter_async_context(self.impostors.serving())
            await self._make_lanes()
            host, port = metadata.host.split(":")
            before_metadata = await self._relay("metadata", (host, int(port)), relay.PLAIN)
            place = "{}:{}".format(*before_metadata.address)
            metadata.inject(self.moody, times=math.inf, path="/identity")
            environment = {"GCE_METADATA_HOST": place, "GCE_METADATA_IP": place}
            self.roots.write_bytes(
                tls.authority().cert_pem.bytes()
                + b"".join(each.ca_file.read_bytes() for each in self.services if each.ca_file)
            )
            within = names.asking(self.names, self._folder) if self.names else ()
            program = Program(self._document(), env=environment, within=within)
            yield await stack.enter_async_context(program)

    def be(self, *, calm: bool) -> None:
        """Let faults happen from now on, or let all be well."""
        for each in self.relays:
            each.be(calm=calm)
        if self.names is not None:
            self.names.be(calm=calm)
        self.moody.is_calm = calm

    @property
    def met(self) -> Counter[str]:
        """Faults that happened."""
        found: Counter[str] = Counter()
        for each in self.relays:
            found += Counter({f"{each.name}: {fault}": n for fault, n in each.met.items()})
        found += self.moody.met
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

    def tokenless(self, lane: Lane, callers: Callers) -> list[str]:
        """Return the calls that failed for want of a token although there was one."""
        tokens = self.seen[lane.name].tokens if lane.name in self.seen else {}
        found = invariants.needlessly_tokenless(callers.tokenless, tokens)
        return [f"{lane.name}: {each}" for each in found]

    async def stand_before(self, program: Program) -> None:
        """Put relays between the proxy and the callers of some lanes."""
        for lane in self.lanes:
            if lane.is_before:
                lane.downstream = await self._relay(lane.name, program.address, relay.PLAIN)

    def direct_callers(self) -> dict[str, Callers]:
        """Return callers of services that no proxy stands before; they show how busy all is."""
        name, open_to_all = f"{CONTROL}-grpc past the proxy", self.open_grpc
        return {
            f"{CONTROL} past the proxy": Traffic(self.app.address, STEADY, callers=1),
            name: GrpcCalls(open_to_all.address, open_to_all.address, callers=1, seed=self.seed),
        }

    # --- the parties

    async def _relay(
        self, name: str, target: relay.Address, faults: tuple[str, ...], **more: Any
    ) -> Relay:
        made = Relay(name, target, faults, seed=self.seed, **more)
        self.relays.append(made)
        return await self._stack.enter_async_context(made)

    async def _service(self, lane: str, **more: Any) -> ProtectedService:
        made = ProtectedService(self.keys, app=self.app.address, **more)
        made.requests = self.seen[lane] = invariants.Seen()
        self.services.append(made)
        return await self._stack.enter_async_context(made)

    def _lane(self, name: str, route: Mapping[str, Any], **more: Any) -> None:
        shared: dict[str, Any] = {"ca_file": str(self.roots)}
        if not name.startswith(CONTROL):
            # Others wait for a service that a busy machine has made slow.
            shared["timeouts"] = TIMEOUTS
        if "host" not in route:
            shared |= {"path": f"/{name}", "strip_path": True}
        self.lanes.append(Lane(name, {**shared, **route}, **more))

    async def _make_lanes(self) -> None:
        service = await self._service(CONTROL)
        audience = f"https://{CONTROL}.example"
        service.audiences = (audience,)
        self._lane(CONTROL, {"upstream": service.url, "audience": audience}, actions=STEADY)
        await self._make_tls()
        await self._make_plain()
        await self._make_egress()
        await self._make_downstream()
        await self._make_two_regions()
        await self._make_key()
        if not names.WHY_NOT:
            await self._make_named()
        await self._make_grpc()
        await self._make_http2()

    async def _make_tls(self) -> None:
        service = await self._service("tls")
        there = await self._relay(
            "tls", _of(service), relay.TLS, impostors=self.impostors.addresses
        )
        route = {"upstream": service.url, "connect_to": _place(there)}
        retries = {"attempts": 3, "backoff": "10ms", "on": ["connect_failed", "reset", "503"]}
        self._lane("tls", {**route, "retries": retries}, callers=6)

    async def _make_plain(self) -> None:
        """Over TCP, or over a Unix socket, which knows no resets."""
        service = await self._service("plain", tls=False)
        at = self._folder / "plain.sock" if self.seed % 2 else None
        there = await self._relay("plain", _of(service), relay.PLAIN, at=at)
        route = {"upstream": service.url, "connect_to": _place(there), "auth": "id_token"}
        self._lane("plain", route, actions=WITH_RESETS)

    async def _make_egress(self) -> None:
        service = await self._service("egress", host="egress.example")
        forward = await self._stack.enter_async_context(ForwardProxy().serving())
        there = await self._relay("egress", ("127.0.0.1", forward.port), relay.PLAIN)
        route = {"upstream": service.url, "egress_proxy": f"http://{_place(there)}"}
        self._lane("egress", route)

    async def _make_downstream(self) -> None:
        """Callers of both kinds, who have trouble to reach the proxy."""
        for name, more in (
            ("downstream", {"actions": STREAMS}),
            ("downstream-http2", {"speaks_http2": True}),
        ):
            service = await self._service(name)
            route = {"upstream": service.url}
            self._lane(name, route, callers=6, never=(), is_before=True, **more)

    async def _make_two_regions(self) -> None:
        """The first of them meets faults, the second none: what was not sent is never lost."""
        first, second = await self._service("two-regions"), await self._service("the second")
        audience = "https://two-regions.example"
        first.audiences = second.audiences = (audience,)
        impostors = self.impostors.addresses
        there = await self._relay("two-regions", _of(first), relay.TLS, impostors=impostors)
        route = {
            "upstream": [first.url, second.url],
            "connect_to": [_place(there), "{}:{}".format(*_of(second))],
            "audience": audience,
        }
        # Of larger bodies not all is kept, so that they cannot go on to the second one.
        actions = {"small": 30, "small upload": 10, "large": 4, "chunks": 4, "events": 4}
        self._lane("two-regions", route, actions=actions, steady=actions, never=UNSENT)

    async def _make_key(self) -> None:
        """Tokens come from Google's token endpoint, in exchange for a key."""
        service = await self._service("key")
        host, port = self.google.url.removeprefix("http://").split(":")
        there = await self._relay("token endpoint", (host, int(port)), relay.PLAIN)
        key = {**self.google.key_file(), "token_uri": f"http://{_place(there)}/token"}
        (self._folder / "key.json").write_text(json.dumps(key))
        credentials = {"service_account_file": str(self._folder / "key.json")}
        self._lane("key", {"upstream": service.url, "credentials": credentials}, callers=2)

    async def _make_named(self) -> None:
        hosts = "127.0.0.1", "127.53.0.2"
        self.names = names.NameServer(hosts, "127.53.0.9", seed=self.seed)
        await self._stack.enter_async_context(self.names)
        service = await self._service("named", host="orders.example")
        there = await self._relay("named", _of(service), relay.CUTS, hosts=hosts)
        route = {"upstream": service.url, "connect_to": f"orders.example:{there.port}"}
        self._lane("named", route)

    async def _make_grpc(self) -> None:
        self.open_grpc = self._stack.enter_context(GrpcService())
        for name, faults in ((f"{CONTROL}-grpc", ()), ("grpc", relay.TLS)):
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
                there = await self._relay(
                    name, ("127.0.0.1", service.port), faults, impostors=impostors
                )
                route["connect_to"] = _place(there)
            self._lane(name, route, callers=1 if not faults else 3)

    async def _make_http2(self) -> None:
        """Two lanes between HTTP/1.1 and HTTP/2, one in each direction."""
        audience, impostors = "https://http2.example", self.impostors.addresses
        other = await self._stack.enter_async_context(Http2Service(self.keys, audience).serving())
        self.http2_service, self.seen["to-http2"] = other, other.requests
        there = await self._relay(
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
        self._lane("to-http2", route, actions=actions, steady=steady)
        service = await self._service("from-http2")
        there = await self._relay("from-http2", _of(service), relay.TLS, impostors=impostors)
        route = {"upstream": service.url, "connect_to": _place(there)}
        self._lane("from-http2", route, callers=6, speaks_http2=True)

    def _document(self) -> str:
        return json.dumps(
            {
                "listen": "127.0.0.1:0",
                "admin": "127.0.0.1:0",
                "routes": {each.name: each.route for each in self.lanes},
            }
        )


def _without_upgrades(actions: Mapping[str, int]) -> Mapping[str, int]:
    return {name: weight for name, weight in actions.items() if name != "chat"}


def _of(service: ProtectedService) -> tuple[str, int]:
    return "127.0.0.1", service.port


def _place(there: Relay) -> str:
    return f"unix:{there.at}" if there.at else "{}:{}".format(*there.address)


async def run(seed: int, seconds: float) -> Outcome:
    """Run all lanes with faults for so long, and look at what is left."""
    outcome = Outcome(seed)
    with TemporaryDirectory(prefix="chaos-") as folder:
        network = Network(seed, Path(folder))
        async with network.serving() as program:
            await network.stand_before(program)
            await _recover(network, program, outcome)
            before, counted = await invariants.footprint(program), await invariants.metrics(program)
            waited = proc.waited_seconds(program.pid)
            network.be(calm=False)
            callers = {lane.name: lane.traffic(program, seed) for lane in network.lanes}
            callers |= network.direct_callers()
            for each in callers.values():
                each.start()
            await _reload(program, seconds)
            network.be(calm=True)
            for each in callers.values():
                await each.stop()
            outcome.met = network.met
            waited = proc.waited_seconds(program.pid) - waited
            outcome.breaches += await invariants.still_busy(program)
            text = await invariants.metrics(program)
            for lane in network.lanes:
                _judge(lane, callers[lane.name], counted, text, outcome)
                outcome.breaches += network.tokenless(lane, callers[lane.name])
                if lane.is_control:
                    straight = callers[f"{lane.name} past the proxy"]
                    most = CONTROL_SECONDS + straight.slowest + waited
                    _judge_control(lane, callers[lane.name], most, outcome)
            await _recover(network, program, outcome)
            outcome.breaches += await invariants.grown(program, before)
        outcome.breaches += network.breaches()
        outcome.breaches += invariants.complaints(program)
    outcome.breaches += [f"a token in {where}" for where in leaks.take()]
    return outcome


async def _reload(program: Program, seconds: float) -> None:
    """Let so much time pass, and have the configuration read again every second."""
    document = json.loads(program.config_file.read_text())
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(1.0, left))
        # Whatever differs from the one before is built anew.
        for name, route in document["routes"].items():
            if not name.startswith(CONTROL):
                limits = route.setdefault("limits", {"connections": 100})
                limits["connections"] = 300 - limits["connections"]
        program.config_file.write_text(json.dumps(document))
        program.signal(signal.SIGHUP)


def _judge(lane: Lane, callers: Callers, before: str, after: str, outcome: Outcome) -> None:
    """Look at what the callers of one lane saw."""
    for what, n in callers.outcomes.items():
        outcome.calls[f"{lane.name}: {what}"] += n
    found = [
        *callers.problems,
        *(f"{n} times {what}" for what in lane.never if (n := callers.outcomes[what])),
        *invariants.inexplicable(callers.outcomes),
        *invariants.miscounted(after, callers.outcomes, lane.name, before),
    ]
    outcome.breaches += [f"{lane.name}: {each}" for each in found]


def _judge_control(lane: Lane, callers: Callers, seconds: float, outcome: Outcome) -> None:
    """Look at callers whom no fault concerned; none of them may wait so long."""
    outcome.slowest = max(outcome.slowest, callers.slowest)
    found = invariants.disturbed(callers, seconds)
    outcome.breaches += [f"{lane.name}: {each}" for each in found]


async def _recover(network: Network, program: Program, outcome: Outcome) -> None:
    """Call on each lane until all is well, which may take a moment after faults."""
    for lane in network.lanes:
        end = time.monotonic() + RECOVERY_SECONDS
        while bad := await _some(lane, program):
            if time.monotonic() > end:
                outcome.breaches.append(f"{lane.name} does not recover: {bad}")
                break


async def _some(lane: Lane, program: Program) -> dict[str, int]:
    """Make a few calls on a lane, and return what they came to if it is not what they should."""
    callers = lane.traffic(program, seed=0, recovered=True)
    callers.start()
    async with asyncio.timeout(RECOVERY_SECONDS):
        while callers.outcomes.total() < 10:  # noqa: ASYNC110 (callers tell no event)
            await asyncio.sleep(0.01)
    await callers.stop()
    return callers.bad
