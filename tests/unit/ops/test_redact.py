"""Tokens never get through."""

from __future__ import annotations

import json

import pytest

from proxy.ops.redact import redact

TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJhdWQiOiJodHRwczovL3gucnVuLmFwcCJ9.c2lnbmF0dXJl-_"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"got {TOKEN} back", "got [redacted] back"),
        (f"({TOKEN})", "([redacted])"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer [redacted]"),
        ("authorization: bearer opaque-123/+=", "authorization: bearer [redacted]"),
        ("cut off: eyJhbGciOiJSUzI1NiIsImtpZCI6", "cut off: [redacted]"),
        ("cut off: " + TOKEN[:-40], "cut off: [redacted]"),
        ("access token ya29.a0AfH6SMBx-y_z", "access token [redacted]"),
        (f"{TOKEN} and {TOKEN}", "[redacted] and [redacted]"),
    ],
)
def test_what_looks_like_a_token_is_removed(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "no ID token for https://orders.run.app",
        "the bearer token was refused",
        'www-authenticate: Bearer error="invalid_token"',
        "Bearer realm=x",
        "keyJson eyJ eyJhb",
    ],
)
def test_what_only_speaks_of_tokens_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("gap", [" ", "\t", "\n", "  "])
def test_a_line_of_json_stays_one(gap: str) -> None:
    line = json.dumps({"message": f"Bearer{gap}{TOKEN}", "route": "orders"})

    fields = json.loads(redact(line))

    assert fields == {"message": f"Bearer{gap}[redacted]", "route": "orders"}
