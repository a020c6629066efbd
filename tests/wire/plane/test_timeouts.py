"""Deadlines: each below, at and above, with its reason, or a cut where a response has begun."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from pathlib import Path

from proxy.config.model import Auth, Timeouts
from tests.fakes.raw import RawCaller, UpstreamEnd
from tests.fakes.tls import ca_file
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def begin(wired: Wired, request: bytes, **timeouts: float) -> tuple[RawCaller, UpstreamEnd]:
    """Serve with these timeouts, send a request, and return both ends."""
    await wired.serve(timeouts=Timeouts(**timeouts))
    caller = await wired.caller()
    caller.send(request)
    upstream = await wired.upstream.accept()
    await upstream.head()
    return caller, upstream


# --- timeouts.response


async def test_a_response_head_may_take_as_long_as_the_timeout(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, response=30)

    wired.pass_time(29.9)
    upstream.send(OK)
    await caller.take(OK)


async def test_a_response_head_that_does_not_come_is_timed_out(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, response=30)

    wired.pass_time(30)
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (504, "upstream_timed_out")
    assert b"timeouts.response" in answer.body
    await upstream.take_all()


async def test_the_response_is_awaited_from_the_end_of_the_request(wired: Wired) -> None:
    caller, upstream = await begin(wired, POST, response=30, idle=100)

    wired.pass_time(90)
    caller.send(b"0123456789")
    await upstream.take(b"0123456789")
    wired.pass_time(29)
    assert caller.received == b""
    upstream.send(OK)
    await caller.take(OK)


async def test_a_1xx_does_not_prolong_the_wait_for_the_response(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, response=30)

    wired.pass_time(20)
    upstream.send(b"HTTP/1.1 102 Processing\r\n\r\n")
    await caller.take(b"HTTP/1.1 102 Processing\r\n\r\n")
    wired.pass_time(10)
    assert (await caller.answer()).status == 504


# --- timeouts.idle


async def test_a_stream_may_be_silent_as_long_as_the_timeout(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, idle=30)
    upstream.send(CHUNKED_OK)
    await caller.take(CHUNKED_OK)

    for _ in range(3):
        wired.pass_time(29)
        upstream.send(b"2\r\nhi\r\n")
        await caller.take(b"2\r\nhi\r\n")
    wired.pass_time(30)
    assert await caller.take_all() == b""
    await upstream.take_all()
    assert wired.refusals == {"upstream_timed_out": 1}


async def test_an_upload_may_be_silent_as_long_as_the_timeout(wired: Wired) -> None:
    caller, upstream = await begin(wired, POST, idle=30, response=10)

    for _ in range(3):
        wired.pass_time(29)
        caller.send(b"a")
        await upstream.take(b"a")
    wired.pass_time(30)
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (504, "upstream_timed_out")
    assert b"timeouts.idle" in answer.body
    await upstream.take_all()


# --- timeouts.total


async def test_an_exchange_may_take_as_long_as_the_total(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, total=60)
    wired.pass_time(59.9)
    upstream.send(OK)
    await caller.take(OK)


async def test_an_exchange_beyond_the_total_is_timed_out(wired: Wired) -> None:
    caller, _upstream = await begin(wired, GET, total=60)

    wired.pass_time(60)
    answer = await caller.answer()
    assert answer.status == 504
    assert b"timeouts.total" in answer.body


async def test_a_stream_beyond_the_total_is_cut(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET, total=60)
    upstream.send(CHUNKED_OK)
    await caller.take(CHUNKED_OK)

    wired.pass_time(59)
    upstream.send(b"2\r\nhi\r\n")
    await caller.take(b"2\r\nhi\r\n")
    wired.pass_time(1)
    assert await caller.take_all() == b""


async def test_the_total_counts_the_wait_for_a_token(wired: Wired) -> None:
    wired.source.held = asyncio.Event()
    await wired.serve(auth=Auth.ID_TOKEN, timeouts=Timeouts(total=5))
    caller = await wired.caller()
    caller.send(GET)
    await wired.until(lambda: wired.route_stats.in_flight, "the exchange")

    wired.pass_time(5)
    answer = await caller.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (504, "upstream_timed_out")
    assert wired.upstream.connections == []


async def test_timeouts_that_are_off_do_nothing(wired: Wired) -> None:
    off = math.inf
    caller, upstream = await begin(wired, GET, connect=off, response=off, idle=off, total=off)

    wired.pass_time(1_000_000)
    upstream.send(OK)
    await caller.take(OK)


# --- timeouts.connect


async def test_an_upstream_whose_handshake_does_not_end_is_timed_out(
    wired: Wired, tmp_path: Path
) -> None:
    await wired.serve_tls(ca_file(tmp_path), timeouts=Timeouts(connect=0.25))
    caller = await wired.caller()
    answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (
        504, "upstream_connect_timed_out",
    )  # fmt: skip
    assert wired.route_stats.dials == {"upstream_connect_timed_out": 1}
    upstream = await wired.upstream.accept()
    assert (await upstream.take_all()).startswith(b"\x16")  # A ClientHello, and the end.


async def test_a_port_that_nobody_listens_on_fails_at_once(wired: Wired) -> None:
    await wired.upstream.stop()
    caller = await wired.caller()
    answer = await caller.ask(GET)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_connect_failed")
    assert answer.values("connection") == []


# --- callers that are slow to ask, or to leave


async def test_a_head_may_take_30_seconds(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    caller.send(GET[:10])
    await _arrived(wired)

    wired.pass_time(29.9)
    caller.send(GET[10:])
    await caller.take(OK)


async def test_a_head_that_takes_longer_is_refused(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(GET[:10])
    await _arrived(wired)

    wired.pass_time(30)
    await caller.refusal(400, "request_malformed")


async def test_bytes_that_trickle_do_not_prolong_the_wait_for_a_head(wired: Wired) -> None:
    caller = await wired.caller()
    for at in range(20):
        caller.send(GET[at : at + 1])
        await _arrived(wired)
        wired.pass_time(1.6)
    await caller.refusal(400, "request_malformed")


async def test_a_silent_caller_is_kept_for_ten_minutes(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    caller.send(GET)
    await caller.take(OK)

    wired.pass_time(599)
    caller.send(GET)
    await caller.take(OK)
    wired.pass_time(600)
    assert await caller.take_all() == b""


async def test_a_caller_that_never_says_anything_is_kept_for_ten_minutes(wired: Wired) -> None:
    caller = await wired.caller()
    await wired.until(lambda: wired.plane.connections, "the connection")

    wired.pass_time(599)
    assert not caller.ended
    wired.pass_time(1)
    await caller.until(lambda: caller.ended, "the end")


async def test_a_line_end_after_a_body_is_no_slow_head(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    caller.send(GET + b"\r\n")
    await caller.take(OK)
    await _arrived(wired)

    wired.pass_time(30)
    assert await caller.take_all() == b""
    assert wired.refusals == {}


async def test_a_slowloris_harms_nobody_and_does_not_stay(wired: Wired) -> None:
    wired.upstream.automatic = OK
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(await wired.connect()) for _ in range(1000)]
        for caller in slow:
            caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        await wired.until(lambda: len(wired.plane.connections) == 1000, "all connections")
        honest = await wired.caller()
        assert (await honest.ask(GET)).status == 200
        await _arrived(wired)

        wired.pass_time(30)
        assert (await honest.ask(GET)).status == 200
        for caller in slow:
            await caller.refusal(400, "request_malformed")
        wired.pass_time(2.1)
        await wired.until(lambda: len(wired.plane.connections) == 1, "the end of the slow ones")
        assert (await honest.ask(GET)).status == 200


async def test_a_caller_that_reads_slowly_at_the_end_gets_all_of_it(wired: Wired) -> None:
    size = 16 * 1024 * 1024
    caller, upstream = await begin(wired, b"GET / HTTP/1.0\r\n\r\n")
    caller.pause()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    for _ in range(300):
        await wired.plane_turn()
    caller.resume()
    await caller.take_size(1000)
    caller.pause()

    wired.pass_time(3)
    wired.pass_time(3)
    caller.resume()
    await caller.until(lambda: len(caller.history) > size, "all of it")


async def _arrived(wired: Wired) -> None:
    """Let what was sent arrive."""
    for _ in range(20):
        await wired.plane_turn()
