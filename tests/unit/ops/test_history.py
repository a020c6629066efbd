"""The points of the graphs."""

from __future__ import annotations

import pytest

from proxy.ops.history import POINTS, RECENT_POINTS, SAMPLE_SECONDS, History, mark, quantile, span
from proxy.ops.numbers import Numbers
from proxy.plane.stats import RouteStats, Stats


class Bench:
    """A history whose time is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stats = Stats()
        self.history = History(self.now)

    @property
    def orders(self) -> RouteStats:
        return self.stats.route("orders")

    def sample(self, seconds: float = SAMPLE_SECONDS) -> None:
        self.now += seconds
        self.history.sample(Numbers(stats=self.stats, pids=()), self.now, 1e9 + self.now)

    def series(self, name: str) -> list[int] | list[float | None]:
        return self.history.series("orders")[name]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def served(route: RouteStats, code: int = 200, count: int = 1, seconds: float = 0.01) -> None:
    route.requests["h1", code] += count
    for _ in range(count):
        route.duration.observe(seconds)


def test_a_point_holds_what_happened_since_the_last_one(bench: Bench) -> None:
    served(bench.orders, count=10)
    bench.sample()
    served(bench.orders, count=3)
    bench.sample()
    bench.sample()

    assert bench.series("requests") == [10, 3, 0]


def test_the_first_point_covers_the_time_since_the_start(bench: Bench) -> None:
    bench.sample(2.5)

    assert list(bench.history.seconds) == [2.5]
    assert list(bench.history.at) == [1e9 + 1002.5]


def test_a_point_says_how_much_time_it_covers_where_the_cpu_was_withdrawn(bench: Bench) -> None:
    bench.sample()
    bench.sample(600.0)

    assert list(bench.history.seconds) == [SAMPLE_SECONDS, 600.0]


def test_no_point_is_taken_where_no_time_has_passed(bench: Bench) -> None:
    bench.sample(0.0)

    assert list(bench.history.at) == []


@pytest.mark.parametrize(
    ("code", "client", "server", "refused"),
    [
        (200, 0, 0, 0),
        (302, 0, 0, 0),
        (101, 0, 0, 0),
        (399, 0, 0, 0),
        (400, 1, 0, 0),
        (401, 1, 0, 1),
        (403, 1, 0, 1),
        (498, 1, 0, 0),
        (499, 0, 0, 0),
        (500, 0, 1, 0),
        (599, 0, 1, 0),
    ],
)
def test_statuses_are_sorted_into_whose_error_they_are(
    bench: Bench, code: int, client: int, server: int, refused: int
) -> None:
    served(bench.orders, code)
    bench.sample()

    recent = bench.history.recent(bench.orders, bench.now + 1.0)
    assert (recent.client_errors, recent.server_errors) == (client, server)
    assert recent.refused == refused
    assert bench.series("client_errors") == [client]
    assert bench.series("server_errors") == [server]


def test_a_response_that_broke_after_its_head_is_a_server_error(bench: Bench) -> None:
    served(bench.orders, 200)
    bench.orders.errors["upstream_reset"] += 1
    bench.sample()

    assert bench.series("server_errors") == [1]


def test_an_error_that_has_its_status_is_not_counted_twice(bench: Bench) -> None:
    served(bench.orders, 502)
    bench.orders.errors["upstream_reset"] += 1
    bench.sample()

    assert bench.series("server_errors") == [1]


def test_a_caller_that_went_away_is_no_error(bench: Bench) -> None:
    served(bench.orders, 499)
    bench.orders.errors["downstream_gone"] += 1
    bench.sample()

    assert [bench.series(name)[0] for name in ("client_errors", "server_errors")] == [0, 0]


def test_percentiles_are_of_the_interval_alone(bench: Bench) -> None:
    served(bench.orders, count=100, seconds=10.0)
    bench.sample()
    served(bench.orders, count=100, seconds=0.002)
    bench.sample()
    bench.sample()

    p50 = bench.series("p50")
    assert p50[0] == pytest.approx(7.5)  # half of the bucket from 5 to 10 s
    assert p50[1] == pytest.approx(0.00175)  # half of the bucket from 1 to 2.5 ms
    assert p50[2] is None


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_number_of_points_is_bounded(bench: Bench, more: int) -> None:
    served(bench.orders)
    for _ in range(POINTS + more):
        bench.sample()

    expected = min(POINTS, POINTS + more)
    assert len(bench.history.at) == len(bench.history.seconds) == expected
    assert {len(points) for points in bench.history.series("orders").values()} == {expected}


def test_a_route_that_came_later_did_nothing_before(bench: Bench) -> None:
    bench.sample()
    served(bench.orders)
    bench.sample()

    assert (bench.series("requests"), bench.series("p50")[0]) == ([0, 1], None)


def test_a_route_without_numbers_did_nothing(bench: Bench) -> None:
    bench.sample()

    assert bench.history.series("nobody") == {
        "requests": [0], "client_errors": [0], "server_errors": [0],
        "p50": [None], "p90": [None], "p99": [None],
    }  # fmt: skip


def test_recent_is_the_last_minute_up_to_the_moment(bench: Bench) -> None:
    served(bench.orders, count=100)
    for _ in range(RECENT_POINTS + 1):
        bench.sample()
    served(bench.orders, 503, count=2)

    recent = bench.history.recent(bench.orders, bench.now + 1.0)

    assert recent.seconds == RECENT_POINTS * SAMPLE_SECONDS + 1.0
    assert (recent.requests, recent.server_errors) == (2, 2)


def test_before_the_first_point_recent_is_everything(bench: Bench) -> None:
    served(bench.orders, 403, count=4)

    recent = bench.history.recent(bench.orders, bench.now + 1.0)

    assert (recent.seconds, recent.requests, recent.refused) == (1.0, 4, 4)


def test_routes_are_added_up(bench: Bench) -> None:
    billing = bench.stats.route("billing")
    served(bench.orders, count=100, seconds=0.002)
    bench.sample()
    served(billing, 500, count=100, seconds=10.0)

    recent = bench.history.recent_of_all([bench.orders, billing], bench.now + 1.0)

    assert (recent.requests, recent.server_errors) == (200, 100)
    assert recent.percentiles["p50"] == pytest.approx(0.0025)
    assert recent.percentiles["p90"] == pytest.approx(9.0)


def test_without_any_route_nothing_happened(bench: Bench) -> None:
    recent = bench.history.recent_of_all([], bench.now + 2.0)

    assert (recent.seconds, recent.requests, recent.percentiles["p50"]) == (2.0, 0, None)


def test_a_sum_that_fell_because_a_worker_ended_is_no_negative_count() -> None:
    before, after = RouteStats("orders"), RouteStats("orders")
    served(before, count=5)
    served(after, count=3)

    found = span(mark(before, 0.0), mark(after, 5.0))

    assert (found.requests, found.percentiles["p50"]) == (0, None)


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
