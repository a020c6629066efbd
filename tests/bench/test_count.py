"""When a count of instructions is too high."""

from __future__ import annotations

import json

import pytest

from tests.bench.count import KEPT, report


@pytest.mark.parametrize(
    ("counted", "fine"),
    [(90_000, True), (100_000, True), (105_000, True), (105_001, False)],
)
def test_a_count_may_be_five_hundredths_above_what_is_kept(counted: int, *, fine: bool) -> None:
    assert report({"h1": counted}, {"h1": 100_000}) is fine


def test_one_count_of_several_is_enough_to_fail() -> None:
    assert not report({"h1": 100, "grpc": 300}, {"h1": 100, "grpc": 200})


def test_what_was_never_kept_is_only_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert report({"new": 4321}, {})
    assert "4,321" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("build", "case", "most"),
    [
        ("pure", "h1", 125_000),
        ("pure", "grpc", 280_000),
        ("compiled", "h1", 85_000),
        ("compiled", "grpc", 150_000),
    ],
)
def test_no_figure_is_kept_that_is_beyond_what_an_exchange_may_take(
    build: str, case: str, most: int
) -> None:
    assert json.loads(KEPT.read_text())[build][case] <= most
