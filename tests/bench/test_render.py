"""The pages show what was measured, and the benchmark's own arithmetic is right."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import pytest

from tests.bench import calls, cases
from tests.bench.cases import CASES, Case, Effort, Patience, turns
from tests.bench.contenders import Contender
from tests.bench.render import (
    BEGIN,
    COLUMNS,
    END,
    PAGE,
    README,
    ROWS,
    main_table,
    render,
    replace,
    second_table,
)
from tests.bench.results import LATEST, Results
from tests.bench.servers import BenchError, free_port
from tests.bench.upstream import Surroundings, make_token


def results(**samples: dict[str, list[float]]) -> Results:
    return Results(
        date="2026-01-31",
        commit="0123456789ab",
        command="python -m tests.bench",
        machine={"cpu": "Some CPU", "cores": "2", "memory": "24 GiB", "kernel": "6"},
        versions={"envoy": "1.40.0"},
        settings={"rounds": 5, "sweep_rounds": 3, "seconds": 2.0, "body_bytes": 300_000_000},
        labels={"direct": "direct", "proxy": "**this proxy**", "envoy": "Envoy"},
        samples=samples,
    )


def test_the_pages_show_the_latest_results() -> None:
    latest = Results.load(LATEST)
    readme, page = README.read_text(), PAGE.read_text()

    assert readme == replace(readme, "\n".join(main_table(latest))), "python -m tests.bench.render"
    assert page == replace(page, render(latest)), "run python -m tests.bench.render"


def test_a_row_shows_medians_and_the_last_row_the_ratio_to_envoy() -> None:
    table = main_table(
        results(
            tls_per_s={"proxy": [20_000, 26_010, 30_000], "envoy": [10_000, 13_000, 20_000]},
            start_ms={"proxy": [250.4], "envoy": [75]},
        )
    )

    assert table == [
        "|   | requests/s, TLS upstream | start to first answer |",
        "|---|--:|--:|",
        "| **this proxy** | 26,000 | 250 ms |",
        "| Envoy | 13,000 | 75 ms |",
        "| this proxy ÷ Envoy | 2.00 x | 3.34 x |",
    ]


def test_grpc_has_its_rows_and_says_how_it_was_measured() -> None:
    measured = results(
        grpc_plain_unary_cpu_us={"proxy": [230, 240, 250], "envoy": [80, 80, 80]},
        grpc_plain_unary_per_s={"direct": [2500], "proxy": [1090], "envoy": [2010]},
    )

    assert second_table(measured) == [
        "|   | direct | **this proxy** | Envoy | this proxy ÷ Envoy |",
        "|---|--:|--:|--:|--:|",
        "| gRPC unary, CPU per call |  | 240 µs | 80 µs | 3.00 x |",
        "| gRPC unary, calls/s | 2,500 | 1,100 | 2,000 | 0.54 x |",
    ]
    assert "32 calls in flight" in render(measured)
    assert "gRPC" not in render(results(tls_per_s={"proxy": [1.0]}))


@pytest.mark.parametrize(
    ("measure", "bound"),
    [
        ("plain_cpu_us", 0.42),
        ("grpc_plain_unary_cpu_us", 0.75),
        ("grpc_plain_stream_cpu_us", 1.0),
        ("grpc_tls_unary_cpu_us", 1.0),
        ("chunked_download_cpu_s_per_gb", 1.5),
    ],
)
def test_what_was_promised_holds_in_the_run_that_is_kept(measure: str, bound: float) -> None:
    ratio = Results.load().ratio(measure, "proxy")

    assert ratio is not None
    assert ratio <= bound


@pytest.mark.parametrize(("scheme", "method"), [("plain", "unary"), ("plain", "stream")])
def test_calls_are_counted_while_they_are_made(tmp_path: Path, scheme: str, method: str) -> None:
    around = Surroundings(tmp_path, 0, 0, 0, "")
    with calls.service(around, scheme) as served:
        assert calls.token(served.plain_port) == ""  # Nobody is in between who would add one.
        with calls.Calls(served.plain_port, method) as load:
            load.settle()
            before = load.progress()
            while (after := load.progress()).done == before.done:
                assert after.at < before.at + 30

    assert after.done > before.done > 0


def test_a_call_that_fails_ends_the_measurement() -> None:
    with calls.Calls(free_port(), "unary") as load, pytest.raises(BenchError, match="UNAVAILABLE"):
        load.settle()


def test_a_ratio_pairs_the_turns_of_a_round() -> None:
    # In the second round the machine was slow for both: the ratio of medians would be 1.5.
    measured = results(tls_per_s={"proxy": [20, 6, 30], "envoy": [10, 3, 20]})

    assert measured.ratio("tls_per_s", "proxy") == 2.0


@pytest.mark.parametrize(("share", "said"), [(0.049, False), (0.05, True), (0.3, True)])
def test_the_tables_say_when_the_machine_was_busy_otherwise(share: float, *, said: bool) -> None:
    measured = results(others_share={"proxy": [0.0, share, share], "envoy": [share, share]})

    assert ("Other processes used" in render(measured)) == said


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    measured = results(tls_per_s={"proxy": [1.5, 2.5]})

    measured.save(tmp_path / "run.json")

    assert Results.load(tmp_path / "run.json") == measured


@pytest.mark.parametrize("text", ["no markers", f"{BEGIN} only", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_readme_without_exactly_one_place_for_the_tables_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must hold"):
        replace(text, "tables")


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    assert replace(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


def test_contenders_alternate_and_each_round_begins_with_another() -> None:
    order: list[str] = []

    def turn(contender: Contender, _around: Surroundings, _effort: Effort) -> dict[str, float]:
        order.append(contender.name)
        return {}

    case = Case("made_up", "", ("a", "b", "c"), turn)
    present = [Contender(name, name) for name in ("a", "b", "c", "not measured here")]
    around = Surroundings(Path(), 0, 0, 0, "")

    taken = list(turns(case, present, around, Effort(rounds=3), Patience(0)))

    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [number for number, _, _ in taken] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


class Disturbed:
    """Stands in for `machine.Others`: others are at work as often as it is told."""

    shares: ClassVar[list[float]] = []

    def __enter__(self) -> Self:
        self.share = self.shares.pop(0)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""


@pytest.mark.parametrize(
    ("patience", "shares", "recorded"),
    [
        (9, [0.049], 0.049),
        (9, [0.05, 0.2, 0.01], 0.01),
        (1, [0.3, 0.2, 0.01], 0.2),
        (0, [0.3, 0.01], 0.3),
    ],
)
def test_a_disturbed_turn_is_taken_again_as_long_as_patience_lasts(
    monkeypatch: pytest.MonkeyPatch, patience: int, shares: list[float], recorded: float
) -> None:
    monkeypatch.setattr(cases, "Others", Disturbed)
    monkeypatch.setattr(Disturbed, "shares", shares)
    case = Case("made_up", "", ("a",), lambda *_: {"measured": 1.0})
    around = Surroundings(Path(), 0, 0, 0, "")

    taken = list(turns(case, [Contender("a", "a")], around, Effort(rounds=1), Patience(patience)))

    assert [samples for _, _, samples in taken] == [{"measured": 1.0, "others_share": recorded}]


def test_no_two_cases_share_a_name_and_no_two_cells_a_measure() -> None:
    names = [case.name for case in CASES]
    measures = [column.measure for column in (*COLUMNS, *ROWS)]

    assert (len(names), len(measures)) == (len(set(names)), len(set(measures)))


def test_a_token_has_the_size_of_a_real_one() -> None:
    token = make_token("https://orders-abc123-uc.a.run.app", now=1_800_000_000.0)

    assert 850 <= len(token) <= 1300
    assert token.count(".") == 2
