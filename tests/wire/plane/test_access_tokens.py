"""Access tokens on the data path: the same rules as ID tokens, in Authorization, and who pays."""

from __future__ import annotations

import pytest

from proxy.config.model import Auth, IdentityHeader, PlatformErrors
from proxy.identity.source import Authority
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.steering import HOUR
from tests.fakes.wired import Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BILLED = Authority("ya29.first", expires_in=HOUR, quota_project="payer")


def get(*lines: bytes) -> bytes:
    """Return a request with these fields."""
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""])


async def begin(
    wired: Wired, request: bytes = get(), **route: object
) -> tuple[RawCaller, UpstreamEnd]:
    """Serve with access tokens, send a request, and return both ends."""
    changes = {"header": IdentityHeader.AUTHORIZATION, **route}
    await wired.serve(auth=Auth.ACCESS_TOKEN, **changes)
    caller = await wired.caller()
    caller.send(request)
    return caller, await wired.upstream.accept()


async def test_it_travels_in_authorization_and_the_callers_own_beside_it(wired: Wired) -> None:
    caller, upstream = await begin(wired, get(b"Authorization: Basic dTpw"))

    message = await upstream.serve(OK)
    assert message.values("authorization") == ["Bearer ya29.first"]
    assert message.values("x-forwarded-authorization") == ["Basic dTpw"]
    assert message.values("x-goog-user-project") == []
    await caller.take(OK)


async def test_one_fetch_serves_many_calls_until_it_nears_its_end(wired: Wired) -> None:
    wired.source.authorities = [
        Authority("ya29.first", expires_in=HOUR),
        Authority("ya29.second", expires_in=HOUR),
    ]
    caller, upstream = await begin(wired)
    await upstream.serve(OK)
    await caller.take(OK)
    wired.time.wall += HOUR - 31
    caller.send(get())
    assert (await upstream.serve(OK)).values("authorization") == ["Bearer ya29.first"]
    await caller.take(OK)
    wired.time.wall += 1
    caller.send(get())

    assert (await upstream.serve(OK)).values("authorization") == ["Bearer ya29.second"]
    await caller.take(OK)
    assert wired.source.fetched == 2


async def test_without_a_usable_token_nothing_is_sent(wired: Wired) -> None:
    wired.source.authorities = [Authority("ya29.short", expires_in=None)]
    await wired.serve(auth=Auth.ACCESS_TOKEN, header=IdentityHeader.AUTHORIZATION)
    caller = await wired.caller()
    caller.send(get())

    answer = await caller.answer()
    assert (answer.status, answer.values("x-auth-proxy-error")) == (503, ["token_unavailable"])
    assert wired.route_stats.dials == {}


@pytest.mark.parametrize(
    ("lines", "route", "expected"),
    [
        ((), {}, ["payer"]),
        ((b"X-Goog-User-Project: theirs",), {}, ["theirs"]),
        ((b"x-goog-user-project: theirs",), {}, ["theirs"]),
        ((), {"set_headers": (("X-Goog-User-Project", "set"),)}, ["set"]),
        (
            (b"X-Goog-User-Project: theirs",),
            {"set_headers": (("x-goog-user-project", "set"),)},
            ["set"],
        ),
        ((b"Connection: x-goog-user-project",), {}, ["payer"]),
        (
            (b"X-Goog-User-Project: theirs",),
            {"remove_headers": ("X-Goog-User-Project",)},
            [],
        ),
    ],
)
async def test_the_project_of_the_credentials_pays_unless_another_is_named(
    wired: Wired, lines: tuple[bytes, ...], route: dict[str, object], expected: list[str]
) -> None:
    wired.source.authorities = [BILLED]
    caller, upstream = await begin(wired, get(*lines), **route)

    for _ in range(2):
        assert (await upstream.serve(OK)).values("x-goog-user-project") == expected
        await caller.take(OK)
        caller.send(get(*lines))
    await upstream.serve(OK)
    await caller.take(OK)


async def test_another_token_may_count_on_another_project(wired: Wired) -> None:
    wired.source.authorities = [BILLED, Authority("ya29.second", expires_in=HOUR)]
    caller, upstream = await begin(wired)
    assert (await upstream.serve(OK)).values("x-goog-user-project") == ["payer"]
    await caller.take(OK)
    wired.time.wall += HOUR
    caller.send(get())

    message = await upstream.serve(OK)
    assert message.values("authorization") == ["Bearer ya29.second"]
    assert message.values("x-goog-user-project") == []
    await caller.take(OK)


