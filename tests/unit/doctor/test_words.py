from __future__ import annotations

import pytest

from proxy.doctor import words
from tests.unit.doctor.patients import URL, patient


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.0234, "23 ms"),
        (1.0, "1.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (119.9, "119 s"),
        (120, "2 min 0 s"),
        (3599.9, "59 min 59 s"),
        (7199, "119 min 59 s"),
        (7200, "2 h 0 min"),
        (172_799, "47 h 59 min"),
        (172_800, "2 days"),
        (30 * 86400, "30 days"),
    ],
)
def test_a_length_of_time_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


@pytest.mark.parametrize(
    ("hint", "fix", "command"),
    [
        (None, "", ""),
        ("", "", ""),
        ("Create the file again.", "Create the file again.", ""),
        ("Run `gcloud auth login`.", "", "gcloud auth login"),
        ("Run `a b`; it takes a minute.", "Run this command; it takes a minute.", "a b"),
        ("`a b` prints those.", "This command prints those.", "a b"),
        ("Give it one: `a b`; on GKE: `c`.", "Give it one; on GKE: `c`.", "a b"),
    ],
)
def test_a_hint_is_parted_from_its_command(hint: str | None, fix: str, command: str) -> None:
    assert words.advice_in(hint) == (fix, command)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the name does not resolve", "The name does not resolve."),
        ("no credentials!", "No credentials!"),
        ("https://a.example cannot be reached", "https://a.example cannot be reached."),
        ("a@b.example may not act", "a@b.example may not act."),
    ],
)
def test_a_sentence_begins_and_ends_as_one(text: str, said: str) -> None:
    assert words.sentence(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "caller@project.iam.gserviceaccount.com",
        "123456789012-compute@developer.gserviceaccount.com",
        "first.last+tag@example.com",
    ],
)
def test_an_account_is_shown_as_it_is(text: str) -> None:
    assert words.email(text) == text


@pytest.mark.parametrize(
    "text", [None, "", "nobody", "a@b;rm -rf ~", "$(id)@example.com", "a@b\n", "a b@example.com"]
)
def test_what_is_no_account_gets_into_no_command(text: str | None) -> None:
    assert words.email(text) == ""


def test_a_strangers_text_cannot_steer_the_terminal() -> None:
    assert words.printable("a\x1b[31mb\r\n\x9bc\u2066d") == "a [31mb c\u2066d"
    assert words.printable("x" * 100) == "x" * 100
    assert words.printable("x" * 101) == "x" * 99 + "…"


@pytest.mark.parametrize(
    ("source", "doctor", "token"),
    [
        ("/etc/a b.yaml", "doctor a --config '/etc/a b.yaml'", "token a --config '/etc/a b.yaml'"),
        ("AUTH_PROXY_CONFIG_YAML", "doctor a", "token a"),
        (f"{URL}/v1", f"doctor {URL}/v1", f"token {URL}"),
    ],
)
def test_the_same_configuration_is_named_again(source: str, doctor: str, token: str) -> None:
    assert words.again("doctor", patient(), source) == f"cloud-run-auth-proxy {doctor}"
    assert words.again("token", patient(), source) == f"cloud-run-auth-proxy {token}"


def test_the_token_of_a_further_destination_is_asked_for_by_its_audience() -> None:
    several = patient(upstream="['https://a.example', 'https://b.example']")
    first, second = several.each()

    assert words.again("token", second, "f").split()[1:3] == ["token", "https://b.example"]
    assert words.again("token", first, "f").split()[1:3] == ["token", "https://a.example"]
    assert words.again("doctor", second, "f").split()[1:3] == ["doctor", "a"]
    assert words.again("token", patient(), "f").split()[1:3] == ["token", "a"]
