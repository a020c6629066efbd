"""Tokens never get through, and of a stranger's answer nothing that might be a secret."""

from __future__ import annotations

import json

import pytest

from proxy.redact import MESSAGE, first_words, redact, redact_foreign
from tests.fakes.steering import jwt

JWT = jwt(1_800_000_000)


@pytest.mark.parametrize(
    "secret",
    [
        JWT,
        JWT[:40],
        JWT.split(".")[1],
        "ya29.a0AfH6SMBx-2_k.Zz",
        "ya29.c.b0Aaekm1K",
        "1//0gabc_DEF-1234",
        "GOCSPX-abc123def456ghi789jkl",
        "0123456789abcdef0123456789abcdef01234567",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
    ],
)
def test_what_looks_like_a_secret_is_hidden(secret: str) -> None:
    text = redact_foreign(f"token {secret} refused")

    assert text == "token [redacted] refused"


def test_a_token_cut_by_the_limit_is_hidden_too() -> None:
    text = redact_foreign("x " * (MESSAGE // 2 - 8) + JWT)

    assert JWT[:8] not in text
    assert len(text) <= MESSAGE


@pytest.mark.parametrize(
    "text",
    [
        "invalid_grant: Token has been expired or revoked.",
        "Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource (or it may not exist).",
        "caller@my-project-1.iam.gserviceaccount.com",
        "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts",
        "IAM Service Account Credentials API has not been used in project 123456789012 before",
        "<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title>",
    ],
)
def test_what_helps_is_kept(text: str) -> None:
    assert redact_foreign(text) == text


def test_text_becomes_one_line_without_control_characters() -> None:
    assert redact_foreign(" a\r\nb\tc\x00d\x1b[31m ") == "a b c d [31m"


@pytest.mark.parametrize(("length", "cut"), [(239, False), (240, False), (241, True)])
def test_long_text_is_cut(length: int, cut: bool) -> None:  # noqa: FBT001 (a table)
    text = redact_foreign("ab " * (length // 3) + "abc"[: length % 3])

    assert text.endswith("…") == cut
    assert len(text) <= MESSAGE


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "nothing"),
        (b" \n", "nothing"),
        (b"hunter2", "one word of 7 characters"),
        (b"hunter2\n", "one word of 7 characters"),
        (b"<h1>Sorry</h1>", "'<h1>Sorry</h1>'"),
        (b'{"error":1}', "'{\"error\":1}'"),
        (b"not found", "'not found'"),
        (b"caf\xe9 au lait", "'caf au lait'"),
    ],
)
def test_the_first_words_of_a_body_say_what_it_is(body: bytes, said: str) -> None:
    assert first_words(body) == said


def test_only_the_first_words_are_shown() -> None:
    said = first_words("word " * 100)

    assert len(said) <= 62
    assert said.endswith("…'")


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
        ("two short parts: eyJ.eyJ", "two short parts: [redacted]"),
        ("two short parts: (eyJbG.eyJh.c2ln)", "two short parts: ([redacted])"),
        ("access token ya29.a0AfH6SMBx-y_z", "access token [redacted]"),
        ("refresh token 1//0gabc_DEF-1234", "refresh token [redacted]"),
        (f"{TOKEN} and {TOKEN}", "[redacted] and [redacted]"),
    ],
)
def test_what_looks_like_a_token_is_removed(text: str, redacted: str) -> None:
    assert redact(text) == redacted
    assert redact_foreign(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "no ID token for https://orders.run.app",
        "the bearer token was refused",
        'www-authenticate: Bearer error="invalid_token"',
        "Bearer realm=x",
        "keyJson eyJ eyJhb",
        "a word eyJbG. eyJ, eyJbG.ey",
        "GET /a/1//b, /keyDocumentationPage",
    ],
)
def test_what_only_speaks_of_tokens_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("gap", [" ", "\t", "\n", "  "])
def test_a_line_of_json_stays_one(gap: str) -> None:
    line = json.dumps({"message": f"Bearer{gap}{TOKEN}", "route": "orders"})

    fields = json.loads(redact(line))

    assert fields == {"message": f"Bearer{gap}[redacted]", "route": "orders"}
