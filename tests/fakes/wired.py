"""The data path in this process: real listener, real sockets, time in the test's hand."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self, cast

import pytest

from proxy.clock import Clocks
from proxy.config.model import Address, Auth, Config, Destination, Route, Upstream
from proxy.identity.access_token import Scopes, Wanted
from proxy.identity.cache import TokenCache
from proxy.identity.caches import TokenCaches
from proxy.identity.source import CLOUD_PLATFORM, Authority, TokenSourceError
from proxy.plane.build import Builder
from proxy.plane.dial import Dialler
from proxy.plane.listen import Listener, listen
from proxy.plane.plane import ListenerHost, Plane
from proxy.plane.stats import Connections, RouteStats, Stats
from proxy.resolver import Resolver
from proxy.tasks import in_turns
from tests.fakes.cutting import CutCaller, Cuts, cutting_dial, whole
from tests.fakes.raw import PATIENCE, RawCaller, ScriptedUpstream, UpstreamEnd
from tests.fakes.steering import HOUR, jwt

ANY = Address("127.0.0.1", 0)
AUDIENCE = "https://orders.example"
SCOPES = CLOUD_PLATFORM


class Steering:
    """Both clocks; time passes only when a test says so."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 1000.0
        self.clocks = Clocks(wall=lambda: self.wall, steady=lambda: self.steady)


class ScriptedSource:
    """A token source that answers what a test wants, in order; the last answer stays."""

    def __init__(self, time: Steering, audience: str = AUDIENCE) -> None:
        self._time = time
        self._audience = audience
        self.answers: list[str | TokenSourceError] = []
        self.authorities = [Authority("ya29.first", expires_in=HOUR)]
        self.delay = 0.0
        """Seconds for which the source of access tokens thinks."""
        self.fetched = 0
        self.held: asyncio.Event | None = None
        """While set and not released, fetches hang."""

    def token(self) -> str:
        """Return a token that no other call returns."""
        return jwt(self._time.wall + HOUR, self._audience)

    def describe(self) -> str:
        return "a scripted source"

    async def fetch(self, audience: str) -> str:
        assert audience == self._audience
        self.fetched += 1
        if self.held is not None:
            await self.held.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, TokenSourceError):
            raise answer
        return answer

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        assert scopes == SCOPES
        self.fetched += 1
        self._time.wall += self.delay
        return self.authorities.pop(0) if len(self.authorities) > 1 else self.authorities[0]

    async def account(self) -> str | None:
        return None

    async def close(self) -> None:
        pass


class _OneCache:
    """Stands where `Tokens` stands: routes share one cache for each kind over a scripted source."""

    def __init__(self, time: Steering, source: ScriptedSource) -> None:
        self._time = time
        self.one = self._cache(AUDIENCE, source)
        self.of_scopes = self._cache(Scopes(SCOPES), source)
        self.others: dict[str, TokenCache] = {}
        """Of audiences that have a source of their own."""

    def _cache(self, wanted: Wanted, source: ScriptedSource) -> TokenCache:
        return TokenCache(
            wanted,
            source=source,
            clocks=self._time.clocks,
            jitter=Random(7),  # noqa: S311 (jitter, not a secret)
            gate=asyncio.Semaphore(4),
        )

    def add(self, audience: str) -> ScriptedSource:
        """Return the source of an audience that gets tokens of its own."""
        source = ScriptedSource(self._time, audience)
        source.answers = [source.token()]
        self.others[audience] = self._cache(audience, source)
        return source

    def cache(self, credentials: object, wanted: Wanted, egress: object) -> TokenCache:
        del credentials, egress  # Its source has neither.
        if isinstance(wanted, Scopes):
            return self.of_scopes
        return self.others.get(wanted, self.one)


