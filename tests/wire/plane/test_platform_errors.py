"""Pages of Google's front end: explained to whoever cannot read them, else passed as they came.

What an application answers passes as it came whatever the route says.
"""

from __future__ import annotations

import json

import pytest

from proxy.config.model import Auth, ErrorFormat, PlatformErrors, Retries, Timeouts
from proxy.plane.front_end import PAGE_BYTES
from proxy.plane.held import HOLD_SECONDS
from tests.fakes.answers import APPLICATIONS, HTML, PLATFORM, SERVER, Answer, page
from tests.fakes.cutting import Cuts, bytewise, whole
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.wired import Wired

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
TRPC = b"GET /trpc/a.b?input=1 HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /trpc/a.b HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FORBIDDEN = next(answer for answer in PLATFORM if answer.status == 403)
UNAVAILABLE = next(answer for answer in PLATFORM if answer.name == "not available")
DESCRIBED = next(answer for answer in PLATFORM if "described" in answer.name)
MARK = "x-auth-proxy-platform-error"


async def begin(
    wired: Wired, request: bytes = TRPC, **route: object
) -> tuple[RawCaller, UpstreamEnd]:
    """Serve with tokens, send a request, and return both ends."""
    await wired.serve(auth=Auth.ID_TOKEN, **route)
    caller = await wired.caller()
    caller.send(request)
    return caller, await wired.upstream.accept()


def message_of(body: bytes) -> str:
    return str(json.loads(body)["error"]["message"])


async def explained(caller: RawCaller, status: int) -> str:
    """Take a tRPC answer that explains a page, and return its message."""
    answer = await caller.answer()
    assert (answer.status, answer.value(MARK)) == (status, str(status))
    assert answer.values("x-auth-proxy-error") == []
    assert answer.value("content-type") == "application/json"
    assert int(answer.value("content-length")) == len(answer.body)
    said = message_of(answer.body)
    assert said.startswith(f"Google's front end answered {status} in place of the service: ")
    assert said.endswith(f" [upstream_{status}]")
    return said


# --- what is explained


@pytest.mark.parametrize("cuts", [whole, bytewise])
@pytest.mark.parametrize("page", PLATFORM, ids=str)
async def test_a_page_is_explained_in_the_callers_language(
    wired: Wired, page: Answer, cuts: Cuts
) -> None:
    wired.cut_responses(cuts)
    caller, upstream = await begin(wired)
    await upstream.serve(page.wire)

    said = await explained(caller, page.status)
    assert "gcloud run services " in said
    # Both connections go on.
    caller.send(TRPC)
    await upstream.serve(OK)
    await caller.take(OK)
    assert wired.refusals == {}


async def test_what_a_page_says_of_token_time_and_trace_is_kept(wired: Wired) -> None:
    caller, upstream = await begin(wired)
    await upstream.serve(UNAVAILABLE.wire)
    answer = await caller.answer()
    assert (answer.value("retry-after"), answer.value("server")) == ("30", "Google Frontend")
    assert answer.value("date") == dict(UNAVAILABLE.fields)["date"]

    caller.send(TRPC)
    await upstream.serve(DESCRIBED.wire)
    answer = await caller.answer()
    assert answer.value("www-authenticate") == dict(DESCRIBED.fields)["www-authenticate"]


@pytest.mark.parametrize(
    ("mode", "language", "request_", "kind"),
    [
        (PlatformErrors.AUTO, ErrorFormat.AUTO, TRPC, "application/json"),
        (PlatformErrors.AUTO, ErrorFormat.AUTO, GET, None),
        (PlatformErrors.AUTO, ErrorFormat.PROBLEM, GET, "application/problem+json"),
        (PlatformErrors.AUTO, ErrorFormat.TWIRP, GET, "application/json"),
        (PlatformErrors.EXPLAIN, ErrorFormat.AUTO, TRPC, "application/json"),
        (PlatformErrors.EXPLAIN, ErrorFormat.AUTO, GET, "application/problem+json"),
        (PlatformErrors.PASS, ErrorFormat.AUTO, TRPC, None),
        (PlatformErrors.PASS, ErrorFormat.TRPC, TRPC, None),
    ],
)
async def test_the_route_says_who_is_told(
    wired: Wired,
    mode: PlatformErrors,
    language: ErrorFormat,
    request_: bytes,
    kind: str | None,
) -> None:
    caller, upstream = await begin(wired, request_, platform_errors=mode, errors=language)
    await upstream.serve(FORBIDDEN.wire)

    if kind is None:
        await caller.take(FORBIDDEN.wire)
    else:
        answer = await caller.answer()
        assert (answer.status, answer.value(MARK), answer.value("content-type")) == (
            403,
            "403",
            kind,
        )


