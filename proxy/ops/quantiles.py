"""Percentiles out of a histogram: good enough to look at, as exact as its buckets."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """Return the value below which `share` (0 to 1) of the observations lie; None without any.

    `counts` has one more entry than `bounds`, for what lies beyond them.  Observations are
    taken as spread evenly over their bucket, as Prometheus' ``histogram_quantile`` does; beyond
    the bounds nothing is known but the last bound.
    """
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    seen = 0
    for index, (bound, count) in enumerate(zip(bounds, counts, strict=False)):
        if count and seen + count >= rank:
            low = bounds[index - 1] if index else 0.0
            return low + (bound - low) * (rank - seen) / count
        seen += count
    return bounds[-1]
