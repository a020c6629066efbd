from __future__ import annotations

import math

from proxy.emulator.claims import CALLER, SOMEWHERE, Claims, ServiceAccount
from proxy.emulator.keys import Keys
from proxy.emulator.minting import Mint
from proxy.emulator.verify import Refusal, verify

NOW = 1_800_000_000.0
AUDIENCE = "https://orders.example"


class Now:
    """A wall clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def mint(clock: Now, remint_below: float = 100.0) -> Mint:
    return Mint(Keys.shared(), clock, 3600.0, remint_below)


def read(token: str, now: float = NOW, audience: str = AUDIENCE) -> Claims:
    claims = verify(token, Keys.shared(), [audience], now)
    assert not isinstance(claims, Refusal), claims
    return claims


def test_a_token_says_what_googles_says() -> None:
    claims = read(mint(Now()).id_token(CALLER, AUDIENCE, None))

    assert claims == {
        "aud": AUDIENCE,
        "azp": CALLER.unique_id,
        "email": CALLER.email,
        "email_verified": True,
        "exp": 1_800_003_600,
        "iat": 1_800_000_000,
        "iss": "https://accounts.google.com",
        "sub": CALLER.unique_id,
    }


def test_the_full_format_adds_the_instance() -> None:
    claims = read(mint(Now()).id_token(CALLER, AUDIENCE, SOMEWHERE))

    assert claims["google"]["compute_engine"]["project_number"] == SOMEWHERE.project_number
    assert claims["google"]["compute_engine"]["zone"] == "us-central1-1"


def test_the_same_token_is_given_until_a_hundred_seconds_before_its_expiry() -> None:
    clock = Now()
    mints = mint(clock)
    first = mints.id_token(CALLER, AUDIENCE, None)

    clock.now = NOW + 3499
    assert mints.id_token(CALLER, AUDIENCE, None) == first
    clock.now = NOW + 3500
    second = mints.id_token(CALLER, AUDIENCE, None)

    assert read(second, clock.now)["exp"] == NOW + 3500 + 3600
    assert mints.minted == {AUDIENCE: 2}


def test_tokens_are_kept_for_each_audience_account_and_format() -> None:
    mints = mint(Now())
    other = ServiceAccount(email="other@emulated-project.iam.gserviceaccount.com")

    tokens = [
        mints.id_token(CALLER, AUDIENCE, None),
        mints.id_token(CALLER, "other", None),
        mints.id_token(CALLER, AUDIENCE, SOMEWHERE),
        mints.id_token(other, AUDIENCE, None),
    ]

    assert len(set(tokens)) == 4
    assert mints.minted == {AUDIENCE: 3, "other": 1}


def test_an_infinite_margin_mints_each_time() -> None:
    mints = mint(Now(), math.inf)

    for _ in range(3):
        mints.id_token(CALLER, AUDIENCE, None)

    assert mints.minted == {AUDIENCE: 3}


def test_forgetting_mints_again() -> None:
    clock = Now()
    mints = mint(clock)
    first = mints.id_token(CALLER, AUDIENCE, None)
    access = mints.access_token(CALLER)
    mints.forget()
    clock.now += 1

    assert mints.id_token(CALLER, AUDIENCE, None) != first
    assert mints.access_token(CALLER)["access_token"] != access["access_token"]


def test_an_expired_token_was_issued_before_it_expired() -> None:
    token = mint(Now()).odd_id_token(CALLER, AUDIENCE, None, lifetime=-60, changes={})

    assert verify(token, Keys.shared(), [AUDIENCE], NOW) is Refusal.EXPIRED
    claims = read(token, NOW - 61)
    assert (claims["iat"], claims["exp"]) == (NOW - 3660, NOW - 60)


def test_a_longer_lifetime_starts_at_once() -> None:
    token = mint(Now()).odd_id_token(CALLER, AUDIENCE, None, lifetime=7200, changes={})

    claims = read(token)
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 7200)


def test_claims_are_replaced_and_removed() -> None:
    token = mint(Now()).odd_id_token(
        CALLER, AUDIENCE, None, lifetime=None, changes={"aud": "other", "email": None}
    )

    claims = read(token, audience="other")
    assert "email" not in claims


def test_an_odd_token_is_not_kept() -> None:
    mints = mint(Now())
    odd = mints.odd_id_token(CALLER, AUDIENCE, None, lifetime=60, changes={})

    assert mints.id_token(CALLER, AUDIENCE, None) != odd


def test_an_access_token_is_kept_until_five_minutes_before_its_expiry() -> None:
    clock = Now()
    mints = mint(clock)
    first = mints.access_token(CALLER)
    clock.now = NOW + 3299
    later = mints.access_token(CALLER)
    clock.now = NOW + 3300
    fresh = mints.access_token(CALLER)

    assert (first["expires_in"], first["token_type"]) == (3600, "Bearer")
    assert later == {**first, "expires_in": 301}
    assert fresh["access_token"] != first["access_token"]
    assert fresh["expires_in"] == 3600
