"""What may be used as an access token, and what is said of anything else."""

from __future__ import annotations

import math

import pytest

from proxy.config.model import IdentityHeader
from proxy.identity.access_token import Scopes, kind_of, read_access_token
from proxy.identity.header import identity_line, quota_project
from proxy.identity.source import Authority, TokenSourceError

NOW = 1_800_000_000.0
SCOPES = Scopes(("a", "b"))
VALUE = "ya29.c.b0Aaek-_~+/......"


def test_a_bearer_token_is_used_until_its_seconds_have_passed() -> None:
    authority = Authority(VALUE, expires_in=3599, member="serviceAccount:a@b.c")

    token = read_access_token(authority, SCOPES, NOW)

    assert (token.value, token.expires_at, token.email) == (VALUE, NOW + 3599, "a@b.c")
    assert (token.scopes, dict(token.claims)) == (SCOPES, {})
    assert VALUE not in repr(token)
    assert VALUE not in repr(authority)


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_the_type_is_compared_without_regard_to_case(token_type: str) -> None:
    assert read_access_token(Authority(VALUE, 60, token_type), SCOPES, NOW).value == VALUE


@pytest.mark.parametrize("token_type", ["", "mac", "N_A", "Bearer "])
def test_a_token_of_another_type_is_not_used(token_type: str) -> None:
    with pytest.raises(TokenSourceError, match=r"token_type is .*, not Bearer"):
        read_access_token(Authority(VALUE, 60, token_type), SCOPES, NOW)


@pytest.mark.parametrize(
    "value",
    ["", " ya29.x", "ya29 x", "ya29.x\r\nHost: evil", "ya29.\u00e9", "=", "a=b", "ya29.x\n", "\0"],
)
def test_what_is_no_bearer_token_is_not_used_and_not_shown(value: str) -> None:
    with pytest.raises(TokenSourceError, match="is not an access token but") as failure:
        read_access_token(Authority(value, 3600), SCOPES, NOW)
    assert "ya29.x" not in failure.value.detail


@pytest.mark.parametrize(("size", "fits"), [(8191, True), (8192, True), (8193, False)])
def test_a_token_has_8_kib_at_most(size: int, *, fits: bool) -> None:
    authority = Authority("a" * size, 3600)

    if fits:
        assert read_access_token(authority, SCOPES, NOW).value == "a" * size
    else:
        with pytest.raises(TokenSourceError, match="one word of 8193 characters"):
            read_access_token(authority, SCOPES, NOW)


@pytest.mark.parametrize("expires_in", [None, math.nan, math.inf])
def test_without_a_time_it_is_not_used(expires_in: float | None) -> None:
    with pytest.raises(TokenSourceError, match="no usable expires_in"):
        read_access_token(Authority(VALUE, expires_in), SCOPES, NOW)


@pytest.mark.parametrize(("expires_in", "fits"), [(30, False), (31, True), (0, False), (-5, False)])
def test_it_needs_more_than_30_s(expires_in: float, *, fits: bool) -> None:
    authority = Authority(VALUE, expires_in)

    if fits:
        assert read_access_token(authority, SCOPES, NOW).expires_at == NOW + expires_in
    else:
        with pytest.raises(TokenSourceError, match="more than 30 s are needed") as failure:
            read_access_token(authority, SCOPES, NOW)
        assert failure.value.retryable


def test_the_header_says_bearer_and_the_project_that_pays() -> None:
    billed = Authority(VALUE, 3600).counted_on("quota-1")
    plain, counted = (read_access_token(a, SCOPES, NOW) for a in (Authority(VALUE, 3600), billed))

    line = f"Authorization: Bearer {VALUE}\r\n".encode()
    assert identity_line(IdentityHeader.AUTHORIZATION, plain) == line
    assert (quota_project(plain), quota_project(counted)) == (b"", b"quota-1")
    assert billed.headers["X-Goog-User-Project"] == "quota-1"


@pytest.mark.parametrize(
    ("member", "email"),
    [
        ("serviceAccount:a@b.c", "a@b.c"),
        ("user:a@b.c", "a@b.c"),
        ("user:YOUR_EMAIL", None),
        ("principalSet://iam.googleapis.com/x@y/*", None),
        ("MEMBER", None),
    ],
)
def test_the_account_is_that_of_the_member(member: str, email: str | None) -> None:
    assert Authority(VALUE, member=member).email == email


def test_kinds_have_names() -> None:
    assert (kind_of("https://a"), kind_of(SCOPES), str(SCOPES)) == (
        "ID token",
        "access token",
        "a b",
    )
