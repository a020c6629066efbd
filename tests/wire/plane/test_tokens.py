"""The ID token: on every request, in one place, never from the caller, or nothing is sent."""

from __future__ import annotations

import asyncio

import pytest

from proxy.config.model import Auth, IdentityHeader, Timeouts
from proxy.identity.source import TokenSourceError
from proxy.plane.front_end import DESCRIPTION
from tests.fakes.cutting import Cuts, bytewise, whole
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PAGE = (
    b"<html><head> <title>401 Unauthorized</title> </head> <body> <h1>Error: Unauthorized</h1>"
    b" <h2>Your client does not have permission to the requested URL <code>/</code>.</h2>"
    b" </body></html>"
)
REFUSED_PAGE = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html; charset=UTF-8\r\n"
    b"Content-Length: %d\r\n\r\n" % len(PAGE) + PAGE
)
REFUSED_FIELD = (
    b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error="invalid_token"'
    b' error_description="The access token could not be verified"\r\nContent-Length: 0\r\n\r\n'
)


async def begin(
    wired: Wired, request: bytes = GET, **route: object
) -> tuple[RawCaller, UpstreamEnd]:
    """Serve with tokens, send a request, and return both ends."""
    await wired.serve(auth=Auth.ID_TOKEN, **route)
    caller = await wired.caller()
    caller.send(request)
    return caller, await wired.upstream.accept()


@pytest.mark.parametrize("header", list(IdentityHeader))
async def test_the_token_travels_in_the_identity_header(
    wired: Wired, header: IdentityHeader
) -> None:
    caller, upstream = await begin(wired, header=header)

    message = await upstream.serve(OK)
    assert message.values(header.value) == [f"Bearer {wired.source.answers[0]}"]
    await caller.take(OK)


@pytest.mark.parametrize("header", list(IdentityHeader))
@pytest.mark.parametrize(
    "smuggled",
    [
        b"%b: Bearer evil",
        b"Connection: %b\r\n%b: Bearer evil",
        b"Connection: close, %b",
        b"%b: a\r\n%b: b",
    ],
)
async def test_the_caller_can_neither_set_nor_remove_it(
    wired: Wired, header: IdentityHeader, smuggled: bytes
) -> None:
    for name in (header.value, header.value.upper(), header.value.replace("-", "_")):
        fields = smuggled.replace(b"%b", name.encode())
        caller = await wired.caller()
        wired.upstream.automatic = OK
        await wired.serve(auth=Auth.ID_TOKEN, header=header)
        assert (await caller.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n")).status
        message = wired.upstream.requests.pop()
        assert message.values(header.value) == [f"Bearer {wired.source.answers[0]}"]
        kept = b"\r\n".join(
            line
            for line in message.head.split(b"\r\n")
            if not line.lower().startswith(b"x-forwarded-authorization:")
        )
        assert b"evil" not in kept
        underscored = header.value.lower().replace("-", "_").encode()
        assert "-" not in header.value or underscored not in kept.lower()


@pytest.mark.parametrize("auth", [Auth.ID_TOKEN, Auth.NONE])
@pytest.mark.parametrize(
    ("header", "passes"),
    [
        (IdentityHeader.SERVERLESS, {"authorization", "x-forwarded-authorization"}),
        (IdentityHeader.PROXY, {"authorization", "x-forwarded-authorization"}),
        # The caller's own Authorization takes the other's place.
        (IdentityHeader.AUTHORIZATION, set()),
    ],
)
async def test_what_could_stand_in_for_the_identity_header_goes(
    wired: Wired, header: IdentityHeader, passes: set[str], auth: Auth
) -> None:
    names = [
        "authorization",
        "proxy-authorization",
        "x-forwarded-authorization",
        "x-serverless-authorization",
    ]
    lines = "".join(f"{name}: {name}\r\n" for name in names)
    wired.upstream.automatic = OK
    await wired.serve(auth=auth, header=header)
    caller = await wired.caller()
    await caller.ask(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())

    message = wired.upstream.requests[0]
    assert {name for name in names if name in message.values(name)} == passes


async def test_a_callers_authorization_is_not_lost(wired: Wired) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mine\r\n\r\n"
    caller, upstream = await begin(wired, request, header=IdentityHeader.AUTHORIZATION)

    message = await upstream.serve(OK)
    assert message.values("x-forwarded-authorization") == ["Bearer mine"]
    assert message.values("authorization") == [f"Bearer {wired.source.answers[0]}"]
    await caller.take(OK)


async def test_a_callers_authorization_takes_the_place_of_what_stands_there(wired: Wired) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Authorization: theirs\r\n"
        b"Authorization: Bearer mine\r\nx_forwarded-AUTHORIZATION: theirs\r\n\r\n"
    )
    caller, upstream = await begin(wired, request, header=IdentityHeader.AUTHORIZATION)

    message = await upstream.serve(OK)
    assert message.values("x-forwarded-authorization") == ["Bearer mine"]
    assert b"theirs" not in message.raw
    await caller.take(OK)


