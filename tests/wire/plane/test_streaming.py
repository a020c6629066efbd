"""Bodies on their way: nothing waits, nothing piles up, and a broken end is seen."""

from __future__ import annotations

import asyncio

import pytest

from proxy.config.model import Auth, Protocol
from tests.fakes.cutting import bytewise
from tests.fakes.framed_world import Framed
from tests.fakes.raw import RawCaller, UpstreamEnd, first_message
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MEGABYTE = 1024 * 1024


async def begin(wired: Wired, request: bytes) -> tuple[RawCaller, UpstreamEnd]:
    """Send a request and return both ends once its head has arrived."""
    caller = await wired.caller()
    caller.send(request)
    upstream = await wired.upstream.accept()
    await upstream.head()
    return caller, upstream


async def test_each_piece_of_a_response_is_passed_on_when_it_comes(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)

    upstream.send(CHUNKED_OK)
    await caller.take(CHUNKED_OK)
    for _ in range(3):
        upstream.send(b"9\r\ndata: 1\n\n\r\n")
        await caller.take(b"9\r\ndata: 1\n\n\r\n")
    upstream.send(b"0\r\n\r\n")
    await caller.take(b"0\r\n\r\n")


async def test_each_piece_of_a_request_is_passed_on_when_it_comes(wired: Wired) -> None:
    caller, upstream = await begin(wired, CHUNKED_POST)

    for _ in range(3):
        caller.send(b"5\r\nhello\r\n")
        await upstream.take(b"5\r\nhello\r\n")
    caller.send(b"0\r\n\r\n")
    await upstream.take(b"0\r\n\r\n")
    upstream.send(OK)
    await caller.take(OK)


async def test_request_and_response_may_stream_at_once(wired: Wired) -> None:
    caller, upstream = await begin(wired, CHUNKED_POST)
    upstream.send(CHUNKED_OK)
    await caller.take(CHUNKED_OK)

    for _ in range(3):
        caller.send(b"4\r\nping\r\n")
        await upstream.take(b"4\r\nping\r\n")
        upstream.send(b"4\r\npong\r\n")
        await caller.take(b"4\r\npong\r\n")
    caller.send(b"0\r\n\r\n")
    await upstream.take(b"0\r\n\r\n")
    upstream.send(b"0\r\n\r\n")
    await caller.take(b"0\r\n\r\n")
    assert (await _again(wired, caller, upstream)) == 200


async def _again(wired: Wired, caller: RawCaller, upstream: UpstreamEnd) -> int:
    """Serve another request on both connections; return its status."""
    await wired.until(lambda: wired.connections.idle == 1, "the return of the connection")
    caller.send(GET)
    await upstream.serve(OK)
    return (await caller.answer()).status


async def begin_bytewise(wired: Wired) -> None:
    """Have the proxy wait for a token while 100 bytes of a body come, each by itself."""
    wired.cut_requests = bytewise
    wired.source.held = asyncio.Event()
    caller = await wired.caller()
    caller.send(CHUNKED_POST + b"1\r\nx\r\n" * 100)
    stats = wired.route_stats
    await wired.until(lambda: stats.request_bytes == 100, "the body")
    wired.source.held.set()


async def test_a_body_that_came_bytewise_before_its_upstream_leaves_in_one_piece(
    wired: Wired,
) -> None:
    await wired.serve(auth=Auth.ID_TOKEN)
    await begin_bytewise(wired)
    upstream = await wired.upstream.accept()
    await upstream.head()
    await upstream.take(b"64\r\n" + b"x" * 100 + b"\r\n")


async def test_such_a_body_leaves_in_one_frame() -> None:
    async with Framed(protocol=Protocol.H2, auth=Auth.ID_TOKEN) as framed:
        await begin_bytewise(framed)
        upstream = await framed.framed.accept()
        await upstream.until(lambda: len(upstream.seen(1).body) == 100, "the body")
        assert upstream.seen(1).frames == ["HEADERS", "DATA"]


EXTENSION = b"5;x=" + b"y" * 67, b"y" * 80 + b"\r\nhello\r\n0\r\n\r\n"


async def test_a_request_may_pause_within_an_extension(wired: Wired) -> None:
    caller, upstream = await begin(wired, CHUNKED_POST + EXTENSION[0])
    caller.send(EXTENSION[1])
    await upstream.take(b"5\r\nhello\r\n0\r\n\r\n")
    upstream.send(OK)
    await caller.take(OK)