class _Complaints(logging.Handler):
    """Collects what the data path logs about bugs of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.records.append(self.format(record))


class Wired:
    """A proxy, its upstream and its callers.

    When it is left, nothing may be in flight any more, every connection must end, and no
    callback of either side may have failed.
    """

    def __init__(
        self, *, automatic: bytes | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self.time = Steering()
        self.source = ScriptedSource(self.time)
        self.source.answers = [self.source.token()]
        self.upstream = ScriptedUpstream(automatic)
        self.stats = Stats()
        self.plane = Plane(self.time.clocks, self.stats, jitter=lambda: 0.5)
        self.tokens = _OneCache(self.time, self.source)
        self.resolver = Resolver(self.time.clocks.steady)
        self.builder = Builder(self.plane, cast("TokenCaches", self.tokens), self.resolver)
        self.host = ListenerHost(self.plane)
        self.cut_requests: Cuts = whole
        self.half_open = False
        """Whether exchanges may wait for the upstream to close too, as tunnels do."""
        self.config = Config(routes=())
        self._listener: Listener | None = None
        self._complaints = _Complaints()
        self._failures: list[str] = []
        self._stack = AsyncExitStack()
        self._patches = pytest.MonkeyPatch()

    # --- setting up

    async def serve(self, **changes: Any) -> None:
        """Serve one route, ``default``, to the scripted upstream; `changes` are its fields.

        `upstream` among them stands for one destination there.  The first call starts
        everything, later ones are reloads.
        """
        scripted = Upstream("http", "127.0.0.1", self.upstream.port)
        upstream = changes.pop("upstream", scripted)
        only = Destination(upstream=upstream, audience=AUDIENCE)
        route = Route(name="default", listen=(ANY,), destinations=(only,), auth=Auth.NONE)
        await self.serve_routes(dataclasses.replace(route, **changes))

    async def serve_routes(self, *routes: Route) -> None:
        """Serve these routes on the one listener."""
        self.config = Config(routes=routes)
        built = await in_turns(self.builder.build(self.config, {}))
        self.builder.adopt(built)
        for pools in built.unused:
            pools.close()
        self.host.table = built.tables[ANY]
        self.host.head_limit = built.head_limits[ANY]
        self.host.limit_resets(built.reset_limits[ANY])

    async def serve_tls(self, ca_file: Path, **changes: Any) -> None:
        """Serve one route to the scripted upstream, which must have been started with TLS."""
        upstream = Upstream("https", "localhost", self.upstream.port)
        await self.serve(upstream=upstream, ca_file=ca_file, **changes)

    def cut_responses(self, cuts: Cuts) -> None:
        """Cut what comes from upstreams, on connections dialled from here on."""
        self._patches.setattr(Dialler, "dial", cutting_dial(cuts))

    def _connection(self) -> asyncio.BaseProtocol:
        codec = self.host.connection()
        if self.cut_requests is whole:
            return codec
        return cast("asyncio.BaseProtocol", CutCaller(codec, self.cut_requests))

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._listener is not None
        return self._listener.address

    async def caller(self) -> RawCaller:
        """Connect; the connection ends with the test at the latest."""
        caller = await self.connect()
        return await self._stack.enter_async_context(caller)

    async def connect(self) -> RawCaller:
        """Connect; the test enters and leaves the connection."""
        loop = asyncio.get_running_loop()
        address = self.address
        _, caller = await loop.create_connection(RawCaller, address.host, address.port)
        return caller

    # --- looking

    @property
    def route_stats(self) -> RouteStats:
        return self.stats.route("default")

    @property
    def connections(self) -> Connections:
        """The upstream connections of the default route."""
        return self.route_stats.connections()

    @property
    def refusals(self) -> Counter[str]:
        """Reasons of all failures so far, by how often."""
        total: Counter[str] = Counter()
        for stats in self.stats.routes.values():
            total += stats.errors
        return total

    async def until(self, done: Callable[[], object], what: str) -> None:
        """Let the loop run until `done` is true."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not done():  # noqa: ASYNC110 (what is waited for has no event)
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}") from None

    async def upstream_of_repeat(self, first: UpstreamEnd) -> UpstreamEnd:
        """Return the connection on which an attempt is repeated: `first` again, or another."""
        await self.until(lambda: first.received or len(self.upstream.connections) > 1, "the repeat")
        return first if first.received else await self.upstream.accept()

    async def plane_turn(self) -> None:
        """Let the loop run once."""
        await asyncio.sleep(0)

    async def standstill(self, measure: Callable[[], int], unlike: int = 0) -> int:
        """Let the loop run until `measure` does not change any more; return what it says then.

        As long as it says `unlike`, nothing has begun.
        """
        before = -1
        while before != measure() or before == unlike:
            before = measure()
            for _ in range(300):
                await self.plane_turn()
        return before

    def pass_time(self, seconds: float) -> None:
        """Let time pass and have every deadline looked at, once."""
        self.time.steady += seconds
        self.time.wall += seconds
        self.plane.sweeper.sweep()

    # --- the whole life

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_exception)
        logging.getLogger("proxy").addHandler(self._complaints)
        await self.upstream.start(self._tls)
        self._listener = await listen(ANY, self._connection)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._patches.undo()
        try:
            await self._stack.aclose()
            if self.half_open:
                await self.upstream.stop()
            if error is None:
                await self._assert_quiet()
        finally:
            await self._stop()
        if error is None:
            assert self._failures == []
            assert self._complaints.records == []

    async def _assert_quiet(self) -> None:
        """Fail if an exchange, a connection or a place is left over."""
        await self.until(lambda: not self.plane.connections, "the end of the callers' connections")
        await self.until(lambda: not self.plane.exchanges, "the end of the exchanges")
        for name, route in self.builder.routes.items():
            numbers = self.stats.route(name)
            await self.until(
                lambda numbers=numbers: numbers.connections().busy == 0,  # type: ignore[misc]  # a lambda's default
                "the end of busy connections",
            )
            assert numbers.in_flight == 0
            if route.gate is not None:
                assert (route.gate.inside, route.gate.waiting) == (0, 0)

    async def _stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self.plane.stop()
        self.builder.close()
        for cache in (self.tokens.one, *self.tokens.others.values()):
            await cache.close()
        await self.upstream.stop()
        logging.getLogger("proxy").removeHandler(self._complaints)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        failure = context.get("exception")
        self._failures.append(f"{context['message']}: {failure!r}")
