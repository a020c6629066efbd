from __future__ import annotations

from typing import Any

import pytest

from proxy.emulator.claims import Claims
from proxy.emulator.gate import Admitted, judge, status_of
from proxy.emulator.verify import Refusal

CALLER = "caller@p.iam.gserviceaccount.com"
CLAIMS: Claims = {"email": CALLER, "email_verified": True}


def read(token: str) -> Claims | Refusal:
    return CLAIMS if token.startswith("good") else Refusal.BAD_SIGNATURE


def pass_(*fields: tuple[str, str], invokers: list[str] | None = None) -> Admitted | Refusal:
    return judge(fields, read, invokers)


GOOD = "Bearer good.token.signature"
BAD = "Bearer bad.token.signature"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ([("Authorization", GOOD)], 0),
        ([("AUTHORIZATION", GOOD)], 0),
        ([("authorization", "bearer   good.token.signature")], 0),
        ([("Host", "x"), ("X-Serverless-Authorization", GOOD)], 1),
        ([("Authorization", BAD), ("x-serverless-authorization", GOOD)], 1),
        ([("Authorization", "Basic eDp5"), ("X-Serverless-Authorization", GOOD)], 1),
        (
            [("Authorization", BAD), ("Authorization", BAD), ("X-Serverless-Authorization", GOOD)],
            2,
        ),
    ],
)
def test_one_good_identity_header_is_enough_and_x_serverless_comes_first(
    fields: list[tuple[str, str]], place: int
) -> None:
    verdict = pass_(*fields)

    assert isinstance(verdict, Admitted)
    assert (verdict.place, verdict.claims) == (place, CLAIMS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], Refusal.NO_TOKEN),
        ([("Host", "x"), ("Proxy-Authorization", GOOD)], Refusal.NO_TOKEN),
        ([("X_Serverless_Authorization", GOOD)], Refusal.NO_TOKEN),
        ([("Authorization", BAD)], Refusal.BAD_SIGNATURE),
        ([("Authorization", GOOD), ("X-Serverless-Authorization", BAD)], Refusal.BAD_SIGNATURE),
        ([("Authorization", GOOD), ("X-Serverless-Authorization", "")], Refusal.MALFORMED),
        ([("Authorization", "")], Refusal.MALFORMED),
        ([("Authorization", "Bearer")], Refusal.MALFORMED),
        ([("Authorization", "good.token.signature")], Refusal.MALFORMED),
        ([("Authorization", "Basic good.token.signature")], Refusal.MALFORMED),
        ([("Authorization", f"{GOOD}, {GOOD}")], Refusal.MALFORMED),
        ([("Authorization", GOOD), ("authorization", GOOD)], Refusal.SEVERAL_HEADERS),
        (
            [("X-Serverless-Authorization", GOOD), ("x-serverless-authorization", GOOD)],
            Refusal.SEVERAL_HEADERS,
        ),
    ],
)
def test_whatever_else_is_refused(fields: list[tuple[str, str]], expected: Refusal) -> None:
    assert pass_(*fields) is expected


@pytest.mark.parametrize(
    ("claims", "invokers", "expected"),
    [
        (CLAIMS, [CALLER], True),
        (CLAIMS, [CALLER, "other@p"], True),
        (CLAIMS, ["other@p"], False),
        (CLAIMS, [], False),
        ({"email": CALLER, "email_verified": False}, [CALLER], False),
        ({"email": CALLER}, [CALLER], False),
        ({"email_verified": True}, [CALLER], False),
        ({"email": [CALLER], "email_verified": True}, [CALLER], False),
    ],
)
def test_only_invokers_with_a_verified_address_pass(
    claims: dict[str, Any], invokers: list[str], *, expected: bool
) -> None:
    verdict = judge([("Authorization", GOOD)], lambda _token: claims, frozenset(invokers))

    assert isinstance(verdict, Admitted) is expected
    assert expected or verdict is Refusal.NOT_INVOKER


def test_the_service_sees_the_token_without_its_signature() -> None:
    verdict = pass_(("Authorization", GOOD))

    assert isinstance(verdict, Admitted)
    assert verdict.without_signature == "good.token.SIGNATURE_REMOVED_BY_GOOGLE"
    assert "signature" not in repr(verdict)


@pytest.mark.parametrize("refusal", Refusal)
def test_a_missing_token_or_permission_is_403_and_a_bad_token_401(refusal: Refusal) -> None:
    expected = 403 if refusal in {Refusal.NO_TOKEN, Refusal.NOT_INVOKER} else 401

    assert status_of(refusal) == expected