async def test_a_response_may_pause_within_an_extension(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(CHUNKED_OK + EXTENSION[0])
    await caller.take(CHUNKED_OK)
    upstream.send(EXTENSION[1])
    await caller.take(b"5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize("size", [1, 1000, 16 * 1024, 300_000])
async def test_chunks_of_any_size_arrive_as_they_were(wired: Wired, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    chunks = b"%x\r\n%b\r\n" % (size, data)
    count = max(2, 600_000 // len(chunks))
    body = chunks * count + b"0\r\n\r\n"
    caller, upstream = await begin(wired, CHUNKED_POST)
    caller.send(body)
    await upstream.until(lambda: upstream.received.endswith(b"\r\n0\r\n\r\n"), "the upload")
    assert read_chunks(bytes(upstream.received)) == data * count

    upstream.send(CHUNKED_OK + body)
    await caller.until(lambda: caller.received.endswith(b"\r\n0\r\n\r\n"), "the download")
    assert read_chunks(bytes(caller.received).removeprefix(CHUNKED_OK)) == data * count


def read_chunks(body: bytes) -> bytes:
    """Return what a whole chunked body holds."""
    message = first_message(CHUNKED_OK + body)
    assert message is not None
    return message.body


async def test_a_caller_that_does_not_read_stops_the_upstream(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    caller.pause()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MEGABYTE))
    body = bytes(MEGABYTE)
    for _ in range(64):
        upstream.send(body)

    (connection,) = wired.plane.connections
    buffered = connection._transport.get_write_buffer_size  # type: ignore[attr-defined]  # of the HTTP/1.1 codec
    await wired.until(lambda: buffered() > 0, "the caller's slowness")
    standing = await wired.standstill(lambda: upstream.unsent)
    assert standing > 32 * MEGABYTE
    assert buffered() < 512 * 1024

    caller.resume()
    await caller.until(lambda: len(caller.history) >= 64 * MEGABYTE, "the rest")


async def test_an_upstream_that_does_not_read_stops_the_caller(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MEGABYTE)
    )
    upstream.pause()
    for _ in range(64):
        caller.send(bytes(MEGABYTE))

    standing = await wired.standstill(lambda: caller.unsent, 64 * MEGABYTE)
    assert standing > 32 * MEGABYTE

    upstream.resume()
    await upstream.until(lambda: len(upstream.history) >= 64 * MEGABYTE, "the rest")
    upstream.send(OK)
    await caller.take(OK)


async def test_answers_that_nobody_reads_do_not_pile_up(wired: Wired) -> None:
    size = 256 * 1024
    wired.upstream.automatic = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    caller = await wired.caller()
    caller.pause()
    caller.send(GET * 200)
    standing = await wired.standstill(lambda: len(wired.upstream.requests))
    assert standing < 100

    caller.resume()
    await caller.until(lambda: len(caller.history) >= 200 * size, "all the answers")
    assert len(wired.upstream.requests) == 200


async def test_a_caller_that_goes_away_cancels_the_request_at_once(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)

    caller.close()
    await upstream.take_all()
    await wired.until(lambda: wired.route_stats.requests["h1", 499], "the end of the exchange")
    assert wired.refusals == {"downstream_gone": 1}


async def test_a_callers_fin_counts_as_going_away(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)

    caller.finish()
    await upstream.take_all()
    assert await caller.take_all() == b""


async def test_a_caller_that_goes_away_within_a_response_cancels_it(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(CHUNKED_OK + b"5\r\nhello\r\n")
    await caller.take(CHUNKED_OK + b"5\r\nhello\r\n")

    caller.reset()
    await upstream.take_all()


async def test_a_caller_that_goes_away_within_its_upload_cancels_it(wired: Wired) -> None:
    caller, upstream = await begin(wired, CHUNKED_POST + b"5\r\nhello\r\n")
    await upstream.take(b"5\r\nhello\r\n")

    caller.close()
    rest = await upstream.take_all()
    assert b"0\r\n\r\n" not in rest


@pytest.mark.parametrize("end", ["finish", "reset"])
async def test_an_upstream_that_breaks_within_a_body_cuts_the_caller(
    wired: Wired, end: str
) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await caller.take(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    getattr(upstream, end)()
    assert await caller.take_all() == b""
    assert wired.refusals == {"upstream_reset": 1}


async def test_a_broken_chunked_body_never_ends_neatly(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(CHUNKED_OK + b"5\r\nhello\r\n")
    await caller.take(CHUNKED_OK + b"5\r\nhello\r\n")

    upstream.reset()
    assert await caller.take_all() == b""


async def test_a_broken_body_without_framing_ends_with_rst(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(b"GET / HTTP/1.0\r\n\r\n")
    upstream = await wired.upstream.accept()
    await upstream.head()
    upstream.send(CHUNKED_OK + b"5\r\nhello\r\n")
    await caller.take(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")

    upstream.finish()
    await caller.until(lambda: caller.closed, "the end")
    assert caller.was_reset


async def test_a_body_that_only_a_reset_ends_is_cut(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    upstream.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
    await caller.take(CHUNKED_OK + b"5\r\nhello\r\n")

    upstream.reset()
    assert await caller.take_all() == b""
    assert wired.refusals == {"upstream_reset": 1}


# --- requests that are answered early


async def test_an_answer_to_an_unfinished_upload_is_passed_on(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello"
    )
    upstream.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")

    answer = await caller.answer()
    assert (answer.status, answer.body) == (413, b"no")
    await upstream.until(lambda: upstream.ended, "the end of the upload")


async def test_a_connection_goes_on_after_the_rest_of_a_short_upload(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello"
    )
    upstream.send(OK)
    await caller.take(OK)

    caller.send(bytes(95) + GET)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)


async def test_the_rest_of_an_upload_that_does_not_come_ends_the_connection(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello"
    )
    upstream.send(OK)
    await caller.take(OK)

    wired.pass_time(2.1)
    assert await caller.take_all() == b""


async def test_a_long_upload_that_is_answered_early_ends_its_connection(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello"
    )
    upstream.send(OK)

    await caller.take(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    # FIN comes first, so that what the caller still sends cannot destroy the answer by RST.
    assert await caller.take_all() == b""
    caller.send(bytes(1_000_000))
    await wired.until(lambda: caller.unsent == 0, "the rest of the upload")
    assert not caller.closed


async def test_an_answer_sent_before_a_reset_reaches_the_uploading_caller(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"
    )
    upstream.pause()
    for _ in range(8):
        caller.send(bytes(MEGABYTE))
    for _ in range(200):
        await wired.plane_turn()
    upstream.send(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
    upstream.close()  # With bytes unread: the kernel sends RST after the answer.

    answer = await caller.answer()
    assert (answer.status, answer.body) == (413, b"no")


# --- Expect


async def test_a_100_is_asked_for_and_relayed_end_to_end(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    upstream = await wired.upstream.accept()
    assert b"\r\nExpect: 100-continue\r\n" in await upstream.head()
    assert caller.received == b""

    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await caller.take(b"HTTP/1.1 100 Continue\r\n\r\n")
    caller.send(b"hello")
    await upstream.take(b"hello")
    upstream.send(OK)
    await caller.take(OK)
    assert (await _again(wired, caller, upstream)) == 200


async def test_a_refusal_instead_of_a_100_ends_the_connection(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    upstream.send(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")

    # What comes next could be the body or the next request: nobody knows.
    await caller.take(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert await caller.take_all() == b""


@pytest.mark.parametrize("number", [102, 103])
async def test_a_1xx_of_another_kind_is_no_100(wired: Wired, number: int) -> None:
    caller, upstream = await begin(
        wired, b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    hint = b"HTTP/1.1 %d Hint\r\n\r\n" % number
    upstream.send(hint)
    await caller.take(hint)
    upstream.send(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")

    await caller.take(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert await caller.take_all() == b""


async def test_a_connection_goes_on_after_a_100_and_an_early_answer(wired: Wired) -> None:
    caller, upstream = await begin(
        wired, b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    await caller.take(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    # The caller owes the body, and sends it.
    caller.send(b"hello" + GET)
    await (await wired.upstream.accept()).serve(OK)
    await caller.take(OK)


async def test_a_body_that_did_not_wait_for_the_100_is_passed_on(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    )
    upstream = await wired.upstream.accept()
    assert (await upstream.request()).body == b"hello"
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    await caller.take(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)


# --- pipelining


async def test_pipelined_requests_are_answered_one_after_the_other(wired: Wired) -> None:
    caller = await wired.caller()
    caller.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(3)))
    upstream = await wired.upstream.accept()

    for number in range(3):
        assert (await upstream.head()).startswith(b"GET /%d " % number)
        assert upstream.received == b""
        body = b"%d" % number
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)
        assert (await caller.answer()).body == body


async def test_pipelined_requests_are_not_read_without_bound(wired: Wired) -> None:
    caller, upstream = await begin(wired, GET)
    for _ in range(64):
        caller.send(GET * (MEGABYTE // len(GET)))
    standing = await wired.standstill(lambda: caller.unsent)
    assert standing > 32 * MEGABYTE

    # A caller whose requests are not read is only missed when it is written to.
    wired.upstream.automatic = OK
    upstream.send(OK)
    await caller.take(OK * 10)
