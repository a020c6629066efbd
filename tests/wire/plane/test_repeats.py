"""Retries as configured, and dialling again: only what is safe, and never after an answer."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

import pytest

from proxy.config.model import Retries, Timeouts
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
POLICY = Retries(attempts=3, backoff=0.0)


async def begin(
    wired: Wired, request: bytes, policy: Retries = POLICY, **route: object
) -> tuple[RawCaller, UpstreamEnd]:
    """Serve with this policy, send a request, and return both ends."""
    await wired.serve(retries=policy, **route)
    caller = await wired.caller()
    caller.send(request)
    upstream = await wired.upstream.accept()
    await upstream.request()
    return caller, upstream


@pytest.mark.parametrize("request_", [GET, PUT], ids=["GET", "PUT"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_status_of_the_list_is_repeated(wired: Wired, request_: bytes, status: int) -> None:
    caller, upstream = await begin(wired, request_)
    upstream.send(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)

    second = await wired.upstream.accept()
    assert (await second.request()).raw.startswith(request_[:4])
    second.send(OK)
    await caller.take(OK)
    assert wired.route_stats.retries == {str(status): 1}


async def test_the_last_answer_is_the_callers_when_attempts_are_used_up(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(BUSY)
    for _ in range(2):
        upstream = await wired.upstream.accept()
        await upstream.serve(BUSY)

    await caller.take(BUSY)
    assert wired.route_stats.retries == {"503": 2}
    assert len(wired.upstream.connections) == 3


@pytest.mark.parametrize("request_", [POST], ids=["POST"])
async def test_a_method_that_is_not_in_the_list_is_not_repeated(
    wired: Wired, request_: bytes
) -> None:
    caller, upstream = await begin(wired, request_)
    upstream.send(BUSY)

    await caller.take(BUSY)
    assert wired.route_stats.retries == {}


async def test_a_method_that_is_put_in_the_list_is_repeated(wired: Wired) -> None:
    caller, upstream = await begin(wired, POST, dataclasses.replace(POLICY, methods=("POST",)))
    upstream.send(BUSY)

    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)


async def test_a_status_that_is_not_in_the_list_is_not_repeated(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(BUSY.replace(b"503", b"502"))

    await caller.take(BUSY.replace(b"503", b"502"))


async def test_nothing_is_repeated_by_default(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, Retries())
    upstream.send(BUSY)

    await caller.take(BUSY)


async def test_a_reset_without_an_answer_is_repeated(wired: Wired) -> None:
    caller, upstream = await begin(wired, PUT)
    upstream.reset()

    second = await wired.upstream.accept()
    assert (await second.request()).body == b"hello"
    second.send(OK)
    await caller.take(OK)
    assert wired.route_stats.retries == {"reset": 1}


@pytest.mark.parametrize(
    "begun", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early\r\n\r\n"]
)
async def test_nothing_is_repeated_after_a_byte_of_an_answer(wired: Wired, begun: bytes) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(begun)
    if begun.endswith(b"\r\n\r\n"):
        await caller.take(begun)
    upstream.finish()

    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_reset")
    assert len(wired.upstream.connections) == 1


async def test_a_status_after_a_1xx_that_the_caller_has_seen_is_not_repeated(
    wired: Wired,
) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(b"HTTP/1.1 103 Early\r\n\r\n" + BUSY)

    await caller.take(b"HTTP/1.1 103 Early\r\n\r\n" + BUSY)


async def test_a_timeout_is_repeated_where_the_list_names_it(wired: Wired) -> None:
    policy = dataclasses.replace(POLICY, on=("timeout",))
    caller, upstream = await begin(wired, GET, policy, timeouts=Timeouts(response=10))
    wired.pass_time(10)

    await upstream.take_all()
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)
    assert wired.route_stats.retries == {"timeout": 1}


async def test_a_timeout_is_not_repeated_otherwise(wired: Wired) -> None:
    caller, _ = await begin(wired, GET, timeouts=Timeouts(response=10))
    wired.pass_time(10)

    assert (await caller.answer()).status == 504


async def test_the_total_is_never_repeated(wired: Wired) -> None:
    policy = dataclasses.replace(POLICY, on=("timeout",))
    caller, _ = await begin(wired, GET, policy, timeouts=Timeouts(total=10))
    wired.pass_time(10)

    assert (await caller.answer()).status == 504


async def test_a_body_up_to_max_body_is_repeated(wired: Wired) -> None:
    caller, upstream = await begin(wired, PUT, dataclasses.replace(POLICY, max_body=5))
    upstream.send(BUSY)

    assert (await (await wired.upstream.accept()).serve(OK)).body == b"hello"
    await caller.take(OK)


async def test_a_body_beyond_max_body_is_not_repeated(wired: Wired) -> None:
    caller, upstream = await begin(wired, PUT, dataclasses.replace(POLICY, max_body=4))
    upstream.send(BUSY)

    await caller.take(BUSY)


async def test_trailers_are_repeated_with_the_body(wired: Wired) -> None:
    request = (
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    caller, upstream = await begin(wired, request)
    upstream.send(BUSY)

    again = await (await wired.upstream.accept()).serve(OK)
    assert (again.body, again.trailers) == (b"hello", b"X-Sum: 1")
    await caller.take(OK)


async def test_an_upload_under_way_is_repeated_and_goes_on(wired: Wired) -> None:
    await wired.serve(retries=POLICY)
    caller = await wired.caller()
    caller.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    upstream = await wired.upstream.accept()
    await upstream.head()
    await upstream.take(b"hello")
    upstream.send(BUSY)

    second = await wired.upstream.accept()
    await second.head()
    await second.take(b"hello")
    caller.send(b"world")
    await second.take(b"world")
    second.send(OK)
    await caller.take(OK)


async def test_retry_after_is_waited_for(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, timeouts=Timeouts(total=5))
    upstream.send(b"HTTP/1.1 503 No\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n")
    await wired.until(lambda: wired.route_stats.retries["503"], "the repeat")

    # It is longer than the exchange may take; the answer to that comes first.
    wired.pass_time(5)
    assert (await caller.answer()).status == 504
    assert len(wired.upstream.connections) == 1


@pytest.mark.parametrize("after", [b"11", b"100000", b"Fri, 31 Dec 2100 23:59:59 GMT", b"soon"])
async def test_a_retry_after_beyond_patience_is_the_callers_to_honour(
    wired: Wired, after: bytes
) -> None:
    answer = b"HTTP/1.1 503 No\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % after
    caller, upstream = await begin(wired, GET)
    upstream.send(answer)

    await caller.take(answer)


async def test_the_budget_bounds_retries(wired: Wired) -> None:
    wired.upstream.automatic = BUSY
    await wired.serve(retries=Retries(attempts=2, backoff=0.0, budget=0.2))
    caller = await wired.caller()
    for _ in range(60):
        assert (await caller.ask(GET)).status == 503

    # Ten in reserve, then one in five requests.
    assert 10 + 50 * 0.2 <= wired.route_stats.retries["503"] <= 10 + 60 * 0.2


async def test_a_budget_of_zero_allows_no_retry(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, dataclasses.replace(POLICY, budget=0.0))
    upstream.send(BUSY)

    await caller.take(BUSY)


async def test_a_caller_that_goes_away_ends_the_pause_before_a_repeat(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, dataclasses.replace(POLICY, backoff=5.0))
    upstream.send(BUSY)
    await wired.until(lambda: wired.route_stats.retries["503"], "the pause")

    caller.close()
    await wired.until(lambda: wired.route_stats.requests["h1", 499], "the end of the exchange")


# --- dialling


async def test_a_port_that_opens_a_moment_later_is_dialled_again(wired: Wired) -> None:
    port = wired.upstream.port
    await wired.upstream.stop()
    caller = await wired.caller()
    caller.send(POST)
    await wired.until(lambda: wired.route_stats.retries["connect_failed"], "the first failure")
    await wired.upstream.start(port=port)

    assert (await (await wired.upstream.accept()).serve(OK)).body == b"hello"
    await caller.take(OK)
    assert wired.route_stats.dials == {"upstream_connect_failed": 1, "ok": 1}


async def test_a_port_that_stays_closed_is_dialled_twice_by_default(wired: Wired) -> None:
    await wired.upstream.stop()
    caller = await wired.caller()
    answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_connect_failed")
    assert wired.route_stats.dials == {"upstream_connect_failed": 2}


async def test_a_failed_dial_is_not_handled_for_ever(wired: Wired) -> None:
    """Compiled, a handler that waits leaves its exception to all that are raised later.

    Each refers to the one before it then, and to the frames that it came through.
    """
    await wired.upstream.stop()
    caller = await wired.caller()
    loop = asyncio.get_running_loop()
    handled: asyncio.Future[BaseException | None] = loop.create_future()
    assert (await caller.ask(GET)).status == 502
    loop.call_soon(lambda: handled.set_result(sys.exception()))

    assert await handled is None


async def test_dialling_follows_the_policy(wired: Wired) -> None:
    await wired.upstream.stop()
    await wired.serve(retries=Retries(attempts=4, backoff=0.0))
    caller = await wired.caller()

    assert (await caller.ask(POST)).status == 502
    assert wired.route_stats.dials == {"upstream_connect_failed": 4}


async def test_dial_failures_that_are_not_in_the_list_are_not_repeated(wired: Wired) -> None:
    await wired.upstream.stop()
    await wired.serve(retries=Retries(on=(503,)))
    caller = await wired.caller()

    assert (await caller.ask(GET)).status == 502
    assert wired.route_stats.dials == {"upstream_connect_failed": 1}
