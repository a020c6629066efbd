"""Whatever happens in whatever order, the promises of the cache hold.

Random sequences of requests, successes, failures, garbage, delays, clock jumps, refusals and
leaving callers; a model of the world beside the cache knows what would be wrong.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.errors import TokenTimedOut, TokenUnavailable
from proxy.identity.token import USE_MARGIN, read_token
from tests.fakes.steering import AUDIENCE, HOUR, Rig, settle

FETCHES_PER_MINUTE = 30
"""Far more than any sequence may cause: a hot loop makes thousands."""


class Invariants(RuleBasedStateMachine):
    """One cache, its source and its callers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rig = self.loop.run_until_complete(self._rig())
        self.callers: list[asyncio.Task[str]] = []
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.given: list[tuple[float, str]] = []
        self.fetches: deque[float] = deque()
        self.counted = 0

    async def _rig(self) -> Rig:
        return Rig()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run one step, then everything that follows from it."""

        async def step() -> Any:
            result = await work
            await settle()
            return result

        return self.loop.run_until_complete(step())

    def look(self) -> str | None:
        """Return what a request would carry."""

        async def look() -> str | None:
            return self.rig.now()

        value = self.run(look())
        assert value is None or isinstance(value, str)
        return value

    def take(self, value: str | None) -> None:
        """Check a token that was given out at this moment."""
        if value is None:
            return
        token = read_token(value, AUDIENCE, 0.0)
        assert value in self.accepted, "a token was given out that was never accepted"
        assert self.rig.time.wall < token.expires_at - USE_MARGIN, "an expired token was given out"

    @rule(patience=st.sampled_from([0.0, 0.15, 1.0, 10.0, 60.0]))
    def a_caller_comes(self, patience: float) -> None:
        self.callers.append(self.run(self.rig.ask(patience)))

    @rule()
    def a_request_looks(self) -> None:
        self.take(self.look())

    @precondition(lambda self: self.callers)
    @rule(which=st.integers(min_value=0))
    def a_caller_leaves(self, which: int) -> None:
        async def leave() -> None:
            self.callers[which % len(self.callers)].cancel()

        running = len(self.rig.source.running)
        self.run(leave())
        assert len(self.rig.source.running) == running, "a caller took the fetch along"

    @precondition(lambda self: self.rig.source.running)
    @rule(lifetime=st.sampled_from([31.0, 40.0, 100.0, 225.0, 300.0, HOUR]), same=st.booleans())
    def the_source_succeeds(self, lifetime: float, same: bool) -> None:  # noqa: FBT001 (drawn)
        token = (self.look() if same else None) or self.rig.token(lifetime)
        self.accepted.add(token)
        self.run(self.rig.source.succeed(token))
        assert self.look() == token, "a good token was not taken"

    @precondition(lambda self: self.rig.source.running)
    @rule(left=st.sampled_from([-2 * HOUR, 0.0, 30.0]))
    def the_source_brings_an_expired_token(self, left: float) -> None:
        self.run(self.rig.source.succeed(self.rig.token(left)))

    @precondition(lambda self: self.rig.source.running)
    @rule(what=st.sampled_from(["", "<html>", "hunter2", "a.b.c"]))
    def the_source_brings_garbage(self, what: str) -> None:
        self.run(self.rig.source.succeed(what))

    @precondition(lambda self: self.rig.source.running)
    @rule()
    def the_source_brings_a_foreign_token(self) -> None:
        self.run(self.rig.source.succeed(self.rig.token(aud="https://another.example")))

    @precondition(lambda self: self.rig.source.running)
    @rule(retryable=st.booleans())
    def the_source_fails(self, retryable: bool) -> None:  # noqa: FBT001 (drawn)
        before = self.look()
        self.run(self.rig.source.fail(retryable=retryable))
        assert self.look() == before, "a failed refresh changed what is given out"

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 5.0, 20.0, 60.0, 225.0, 3000.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.rig.time.advance(seconds))

    @rule(seconds=st.sampled_from([60.0, 3600.0, 8 * HOUR]))
    def the_cpu_is_withdrawn(self, seconds: float) -> None:
        self.rig.time.sleep(seconds)

    @rule(seconds=st.sampled_from([-3 * HOUR, -100.0, -1.0, 1.0, 100.0, 3 * HOUR]))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        held = self.look()
        self.rig.time.jump(seconds)
        if held is not None and seconds < 0:
            assert self.look() == held, "a clock that went back lost a good token"

    @rule()
    def the_platform_refuses_what_is_in_use(self) -> None:
        async def refuse() -> None:
            token = self.rig.cache.current("orders")
            if token is not None:
                self.rig.cache.seek_another(token, "orders")

        before = self.look()
        self.run(refuse())
        assert self.look() == before, "a refusal took a token away"

    @rule()
    def the_source_recovers(self) -> None:
        """After recovery the next call succeeds, within one pause at the most."""

        async def recover() -> str:
            if self.rig.source.running:
                await self.rig.source.fail()
            caller = await self.rig.ask(patience=40)
            # In small steps: a fetch that is begun must not be given up before it is answered.
            for _ in range(400):
                if caller.done():
                    break
                if not self.rig.source.running:
                    await self.rig.time.advance(0.1)
                    continue
                token = self.rig.token()
                self.accepted.add(token)
                await self.rig.source.succeed(token)
            return await caller

        try:
            self.take(self.run(recover()))
        except TokenUnavailable:
            # The last error was one that waiting does not cure; the next caller tries again.
            self.run(self.rig.time.advance(30))
            caller = self.run(self.rig.ask(patience=1))
            token = self.rig.token()
            self.accepted.add(token)
            self.run(self.rig.source.succeed(token))
            self.take(self.run(_result(caller)))

    @invariant()
    def at_most_one_fetch_runs(self) -> None:
        assert len(self.rig.source.running) <= 1
        assert self.rig.state().is_fetching == bool(self.rig.source.running)

    @invariant()
    def the_state_says_whether_there_is_a_token(self) -> None:
        assert self.rig.state().has_token == (self.rig.expires_at() is not None)

    @invariant()
    def callers_get_a_good_token_or_one_of_two_errors(self) -> None:
        for caller in [caller for caller in self.callers if caller.done()]:
            self.callers.remove(caller)
            if caller.cancelled():
                continue
            error = caller.exception()
            if error is None:
                assert caller.result() in self.accepted
            else:
                assert isinstance(error, TokenUnavailable | TokenTimedOut)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if any(not caller.done() for caller in self.callers):
            assert self.rig.source.running or self.rig.time.pending

    @invariant()
    def no_timer_is_left_when_nobody_waits_and_nothing_runs(self) -> None:
        if not self.rig.source.running and all(caller.done() for caller in self.callers):
            assert self.rig.time.pending == []

    @invariant()
    def fetches_are_bounded_per_minute(self) -> None:
        now = self.rig.time.steady
        self.fetches.extend([now] * (len(self.rig.source.fetches) - self.counted))
        self.counted = len(self.rig.source.fetches)
        while self.fetches and self.fetches[0] < now - 60:
            self.fetches.popleft()
        assert len(self.fetches) <= FETCHES_PER_MINUTE

    def teardown(self) -> None:
        async def close() -> None:
            await self.rig.cache.close()
            await asyncio.gather(*self.callers, return_exceptions=True)

        self.run(close())
        assert self.rig.time.pending == []
        self.loop.close()


async def _result(caller: asyncio.Task[str]) -> str:
    return await caller


TestInvariants = Invariants.TestCase
TestInvariants.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
