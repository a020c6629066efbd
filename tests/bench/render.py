"""The tables of the README and of docs/performance.md, made from ``results/latest.json``.

`python -m tests.bench.render` rewrites both between their two markers: the README has the main
table, the page has everything.  ``--check`` only says whether that would change anything.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.calls import IN_FLIGHT
from tests.bench.cases import CONNECTIONS, ROUTES, WORKERS
from tests.bench.grpc_peers import MESSAGE, STREAMED
from tests.bench.results import LATEST, Results

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"


# A share below this is the machine's own housekeeping.
NOTEWORTHY = 0.05


@dataclass(frozen=True, slots=True)
class Column:
    """One measure of the main table."""

    title: str
    measure: str
    show: Callable[[float], str]
    unit: str = ""


def _count(value: float) -> str:
    return f"{round(value, -2):,.0f}" if value >= 1000 else f"{value:.0f}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _two(value: float) -> str:
    return f"{value:.2f}"


COLUMNS = (
    Column("requests/s, TLS upstream", "tls_per_s", _count),
    Column("requests/s, plain upstream", "plain_per_s", _count),
    Column("CPU per request, TLS", "tls_cpu_us", _whole, " µs"),
    Column("p50 at 1 connection", "p50_ms", _two, " ms"),
    Column("idle memory", "idle_rss_mib", _whole, " MiB"),
    Column("start to first answer", "start_ms", _whole, " ms"),
)


ROWS = (
    Column("CPU per request, plain", "plain_cpu_us", _whole, " µs"),
    Column("POST with a small body, requests/s", "post_per_s", _count),
    Column("POST with a small body, CPU", "post_cpu_us", _whole, " µs"),
    Column("download, CPU per GB", "download_cpu_s_per_gb", _two, " s"),
    Column("upload, CPU per GB", "upload_cpu_s_per_gb", _two, " s"),
    Column("download in chunks, CPU per GB", "chunked_download_cpu_s_per_gb", _two, " s"),
    Column("upload in chunks, CPU per GB", "chunked_upload_cpu_s_per_gb", _two, " s"),
    Column("peak memory during the download", "download_peak_mib", _whole, " MiB"),
    Column("peak memory during the upload", "upload_peak_mib", _whole, " MiB"),
    Column("gRPC unary, CPU per call", "grpc_plain_unary_cpu_us", _whole, " µs"),
    Column("gRPC unary, calls/s", "grpc_plain_unary_per_s", _count),
    Column("gRPC unary, p50 at 32 in flight", "grpc_plain_unary_p50_ms", _two, " ms"),
    Column("gRPC streaming, CPU per message", "grpc_plain_stream_cpu_us", _whole, " µs"),
    Column("gRPC streaming, messages/s", "grpc_plain_stream_per_s", _count),
    Column("gRPC unary, TLS upstream, CPU per call", "grpc_tls_unary_cpu_us", _whole, " µs"),
    Column("gRPC unary, TLS upstream, calls/s", "grpc_tls_unary_per_s", _count),
    Column("one of 1,000 idle connections", "idle_kib_per_connection", _whole, " KiB"),
    *(
        Column(f"requests/s, connections: {count:,}", f"connections_{count}_per_s", _count)
        for count in CONNECTIONS
    ),
    *(
        Column(f"requests/s, routes: {count:,}", f"routes_{count}_per_s", _count)
        for count in ROUTES
    ),
    *(
        Column(
            f"CPU of the busiest process per request of all, workers: {count}",
            f"workers_{count}_busiest_us",
            _whole,
            " µs",
        )
        for count in WORKERS
    ),
)


def _cell(results: Results, column: Column, contender: str) -> str:
    value = results.median(column.measure, contender)
    return "" if value is None else column.show(value) + column.unit


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(results: Results, measure: str) -> str:
    value = results.ratio(measure, "proxy")
    return "" if value is None else f"{value:.2f} x"


def main_table(results: Results) -> list[str]:
    """One line for each contender, one column for each measure, and the ratio to Envoy."""
    columns = [column for column in COLUMNS if column.measure in results.samples]
    lines = [
        _line([" ", *(column.title for column in columns)]),
        "|---|" + "--:|" * len(columns),
    ]
    for name, label in results.labels.items():
        cells = [_cell(results, column, name) for column in columns]
        if any(cells):
            lines.append(_line([label, *cells]))
    ratios = [_ratio(results, column.measure) for column in columns]
    if any(ratios):
        lines.append(_line(["this proxy ÷ Envoy", *ratios]))
    return lines


def second_table(results: Results) -> list[str]:
    """One line for each further measure, one column for each contender; empty without any."""
    rows = [row for row in ROWS if row.measure in results.samples]
    names = [
        name for name in results.labels if any(name in results.samples[row.measure] for row in rows)
    ]
    if not rows:
        return []
    lines = [
        _line([" ", *(results.labels[name] for name in names), "this proxy ÷ Envoy"]),
        "|---|" + "--:|" * (len(names) + 1),
    ]
    for row in rows:
        cells = [_cell(results, row, name) for name in names]
        lines.append(_line([row.title, *cells, _ratio(results, row.measure)]))
    return lines


def _words(results: Results) -> str:
    machine, settings = results.machine, results.settings
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"Medians of {settings['rounds']} alternating turns of {settings['seconds']:g} s in fresh "
        f"processes ({settings['sweep_rounds']} for idle connections, connections and routes), "
        f"measured on {results.date} at commit `{results.commit}`. {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory']}: each proxy has one core, load and "
        "upstream the other. 64 keep-alive connections where nothing else is said; nginx answers "
        f"with a small JSON document; the token has 900 bytes; bodies of "
        f"{settings['body_bytes'] / 1e6:.0f} MB.{_grpc(results)} "
        "Ratios are medians over pairs of turns. "
        f"Versions: {versions}.{_others(results)} `make bench` repeats it on your machine."
    )


def _grpc(results: Results) -> str:
    """Say how gRPC was measured, if it was."""
    if not any(measure.startswith("grpc_") for measure in results.samples):
        return ""
    return (
        f" gRPC: grpcio on both sides, {IN_FLIGHT} calls in flight on one connection, messages of "
        f"{len(MESSAGE)} bytes, {STREAMED} of them in a stream."
    )


def _others(results: Results) -> str:
    """Say so if the machine was not the benchmark's alone."""
    turns = results.samples.get("others_share", {})
    shares = [share for of in turns.values() for share in of]
    share = statistics.median(shares) if shares else 0.0
    if share < NOTEWORTHY:
        return ""
    return f" Other processes used {share:.0%} of the machine meanwhile."


def render(results: Results) -> str:
    """Return both tables and the sentence about where the numbers come from, as Markdown."""
    parts = [main_table(results), second_table(results), [_words(results)]]
    return "\n\n".join("\n".join(part) for part in parts if part)


def replace(text: str, tables: str) -> str:
    """Return `text` with `tables` between the markers; `ValueError` if they are not there once."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in tail:
        raise ValueError(f"a page must hold {BEGIN} and {END} once")
    return f"{head}{BEGIN}\n{tables}\n{END}{tail}"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite both pages, or check them; exit code 1 if the check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    check = parser.parse_args(arguments).check
    results = Results.load(LATEST)
    is_stale = False
    for page, tables in ((README, "\n".join(main_table(results))), (PAGE, render(results))):
        text = page.read_text()
        fresh = replace(text, tables)
        is_stale = is_stale or fresh != text
        if not check:
            page.write_text(fresh)
    return int(check and is_stale)


if __name__ == "__main__":
    sys.exit(main())
