from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest

from proxy.emulator.keys import Keys, base64url

CLAIMS = {"aud": "https://orders.example", "sub": "1"}


def part(token: str, index: int) -> Any:
    text = token.split(".")[index]
    return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_token_is_a_jwt_signed_with_rs256_that_names_its_key() -> None:
    token = Keys.shared().sign(CLAIMS)

    assert part(token, 0) == {"alg": "RS256", "kid": Keys.shared().key_id, "typ": "JWT"}
    assert part(token, 1) == CLAIMS


def test_a_signature_is_accepted_by_its_own_key_only() -> None:
    keys, stranger = Keys.shared(), Keys()
    signed, _, signature = keys.sign(CLAIMS).rpartition(".")
    raw = urlsafe_b64decode(signature + "==")

    assert keys.verifies(signed.encode(), raw)
    assert not stranger.verifies(signed.encode(), raw)
    assert not keys.verifies(signed.encode() + b"x", raw)


def test_one_process_has_one_shared_key() -> None:
    assert Keys.shared() is Keys.shared()


def test_the_jwk_set_and_the_certificates_name_the_key_by_the_same_id() -> None:
    keys = Keys.shared()

    assert [key["kid"] for key in keys.jwks()["keys"]] == [keys.key_id]
    assert list(keys.x509_certificates()) == [keys.key_id]


def test_a_key_shows_no_private_part() -> None:
    assert repr(Keys.shared()) == f"Keys({Keys.shared().key_id[:8]}…)"


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", ""), (b"\xff", "_w"), (b"\xfb\xef", "--8"), (b"abc", "YWJj")]
)
def test_base64url_has_its_own_alphabet_and_no_padding(data: bytes, expected: str) -> None:
    assert base64url(data) == expected