@pytest.mark.parametrize(
    ("config", "seen"),
    [
        ({"set_headers": (("X-Forwarded-Authorization", "ours"),)}, ["ours"]),
        ({"remove_headers": ("x_forwarded_authorization",)}, []),
    ],
)
async def test_what_the_route_says_of_the_moved_authorization_counts(
    wired: Wired, config: dict[str, object], seen: list[str]
) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mine\r\n\r\n"
    caller, upstream = await begin(wired, request, header=IdentityHeader.AUTHORIZATION, **config)

    message = await upstream.serve(OK)
    assert message.values("x-forwarded-authorization") == seen
    assert b"mine" not in message.raw
    await caller.take(OK)


async def test_a_callers_authorization_passes_beside_the_identity_header(wired: Wired) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mine\r\n\r\n"
    caller, upstream = await begin(wired, request)

    message = await upstream.serve(OK)
    assert message.values("authorization") == ["Bearer mine"]
    await caller.take(OK)


async def test_without_a_token_nothing_is_sent(wired: Wired) -> None:
    wired.source.answers = [TokenSourceError("no luck")]
    await wired.serve(auth=Auth.ID_TOKEN)
    caller = await wired.caller()
    answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "token_unavailable")
    assert wired.upstream.connections == []


async def test_a_token_that_does_not_come_in_time_is_told(wired: Wired) -> None:
    wired.source.held = asyncio.Event()
    await wired.serve(auth=Auth.ID_TOKEN, timeouts=Timeouts(connect=0.0))
    caller = await wired.caller()
    answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (504, "token_timed_out")
    assert wired.upstream.connections == []


async def test_a_body_that_comes_while_the_token_is_awaited_is_kept(wired: Wired) -> None:
    wired.source.held = asyncio.Event()
    await wired.serve(auth=Auth.ID_TOKEN)
    caller = await wired.caller()
    size = 1024 * 1024
    caller.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    for _ in range(100):
        await wired.plane_turn()
    assert wired.route_stats.request_bytes < 600_000

    wired.source.held.set()
    upstream = await wired.upstream.accept()
    assert (await upstream.serve(OK)).body == bytes(size)
    await caller.take(OK)


# --- a token that Google's front end refuses


@pytest.mark.parametrize("cuts", [whole, bytewise])
@pytest.mark.parametrize("refusal", [REFUSED_PAGE, REFUSED_FIELD], ids=["page", "field"])
async def test_a_refused_token_is_replaced_once(wired: Wired, refusal: bytes, cuts: Cuts) -> None:
    wired.cut_responses(cuts)
    first, second = wired.source.token(), wired.source.token()
    wired.source.answers = [first, second]
    caller, upstream = await begin(wired)
    assert (await upstream.request()).value("x-serverless-authorization") == f"Bearer {first}"
    upstream.send(refusal)

    again = await wired.upstream_of_repeat(upstream)
    message = await again.serve(OK)
    assert message.value("x-serverless-authorization") == f"Bearer {second}"
    await caller.take(OK)
    assert wired.route_stats.retries == {"token_refused": 1}


async def test_a_second_refusal_is_the_callers(wired: Wired) -> None:
    wired.source.answers = [wired.source.token() for _ in range(3)]
    caller, upstream = await begin(wired)
    await upstream.serve(REFUSED_PAGE)
    again = await wired.upstream_of_repeat(upstream)
    await again.serve(REFUSED_PAGE)

    await caller.take(REFUSED_PAGE)
    assert wired.source.fetched == 2


async def test_a_token_that_comes_back_unchanged_is_not_tried_again(wired: Wired) -> None:
    caller, upstream = await begin(wired)
    await upstream.serve(REFUSED_PAGE)

    await caller.take(REFUSED_PAGE)
    assert wired.source.fetched == 2
    assert wired.route_stats.retries == {}


async def test_a_fetch_that_fails_leaves_the_callers_401(wired: Wired) -> None:
    wired.source.answers = [wired.source.token(), TokenSourceError("no luck")]
    caller, upstream = await begin(wired)
    await upstream.serve(REFUSED_FIELD)

    await caller.take(REFUSED_FIELD)


