"""The emulated private service: who gets in, what the app behind it sees, how it ends."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest

from proxy.emulator.app import EchoApp
from proxy.emulator.claims import CALLER, id_token_claims
from proxy.emulator.keys import Keys
from proxy.emulator.service import ProtectedService
from proxy.emulator.serving import Serving
from proxy.emulator.verify import Refusal
from tests.fakes.emulated import (
    AUDIENCE,
    BEARER,
    GOOD,
    KEYS,
    NOW,
    STRIPPED,
    call,
    get,
    message,
    protected,
    token,
)

# Who gets in.


@pytest.mark.parametrize(
    ("lines", "status", "refusal"),
    [
        ([BEARER], 200, None),
        ([f"X-Serverless-Authorization: Bearer {GOOD}"], 200, None),
        ([f"x-serverless-authorization: bearer {GOOD}", "Authorization: Basic eDp5"], 200, None),
        ([], 403, Refusal.NO_TOKEN),
        (["Authorization: Bearer opaque"], 401, Refusal.MALFORMED),
        ([f"X-Serverless-Authorization: Bearer {GOOD}x", BEARER], 401, Refusal.MALFORMED),
        ([f"Authorization: Bearer {token(Keys())}"], 401, Refusal.UNKNOWN_KEY),
        ([f"Authorization: Bearer {token(exp=NOW)}"], 401, Refusal.EXPIRED),
        ([f"Authorization: Bearer {token(aud='other')}"], 401, Refusal.WRONG_AUDIENCE),
        ([BEARER, BEARER], 401, Refusal.SEVERAL_HEADERS),
        ([STRIPPED], 401, Refusal.BAD_SIGNATURE),
    ],
)
async def test_a_token_decides_and_nothing_refused_reaches_the_app(
    lines: list[str], status: int, refusal: Refusal | None
) -> None:
    async with protected() as to, call(to) as caller:
        caller.send(get(*lines))
        head = await caller.head()

    (request,) = to.requests
    assert (head[0].split()[1], request.refusal) == (str(status), refusal)
    assert to.admitted == ([request] if status == 200 else [])
    assert any(line.startswith("WWW-Authenticate: Bearer") for line in head) is (status == 401)


async def test_refusals_are_html_that_names_the_url() -> None:
    async with protected() as to, call(to) as caller:
        status, body = await caller.ask(get(target="/a?b"))

    assert (status, b"get URL <code>/a?b</code> from this server" in body) == (403, True)


@pytest.mark.parametrize(("invokers", "status"), [([CALLER.email], 200), ([], 403)])
async def test_only_invokers_get_in(invokers: list[str], status: int) -> None:
    async with protected(invokers=invokers) as to, call(to) as caller:
        assert (await caller.ask(get(BEARER)))[0] == status


async def test_an_internal_service_is_not_found_even_with_a_token() -> None:
    async with protected() as to, call(to) as caller:
        to.ingress = "internal"

        assert (await caller.ask(get(BEARER)))[0] == 404
        assert to.admitted == []


async def test_the_platform_may_answer_in_place_of_the_app() -> None:
    async with protected() as to, call(to) as caller:
        to.answer_next(429, times=2, headers=(("Retry-After", "1"),))
        caller.send(get(BEARER))
        head = await caller.head()
        assert "Retry-After: 1" in head
        assert await caller.reader.readexactly(14) == b"Rate exceeded."
        refused = await caller.ask(get())
        again = await caller.ask(get(BEARER))
        last = await caller.ask(get(BEARER))

    assert [refused[0], again[0], last[0]] == [403, 429, 200]
    assert [request.status for request in to.requests] == [429, 403, 429, None]


async def test_the_default_audience_is_the_services_own_url() -> None:
    async with ProtectedService(KEYS, clock=lambda: NOW, tls=False) as to, call(to) as caller:
        good, other = token(aud=to.url), token(aud=f"{to.url}/")

        assert (await caller.ask(get(f"Authorization: Bearer {good}")))[0] == 200
        assert (await caller.ask(get(f"Authorization: Bearer {other}")))[0] == 401


async def test_requests_are_recorded_as_they_came() -> None:
    async with protected() as to, call(to) as caller:
        await caller.ask(get(BEARER, "X-A: 1", "x-a:  2 ", target="/%2F?q=%20"))

    (request,) = to.requests
    assert (request.method, request.target) == ("GET", "/%2F?q=%20")
    assert request.header("X-A") == ["1", "2"]
    assert request.claims == id_token_claims(CALLER, AUDIENCE, now=NOW, lifetime=3600)
    assert GOOD not in repr(request)


# The app behind it.


async def test_the_echo_shows_what_arrived_without_the_token() -> None:
    async with protected() as to, call(to) as caller:
        raw = message(
            "PUT /a%2Fb//c?q=%20&q HTTP/1.1", "Host: x", BEARER, "x-A: 1", "Content-Length: 5"
        )
        _, body = await caller.ask(raw + b"12345")

    assert GOOD.split(".")[1].encode() not in body
    assert json.loads(body) == {
        "method": "PUT",
        "path": "/a%2Fb//c",
        "query": "q=%20&q",
        "headers": [
            ["Host", "x"],
            ["Authorization", f"Bearer <token of {CALLER.email} for {AUDIENCE}>"],
            ["x-A", "1"],
            ["Content-Length", "5"],
        ],
        "claims": id_token_claims(CALLER, AUDIENCE, now=NOW, lifetime=3600),
        "body_bytes": 5,
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Bearer opaque", "Bearer opaque"),
        (f"Bearer {STRIPPED.split()[2]}", f"Bearer <token of {CALLER.email} for {AUDIENCE}>"),
        (f"Bearer {KEYS.sign({'sub': '7'})}", "Bearer <token of 7 for None>"),
        ("Bearer eyJ.eyJ.x", "Bearer <token of None for None>"),
    ],
)
async def test_the_echo_shows_no_token_of_the_apps_own_either(value: str, shown: str) -> None:
    async with protected() as to, call(to) as caller:
        request = get(f"X-Serverless-Authorization: Bearer {GOOD}", f"Authorization: {value}")
        _, body = await caller.ask(request)

    echo = json.loads(body)
    assert ["Authorization", shown] in echo["headers"]
    assert echo["claims"]["email"] == CALLER.email


async def test_an_unprotected_look_at_the_echo_has_no_claims() -> None:
    serving = Serving(EchoApp().handle)
    await serving.start()
    async with protected(app=("127.0.0.1", serving.port)) as to, call(to) as caller:
        _, body = await caller.ask(get(BEARER))
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
    writer.write(get("Connection: close"))
    bare = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    await writer.wait_closed()
    await serving.stop()

    assert json.loads(body)["claims"]["email"] == CALLER.email
    assert json.loads(bare)["claims"] is None


@pytest.mark.parametrize(
    ("target", "content_type", "first"),
    [
        ("/stream?lines=2", "text/plain; charset=utf-8", b"line 1 of 2\n"),
        (
            "/events?lines=2",
            "text/event-stream",
            b'id: 1\nevent: tick\ndata: {"tick": 1, "of": 2}\n\n',
        ),
    ],
)
async def test_a_stream_comes_piece_by_piece(target: str, content_type: str, first: bytes) -> None:
    released, paused = asyncio.Event(), []

    async def pause(line: int) -> None:
        paused.append(line)
        await released.wait()

    async with protected(pause=pause) as to, call(to) as caller:
        caller.send(get(BEARER, target=target))
        head = await caller.head()
        early = await caller.reader.readuntil(first)
        held = list(paused)
        released.set()
        rest = await caller.reader.readuntil(b"0\r\n\r\n")

    assert f"Content-Type: {content_type}" in head
    assert early.endswith(first)
    assert (held, first.replace(b"1", b"2", 1)[:6] in rest) == ([2], True)


async def test_curl_sees_lines_as_they_come_over_verified_tls() -> None:
    released = asyncio.Event()

    async def pause(_line: int) -> None:
        await released.wait()

    async with protected(tls=True, pause=pause) as to:
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sSN", "--noproxy", "*", "--cacert", str(to.ca_file), "-H", BEARER),
            f"{to.url}/stream?lines=2",
            stdout=asyncio.subprocess.PIPE,
        )
        assert curl.stdout is not None
        first = await curl.stdout.readline()
        released.set()
        rest = await curl.stdout.read()

        assert (first, rest) == (b"line 1 of 2\n", b"line 2 of 2\n")
        assert await curl.wait() == 0


async def test_curl_without_the_authority_does_not_trust_the_service() -> None:
    async with protected(tls=True) as to:
        curl = await asyncio.create_subprocess_exec("curl", "-s", "--noproxy", "*", to.url)

        assert await curl.wait() == 60  # CURLE_PEER_FAILED_VERIFICATION
        assert to.requests == []


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_tls_is_verified_against_the_loopbacks_names(name: str) -> None:
    async with protected(tls=True) as to:
        context = ssl.create_default_context(cafile=to.ca_file)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        async with call(to, context, name) as caller:
            assert (await caller.ask(get()))[0] == 403
        with pytest.raises(ssl.SSLCertVerificationError):
            async with call(to, context, "other.example"):
                pass
