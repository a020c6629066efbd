from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest

from proxy.doctor.answers import Answer
from proxy.doctor.clock import TOLERATED, clock_finding, skew_of, skew_of_token
from proxy.doctor.findings import Outcome
from tests.unit.doctor.patients import NOW, patient, token


def dated(at: float, *, sent: float, received: float) -> Answer:
    date = {"date": formatdate(at, usegmt=True)}
    return Answer(200, date, seconds=received - sent, received_at=received)


@pytest.mark.parametrize(
    ("at", "sent", "received", "skew"),
    [
        # Date has whole seconds, so what lies within them, or within the exchange, agrees.
        (NOW, NOW, NOW, 0.0),
        (NOW, NOW + 0.9, NOW + 0.9, 0.0),
        (NOW + 1, NOW, NOW + 5, 0.0),
        (NOW + 5, NOW, NOW + 5, 0.0),
        (NOW + 10, NOW, NOW + 5, 5.0),
        (NOW - 10, NOW, NOW + 5, -9.0),
        (NOW + 3600, NOW, NOW, 3600.0),
    ],
)
def test_a_clock_is_compared_as_exactly_as_can_be(
    at: float, sent: float, received: float, skew: float
) -> None:
    assert skew_of(dated(at, sent=sent, received=received)) == pytest.approx(skew)


def test_without_a_date_nothing_is_compared() -> None:
    assert skew_of(Answer(200)) is None


@pytest.mark.parametrize(
    ("issued_at", "skew"),
    [(NOW + 5, 5.0), (NOW, None), (NOW - 5, None), ("soon", None), (None, None), (True, None)],
)
def test_a_token_from_the_future_tells_of_the_clock(issued_at: Any, skew: float | None) -> None:
    assert skew_of_token(token(patient(), iat=issued_at), NOW) == skew


@pytest.mark.parametrize(
    ("skew", "outcome", "said"),
    [
        (0.0, Outcome.OK, "agrees with Google's"),
        (TOLERATED, Outcome.OK, "agrees with Google's"),
        (-TOLERATED, Outcome.OK, "agrees with Google's"),
        (TOLERATED + 1, Outcome.WARNING, "31 s behind Google's"),
        (-TOLERATED - 1, Outcome.WARNING, "31 s ahead of Google's"),
    ],
)
def test_more_than_a_token_has_in_reserve_is_warned_of(
    skew: float, outcome: Outcome, said: str
) -> None:
    finding = clock_finding(skew, None, "Google")

    assert finding is not None
    assert (finding.outcome, finding.text) == (outcome, said)
    assert finding.facts == {"skew_seconds": skew}


def test_the_token_is_believed_only_where_no_answer_tells() -> None:
    alone = clock_finding(None, 95.0, "Google")

    assert alone is not None
    assert alone.text == "95 s behind the token's issuer's"
    assert clock_finding(None, TOLERATED, "Google") is None
    assert clock_finding(None, None, "Google") is None
    both = clock_finding(0.0, 95.0, "Google")
    assert both is not None
    assert both.outcome is Outcome.OK
