"""Repeats of one failure are counted instead of written."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from proxy.ops.loglimit import MAX_KEYS, PER_MINUTE, WINDOW, RepeatLimiter


class Hand:
    """A clock held in the hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def steady() -> Hand:
    return Hand()


@pytest.fixture
def limiter(steady: Hand) -> RepeatLimiter:
    return RepeatLimiter(steady)


def record(
    name: str = "proxy.plane", level: int = logging.ERROR, **extra: Any
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 0, "text", None, None)
    made.__dict__.update(extra)
    return made


def passed(limiter: RepeatLimiter, count: int, **extra: Any) -> int:
    return sum(limiter.filter(record(**extra)) for _ in range(count))


@pytest.mark.parametrize(
    ("count", "written"),
    [(PER_MINUTE - 1, PER_MINUTE - 1), (PER_MINUTE, PER_MINUTE), (PER_MINUTE + 1, PER_MINUTE)],
)
def test_as_many_pass_as_the_limit_allows(limiter: RepeatLimiter, count: int, written: int) -> None:
    assert passed(limiter, count, reason="upstream_reset") == written


def test_a_record_may_bring_its_own_limit(limiter: RepeatLimiter) -> None:
    assert passed(limiter, 5, reason="upstream_forbidden", per_minute=1) == 1


def test_routes_reasons_and_loggers_are_counted_apart(limiter: RepeatLimiter) -> None:
    passed(limiter, PER_MINUTE + 1, route="orders", reason="upstream_reset")

    assert passed(limiter, 1, route="orders", reason="upstream_timed_out") == 1
    assert passed(limiter, 1, route="billing", reason="upstream_reset") == 1
    assert passed(limiter, 1, name="proxy.access", route="orders", reason="upstream_reset") == 1


def test_where_there_is_no_reason_the_status_stands_for_it(limiter: RepeatLimiter) -> None:
    assert passed(limiter, 50, route="orders", http={"status": 503}) == PER_MINUTE
    assert passed(limiter, 1, route="orders", http={"status": 500}) == 1


def test_records_without_reason_and_status_all_pass(limiter: RepeatLimiter) -> None:
    assert passed(limiter, 100) == 100
    assert passed(limiter, 100, reason="", http={}) == 100


def test_an_exempt_logger_is_never_limited(steady: Hand) -> None:
    limiter = RepeatLimiter(steady, exempt=frozenset({"proxy.access"}))

    assert passed(limiter, 100, name="proxy.access", reason="upstream_reset") == 100
    assert passed(limiter, 100, name="proxy.plane", reason="upstream_reset") == PER_MINUTE


def test_when_the_minute_ends_one_line_says_how_many_were_left_out(
    limiter: RepeatLimiter, steady: Hand
) -> None:
    passed(limiter, PER_MINUTE + 37, route="orders", reason="upstream_reset", level=logging.WARNING)
    steady.now += WINDOW - 0.001

    assert limiter.sweep() == []

    steady.now += 0.001
    (summary,) = limiter.sweep()

    assert summary.getMessage() == "… and 37 more like this in the last minute"
    assert (summary.name, summary.levelno) == ("proxy.plane", logging.WARNING)
    assert summary.__dict__["route"] == "orders"
    assert summary.__dict__["reason"] == "upstream_reset"
    assert summary.__dict__["fields"] == {"left_out": 37}
    assert limiter.sweep() == []


def test_a_window_that_left_nothing_out_ends_silently(limiter: RepeatLimiter, steady: Hand) -> None:
    passed(limiter, PER_MINUTE, reason="upstream_reset")
    steady.now += WINDOW

    assert limiter.sweep() == []


def test_after_the_minute_the_counting_begins_again(limiter: RepeatLimiter, steady: Hand) -> None:
    passed(limiter, PER_MINUTE + 1, reason="upstream_reset")
    steady.now += WINDOW
    limiter.sweep()

    assert passed(limiter, 50, reason="upstream_reset") == PER_MINUTE


def test_only_windows_that_have_ended_are_closed(limiter: RepeatLimiter, steady: Hand) -> None:
    passed(limiter, PER_MINUTE + 1, reason="upstream_reset")
    steady.now += 20
    passed(limiter, PER_MINUTE + 2, reason="upstream_timed_out")
    steady.now += 40

    assert [summary.__dict__["reason"] for summary in limiter.sweep()] == ["upstream_reset"]
    assert limiter.next_end() == 20


def test_closing_writes_the_summaries_of_windows_still_open(limiter: RepeatLimiter) -> None:
    passed(limiter, PER_MINUTE + 1, reason="upstream_reset")
    passed(limiter, 1, reason="upstream_timed_out")

    assert len(limiter.close()) == 1
    assert limiter.close() == []


def test_without_windows_the_next_end_is_a_whole_window_away(limiter: RepeatLimiter) -> None:
    assert limiter.next_end() == WINDOW


def test_the_number_of_keys_is_bounded(limiter: RepeatLimiter) -> None:
    for number in range(MAX_KEYS):
        limiter.filter(record(reason=f"invented_{number}"))

    assert passed(limiter, 100, reason="one_too_many") == 100
    assert len(limiter.close()) == 0
