"""What an upstream's address decides: the target that it sees, and the header with its token."""

from __future__ import annotations

from typing import cast

import pytest

from proxy.config.model import IdentityHeader, Protocol, Upstream
from proxy.identity.cache import TokenCache
from proxy.identity.token import Token
from proxy.plane.availability import Availability
from proxy.plane.destination import Destination
from proxy.plane.head import NOBODY
from proxy.plane.pools import Pools


def token(value: str) -> Token:
    return Token(value=value, expires_at=0.0, email=None)


class Cache:
    """Stands for a token cache whose token the test sets."""

    def __init__(self) -> None:
        self.now: Token | None = None

    def current(self, route: str) -> Token | None:
        assert route == "orders"
        return self.now


class Kinds:
    """Stands for the pools: each connector is its name."""

    def connectors(self, _: Protocol) -> dict[str, str]:
        return {"h1": "of h1", "h2": "of h2"}

    def special(self, *_: object) -> str:
        return "special"


def destination(base: str = "", cache: Cache | None = None) -> Destination:
    return Destination(
        "orders",
        Upstream("https", "a.test", 443, base),
        pools=cast("Pools", Kinds()),
        token_cache=cast("TokenCache | None", cache),
        header=next(iter(IdentityHeader)),
        protocol=Protocol.AUTO,
        availability=Availability(lambda: 0.0, lambda: 0.5),
    )


@pytest.mark.parametrize(
    ("base", "target", "seen"),
    [
        ("", b"/x?y", b"/x?y"),
        ("/api", b"/x?y", b"/api/x?y"),
        ("", b"*", b"*"),
        ("/api", b"*", b"*"),  # OPTIONS of the whole server (RFC 9112, 3.2.4).
    ],
)
def test_the_base_stands_before_every_path(base: str, target: bytes, seen: bytes) -> None:
    assert destination(base).target(target) == seen


@pytest.mark.parametrize("spoken", ["h1", "h2"])
def test_an_ordinary_request_goes_the_way_of_what_its_caller_speaks(spoken: str) -> None:
    connector: object = destination().connector(NOBODY, spoken)

    assert connector == f"of {spoken}"


def test_without_auth_the_header_is_empty() -> None:
    assert destination().identity_line() == b""


def test_a_token_that_is_not_there_must_be_awaited() -> None:
    assert destination(cache=Cache()).identity_line() is None


def test_no_token_makes_no_header() -> None:
    assert destination(cache=Cache()).line_of(None) == b""


def test_the_header_is_made_once_for_each_token() -> None:
    cache = Cache()
    one = destination(cache=cache)
    cache.now = token("first")
    first = one.identity_line()
    again = one.identity_line()
    cache.now = token("second")
    second = one.identity_line()

    assert first is not None
    assert first.startswith(b"\r\n")
    assert first.endswith(b"Bearer first")
    assert again is first
    assert second == first.replace(b"first", b"second")
