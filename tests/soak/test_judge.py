"""What is a leak and what is not, on numbers that were made up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.soak.judge import GROWTH_DESCRIPTORS, GROWTH_KIB, Sample, judge, slope

MINUTES = 10


def samples(
    rss: Callable[[float], float] = lambda _: 40_000, descriptors: Callable[[float], float] = float
) -> list[Sample]:
    """Return one sample a second; both functions get minutes."""
    return [
        Sample(float(at), int(rss(at / 60)), int(descriptors(at / 60)), 0.0, 0)
        for at in range(60 * MINUTES + 1)
    ]


def flat(_: float) -> float:
    return 30


def test_a_slope_is_that_of_the_line_whatever_a_few_peaks_are() -> None:
    points = [(float(x), 5.0 * x + (1e6 if x % 10 == 3 else 0)) for x in range(100)]

    assert slope(points) == pytest.approx(5.0)


def test_a_slope_of_many_points_is_found_from_some_of_them() -> None:
    assert slope([(float(x), 3.0 * x) for x in range(100_000)]) == pytest.approx(3.0)


@pytest.mark.parametrize(("share", "leaks"), [(0.98, False), (1.02, True)])
def test_memory_may_grow_by_so_much_in_the_half_that_counts(share: float, leaks: bool) -> None:  # noqa: FBT001 (parametrized)
    a_minute = share * GROWTH_KIB / (MINUTES / 2)

    found = judge(samples(lambda at: 40_000 + a_minute * at, flat))

    assert bool(found.problems) is leaks
    assert found.rss_slope == pytest.approx(a_minute, rel=0.01)


@pytest.mark.parametrize(("share", "leaks"), [(0.9, False), (1.1, True)])
def test_so_may_descriptors(share: float, leaks: bool) -> None:  # noqa: FBT001 (parametrized)
    a_minute = share * GROWTH_DESCRIPTORS / (MINUTES / 2)

    found = judge(samples(descriptors=lambda at: 30 + a_minute * at))

    assert bool(found.problems) is leaks


def test_what_a_start_takes_is_no_leak() -> None:
    found = judge(samples(lambda at: 40_000 + min(at, 4) * 10_000, flat))

    assert found.problems == []


def test_noise_is_no_leak() -> None:
    choice = random.Random(1)  # noqa: S311 (repeatable)

    found = judge(samples(lambda _: 40_000 + choice.gauss(0, 1000), flat))

    assert found.problems == []


def test_a_leak_is_seen_in_noise() -> None:
    choice = random.Random(1)  # noqa: S311 (repeatable)

    found = judge(samples(lambda at: 40_000 + 1000 * at + choice.gauss(0, 1000), flat))

    assert len(found.problems) == 1


@pytest.mark.parametrize("number", [0, 1, 2])
def test_without_samples_nothing_is_good(number: int) -> None:
    assert judge(samples()[:number]).problems == ["there are too few samples"]
