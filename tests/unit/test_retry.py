from __future__ import annotations

import pytest

from proxy.config.model import Retries
from proxy.errors import (
    Overloaded,
    ProxyError,
    UpstreamConnectFailed,
    UpstreamConnectTimedOut,
    UpstreamMalformed,
    UpstreamReset,
    UpstreamTimedOut,
    UpstreamTlsFailed,
)
from proxy.retry import (
    IDEMPOTENT,
    LONGEST_BACKOFF,
    Attempt,
    RetryBudget,
    allowed,
    cause_of,
    pause_before,
    redials,
    retry_after_seconds,
    stale_connection,
)

POLICY = Retries(attempts=3)


def attempt(number: int = 1, method: bytes = b"GET", **more: bool) -> Attempt:
    return Attempt(number, method, **{"replayable": True, **more})


def plenty() -> RetryBudget:
    return RetryBudget(1.0)


@pytest.mark.parametrize(("number", "expected"), [(1, True), (2, True), (3, False), (4, False)])
def test_there_are_as_many_attempts_as_configured(number: int, expected: bool) -> None:  # noqa: FBT001 (a parameter)
    assert allowed("reset", attempt(number), POLICY, plenty()) is expected


@pytest.mark.parametrize("cause", ["reset", "connect_failed", 429, 503])
def test_what_the_policy_names_is_repeated(cause: str | int) -> None:
    assert allowed(cause, attempt(), POLICY, plenty())


@pytest.mark.parametrize("cause", ["timeout", "tls_failed", "upstream_malformed", 500, 502, 401])
def test_what_the_policy_does_not_name_is_not_repeated(cause: str | int) -> None:
    assert not allowed(cause, attempt(), POLICY, plenty())


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"get", b"TRACE"])
def test_a_method_that_the_policy_does_not_name_is_not_repeated(method: bytes) -> None:
    assert not allowed("reset", attempt(method=method), POLICY, plenty())


def test_a_body_that_is_gone_is_not_repeated() -> None:
    assert not allowed(503, attempt(replayable=False), POLICY, plenty())


def test_a_failure_within_an_answer_is_not_repeated() -> None:
    assert not allowed("reset", attempt(answered=True), POLICY, plenty())
    assert allowed(503, attempt(answered=True), POLICY, plenty())


@pytest.mark.parametrize("method", sorted(IDEMPOTENT))
def test_an_idempotent_request_on_a_stale_connection_is_repeated(method: bytes) -> None:
    error = UpstreamReset("closed")

    assert stale_connection(error, attempt(method=method, reused=True, wrote=True))


def test_any_request_of_which_nothing_left_is_repeated() -> None:
    error = UpstreamReset("closed")

    assert stale_connection(error, attempt(method=b"POST", reused=True))
    assert not stale_connection(error, attempt(method=b"POST", reused=True, wrote=True))


@pytest.mark.parametrize(
    "history",
    [
        attempt(reused=False, wrote=True),
        attempt(reused=True, answered=True),
        attempt(reused=True, replayable=False),
    ],
)
def test_other_resets_are_no_stale_connections(history: Attempt) -> None:
    assert not stale_connection(UpstreamReset("closed"), history)
    assert not stale_connection(UpstreamTimedOut("late"), attempt(reused=True))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (UpstreamConnectFailed("x"), "connect_failed"),
        (UpstreamConnectTimedOut("x"), "connect_failed"),
        (UpstreamTlsFailed("x"), "tls_failed"),
        (UpstreamReset("x"), "reset"),
        (UpstreamTimedOut("x"), "timeout"),
        (UpstreamMalformed("x"), "upstream_malformed"),
    ],
)
def test_failures_have_the_names_of_the_configuration(error: ProxyError, cause: str) -> None:
    assert cause_of(error) == cause


def test_a_dial_that_failed_is_made_once_more_without_a_policy() -> None:
    error = UpstreamConnectFailed("refused")

    assert redials(error, attempt(1, b"POST"), Retries(), plenty())
    assert not redials(error, attempt(2, b"POST"), Retries(), plenty())
    assert not redials(error, attempt(1), Retries(on=(503,)), plenty())
    assert not redials(error, attempt(1), Retries(), RetryBudget(0.0))


@pytest.mark.parametrize(
    "error", [UpstreamConnectTimedOut("x"), UpstreamTlsFailed("x"), Overloaded("x")]
)
def test_other_failures_to_connect_are_not_repeated_without_a_policy(error: ProxyError) -> None:
    assert not redials(error, attempt(1), Retries(), plenty())


def test_dialling_follows_the_policy() -> None:
    late, refused = UpstreamConnectTimedOut("x"), UpstreamConnectFailed("x")

    assert redials(late, attempt(2), POLICY, plenty())
    assert redials(refused, attempt(2), POLICY, plenty())
    assert not redials(refused, attempt(3), POLICY, plenty())


def test_a_budget_has_a_reserve_and_grows_by_its_share() -> None:
    budget = RetryBudget(0.2)
    reserve = sum(budget.withdraw() for _ in range(100))
    for _ in range(11):
        budget.deposit()

    assert reserve == RetryBudget.RESERVE
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(("deposits", "low"), [(0, True), (3, True), (4, False)])
def test_a_budget_is_low_until_requests_made_up_for_a_retry(deposits: int, *, low: bool) -> None:
    budget = RetryBudget(0.25)
    assert budget.is_low is False
    budget.withdraw()
    for _ in range(deposits):
        budget.deposit()

    assert budget.is_low is low


def test_a_budget_of_nothing_is_never_low() -> None:
    budget = RetryBudget(0.0)

    assert (budget.withdraw(), budget.is_low) == (False, False)


def test_a_budget_never_grows_beyond_its_reserve() -> None:
    budget = RetryBudget(0.2)
    for _ in range(10_000):
        budget.deposit()

    assert sum(budget.withdraw() for _ in range(100)) <= RetryBudget.RESERVE + 1


@pytest.mark.parametrize(
    ("number", "pause"), [(1, 0.05), (2, 0.1), (3, 0.2), (30, LONGEST_BACKOFF)]
)
def test_pauses_double_up_to_a_bound(number: int, pause: float) -> None:
    assert pause_before(number, POLICY, None, lambda: 0.5) == pytest.approx(pause)


def test_pauses_are_jittered_by_a_half_either_way() -> None:
    assert pause_before(1, POLICY, None, lambda: 0.0) == pytest.approx(0.025)
    assert pause_before(1, POLICY, None, lambda: 1.0) == pytest.approx(0.075)


def test_retry_after_is_the_least_that_is_waited() -> None:
    assert pause_before(1, POLICY, 3.0, lambda: 0.5) == 3.0
    assert pause_before(1, POLICY, 0.0, lambda: 0.5) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b" 120 ", 120.0),
        (b"999999", 999_999.0),
        (b"1000000", None),
        (b"-1", None),
        (b"1.5", None),
        (b"", None),
        (b"Fri, 31 Dec 2100 23:59:59 GMT", None),
        ("²".encode("latin-1"), None),
    ],
)
def test_retry_after_is_read_in_seconds_only(value: bytes, seconds: float | None) -> None:
    assert retry_after_seconds(value) == seconds
