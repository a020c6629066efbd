"""Percentiles between the bounds of a histogram."""

from __future__ import annotations

import pytest

from proxy.ops.quantiles import quantile

BOUNDS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("share", "counts", "value"),
    [
        (0.5, [10, 0, 0, 0], 0.5),
        (0.99, [10, 0, 0, 0], 0.99),
        (1.0, [10, 0, 0, 0], 1.0),
        (0.5, [5, 5, 0, 0], 1.0),
        (0.75, [5, 5, 0, 0], 1.5),
        (0.5, [0, 0, 10, 0], 3.0),
        (0.0, [0, 0, 10, 0], 2.0),
        (0.5, [4, 0, 4, 0], 1.0),
        (0.9, [0, 0, 0, 10], 4.0),
        (0.99, [9, 0, 0, 1], 4.0),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(
    share: float, counts: list[int], value: float
) -> None:
    assert quantile(share, BOUNDS, counts) == pytest.approx(value)


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile(0.5, BOUNDS, [0, 0, 0, 0]) is None
