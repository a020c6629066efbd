"""Dates as HTTP writes them."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from proxy.clock import http_date


def test_a_date_is_written_as_the_rfc_shows_it() -> None:
    assert http_date(784111777.0) == "Sun, 06 Nov 1994 08:49:37 GMT"  # RFC 9110, 5.6.7


@given(st.floats(0, 253402300799, allow_nan=False))  # To the end of the year 9999.
def test_every_date_is_what_the_library_says(wall: float) -> None:
    assert http_date(wall) == formatdate(int(wall), usegmt=True)
