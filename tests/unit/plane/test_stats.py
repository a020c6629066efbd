"""The numbers of the data path: which bucket a value counts in, and what an exchange adds."""

from __future__ import annotations

import math

import pytest

from proxy.plane.stats import DURATION_BOUNDS, Histogram, RouteStats


@pytest.mark.parametrize("place", range(len(DURATION_BOUNDS)))
def test_a_value_counts_in_the_first_bucket_whose_bound_it_does_not_exceed(place: int) -> None:
    bound = DURATION_BOUNDS[place]
    histogram = Histogram()
    for value in (math.nextafter(bound, 0), bound, math.nextafter(bound, math.inf)):
        histogram.observe(value)

    expected = [0] * (len(DURATION_BOUNDS) + 1)
    expected[place], expected[place + 1] = 2, 1
    assert histogram.counts == expected
    assert histogram.sum == pytest.approx(3 * bound)


def test_values_beyond_both_ends_count_in_the_outermost_buckets() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(0.0)
    histogram.observe(1e9)

    assert histogram.counts == [1, 0, 1]


def test_exchanges_count_by_protocol_and_status() -> None:
    stats = RouteStats("orders")
    stats.finished("h1", 200, 0.002)
    stats.finished("h1", 200, 0.002)
    stats.finished("h2", 503, 0.002)

    assert stats.requests == {("h1", 200): 2, ("h2", 503): 1}
    assert stats.requests["ws", 101] == 0
    assert stats.duration.count == 3
