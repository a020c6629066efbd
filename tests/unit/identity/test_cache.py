"""The policy: who is served, who waits, who is told what, and when a fetch begins."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from proxy.errors import TokenTimedOut, TokenUnavailable
from proxy.identity.access_token import Scopes
from proxy.identity.cache import REFUSALS, Outcome, State, TokenCache
from proxy.identity.fetch import FETCH_LIMIT
from proxy.identity.source import Authority
from proxy.identity.token import USE_MARGIN, Token
from tests.fakes.steering import HOUR, Rig, Source, Time, jitter, jwt, settle

MINUTE = 60.0


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def next_attempt(rig: Rig) -> float:
    """Let time pass until those who wait have started a fetch; return how long it took."""
    began = rig.time.steady
    while not rig.source.running:
        await rig.time.advance(0.01)
    return rig.time.steady - began


# --- one fetch


async def test_a_thousand_cold_callers_share_one_fetch(rig: Rig) -> None:
    callers = [asyncio.get_running_loop().create_task(rig.cache.get("a", 10)) for _ in range(1000)]
    await settle()
    token = rig.token()
    await rig.source.succeed(token)

    assert {(await caller).value for caller in callers} == {token}
    assert len(rig.source.fetches) == 1


async def test_a_caller_that_leaves_cancels_nobody_elses_fetch(rig: Rig) -> None:
    first, second = await rig.ask(), await rig.ask()
    first.cancel()
    await settle()
    token = rig.token()
    await rig.source.succeed(token)

    assert await second == token


async def test_the_fetch_goes_on_when_every_caller_has_left(rig: Rig) -> None:
    caller = await rig.ask()
    caller.cancel()
    await settle()
    token = rig.token()
    await rig.source.succeed(token)

    assert rig.now() == token
    assert rig.time.pending == []


async def test_a_failed_fetch_is_told_to_every_caller_with_what_to_do(rig: Rig) -> None:
    callers = [await rig.ask() for _ in range(3)]
    await rig.source.fail("permission denied", retryable=False)

    for caller in callers:
        with pytest.raises(TokenUnavailable) as failure:
            await caller
        assert failure.value.detail == "scripted source: permission denied"
        assert failure.value.hint == "do this"


async def test_callers_who_are_told_of_one_failed_fetch_are_told_of_one_event(rig: Rig) -> None:
    callers = [await rig.ask() for _ in range(2)]
    await rig.source.fail("no account", retryable=False)
    events = set()
    for caller in callers:
        with pytest.raises(TokenUnavailable) as failure:
            await caller
        events.add(failure.value.event)
    assert len(events) == 1


async def test_what_is_no_token_is_a_failure_and_is_never_given_out(rig: Rig) -> None:
    caller = await rig.ask()
    await rig.source.succeed("<html><title>Sign in</title>")

    with pytest.raises(TokenUnavailable, match="Sign in"):
        await caller
    assert rig.now() is None


async def test_a_token_for_somebody_else_is_never_given_out(rig: Rig) -> None:
    caller = await rig.ask()
    await rig.source.succeed(rig.token(aud="https://another.example"))

    with pytest.raises(TokenUnavailable, match=r"another\.example"):
        await caller


async def test_a_bug_in_a_source_is_a_failure_that_quotes_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    secret = rig.token()
    caller = await rig.ask()
    rig.source.fetches[0].set_exception(RuntimeError(secret))

    with pytest.raises(TokenUnavailable) as failure:
        await caller
    assert failure.value.detail == "scripted source: unexpected RuntimeError"
    assert "RuntimeError" in caplog.text
    assert secret not in caplog.text


# --- giving out


async def test_a_token_is_given_out_until_30_s_before_its_expiry(rig: Rig) -> None:
    token = await rig.good()

    rig.time.sleep(HOUR - 30.001)
    assert rig.now() == token
    rig.time.sleep(0.001)
    assert rig.now() is None


async def test_expiry_is_seen_although_no_timer_ran(rig: Rig) -> None:
    await rig.good()
    rig.time.sleep(8 * HOUR)  # The CPU was withdrawn.

    assert rig.now() is None
    assert rig.state() is State.NONE


async def test_nothing_is_fetched_while_nobody_asks(rig: Rig) -> None:
    await rig.good()
    await rig.time.advance(5 * HOUR)

    assert len(rig.source.fetches) == 1
    assert rig.time.pending == []


# --- refreshing ahead


async def test_a_refresh_begins_225_s_before_expiry(rig: Rig) -> None:
    token = await rig.good()

    await rig.time.advance(HOUR - 225.001)
    assert rig.now() == token
    await settle()
    assert rig.source.running == []

    await rig.time.advance(0.001)
    assert rig.now() == token
    await settle()
    assert len(rig.source.running) == 1
    assert rig.state() is State.REFRESHING


async def test_the_old_token_is_served_until_the_refresh_has_brought_another(rig: Rig) -> None:
    old = await rig.good()
    await rig.time.advance(HOUR - 100)
    assert rig.now() == old
    await settle()
    assert rig.now() == old

    new = rig.token()
    await rig.source.succeed(new)
    assert rig.now() == new


async def test_a_failed_refresh_never_displaces_a_good_token(rig: Rig) -> None:
    token = await rig.good()
    expires_at = rig.time.wall + HOUR
    await rig.time.advance(HOUR - 225)
    failures = 0
    served_until = rig.time.wall
    while rig.now() == token:
        served_until = rig.time.wall
        await settle()
        if rig.source.running:
            failures += 1
            await rig.source.fail()
        await rig.time.advance(0.5)

    assert served_until == expires_at - 30.5
    assert 8 <= failures <= 20


async def test_a_token_that_lapses_while_refreshes_fail_leaves_the_last_error(rig: Rig) -> None:
    await rig.good()
    await rig.time.advance(HOUR - 31)
    for _ in range(4):
        rig.now()
        await settle()
        if rig.source.running:
            await rig.source.fail()
        await rig.time.advance(0.25)

    assert rig.state() is State.BACKING_OFF
    with pytest.raises(TokenUnavailable, match="connection refused"):
        await rig.cache.get("orders", 0.01)


async def test_a_refresh_that_brings_the_same_expiry_is_no_error_and_is_repeated_later(
    rig: Rig,
) -> None:
    token = await rig.good()
    await rig.time.advance(HOUR - 200)
    fetches = []
    while rig.now() == token:
        await settle()
        if rig.source.running:
            fetches.append(rig.time.steady)
            await rig.source.succeed(token)
        await rig.time.advance(0.1)

    gaps = [later - earlier for earlier, later in itertools.pairwise(fetches)]
    assert rig.cache.last_error is None
    assert rig.cache.stats["orders", Outcome.UNCHANGED] == len(fetches)
    # The last pauses are shortened because the token is about to lapse.
    assert all(10 <= gap <= 20.2 for gap in gaps[:8])
    assert len({round(gap, 1) for gap in gaps[:8]}) > 4


async def test_a_refresh_that_brings_another_expiry_counts_as_a_fetch(rig: Rig) -> None:
    await rig.good()
    await rig.time.advance(HOUR - 200)
    assert rig.now() is not None
    await settle()
    await rig.source.succeed(rig.token())

    assert rig.cache.stats == {("orders", Outcome.FETCHED): 2}


async def test_a_short_lived_token_is_refreshed_before_it_lapses(rig: Rig) -> None:
    await rig.good(lifetime=45)  # 15 s to be used

    await rig.time.advance(7.4)
    assert rig.now() is not None
    assert rig.source.running == []
    await rig.time.advance(0.2)
    assert rig.now() is not None
    await settle()
    assert len(rig.source.running) == 1


# --- after a failure


async def test_a_caller_waits_for_the_next_attempt_if_it_falls_within_its_timeout(
    rig: Rig,
) -> None:
    caller = await rig.ask(patience=1)
    await rig.source.fail()
    assert rig.state() is State.BACKING_OFF
    assert not caller.done()

    await rig.time.advance(0.2)
    token = rig.token()
    await rig.source.succeed(token)
    assert await caller == token


async def test_a_caller_gets_the_last_error_at_once_if_the_next_attempt_comes_too_late(
    rig: Rig,
) -> None:
    caller = await rig.ask(patience=0.05)
    await rig.source.fail()
    with pytest.raises(TokenUnavailable, match="connection refused"):
        await caller

    latecomer = await rig.ask(patience=0.05)

    assert latecomer.done()
    with pytest.raises(TokenUnavailable, match="connection refused"):
        await latecomer
    assert len(rig.source.fetches) == 1


async def test_nobody_waits_where_waiting_cannot_help(rig: Rig) -> None:
    caller = await rig.ask(patience=100)
    await rig.source.fail("no such file", retryable=False)
    latecomer = await rig.ask(patience=100)

    assert caller.done()
    assert latecomer.done()
    for task in caller, latecomer:
        with pytest.raises(TokenUnavailable, match="no such file"):
            await task


async def test_pauses_double_from_100_ms_to_30_s_and_are_spread(rig: Rig) -> None:
    pauses = []
    caller = await rig.ask(patience=1000)
    for _ in range(14):
        await rig.source.fail()
        pauses.append(await next_attempt(rig))
    caller.cancel()

    bounds = [min(30.0, 0.2 * 2**attempt) for attempt in range(14)]
    assert all(most / 2 <= pause <= most + 0.02 for pause, most in zip(pauses, bounds, strict=True))
    assert len({round(pause, 1) for pause in pauses[-5:]}) > 1


async def test_a_success_ends_the_backing_off(rig: Rig) -> None:
    caller = await rig.ask(patience=1000)
    for _ in range(8):
        await rig.source.fail()
        await next_attempt(rig)
    await rig.source.succeed(rig.token())
    await caller
    assert rig.cache.last_error is None

    rig.time.sleep(HOUR)
    caller = await rig.ask(patience=1000)
    await rig.source.fail()
    assert await next_attempt(rig) <= 0.21
    caller.cancel()


async def test_a_caller_whose_time_is_up_is_told_that_the_source_is_slow(rig: Rig) -> None:
    caller = await rig.ask(patience=2)
    await rig.time.advance(1.99)
    assert not caller.done()
    await rig.time.advance(0.01)

    with pytest.raises(TokenTimedOut, match=r"scripted source: no answer in 2\.0 s"):
        await caller
    assert len(rig.source.running) == 1


async def test_a_caller_whose_time_is_up_gets_the_error_of_the_attempt_before(rig: Rig) -> None:
    caller = await rig.ask(patience=2)
    await rig.source.fail("connection refused")
    await rig.time.advance(2)

    with pytest.raises(TokenUnavailable, match="connection refused"):
        await caller


async def test_a_source_that_was_slow_before_and_is_slow_again_is_called_slow(rig: Rig) -> None:
    caller = await rig.ask(patience=2)
    await rig.source.fail("no answer within 20 s", slow=True)
    await rig.time.advance(2)

    with pytest.raises(TokenTimedOut):
        await caller


async def test_a_token_that_comes_late_serves_the_next_caller(rig: Rig) -> None:
    caller = await rig.ask(patience=1)
    await rig.time.advance(1)
    with pytest.raises(TokenTimedOut):
        await caller
    token = rig.token()
    await rig.source.succeed(token)

    assert rig.now() == token


async def test_a_fetch_that_never_ends_is_given_up(rig: Rig) -> None:
    caller = await rig.ask(patience=100)
    await rig.time.advance(FETCH_LIMIT - 0.01)
    assert rig.state() is State.FETCHING
    await rig.time.advance(0.01)

    assert rig.state() is State.BACKING_OFF
    assert rig.seen == [("orders", "timed_out", FETCH_LIMIT)]
    assert rig.cache.last_error is not None
    assert rig.cache.last_error.detail == "scripted source: no answer within 20 s"
    caller.cancel()


async def test_a_timeout_that_is_off_sets_no_timer_but_the_fetchs(rig: Rig) -> None:
    caller = await rig.ask(patience=float("inf"))

    assert [timer.due - rig.time.steady for timer in rig.time.pending] == [FETCH_LIMIT]
    await rig.source.succeed(rig.token())
    await caller


# --- the wall clock jumps


async def test_a_clock_that_jumps_ahead_and_back_loses_no_good_token(rig: Rig) -> None:
    token = await rig.good()
    rig.time.jump(2 * HOUR)
    assert rig.now() is None

    rig.time.jump(-2 * HOUR)
    assert rig.now() == token
    assert rig.state() is State.GOOD


async def test_a_clock_that_jumps_back_during_a_fetch_revives_the_token(rig: Rig) -> None:
    token = await rig.good()
    rig.time.jump(2 * HOUR)
    caller = await rig.ask()
    rig.time.jump(-2 * HOUR)
    assert rig.state() is State.REFRESHING
    assert rig.now() == token

    await rig.source.fail()
    assert await caller == token
    assert rig.state() is State.GOOD


async def test_a_clock_hours_ahead_is_named_in_the_error(rig: Rig) -> None:
    rig.time.jump(5 * HOUR)
    caller = await rig.ask(patience=0)
    await rig.source.succeed(jwt(rig.time.wall - 4 * HOUR))

    with pytest.raises(TokenUnavailable, match="expired 14400 s ago") as failure:
        await caller
    assert "clock" in failure.value.hint


async def test_a_clock_that_was_set_back_makes_the_token_be_asked_for_anew(rig: Rig) -> None:
    token = await rig.good()
    await rig.time.advance(20)

    rig.time.jump(-79.9)  # A minute before the token came, no more.
    assert rig.now() == token
    await settle()
    assert rig.source.running == []

    rig.time.jump(-0.2)
    assert rig.now() == token
    await settle()
    assert len(rig.source.running) == 1


# --- refused by the platform


async def another(rig: Rig, refused: Token, patience: float = 10.0) -> asyncio.Task[str | None]:
    """Start a caller whose token was refused; the result is the value of another one."""

    async def value() -> str | None:
        token = await rig.cache.another(refused, "orders", patience)
        return None if token is None else token.value

    task = asyncio.get_running_loop().create_task(value())
    await settle()
    return task


async def held(rig: Rig) -> Token:
    """Bring the cache into the state good; return the token."""
    await rig.good()
    token = rig.cache.current("orders")
    assert token is not None
    return token


async def test_a_refused_token_serves_until_another_has_come(rig: Rig) -> None:
    token = await held(rig)
    callers = [await another(rig, token) for _ in range(3)]
    assert (rig.state(), rig.now()) == (State.REFRESHING, token.value)

    new = rig.token()
    await rig.source.succeed(new)
    assert [await caller for caller in callers] == [new] * 3
    assert rig.now() == new
    assert len(rig.source.fetches) == 2


@pytest.mark.parametrize("retryable", [False, True])
async def test_a_refused_token_serves_on_if_no_other_can_be_had(
    rig: Rig,
    retryable: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    token = await held(rig)
    caller = await another(rig, token)
    await rig.source.fail(retryable=retryable)
    assert await caller is None
    assert (rig.state(), rig.now()) == (State.GOOD, token.value)

    # Until the pause after a failed fetch has passed, a further refusal fetches nothing.
    assert await (await another(rig, token)) is None
    assert len(rig.source.fetches) == 2
    await rig.time.advance(0.2)
    caller = await another(rig, token)
    assert len(rig.source.running) == 1
    await rig.source.succeed(new := rig.token())
    assert await caller == new


async def test_garbage_does_not_take_a_refused_tokens_place(rig: Rig) -> None:
    token = await held(rig)
    for garbage in ("<html>", rig.token(30), rig.token(aud="https://another.example")):
        caller = await another(rig, token)
        await rig.source.succeed(garbage)
        assert await caller is None
        assert rig.now() == token.value
        await rig.time.advance(30)


async def test_whoever_waits_for_another_token_waits_no_longer_than_it_may(rig: Rig) -> None:
    token = await held(rig)
    caller = await another(rig, token, patience=5)
    await rig.time.advance(4.99)
    assert not caller.done()

    await rig.time.advance(0.01)
    assert await caller is None
    assert rig.now() == token.value


async def test_a_token_that_has_been_replaced_already_costs_no_fetch(rig: Rig) -> None:
    token = await held(rig)
    caller = await another(rig, token)
    new = rig.token()
    await rig.source.succeed(new)
    assert await caller == new

    assert await (await another(rig, token)) == new
    assert len(rig.source.fetches) == 2


async def test_a_refused_token_that_comes_back_is_not_fetched_again_for_30_s(rig: Rig) -> None:
    token = await held(rig)
    caller = await another(rig, token)
    await rig.source.succeed(token.value)
    assert await caller is None

    await rig.time.advance(29.99)
    assert await (await another(rig, token)) is None
    assert len(rig.source.fetches) == 2

    await rig.time.advance(0.01)
    caller = await another(rig, token)
    assert rig.now() == token.value
    await rig.source.succeed(new := rig.token())
    assert await caller == new


async def test_a_service_that_refuses_everything_does_not_cause_a_fetch_for_every_call(
    rig: Rig,
) -> None:
    token = await held(rig)
    for _ in range(60):
        caller = await another(rig, token)
        if rig.source.running:
            await rig.source.succeed(rig.token())
        await caller
        token = rig.cache.current("orders") or token
        await rig.time.advance(1)

    assert REFUSALS < len(rig.source.fetches) <= 2 * REFUSALS + 2


async def test_a_token_refused_during_its_refresh_waits_for_that_refresh(rig: Rig) -> None:
    token = await held(rig)
    await rig.time.advance(HOUR - 100)
    assert rig.now() == token.value
    await settle()
    assert len(rig.source.running) == 1

    caller = await another(rig, token)
    assert rig.now() == token.value
    await rig.source.succeed(new := rig.token())
    assert await caller == new
    assert len(rig.source.fetches) == 2


async def test_a_token_that_lapsed_before_it_was_refused_is_fetched_as_usual(rig: Rig) -> None:
    token = await held(rig)
    rig.time.jump(2 * HOUR)
    caller = await another(rig, token)
    assert rig.state() is State.FETCHING

    await rig.source.succeed(new := rig.token())
    assert await caller == new


async def test_a_refusal_during_the_shutdown_waits_for_nothing(rig: Rig) -> None:
    token = await held(rig)
    await rig.cache.close()

    assert await (await another(rig, token)) is None
    assert len(rig.source.fetches) == 1


# --- prefetch


async def test_prefetch_brings_a_token_before_the_first_call(rig: Rig) -> None:
    task = asyncio.get_running_loop().create_task(rig.cache.prefetch("orders"))
    await settle()
    await rig.source.succeed(rig.token())

    assert await task is None
    assert await rig.cache.prefetch("orders") is None
    assert len(rig.source.fetches) == 1


async def test_prefetch_makes_one_attempt_and_says_what_went_wrong(rig: Rig) -> None:
    task = asyncio.get_running_loop().create_task(rig.cache.prefetch("orders"))
    await settle()
    await rig.source.fail()

    error = await task
    assert error is not None
    assert error.detail == "scripted source: connection refused"
    again = await rig.cache.prefetch("orders")
    assert again is not None
    assert len(rig.source.fetches) == 1


async def test_a_token_that_lapses_as_it_comes_is_no_success(rig: Rig) -> None:
    task = asyncio.get_running_loop().create_task(rig.cache.prefetch("orders"))
    await settle()
    rig.then = lambda: rig.time.jump(2 * HOUR)
    await rig.source.succeed(rig.token())

    error = await task
    assert error is not None
    assert error.detail == "scripted source: no token has come"


async def test_callers_do_not_wait_beyond_their_time_for_tokens_that_lapse_as_they_come(
    rig: Rig,
) -> None:
    caller = await rig.ask(patience=3.0)
    for _ in range(2):
        # The turn of the loop comes late: the token is over, and so is the caller's time at last.
        rig.then = lambda: rig.time.sleep(2.0)
        await rig.source.succeed(rig.token(lifetime=31.0))

    assert caller.done()
    with pytest.raises(TokenTimedOut, match="the token that came was over before it could be used"):
        await caller
    assert len(rig.source.fetches) == 2


class Granting(Source):
    """A source of access tokens, which takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.time = Time()
        self.asked = 0
        self._seconds = seconds

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        assert scopes == ("a scope",)
        self.asked += 1
        self.time.sleep(self._seconds)
        return Authority("ya29.token", expires_in=USE_MARGIN + 2.0)


