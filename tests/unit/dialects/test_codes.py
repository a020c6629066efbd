"""The codes of gRPC and its relatives."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.codes import code_of, percent_encoded
from tests.fakes.calling import ANSWERED, NUMBERS, expected_code, failure


@pytest.mark.parametrize("reason", ANSWERED)
def test_every_reason_has_its_code(reason: str) -> None:
    code = code_of(failure(reason))

    assert (code.name, int(code), code.label) == (
        expected_code(reason),
        NUMBERS[expected_code(reason)],
        expected_code(reason).lower(),
    )


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        ("plain ~ text", "plain ~ text"),
        ("100%", "100%25"),
        ("a\r\nb\x7f", "a%0D%0Ab%7F"),
        ("grüße", "gr%C3%BC%C3%9Fe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_a_message_travels_as_printable_ascii(message: str, encoded: str) -> None:
    assert percent_encoded(message) == encoded


@given(st.text())
def test_a_message_comes_back_as_it_was(message: str) -> None:
    encoded = percent_encoded(message)

    assert unquote(encoded) == message
    assert all(" " <= character <= "~" for character in encoded)