async def test_a_fetch_that_takes_too_long_leaves_the_callers_401(wired: Wired) -> None:
    caller, upstream = await begin(wired, timeouts=Timeouts(connect=0.2))
    await upstream.request()
    wired.source.held = asyncio.Event()
    upstream.send(REFUSED_FIELD)

    await caller.take(REFUSED_FIELD)
    assert wired.source.fetched == 2
    wired.source.held.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 No\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 401 No\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nlogin",
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        *(
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: %b\r\nContent-Length: 0\r\n\r\n" % challenge
            for challenge in (
                b'DPoP error="invalid_token"',
                b'DPoP error="invalid_token" %b' % DESCRIPTION,
                b'Bearer error="invalid_token"',
                b'Bearer error="invalid_token", error_description="Jwt expired at 1767225600"',
                b'Bearer error="invalid_token", error_description="The access token expired"',
                # An application that quotes Google with a full stop.
                DESCRIPTION.join((b'Bearer error="invalid_token" ', b"")).replace(b'd"', b'd."'),
            )
        ),
        b"HTTP/1.1 401 No\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 No\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(PAGE)
        + PAGE,
        b"HTTP/1.1 401 No\r\nContent-Type: text/html\r\nContent-Length: 50000\r\n\r\n"
        + bytes(50_000),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_an_applications_401_is_the_callers(
    wired: Wired, answer: bytes, method: bytes
) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    caller, upstream = await begin(wired, GET.replace(b"GET", method))
    await upstream.serve(answer)

    await caller.take(answer)
    assert wired.source.fetched == 1
    assert (wired.upstream.connections, wired.route_stats.retries) == ([upstream], {})


async def test_a_refused_token_serves_others_while_another_is_fetched(wired: Wired) -> None:
    caller, upstream = await begin(wired)
    await upstream.request()
    wired.source.held = asyncio.Event()
    upstream.send(REFUSED_FIELD)
    await wired.until(lambda: wired.source.fetched == 2, "another fetch")

    other = await wired.caller()
    other.send(GET)
    message = await upstream.serve(OK)
    assert message.value("x-serverless-authorization") == f"Bearer {wired.source.answers[0]}"
    await other.take(OK)
    wired.source.held.set()
    await caller.take(REFUSED_FIELD)


async def test_a_refusal_while_no_token_can_be_had_stops_nobody(wired: Wired) -> None:
    first = wired.source.token()
    wired.source.answers = [first, TokenSourceError("the metadata server answers 503")]
    caller, upstream = await begin(wired)
    await upstream.serve(REFUSED_FIELD)
    await caller.take(REFUSED_FIELD)

    caller.send(GET)
    message = await upstream.serve(OK)
    assert message.value("x-serverless-authorization") == f"Bearer {first}"
    await caller.take(OK)
    assert wired.source.fetched == 2


async def test_the_body_is_replayed_with_the_new_token(wired: Wired) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    caller, upstream = await begin(wired, request)
    await upstream.serve(REFUSED_PAGE)

    again = await wired.upstream_of_repeat(upstream)
    assert (await again.serve(OK)).body == b"hello"
    await caller.take(OK)


async def test_a_refusal_in_the_middle_of_an_upload_is_the_callers(wired: Wired) -> None:
    """What is to come of the body is not at hand, so the caller repeats it, or nobody."""
    wired.source.answers = [wired.source.token(), wired.source.token()]
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
    caller, upstream = await begin(wired, request)
    await upstream.head()
    await upstream.take(b"hello")
    upstream.send(REFUSED_PAGE)

    answer = await caller.answer()
    assert (answer.status, answer.body) == (401, PAGE)
    assert wired.route_stats.retries == {}
    assert wired.upstream.connections == [upstream]


async def test_a_long_refusal_is_not_read_while_another_token_is_fetched(wired: Wired) -> None:
    caller, upstream = await begin(wired)
    await upstream.request()
    wired.source.held = asyncio.Event()
    # More than the kernel holds for both ends.
    size = 32 * 1024 * 1024
    refusal = REFUSED_FIELD.replace(b"Content-Length: 0", b"Content-Length: %d" % size)
    upstream.send(refusal + bytes(size))
    await wired.until(lambda: wired.source.fetched == 2, "another fetch")
    for _ in range(2000):
        await wired.plane_turn()

    assert upstream.unsent > size // 4
    wired.source.held.set()
    await caller.take(refusal)
    assert await caller.take_size(size) == bytes(size)


async def test_a_body_that_is_too_large_is_not_replayed(wired: Wired) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    size = 64 * 1024 + 1
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    caller, upstream = await begin(wired, request)
    await upstream.serve(REFUSED_PAGE)

    await caller.take(REFUSED_PAGE)
    await wired.until(lambda: wired.source.fetched == 2, "another fetch")
    # The next one has another token all the same.
    caller.send(GET)
    message = await upstream.serve(OK)
    assert message.value("x-serverless-authorization") == f"Bearer {wired.source.answers[-1]}"
    await caller.take(OK)


async def test_a_body_that_comes_while_the_answer_is_held_is_replayed_whole(wired: Wired) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
    caller, upstream = await begin(wired, request)
    await upstream.head()
    await upstream.take(b"hello")
    head, _, page = REFUSED_PAGE.partition(b"\r\n\r\n")
    upstream.send(head + b"\r\n\r\n" + page[:20])
    for _ in range(20):
        await wired.plane_turn()
    caller.send(b"world")
    await upstream.take(b"world")
    upstream.send(page[20:])

    again = await wired.upstream_of_repeat(upstream)
    assert (await again.serve(OK)).body == b"helloworld"
    await caller.take(OK)