@pytest.mark.parametrize(("seconds", "is_good"), [(1.9, True), (2.0, False), (2.1, False)])
async def test_an_access_token_that_is_over_when_it_comes_is_a_failure(
    seconds: float, *, is_good: bool
) -> None:
    source = Granting(seconds)
    cache = TokenCache(
        Scopes(("a scope",)),
        source,
        clocks=source.time.clocks,
        jitter=jitter(),
        gate=asyncio.Semaphore(),
        later=source.time.later,
    )

    error = await cache.prefetch("orders")
    assert source.asked == 1
    assert (error is None) is is_good
    if error is not None:
        assert "the token expires in 30 s; more than 30 s are needed" in error.detail
        assert cache.state is State.BACKING_OFF


# --- a source that can be watched


class Watchable(Source):
    """A file, in a word."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = False

    def changed(self) -> bool:
        return self.unread

    async def fetch(self, audience: str) -> str:
        self.unread = False
        return await super().fetch(audience)


async def test_a_change_is_read_before_the_next_token_is_given_out() -> None:
    source = Watchable()
    rig = Rig(source)
    await rig.good()
    source.unread = True
    assert rig.now() is None
    caller = await rig.ask()
    new = rig.token(lifetime=HOUR / 2)
    await rig.source.succeed(new)

    assert await caller == new
    assert rig.now() == new


async def test_a_change_that_cannot_be_used_leaves_the_old_token() -> None:
    source = Watchable()
    rig = Rig(source)
    old = await rig.good()
    source.unread = True
    caller = await rig.ask()
    await rig.source.succeed("half a tok")

    assert await caller == old
    assert rig.now() == old


async def test_a_change_that_cannot_be_read_in_time_leaves_the_old_token() -> None:
    source = Watchable()
    rig = Rig(source)
    old = await rig.good()
    source.unread = True
    caller = await rig.ask(patience=1)
    await rig.time.advance(1)

    assert await caller == old


async def test_a_change_ends_the_backing_off() -> None:
    source = Watchable()
    rig = Rig(source)
    caller = await rig.ask()
    await rig.source.fail("it does not exist", retryable=False)
    with pytest.raises(TokenUnavailable, match="does not exist"):
        await caller

    source.unread = True
    await rig.good()
    assert rig.time.steady == 1000


# --- what is told


async def test_waiting_for_other_fetches_is_not_counted_as_this_ones_time() -> None:
    gate = asyncio.Semaphore(0)
    rig = Rig(gate=gate)
    caller = await rig.ask(patience=100)
    await rig.time.advance(50)
    gate.release()
    await settle()
    await rig.time.advance(2)
    await rig.source.succeed(rig.token())
    await caller

    assert rig.seen == [("orders", "fetched", 2)]


async def test_fetches_are_counted_for_the_route_that_caused_them(rig: Rig) -> None:
    caller = await rig.ask(route="billing")
    second = await rig.ask(route="orders")
    await rig.time.advance(0.25)
    await rig.source.succeed(rig.token())
    assert await caller == await second

    assert rig.cache.stats == {("billing", Outcome.FETCHED): 1}
    assert rig.seen == [("billing", "fetched", 0.25)]


async def test_the_state_is_told_with_the_last_error(rig: Rig) -> None:
    assert rig.state() is State.NONE
    assert rig.expires_at() is None
    caller = await rig.ask(patience=0.01)
    await rig.source.fail()
    caller.cancel()
    failure = rig.cache.last_error
    assert failure is not None
    assert failure.at == rig.time.wall
    assert rig.state() is State.BACKING_OFF

    await rig.time.advance(1)
    await rig.good()
    assert rig.expires_at() == rig.time.wall + HOUR
    assert rig.cache.email == "caller@project.iam.gserviceaccount.com"
    assert rig.cache.last_error is None


# --- the end


async def test_closing_ends_a_fetch_that_waits_for_its_turn() -> None:
    gate = asyncio.Semaphore(0)
    rig = Rig(gate=gate)
    caller = await rig.ask()
    await rig.cache.close()

    with pytest.raises(TokenUnavailable, match="shutting down"):
        await caller
    assert rig.source.fetches == []


async def test_closing_ends_the_fetch_and_tells_those_who_wait(rig: Rig) -> None:
    caller = await rig.ask()
    await rig.cache.close()

    with pytest.raises(TokenUnavailable, match="shutting down"):
        await caller
    assert rig.source.fetches[0].cancelled()
    assert rig.time.pending == []
    # It was not slow: nobody may be told so, and no counter either.
    assert [(route, outcome) for route, outcome, _ in rig.seen] == [("orders", "failed")]
    assert rig.cache.last_error is not None
    assert rig.cache.last_error.detail == "scripted source: the proxy is shutting down"
    with pytest.raises(TokenUnavailable, match="shutting down"):
        await rig.cache.get("orders", 10)


async def test_closing_waits_until_the_source_has_let_go() -> None:
    class Careful(Source):
        """Has something to put away when it is cancelled."""

        tidy = False

        async def fetch(self, audience: str) -> str:
            try:
                return await super().fetch(audience)
            finally:
                await settle()
                self.tidy = True

    source = Careful()
    rig = Rig(source)
    caller = await rig.ask()
    await rig.cache.close()

    assert source.tidy
    assert len(rig.seen) == 1
    with pytest.raises(TokenUnavailable):
        await caller


async def test_a_closed_cache_still_gives_out_its_token_but_fetches_nothing(rig: Rig) -> None:
    token = await rig.good()
    await rig.cache.close()
    await rig.time.advance(HOUR - 100)

    assert rig.now() == token
    await settle()
    assert len(rig.source.fetches) == 1
