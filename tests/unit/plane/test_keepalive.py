"""What is known of how long an upstream keeps connections, and what follows from it."""

from __future__ import annotations

import math

import pytest

from proxy.plane.keepalive import UNKNOWN, KeepAlive, timeout_of

OURS = 90.0


def test_of_an_unknown_upstream_little_is_taken_for_granted() -> None:
    assert KeepAlive(OURS).safe == UNKNOWN / 2


def test_a_connection_that_is_open_shows_that_others_will_be() -> None:
    known = KeepAlive(OURS)
    known.seen_open(UNKNOWN / 2)
    assert known.safe == UNKNOWN / 2
    known.seen_open(40.0)
    assert known.safe == 20.0
    known.seen_open(10.0)
    assert known.safe == 20.0


@pytest.mark.parametrize(("seen", "safe"), [(89.0, 44.5), (90.0, 90.0), (600.0, 90.0)])
def test_an_upstream_that_keeps_them_as_long_as_we_do_needs_no_care(
    seen: float, safe: float
) -> None:
    known = KeepAlive(OURS)
    known.seen_open(seen)

    assert known.safe == safe


def test_a_connection_found_closed_shows_the_most_that_can_be_expected() -> None:
    known = KeepAlive(OURS)
    known.seen_open(90.0)
    known.found_closed(5.0)
    assert known.safe == 2.5
    known.found_closed(8.0)
    assert known.safe == 2.5
    known.found_closed(0.0)
    assert known.safe == 0.0


def test_after_an_early_end_what_is_seen_counts_again() -> None:
    known = KeepAlive(OURS)
    known.found_closed(0.0)
    known.seen_open(3.0)

    assert known.safe == 1.5


def test_a_promise_counts_at_once_and_is_not_exceeded() -> None:
    known = KeepAlive(OURS)
    known.promised(5.0)
    assert known.safe == 2.5
    known.seen_open(20.0)
    assert known.safe == 2.5


def test_a_promise_that_is_repeated_forgets_nothing() -> None:
    known = KeepAlive(OURS)
    known.promised(5.0)
    known.found_closed(3.0)
    known.promised(5.0)
    assert known.safe == 1.5
    known.promised(6.0)
    assert known.safe == 3.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"timeout=5", 5.0),
        (b"timeout=5, max=100", 5.0),
        (b"max=100, Timeout = 20", 20.0),
        (b'timeout="15"', 15.0),
        (b"timeout=0", 0.0),
        (b"timeout=999999999", 999_999_999.0),
        (b"timeout=1000000000", math.inf),
        (b"timeout=", math.inf),
        (b"timeout=-1", math.inf),
        (b"timeout=1.5", math.inf),
        (b"300", math.inf),
        (b"", math.inf),
    ],
)
def test_what_a_keep_alive_field_promises(value: bytes, seconds: float) -> None:
    assert timeout_of(value) == seconds