async def test_a_problem_names_status_route_and_what_to_type(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, platform_errors=PlatformErrors.EXPLAIN)
    await upstream.serve(FORBIDDEN.wire)

    problem = json.loads((await caller.answer()).body)
    assert (problem["status"], problem["reason"], problem["route"]) == (
        403,
        "upstream_403",
        "default",
    )
    assert problem["hint"].startswith("gcloud run services add-iam-policy-binding ")


@pytest.mark.parametrize("page", PLATFORM, ids=str)
async def test_a_page_that_is_passed_on_is_passed_on_as_it_came(wired: Wired, page: Answer) -> None:
    caller, upstream = await begin(wired, GET)
    await upstream.serve(page.wire)

    await caller.take(page.wire)


async def test_a_json_rpc_answer_names_the_call(wired: Wired) -> None:
    call = b'{"jsonrpc": "2.0", "method": "sum", "id": 7}'
    head = b"POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    caller, upstream = await begin(wired, head + b"Content-Length: %d\r\n\r\n" % len(call) + call)
    await upstream.serve(FORBIDDEN.wire)

    answer = await caller.answer()
    assert json.loads(answer.body)["id"] == 7


async def test_an_allowed_origin_may_read_it(wired: Wired) -> None:
    request = TRPC.replace(b"Host: a\r\n", b"Host: a\r\nOrigin: https://a.example\r\n")
    caller, upstream = await begin(wired, request, allow_origins=("https://a.example",))
    await upstream.serve(FORBIDDEN.wire)

    answer = await caller.answer()
    assert answer.value(MARK) == "403"
    assert answer.value("access-control-allow-origin") == "https://a.example"


# --- what is not


@pytest.mark.parametrize("mode", list(PlatformErrors))
@pytest.mark.parametrize("answer", APPLICATIONS, ids=str)
async def test_an_applications_answer_is_never_touched(
    wired: Wired, answer: Answer, mode: PlatformErrors
) -> None:
    caller, upstream = await begin(wired, platform_errors=mode)
    await upstream.serve(answer.wire)

    await caller.take(answer.wire)


async def test_the_answer_to_head_passes(wired: Wired) -> None:
    caller, upstream = await begin(wired, TRPC.replace(b"GET", b"HEAD"))
    await upstream.head()
    head = FORBIDDEN.wire.removesuffix(FORBIDDEN.body)
    upstream.send(head)

    await caller.take(head)


async def test_a_described_401_to_head_is_explained_without_a_body(wired: Wired) -> None:
    caller, upstream = await begin(wired, TRPC.replace(b"GET", b"HEAD"))
    await upstream.head()
    upstream.send(DESCRIBED.wire)

    answer = await caller.answer(bodyless=True)
    assert (answer.status, answer.value(MARK)) == (401, "401")
    assert int(answer.value("content-length")) > 0


