"""What a line looks like, in JSON and in text."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.ops.logformat import JsonFormatter, TextFormatter

AT = 1_767_323_045.678_901
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJhdWQiOiJodHRwczovL3gucnVuLmFwcCJ9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def record(message: str = "text", level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("proxy.plane", level, __file__, 0, message, None, None)
    made.created, made.msecs = AT, 678.9
    made.__dict__.update(extra)
    return made


def as_json(made: logging.LogRecord, project: str = "") -> dict[str, Any]:
    line = JsonFormatter(project).format(made)

    assert "\n" not in line
    assert line.isascii()

    fields: dict[str, Any] = json.loads(line)
    return fields


def with_traceback(made: logging.LogRecord, text: str = "boom") -> logging.LogRecord:
    try:
        int(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_has_severity_time_and_message() -> None:
    assert as_json(record("it's 5 o'clock — somewhere", logging.WARNING)) == {
        "severity": "WARNING",
        "time": "2026-01-02T03:04:05.678901Z",
        "message": "it's 5 o'clock — somewhere",
        "logger": "proxy.plane",
    }


@pytest.mark.parametrize("severity", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_severities_are_cloud_loggings_own_words(severity: str) -> None:
    made = record(level=logging.getLevelNamesMapping()[severity])

    assert as_json(made)["severity"] == severity


def test_route_reason_and_hint_are_fields() -> None:
    fields = as_json(record(route="orders", reason="upstream_reset", hint="Look there."))

    assert (fields["route"], fields["reason"]) == ("orders", "upstream_reset")
    assert fields["hint"] == "Look there."


def test_the_exchange_becomes_http_request() -> None:
    http = {
        "method": "POST",
        "path": "/trpc/orders.list",
        "status": 502,
        "seconds": 0.012,
        "request_bytes": 12,
        "response_bytes": 345,
        "user_agent": "undici",
        "protocol": "h1",
    }

    assert as_json(record(http=http))["httpRequest"] == {
        "requestMethod": "POST",
        "requestUrl": "/trpc/orders.list",
        "status": 502,
        "latency": "0.012s",
        "requestSize": "12",
        "responseSize": "345",
        "userAgent": "undici",
        "protocol": "HTTP/1.1",
    }


def test_what_is_not_known_of_an_exchange_is_left_out() -> None:
    http = {"method": "GET", "path": None, "user_agent": None, "protocol": "h3"}

    assert as_json(record(http=http))["httpRequest"] == {"requestMethod": "GET"}


@pytest.mark.parametrize(
    ("seconds", "latency"),
    [(0.0, "0s"), (2.0, "2s"), (0.1, "0.1s"), (0.0000004, "0s"), (3600.5, "3600.5s")],
)
def test_latency_is_a_duration_of_protocol_buffers(seconds: float, latency: str) -> None:
    assert as_json(record(http={"seconds": seconds}))["httpRequest"]["latency"] == latency


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_query_is_never_written(form: str) -> None:
    formatter = JsonFormatter() if form == "json" else TextFormatter(colour=False)

    line = formatter.format(record(http={"method": "GET", "path": "/a?connectionParams=secret"}))

    assert "/a" in line
    assert "secret" not in line
    assert "?" not in line


def test_the_trace_carries_the_project_once_it_is_known() -> None:
    made = record(trace=("traceparent", TRACEPARENT))

    assert as_json(made, "my-project")["logging.googleapis.com/trace"] == (
        f"projects/my-project/traces/{TRACE}"
    )
    assert as_json(made)["logging.googleapis.com/trace"] == TRACE
    assert as_json(made)["logging.googleapis.com/spanId"] == "00f067aa0ba902b7"
    assert as_json(made)["logging.googleapis.com/trace_sampled"] is True


def test_a_trace_without_a_span_says_none() -> None:
    fields = as_json(record(trace=("X-Cloud-Trace-Context", TRACE)))

    assert fields["logging.googleapis.com/trace"] == TRACE
    assert "logging.googleapis.com/spanId" not in fields
    assert fields["logging.googleapis.com/trace_sampled"] is False


def test_an_invalid_trace_is_left_out() -> None:
    fields = as_json(record(trace=("traceparent", "garbage")))

    assert not [name for name in fields if name.startswith("logging.googleapis.com")]


def test_a_traceback_stays_on_the_line() -> None:
    fields = as_json(with_traceback(record("bug", logging.ERROR)))

    assert fields["message"] == "bug"
    assert fields["stack_trace"].startswith("Traceback (most recent call last):\n")
    assert fields["stack_trace"].endswith(
        "ValueError: invalid literal for int() with base 10: 'boom'"
    )


def test_further_fields_stand_beside_but_never_replace_ours() -> None:
    fields = as_json(record(fields={"attempt": 2, "severity": "DEBUG", "at": AT, "path": {1}}))

    assert fields["attempt"] == 2
    assert fields["severity"] == "INFO"
    assert fields["path"] == "{1}"


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "made",
    [
        record(f"got {TOKEN}"),
        record(f"Authorization: Bearer {TOKEN}"),
        record(hint=TOKEN),
        record(route=TOKEN),
        record(http={"path": f"/{TOKEN}"}),
        record(http={"method": TOKEN}),
        with_traceback(record(), f"bad token {TOKEN}"),
    ],
)
def test_no_part_of_a_record_lets_a_token_through(made: logging.LogRecord, form: str) -> None:
    formatter = JsonFormatter() if form == "json" else TextFormatter(colour=True)

    line = formatter.format(made)

    assert "eyJ" not in line
    assert "[redacted]" in line


def test_lone_surrogates_are_written_as_escapes() -> None:
    assert as_json(record("path \udcff"))["message"] == "path \udcff"


def test_text_is_one_line_for_a_person() -> None:
    http = {"method": "GET", "path": "/orders/1", "status": 502, "seconds": 0.0123}
    made = record("no answer", logging.ERROR, route="orders", reason="upstream_reset", http=http)

    assert TextFormatter(colour=False).format(made) == (
        "03:04:05.678  ERROR     orders  upstream_reset  no answer  GET /orders/1 502 12.3 ms"
    )


def test_text_does_not_repeat_what_the_message_says() -> None:
    http = {"method": "GET", "path": "/orders/1", "status": 502, "seconds": 0.5}
    message = "GET /orders/1 → 502 upstream_reset: no answer"
    made = record(message, logging.ERROR, route="orders", reason="upstream_reset", http=http)

    assert TextFormatter(colour=False).format(made) == (
        "03:04:05.678  ERROR     orders  GET /orders/1 → 502 upstream_reset: no answer  500 ms"
    )


def test_text_shows_the_hint_below() -> None:
    line = TextFormatter(colour=False).format(record("no answer", hint="Look there."))

    assert line == "03:04:05.678  INFO      no answer\n              → Look there."


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.99949, "999 ms"), (1.0, "1 s"), (61.26, "61.3 s")]
)
def test_text_changes_to_seconds_at_one(seconds: float, words: str) -> None:
    line = TextFormatter(colour=False).format(record(http={"seconds": seconds}))

    assert line.endswith(f"  text  {words}")


def test_colour_is_used_only_where_wanted() -> None:
    made = record("text", logging.ERROR, route="orders")

    assert "\x1b" not in TextFormatter(colour=False).format(made)
    assert "\x1b[31mERROR   \x1b[0m" in TextFormatter(colour=True).format(made)


def test_text_from_elsewhere_cannot_move_the_cursor_or_invent_lines() -> None:
    evil = "a\n03:04:05 INFO all is well\x1b[2J\r\x9b\u2028\x7f"

    line = TextFormatter(colour=False).format(record(evil, route=evil, http={"path": evil}))

    assert not set(line) & set("\n\x1b\r\x9b\u2028\x7f")
    assert r"a\n03:04:05 INFO all is well\x1b[2J\r\x9b\u2028\x7f" in line


def test_a_traceback_in_text_keeps_its_lines_but_no_control_characters() -> None:
    made = record("bug")
    made.exc_info = (ValueError, ValueError("a\x1b[2Jb"), None)

    assert TextFormatter(colour=False).format(made).splitlines() == [
        "03:04:05.678  INFO      bug",
        r"ValueError: a\x1b[2Jb",
    ]
