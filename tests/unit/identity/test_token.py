"""Which tokens are accepted, and what is said of what is not one."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.source import TokenSourceError
from proxy.identity.token import USE_MARGIN, IdToken, read_token
from tests.fakes.steering import AUDIENCE, EMAIL, jwt, part

NOW = 1_800_000_000.0


def read(raw: str, fixed_audience: str | None = None) -> IdToken:
    return read_token(raw, AUDIENCE, NOW, fixed_audience)


def refusal(raw: str) -> TokenSourceError:
    """Return the error that `raw` causes; it must not quote it."""
    with pytest.raises(TokenSourceError) as failure:
        read(raw)
    for secret in re.findall(r"[\w-]{16,}", raw):
        assert secret not in f"{failure.value.detail} {failure.value.hint}"
    # A traceback would show it.
    assert failure.value.__cause__ is None
    assert failure.value.__context__ is None or failure.value.__suppress_context__
    return failure.value


def test_a_token_tells_its_expiry_its_account_and_its_claims() -> None:
    raw = jwt(NOW + 3600, sub="1234")

    token = read(raw)

    assert (token.value, token.audience) == (raw, AUDIENCE)
    assert (token.expires_at, token.email) == (NOW + 3600, EMAIL)
    assert token.claims["sub"] == "1234"


def test_the_text_of_a_token_never_shows_its_value() -> None:
    raw = jwt(NOW + 3600)
    token = read(raw)

    shown = f"{token} {token!r}"
    assert AUDIENCE in shown
    assert not any(piece in shown for piece in raw.split("."))


def test_space_around_a_token_is_not_part_of_it() -> None:
    raw = jwt(NOW + 3600)

    assert read(f" {raw}\r\n").value == raw


def test_a_token_without_email_has_no_account() -> None:
    assert read(jwt(NOW + 3600, email=None)).email is None
    assert read(jwt(NOW + 3600, email=["a@b"])).email is None


@pytest.mark.parametrize(("left", "accepted"), [(31, True), (30.5, True), (30, False), (29, False)])
def test_more_than_30_s_must_be_left(left: float, accepted: bool) -> None:  # noqa: FBT001 (a table)
    assert USE_MARGIN == 30
    if accepted:
        assert read(jwt(NOW + left)).expires_at == NOW + left
    else:
        assert "more than 30 s are needed" in refusal(jwt(NOW + left)).detail


def test_an_expired_token_is_named_as_such() -> None:
    error = refusal(jwt(NOW - 90))

    assert error.detail == "the token expired 90 s ago; more than 30 s are needed"
    assert error.hint is not None
    assert "clock" in error.hint
    assert error.retryable


@pytest.mark.parametrize(
    "exp", [None, "1800003600", True, [], 10**400, float("1e999")], ids=lambda exp: str(exp)[:9]
)
def test_an_exp_that_is_no_time_is_refused(exp: Any) -> None:
    detail = refusal(jwt(exp)).detail
    # 1e999 is written as Infinity, which is no JSON.
    assert detail == "the token has no usable exp" or exp == float("1e999")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_exp_that_never_comes_is_refused(literal: str) -> None:
    claims = f'{{"aud": "{AUDIENCE}", "exp": {literal}}}'.encode()

    refusal(".".join([part({"alg": "RS256"}), part(claims), part(b"signature")]))


def test_claims_that_are_no_json_are_refused() -> None:
    claims = f'{{"aud": "{AUDIENCE}", "exp": {NOW + 3600}, "other": NaN}}'.encode()

    error = refusal(".".join([part({"alg": "RS256"}), part(claims), part(b"signature")]))
    assert "not an ID token" in error.detail


def test_one_audience_may_be_written_as_a_list() -> None:
    assert read(jwt(NOW + 3600, aud=[AUDIENCE])).audience == AUDIENCE


@pytest.mark.parametrize(
    "aud",
    [
        "https://another.example",
        f"{AUDIENCE}/",
        AUDIENCE.upper(),
        [],
        [AUDIENCE, "https://another.example"],
        {"a": AUDIENCE},
        None,
        7,
    ],
    ids=str,
)
def test_any_other_audience_is_refused_and_named(aud: Any) -> None:
    error = refusal(jwt(NOW + 3600, aud=aud))

    assert error.detail == f'the token\'s aud is {json.dumps(aud)}, asked for was "{AUDIENCE}"'
    assert not error.retryable


def test_a_token_inside_a_wrong_audience_is_not_shown() -> None:
    secret = jwt(NOW)
    error = refusal(jwt(NOW + 3600, aud=secret))

    assert secret[:12] not in error.detail


def test_where_the_audience_is_fixed_that_one_is_needed() -> None:
    client = "764086051850.apps.googleusercontent.com"

    assert read(jwt(NOW + 3600, aud=client), client).audience == AUDIENCE
    with pytest.raises(TokenSourceError, match="aud"):
        read(jwt(NOW + 3600), client)


GOOD = jwt(NOW + 3600)
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " \n",
        HEADER,
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.",
        f".{PAYLOAD}.{SIGNATURE}",
        f"{GOOD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}={'.'}{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}\r\nX-Evil: 1",
        f"Bearer {GOOD}",
        f"{HEADER}.{part(['a list'])}.{SIGNATURE}",
        f"{part('a string')}.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{part(b'{not json')}.{SIGNATURE}",
        f"{HEADER}.{part(bytes([0xFF, 0xFE]))}.{SIGNATURE}",
        f"{HEADER}.{part(b'[' * 100_000)}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.a",
        "<html><title>503</title></html>",
        '{"error": "not found"}',
    ],
    ids=lambda raw: repr(raw)[:24],
)
def test_what_is_no_token_is_refused_without_being_quoted(raw: str) -> None:
    assert "not an ID token" in refusal(raw).detail


def test_a_page_that_came_instead_is_quoted() -> None:
    error = refusal("<html><title>Service Unavailable</title></html>")

    assert "'<html><title>Service Unavailable</title></html>'" in error.detail


@given(st.text())
def test_any_text_is_either_refused_or_a_token(raw: str) -> None:
    with pytest.raises(TokenSourceError):
        read(raw)


@given(st.binary(min_size=1), st.binary(min_size=1))
def test_any_parts_are_either_refused_or_a_token(header: bytes, payload: bytes) -> None:
    parts = [base64.urlsafe_b64encode(data).rstrip(b"=").decode() for data in (header, payload)]
    with pytest.raises(TokenSourceError):
        read(".".join([*parts, "c2ln"]))