def long_page(size: int) -> bytes:
    sentence = "Your client does not have permission to get URL "
    url = "x" * (size - len(page(403, "Forbidden", sentence)))
    return page(403, "Forbidden", sentence + url)


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(
    ("size", "expected"), [(PAGE_BYTES - 1, True), (PAGE_BYTES, True), (PAGE_BYTES + 1, False)]
)
async def test_no_more_than_a_small_page_is_replaced(
    wired: Wired, size: int, framing: str, *, expected: bool
) -> None:
    caller, upstream = await begin(wired)
    await upstream.head()
    body = long_page(size)
    if framing == "length":
        answer = Answer("long", 403, (HTML, SERVER), body).wire
    else:
        fields = "".join(f"{name}: {value}\r\n" for name, value in (HTML, SERVER)).encode()
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        answer = b"HTTP/1.1 403 No\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (fields, chunks)
    upstream.send(answer)

    got = await caller.answer()
    assert (got.values(MARK) == ["403"]) is expected
    assert (got.body == body) is not expected


# --- how long


async def cut_short(wired: Wired, **route: object) -> tuple[RawCaller, UpstreamEnd, bytes, bytes]:
    """Have all but the last bytes of a page come."""
    caller, upstream = await begin(wired, **route)  # type: ignore[arg-type]  # fields of a route
    await upstream.head()
    first, rest = FORBIDDEN.wire[:-10], FORBIDDEN.wire[-10:]
    upstream.send(first)
    for _ in range(50):
        await wired.plane_turn()
    assert caller.received == b""
    return caller, upstream, first, rest


async def test_a_page_is_held_only_briefly(wired: Wired) -> None:
    caller, upstream, first, rest = await cut_short(wired)

    wired.pass_time(HOLD_SECONDS - 0.01)
    assert caller.received == b""
    wired.pass_time(0.01)
    await caller.take(first)
    upstream.send(rest)
    await caller.take(rest)


async def test_a_page_that_comes_in_time_is_explained(wired: Wired) -> None:
    caller, upstream, _, rest = await cut_short(wired)

    wired.pass_time(HOLD_SECONDS - 0.01)
    upstream.send(rest)
    await explained(caller, 403)


async def test_a_page_that_was_let_go_has_the_deadlines_of_any_answer(wired: Wired) -> None:
    caller, upstream, first, _ = await cut_short(wired, timeouts=Timeouts(idle=30))
    wired.pass_time(HOLD_SECONDS)
    await caller.take(first)

    wired.pass_time(29.9)
    assert not caller.ended
    wired.pass_time(0.2)
    await upstream.take_all()
    assert await caller.take_all() == b""
    assert wired.refusals == {"upstream_timed_out": 1}


async def test_the_whole_exchange_ends_in_time_while_a_page_is_held(wired: Wired) -> None:
    caller, upstream, _, _ = await cut_short(wired, timeouts=Timeouts(total=0.5))

    wired.pass_time(0.5)
    assert (await caller.answer()).value("x-auth-proxy-error") == "upstream_timed_out"
    await upstream.take_all()


async def test_an_answer_is_let_go_as_soon_as_it_cannot_be_a_page(wired: Wired) -> None:
    caller, upstream = await begin(wired)
    await upstream.head()
    head = b"HTTP/1.1 403 No\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\n<html><"
    upstream.send(head)
    for _ in range(50):
        await wired.plane_turn()
    assert caller.received == b""

    upstream.send(b"b")
    await caller.take(head + b"b")
    upstream.send(bytes(91))
    await caller.take(bytes(91))


async def test_an_upstream_that_breaks_within_a_page_has_failed(wired: Wired) -> None:
    caller, upstream, _, _ = await cut_short(wired)

    upstream.reset()
    assert (await caller.answer()).value("x-auth-proxy-error") == "upstream_reset"


async def test_a_caller_that_goes_away_meanwhile_ends_the_exchange(wired: Wired) -> None:
    caller, upstream, _, _ = await cut_short(wired)

    caller.close()
    await upstream.take_all()
    await wired.until(lambda: wired.refusals == {"downstream_gone": 1}, "the end")


# --- in which order


async def test_the_retry_policy_comes_first(wired: Wired) -> None:
    policy = Retries(attempts=2, on=(503,), backoff=0)
    caller, upstream = await begin(wired, retries=policy)
    await upstream.serve(UNAVAILABLE.wire.replace(b"retry-after: 30\r\n", b""))

    again = await wired.upstream_of_repeat(upstream)
    await again.serve(UNAVAILABLE.wire)
    await explained(caller, 503)
    assert wired.route_stats.retries == {"503": 1}


