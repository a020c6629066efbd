from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import values
from tests.unit.config.reading import refusal

NOT_A_DURATION = "is not a duration; write 250ms, 5s, 2m, 1h or off"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("0s", 0.0),
        ("5s", 5.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("8784h", 31622400.0),
        ("off", math.inf),
    ],
)
def test_a_period_is_a_number_with_its_unit_or_off(text: str, seconds: float) -> None:
    assert values.period(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"'' {NOT_A_DURATION}"),
        ("5 parsecs", f"'5 parsecs' {NOT_A_DURATION}"),
        ("-5s", f"'-5s' {NOT_A_DURATION}"),
        ("5 s", f"'5 s' {NOT_A_DURATION}"),
        ("5s\n", f"'5s\\n' {NOT_A_DURATION}"),
        ("5S", f"'5S' {NOT_A_DURATION}"),
        ("1m30s", f"'1m30s' {NOT_A_DURATION}"),
        ("\u0665s", f"'\u0665s' {NOT_A_DURATION}"),
        ("Off", f"'Off' {NOT_A_DURATION}"),
        ("false", f"'false' {NOT_A_DURATION}"),
        ("5", "5 is a number without its unit; write 5s"),
        ("0.5", "0.5 is a number without its unit; write 0.5s"),
        ("8785h", "'8785h' is longer than a year; write a shorter one, or off"),
    ],
)
def test_what_is_no_period_is_refused(text: str, message: str) -> None:
    assert refusal(values.period, text) == message


def test_a_deadline_is_above_zero() -> None:
    assert values.deadline("1ms") == 0.001
    assert values.deadline("off") == math.inf
    message = "would fail every exchange; write off for no deadline"
    for zero in ("0s", "0.0ms", "0", "0.0"):
        assert refusal(values.deadline, zero) == f"{zero} {message}"
    assert refusal(values.deadline, "05") == "05 is a number without its unit; write 05s"


def test_a_pause_may_be_zero_but_not_without_end() -> None:
    assert values.pause("0s") == 0.0
    assert refusal(values.pause, "off") == "off would be a pause without end; write 0s for none"
    assert refusal(values.pause, "x") == "'x' is not a duration; write 0s, 50ms, 5s or 2m"


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000))
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert values.period(values.show_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


def test_durations_are_written_shortly() -> None:
    shown = [values.show_duration(each) for each in (0.05, 1.5, 8.0, 300.0, math.inf)]

    assert shown == ["50ms", "1500ms", "8s", "300s", "off"]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("65536", 65536), ("7B", 7), ("64KiB", 65536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)],
)
def test_a_size_is_a_number_of_bytes_or_has_a_binary_unit(text: str, size_bytes: int) -> None:
    assert values.size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "64KB", "64k", "64 KiB", "-1", "1.5MiB", "1TiB", "9" * 16])
def test_what_is_no_size_is_refused(text: str) -> None:
    message = f"'{text}' is not a size; write 64KiB, 1MiB, 1GiB or bytes: 65536"
    assert refusal(values.size, text) == message


@given(st.integers(0, 1 << 40))
def test_sizes_are_written_as_they_are_read(size_bytes: int) -> None:
    assert values.size(str(values.show_size(size_bytes))) == size_bytes


@pytest.mark.parametrize(
    ("text", "fraction"), [("0%", 0.0), ("20%", 0.2), ("12.5%", 0.125), ("100%", 1.0)]
)
def test_a_share_is_a_percentage(text: str, fraction: float) -> None:
    assert values.share(text) == fraction
    assert values.show_share(fraction) == text


@pytest.mark.parametrize("text", ["", "0.2", "20", "101%", "100.1%", "-1%", "20 %"])
def test_what_is_no_share_is_refused(text: str) -> None:
    message = f"'{text}' is not a share; write 0% to 100%, such as 20%"
    assert refusal(values.share, text) == message


@pytest.mark.parametrize(
    ("text", "cause"),
    [("connect_failed", "connect_failed"), ("timeout", "timeout"), ("400", 400), ("599", 599)],
)
def test_a_cause_is_a_class_of_failure_or_an_error_status(text: str, cause: str | int) -> None:
    assert values.cause(text) == cause


@pytest.mark.parametrize("text", ["399", "600", "5xx", "200", "0503", "resets", ""])
def test_what_is_no_cause_is_refused(text: str) -> None:
    known = "connect_failed, reset, timeout or 400 to 599"
    assert refusal(values.cause, text) == f"'{text}' cannot be retried on; write {known}"


@pytest.mark.parametrize("text", ["GET", "M-SEARCH", "PATCH"])
def test_a_method_is_upper_case(text: str) -> None:
    assert values.method(text) == text


@pytest.mark.parametrize("text", ["get", "Get", "", "GET ", "GET-", "GET,PUT", "*"])
def test_what_is_no_method_is_refused(text: str) -> None:
    message = f"'{text}' is not a method; methods are upper case, such as GET"
    assert refusal(values.method, text) == message


@pytest.mark.parametrize("text", ["https://Billing.example.com/", "123.apps", "a b", "é"])
def test_an_audience_is_taken_as_it_stands(text: str) -> None:
    assert values.audience(text) == text


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\0", "a\x7f"])
def test_what_is_no_audience_is_refused(text: str) -> None:
    message = "an audience is one line of text, such as https://billing.example.com"
    assert refusal(values.audience, text) == message


def test_a_service_account_is_an_address() -> None:
    text = "caller@project.iam.gserviceaccount.com"
    assert values.account(text) == text
    assert refusal(values.account, "caller") == (
        "'caller' is not a service account; write NAME@PROJECT.iam.gserviceaccount.com"
    )


@pytest.mark.parametrize("text", ["X-Env", "x_env", "!#$%&'*+-.^_`|~", "Authorization"])
def test_a_header_name_is_a_token(text: str) -> None:
    assert values.header_name(text) == text


@pytest.mark.parametrize("text", ["", "X Env", "X-Env:", "é", "X-Env\r\n", "(x)", ":path"])
def test_what_is_no_header_name_is_refused(text: str) -> None:
    message = f"{text!r} is not a header name; write letters, digits and '-'"
    assert refusal(values.header_name, text) == message


@pytest.mark.parametrize(
    "text",
    [*sorted(values.FRAMING_HEADERS), "Host", "HOST", "Transfer_Encoding", "content-LENGTH", "TE"],
)
def test_headers_of_the_connection_cannot_be_touched(text: str) -> None:
    message = f"{text} belongs to the proxy's own connection; leave it out"
    assert refusal(values.header_name, text) == message


@pytest.mark.parametrize("text", ["", "x", "a b", "a\tb", "!~"])
def test_a_header_value_is_visible_ascii(text: str) -> None:
    assert values.header_value(text) == text


@pytest.mark.parametrize(
    "text", [" x", "x ", "\tx", "a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "é", "a\x7f", "a\n"]
)
def test_what_is_no_header_value_is_refused_without_showing_it(text: str) -> None:
    assert refusal(values.header_value, text) == (
        "a header value is one line of ASCII without spaces at its ends; "
        "remove line breaks, control and other characters"
    )
