"""Which answers may be the platform's refusal: those are explained in the log."""

from __future__ import annotations

import pytest

from proxy.plane.head import ResponseHead, block
from proxy.plane.refusal import refusal_of

PAGE = b"text/html; charset=UTF-8"


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (401, PAGE, 401),
        (403, PAGE, 403),
        (403, b"application/json", 403),
        (404, PAGE, 404),
        (404, b"TEXT/HTML", 404),
        # An API that has nothing there.
        (404, b"application/json", 0),
        (404, b"text/plain", 0),
        (404, None, 0),
    ],
)
def test_a_404_is_a_refusal_only_as_a_page(status: int, kind: bytes | None, expected: int) -> None:
    fields = [] if kind is None else [(b"Content-Type", kind)]

    assert refusal_of(ResponseHead(status, block(fields))) == expected
