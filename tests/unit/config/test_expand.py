from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.expand import expand
from tests.unit.config.reading import refusal

ENV = {"HOST": "orders.internal", "EMPTY": "", "DOLLAR": "$HOST ${HOST}", "_2": "two"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${HOST}", "orders.internal"),
        ("https://${HOST}/x", "https://orders.internal/x"),
        ("${HOST}${HOST}", "orders.internalorders.internal"),
        ("${_2}", "two"),
        ("${EMPTY}", ""),
        ("${HOST:-other}", "orders.internal"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-}", ""),
        ("${NONE:-http://127.0.0.1:3001}", "http://127.0.0.1:3001"),
        ("${NONE:-${HOST}}", "orders.internal"),
        ("${NONE:-${ALSO:-deep}}", "deep"),
        ("${NONE:-a${HOST}b}c", "aorders.internalbc"),
        ("$$", "$"),
        ("$${HOST}", "${HOST}"),
        ("$$$$", "$$"),
        ("a$$b", "a$b"),
        ("${NONE:-$$}", "$"),
        ("{}", "{}"),
        ("a}b", "a}b"),
    ],
)
def test_variables_are_replaced_and_two_dollars_are_one(text: str, expected: str) -> None:
    assert expand(text, ENV) == expected


def test_the_value_of_a_variable_is_taken_as_it_stands() -> None:
    assert expand("${DOLLAR}", ENV) == "$HOST ${HOST}"


def test_a_default_that_is_not_taken_may_name_an_unset_variable() -> None:
    assert expand("${HOST:-${NONE}}", ENV) == "orders.internal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${NONE}",
            "the environment variable NONE is not set; set it, or give a default: ${NONE:-value}",
        ),
        (
            "${NONE}/${OTHER}/${NONE}",
            (
                "the environment variables NONE and OTHER are not set; "
                "set them, or give a default: ${NONE:-value}"
            ),
        ),
        (
            "${OUTER:-${NONE}}",
            "the environment variable NONE is not set; set it, or give a default: ${NONE:-value}",
        ),
        ("$HOST", "a '$' alone means nothing; write ${NAME}, or $$ for a dollar"),
        ("cost 5$", "a '$' alone means nothing; write ${NAME}, or $$ for a dollar"),
        ("${}", "'${' needs a variable's name: ${NAME} or ${NAME:-default}"),
        ("${1}", "'${' needs a variable's name: ${NAME} or ${NAME:-default}"),
        ("${", "'${' needs a variable's name: ${NAME} or ${NAME:-default}"),
        (
            "${HOST",
            "after '${HOST' there can only be '}' or ':-default}'; write $$ for a dollar",
        ),
        (
            "${HOST-other}",
            "after '${HOST' there can only be '}' or ':-default}'; write $$ for a dollar",
        ),
        (
            "${HOST:?missing}",
            "after '${HOST' there can only be '}' or ':-default}'; write $$ for a dollar",
        ),
        ("${NONE:-other", "'${' without its '}'; write $$ for a dollar"),
        ("${A:-" * 9 + "x" + "}" * 9, "defaults are nested deeper than 8"),
    ],
)
def test_what_cannot_be_expanded_is_refused_with_its_mend(text: str, message: str) -> None:
    assert refusal(expand, text, ENV) == message


def test_defaults_nest_as_deep_as_the_bound() -> None:
    assert expand("${A:-" * 8 + "x" + "}" * 8, ENV) == "x"


@given(st.text())
def test_any_text_comes_back_once_its_dollars_are_doubled(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@given(st.text(alphabet="${}:-ABab"))
def test_any_text_is_expanded_or_refused_in_words(text: str) -> None:
    try:
        expand(text, {"A": "1"})
    except ValueError as error:
        assert str(error)  # noqa: PT017 (whether it raises depends on the text)
