from __future__ import annotations

import pytest

from proxy.doctor.certificate import Certificate, explain, facts, lines

DAY = 86400.0
SHOWN = Certificate("a.example", "WR2, Google Trust Services", ("a.example",), 0.0, 30 * DAY)


@pytest.mark.parametrize(
    ("code", "reason", "why"),
    [
        (62, "certificate_for_other_name", "The certificate is for a.example, not for b.example."),
        (64, "certificate_for_other_name", "The certificate is for a.example, not for b.example."),
        (10, "certificate_ended", "The certificate ended on 1970-01-31."),
        (9, "certificate_not_yet_valid", "The certificate holds from 1970-01-01 on."),
        (
            20,
            "certificate_issuer_unknown",
            f"No authority that is trusted here has issued the certificate ({SHOWN.issuer}).",
        ),
        (23, "certificate_refused", "The certificate cannot be verified."),
    ],
)
def test_each_refusal_of_openssl_is_explained(code: int, reason: str, why: str) -> None:
    assert explain(code, "b.example", SHOWN)[:2] == (reason, why)
    assert explain(code, "b.example", SHOWN)[2]
    # The certificate itself may not be had: then the sentence does without.
    assert explain(code, "b.example", None)[0] == reason


def test_of_many_names_some_are_shown() -> None:
    names = tuple(f"{letter}.example" for letter in "abcdef")
    many = Certificate("", "", names, 0.0, 1.0)

    assert (
        "for a.example, b.example, c.example, d.example and 2 more,"
        in (explain(62, "x.example", many)[1])
    )
    assert lines(many, None)[:2] == (
        "subject  a.example, b.example, c.example, d.example and 2 more",
        "issuer   nobody by name",
    )


def test_a_certificate_is_described_with_the_time_that_is_left() -> None:
    assert lines(SHOWN, 10 * DAY) == (
        "subject  a.example",
        "issuer   WR2, Google Trust Services",
        "valid    1970-01-01 to 1970-01-31 (20 days left)",
    )
    assert facts(SHOWN)["not_after"] == "1970-01-31T00:00:00Z"
