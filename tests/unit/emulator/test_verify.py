from __future__ import annotations

import hashlib
import hmac
import json
import math
from typing import Any

import pytest

from proxy.emulator.claims import CALLER, Claims, id_token_claims
from proxy.emulator.keys import Keys, base64url
from proxy.emulator.verify import Refusal, verify

AUDIENCE = "https://orders.example"
NOW = 1_800_000_000.0
KEYS = Keys.shared()
STRANGER = Keys()


def claims(**changes: Any) -> Claims:
    regular = id_token_claims(CALLER, AUDIENCE, now=NOW, lifetime=3600)
    return {name: value for name, value in {**regular, **changes}.items() if value is not None}


def judge(token: str, now: float = NOW) -> Claims | Refusal:
    return verify(token, KEYS, {AUDIENCE}, now)


def test_a_good_token_gives_its_claims() -> None:
    assert judge(KEYS.sign(claims())) == claims()


GOOD = KEYS.sign(claims())
HEADER, BODY, SIGNATURE = GOOD.split(".")


def unsigned(header: object, body: object, signature: str = SIGNATURE) -> str:
    parts = (base64url(json.dumps(part).encode()) for part in (header, body))
    return ".".join([*parts, signature])


def signed_with_the_public_key_as_secret() -> str:
    """Make what a verifier accepts that lets the token choose between HMAC and RSA."""
    secret = KEYS.x509_certificates()[KEYS.key_id].encode()
    signed = unsigned({"alg": "HS256", "kid": KEYS.key_id}, claims()).rpartition(".")[0]
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def other_spelling_of_the_last_character() -> str:
    """Change only the bits that base64url leaves unused: the signature stays the same."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return GOOD[:-1] + alphabet[alphabet.index(GOOD[-1]) ^ 1]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param("", Refusal.MALFORMED, id="empty"),
        pytest.param("opaque", Refusal.MALFORMED, id="no JWT"),
        pytest.param("ya29.a0AfH6SMB.access", Refusal.MALFORMED, id="access token"),
        pytest.param(f"{HEADER}.{BODY}", Refusal.MALFORMED, id="two parts"),
        pytest.param(f"{HEADER}.{BODY}.", Refusal.MALFORMED, id="empty signature"),
        pytest.param(f"{GOOD}.{SIGNATURE}", Refusal.MALFORMED, id="four parts"),
        pytest.param(f"{GOOD},{GOOD}", Refusal.MALFORMED, id="two tokens"),
        pytest.param(f"{GOOD}=", Refusal.MALFORMED, id="padding"),
        pytest.param(f"{GOOD}\n", Refusal.MALFORMED, id="line end"),
        pytest.param(GOOD.replace(".", "!.", 1), Refusal.MALFORMED, id="foreign character"),
        pytest.param(other_spelling_of_the_last_character(), Refusal.MALFORMED, id="spelling"),
        pytest.param(f"{HEADER}.{base64url(b'{')}.{SIGNATURE}", Refusal.MALFORMED, id="no JSON"),
        pytest.param(
            f"{HEADER}.{base64url(b'[' * 100_000)}.{SIGNATURE}", Refusal.MALFORMED, id="deep JSON"
        ),
        pytest.param(
            f"{HEADER}.{base64url(bytes([0xFF]))}.{SIGNATURE}", Refusal.MALFORMED, id="bytes"
        ),
        pytest.param(unsigned([], claims()), Refusal.MALFORMED, id="header is a list"),
        pytest.param(unsigned({}, "claims"), Refusal.MALFORMED, id="claims are a string"),
        pytest.param(unsigned({"alg": "none"}, claims()), Refusal.UNKNOWN_ALGORITHM, id="alg none"),
        pytest.param(signed_with_the_public_key_as_secret(), Refusal.UNKNOWN_ALGORITHM, id="HS256"),
        pytest.param(
            KEYS.sign(claims(), header={"alg": "rs256"}), Refusal.UNKNOWN_ALGORITHM, id="alg case"
        ),
        pytest.param(
            KEYS.sign(claims(), header={"crit": ["b64"]}), Refusal.UNKNOWN_ALGORITHM, id="crit"
        ),
        pytest.param(STRANGER.sign(claims()), Refusal.UNKNOWN_KEY, id="stranger"),
        pytest.param(KEYS.sign(claims(), header={"kid": None}), Refusal.UNKNOWN_KEY, id="no kid"),
        pytest.param(
            STRANGER.sign(claims(), header={"kid": KEYS.key_id}),
            Refusal.BAD_SIGNATURE,
            id="stranger under our id",
        ),
        pytest.param(
            f"{HEADER}.{base64url(json.dumps(claims(email='root@x')).encode())}.{SIGNATURE}",
            Refusal.BAD_SIGNATURE,
            id="claims replaced",
        ),
        pytest.param(
            f"{HEADER}.{BODY}.SIGNATURE_REMOVED_BY_GOOGLE", Refusal.BAD_SIGNATURE, id="used again"
        ),
        pytest.param(
            f"{HEADER}.{BODY}.{base64url(bytes(256))}", Refusal.BAD_SIGNATURE, id="zeroes"
        ),
        pytest.param(KEYS.sign(claims(iss=None)), Refusal.WRONG_ISSUER, id="no issuer"),
        pytest.param(KEYS.sign(claims(iss="evil")), Refusal.WRONG_ISSUER, id="other issuer"),
        pytest.param(KEYS.sign(claims(iss=[])), Refusal.WRONG_ISSUER, id="issuer is a list"),
        pytest.param(KEYS.sign(claims(aud=None)), Refusal.WRONG_AUDIENCE, id="no audience"),
        pytest.param(KEYS.sign(claims(aud=[AUDIENCE])), Refusal.WRONG_AUDIENCE, id="aud is a list"),
        pytest.param(KEYS.sign(claims(aud=f"{AUDIENCE}/")), Refusal.WRONG_AUDIENCE, id="aud slash"),
        pytest.param(KEYS.sign(claims(aud=AUDIENCE.upper())), Refusal.WRONG_AUDIENCE, id="case"),
        pytest.param(KEYS.sign(claims(exp=None)), Refusal.MALFORMED, id="no exp"),
        pytest.param(KEYS.sign(claims(exp="9999999999")), Refusal.MALFORMED, id="exp is text"),
        pytest.param(KEYS.sign(claims(exp=True)), Refusal.MALFORMED, id="exp is true"),
        pytest.param(KEYS.sign(claims(exp=math.nan)), Refusal.MALFORMED, id="exp is NaN"),
        pytest.param(KEYS.sign(claims(iat=None)), Refusal.MALFORMED, id="no iat"),
    ],
)
def test_a_tampered_token_is_refused_with_its_reason(token: str, expected: Refusal) -> None:
    assert judge(token) is expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - 1, Refusal.NOT_YET_VALID),
        (NOW, claims()),
        (NOW + 3599.999, claims()),
        (NOW + 3600, Refusal.EXPIRED),
        (NOW + 3601, Refusal.EXPIRED),
    ],
)
def test_a_token_is_valid_from_its_iat_until_just_before_its_exp(
    now: float, expected: Claims | Refusal
) -> None:
    assert judge(GOOD, now) == expected


def test_googles_issuer_may_be_written_without_scheme() -> None:
    short = claims(iss="accounts.google.com")

    assert judge(KEYS.sign(short)) == short


def test_one_of_several_audiences_is_enough() -> None:
    token = KEYS.sign(claims(aud="custom"))

    assert verify(token, KEYS, ["custom", AUDIENCE], NOW) == claims(aud="custom")