# --- a 401 of the API's own

EXPIRED = (
    b'{\n  "error": {\n    "code": 401,\n    "message": "Request had invalid authentication '
    b'credentials.",\n    "status": "UNAUTHENTICATED",\n    "details": [{"reason": '
    b'"ACCESS_TOKEN_EXPIRED", "domain": "googleapis.com"}]\n  }\n}\n'
)
STORAGE = (
    b'{"error":{"code":401,"message":"Invalid Credentials","errors":[{"message":"Invalid '
    b'Credentials","domain":"global","reason":"authError","location":"Authorization"}]}}'
)
STREAM = b"[" + EXPIRED + b"]"
OWN = b'{"error": {"code": 401, "message": "who are you", "status": "NOBODY"}}'


def unauthorized(body: bytes, kind: bytes = b"application/json; charset=UTF-8") -> bytes:
    """Return a 401 with a body."""
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def two_tokens(wired: Wired) -> None:
    """Have another token ready."""
    wired.source.authorities = [
        Authority("ya29.first", expires_in=HOUR),
        Authority("ya29.second", expires_in=HOUR),
    ]


@pytest.mark.parametrize("body", [EXPIRED, STORAGE, STREAM])
async def test_a_401_of_the_api_brings_another_token_and_one_repeat(
    wired: Wired, body: bytes
) -> None:
    two_tokens(wired)
    caller, upstream = await begin(wired)
    assert (await upstream.serve(unauthorized(body))).values("authorization") == [
        "Bearer ya29.first"
    ]

    again = await upstream.serve(OK)
    assert again.values("authorization") == ["Bearer ya29.second"]
    await caller.take(OK)
    assert wired.route_stats.retries["token_refused"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        unauthorized(OWN),
        unauthorized(EXPIRED, b"text/plain"),
        unauthorized(b" " * 16 * 1024 + EXPIRED),
        unauthorized(b""),
    ],
)
async def test_any_other_401_is_the_callers(wired: Wired, answer: bytes) -> None:
    two_tokens(wired)
    caller, upstream = await begin(wired)
    await upstream.serve(answer)

    await caller.take(answer)
    assert wired.source.fetched == 1


async def test_what_an_api_says_of_a_token_is_never_explained(
    wired: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in a language that the API's callers know, and says more."""
    caller, upstream = await begin(wired, platform_errors=PlatformErrors.EXPLAIN)
    await upstream.serve(unauthorized(EXPIRED))

    await caller.take(unauthorized(EXPIRED))
    assert wired.source.fetched == 2
    assert [r for r in caplog.records if r.name == "proxy.plane.refused"] == []


async def test_what_an_api_says_counts_for_access_tokens_alone(wired: Wired) -> None:
    await wired.serve(auth=Auth.ID_TOKEN)
    caller = await wired.caller()
    caller.send(get())
    upstream = await wired.upstream.accept()
    await upstream.serve(unauthorized(EXPIRED))

    await caller.take(unauthorized(EXPIRED))
    assert wired.source.fetched == 1


# --- its time


async def test_the_same_token_with_other_seconds_is_unchanged(wired: Wired) -> None:
    wired.source.authorities = [
        Authority("ya29.first", expires_in=HOUR),
        Authority("ya29.first", expires_in=99),
    ]
    caller, upstream = await begin(wired)
    await upstream.serve(OK)
    await caller.take(OK)
    wired.time.wall += HOUR - 100
    wired.time.steady += 25  # Longer than the pause between two fetches.
    caller.send(get())
    await upstream.serve(OK)
    await caller.take(OK)

    counted = {outcome: n for (_, outcome), n in wired.tokens.of_scopes.stats.items()}
    assert counted == {"fetched": 1, "unchanged": 1}


async def test_its_seconds_count_from_the_question(wired: Wired) -> None:
    wired.source.delay = 20.0
    caller, upstream = await begin(wired)
    await upstream.serve(OK)
    await caller.take(OK)

    assert wired.tokens.of_scopes.expires_at == wired.time.wall - 20.0 + HOUR
