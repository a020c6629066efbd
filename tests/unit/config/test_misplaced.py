"""What no message may show, and what every message may."""

from __future__ import annotations

import pytest

from proxy.config.misplaced import (
    LONGEST_NAME,
    LONGEST_PATH,
    looks_like,
    no_file_name,
    shown,
    shown_file,
)
from proxy.config.problems import quoted
from tests.fakes.secrets import SECRETS

INNOCENT = [
    "",
    "key.json",
    "/etc/keys/orders-service-account-key-2026-01-02.json",
    "/home/pytest-of-root/pytest-3/test_a_gcloud_logins_own_audie0/key.json",
    "./{env}/key.json",
    "eyes/of/the/beholder/in/a/very-long-name.json",
    "ewe-lambs-of-the-flock-2026.json",
    "https://orders-abc123-uc.a.run.app/v1/0123456789abcdef0123456789abcdef",
    "caller@project-123456.iam.gserviceaccount.com",
    "1/key.json",
    "AIza",
    "TheLongestNameWithoutADigitThatAnybodyWrites.json",
    "x" * 31 + "1.json",
]


@pytest.mark.parametrize(("secret", "what"), SECRETS.items(), ids=range(len(SECRETS)))
def test_a_secret_is_told_by_its_form_and_never_shown(secret: str, what: str) -> None:
    assert looks_like(secret) == no_file_name(secret) == what
    assert {shown(secret), shown_file(secret), quoted(secret)} == {f"[{what}, not shown]"}


@pytest.mark.parametrize("word", INNOCENT)
def test_an_ordinary_word_is_shown_as_it_stands(word: str) -> None:
    assert (looks_like(word), no_file_name(word)) == ("", "")
    assert (shown(word), shown_file(word)) == (word, word)


@pytest.mark.parametrize("text", ["{a: 1}", "routes: {a: {upstream: x}}", "{"])
def test_a_document_in_one_line_is_no_files_name(text: str) -> None:
    assert (looks_like(text), no_file_name(text)) == ("", "a document")


def test_a_name_is_as_long_as_a_name_can_be() -> None:
    longest = "é" * (LONGEST_NAME // 2)
    assert no_file_name(f"/{longest}x/{longest}x") == ""
    assert no_file_name(f"/{longest}xx/a") == f"a text of {len(longest) + 5} characters"
    # Where no file is meant, a long line is only cut.
    assert looks_like(longest * 2) == ""

    path = "/etc" * (LONGEST_PATH // 4)
    assert (looks_like(path), no_file_name(path)) == ("", "")
    assert looks_like(f"{path}/") == f"a text of {LONGEST_PATH + 1} characters"