async def test_another_token_comes_before_an_explanation(wired: Wired) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    caller, upstream = await begin(wired)
    await upstream.serve(DESCRIBED.wire)

    again = await wired.upstream_of_repeat(upstream)
    await again.serve(OK)
    await caller.take(OK)


async def test_a_second_401_is_explained(wired: Wired) -> None:
    wired.source.answers = [wired.source.token() for _ in range(3)]
    caller, upstream = await begin(wired)
    await upstream.serve(DESCRIBED.wire)
    again = await wired.upstream_of_repeat(upstream)
    await again.serve(PLATFORM[0].wire)

    await explained(caller, 401)
    assert wired.source.fetched == 2


async def test_a_page_after_a_1xx_is_explained(wired: Wired) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    caller, upstream = await begin(wired)
    await upstream.head()
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    upstream.send(hint)
    await caller.take(hint)
    upstream.send(DESCRIBED.wire)

    # The caller has had a part of this attempt's answer: no repeat.
    await explained(caller, 401)
    assert wired.upstream.connections == [upstream]


async def test_a_page_in_the_middle_of_an_upload_is_explained(wired: Wired) -> None:
    caller, upstream = await begin(wired, UPLOAD)
    await upstream.head()
    await upstream.take(b"hello")
    upstream.send(FORBIDDEN.wire)

    await explained(caller, 403)


async def test_a_route_without_tokens_says_so(wired: Wired) -> None:
    await wired.serve()
    caller = await wired.caller()
    caller.send(TRPC)
    upstream = await wired.upstream.accept()
    await upstream.serve(FORBIDDEN.wire)

    assert "`auth` of route default is none" in await explained(caller, 403)


# --- what the log says


@pytest.mark.parametrize("mode", [PlatformErrors.PASS, PlatformErrors.EXPLAIN])
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_the_log_says_the_same_words(
    wired: Wired, caplog: pytest.LogCaptureFixture, status: int, mode: PlatformErrors
) -> None:
    page = next(answer for answer in PLATFORM if answer.status == status)
    caller, upstream = await begin(wired, GET, platform_errors=mode)
    await upstream.serve(page.wire)
    answer = await caller.answer()

    (line,) = [r for r in caplog.records if r.name == "proxy.plane.refused"]
    assert (line.__dict__["reason"], line.__dict__["route"]) == (f"upstream_{status}", "default")
    if mode is PlatformErrors.EXPLAIN:
        problem = json.loads(answer.body)
        assert line.getMessage() == f"{problem['title']}: {problem['detail']}"
        assert line.__dict__["hint"] == problem["hint"]


@pytest.mark.parametrize("answer", [a for a in APPLICATIONS if a.status < 500], ids=str)
async def test_the_log_explains_no_application(
    wired: Wired, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caller, upstream = await begin(wired)
    await upstream.serve(answer.wire)
    await caller.take(answer.wire)

    assert [r for r in caplog.records if r.name == "proxy.plane.refused"] == []


@pytest.mark.parametrize("page", [a for a in PLATFORM if a.status in (429, 500, 503)], ids=str)
async def test_what_passes_by_itself_is_explained_to_callers_alone(
    wired: Wired, caplog: pytest.LogCaptureFixture, page: Answer
) -> None:
    caller, upstream = await begin(wired)
    await upstream.serve(page.wire)
    await explained(caller, page.status)

    assert [r for r in caplog.records if r.name == "proxy.plane.refused"] == []


async def test_a_refusal_that_another_token_mends_is_not_logged(
    wired: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    wired.source.answers = [wired.source.token(), wired.source.token()]
    caller, upstream = await begin(wired)
    await upstream.serve(DESCRIBED.wire)
    again = await wired.upstream_of_repeat(upstream)
    await again.serve(OK)
    await caller.take(OK)

    assert [r for r in caplog.records if r.name == "proxy.plane.refused"] == []
