"""What may be quoted of a stranger's answer."""

from __future__ import annotations

import pytest

from proxy.identity.quote import MESSAGE, first_words, redact
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
    text = redact(f"token {secret} refused")

    assert text == "token [hidden] refused"


def test_a_token_cut_by_the_limit_is_hidden_too() -> None:
    text = redact("x " * (MESSAGE // 2 - 8) + JWT)

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
    assert redact(text) == text


def test_text_becomes_one_line_without_control_characters() -> None:
    assert redact(" a\r\nb\tc\x00d\x1b[31m ") == "a b c d [31m"


@pytest.mark.parametrize(("length", "cut"), [(239, False), (240, False), (241, True)])
def test_long_text_is_cut(length: int, cut: bool) -> None:  # noqa: FBT001 (a table)
    text = redact("ab " * (length // 3) + "abc"[: length % 3])

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
