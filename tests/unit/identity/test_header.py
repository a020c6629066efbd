"""The identity header's line, and the spellings that may not reach the upstream."""

from __future__ import annotations

import re

import pytest

from proxy.config.model import IdentityHeader
from proxy.identity.header import identity_line, spelling
from proxy.identity.token import read_token
from tests.fakes.steering import AUDIENCE, jwt

TOKEN = read_token(jwt(3600), AUDIENCE, 0)


@pytest.mark.parametrize("header", IdentityHeader)
def test_the_line_carries_the_token_as_a_bearer(header: IdentityHeader) -> None:
    line = identity_line(header, TOKEN)

    assert line == f"{header.value}: Bearer {TOKEN.value}\r\n".encode()


@pytest.mark.parametrize(
    "name",
    [
        b"X-Serverless-Authorization",
        b"x-serverless-authorization",
        b"X_SERVERLESS_AUTHORIZATION",
        b"x-serverless_Authorization",
    ],
)
def test_every_spelling_of_the_name_is_recognised(name: bytes) -> None:
    assert spelling(b"X-Serverless-Authorization") == rb"x[-_]serverless[-_]authorization"
    assert re.fullmatch(spelling(b"X-Serverless-Authorization"), name, re.IGNORECASE)
    assert spelling(name) == spelling(b"X-Serverless-Authorization")


@pytest.mark.parametrize(
    "name", [b"X-Serverless-Authorization-2", b"XX-Serverless-Authorization", b"Authorization"]
)
def test_other_names_are_not_recognised(name: bytes) -> None:
    pattern = spelling(b"X-Serverless-Authorization")

    assert not re.fullmatch(pattern, name, re.IGNORECASE)


def test_characters_of_a_pattern_in_a_name_mean_themselves() -> None:
    assert not re.fullmatch(spelling(b"a.b-c+"), b"axb-ccc")
    assert re.fullmatch(spelling(b"a.b-c+"), b"a.b_c+")
