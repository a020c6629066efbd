"""An answer that comes in one piece is served as one that comes byte by byte."""

from __future__ import annotations

import logging

import pytest

from proxy.config.model import Limits, Retries
from tests.fakes.cutting import Cuts, bytewise, whole
from tests.fakes.raw import first_message
from tests.fakes.wired import Wired

REQUESTS = {
    "1.1": b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "1.1 that closes": b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "1.1 HEAD": b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "1.0": b"GET /a HTTP/1.0\r\n\r\n",
    "1.0 that stays": b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
ANSWERS = {
    "a length": b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello",
    "a length, then the end": CLOSING + b"Content-Length: 2\r\n\r\nok",
    "length 0": b"HTTP/1.1 201 \r\nContent-Length: 0\r\n\r\n",
    "chunks": CHUNKED + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
    "no chunks": CHUNKED + b"0\r\n\r\n",
    "trailers": CHUNKED + b"1\r\na\r\n0\r\nX-T: 1\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    "304": b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 7\r\n\r\n',
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone",
}


def _answer_to(request: bytes, answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.startswith(b"HEAD") else answer


async def _outcome(
    request: bytes, answer: bytes, cuts: Cuts, caplog: pytest.LogCaptureFixture
) -> dict[str, object]:
    """Return what can be known of one exchange, from both sides and in the numbers."""
    bodyless = request.startswith(b"HEAD") or answer.split()[1] in {b"204", b"304"}
    caplog.clear()
    async with Wired(automatic=_answer_to(request, answer)) as wired:
        await wired.serve()
        wired.cut_responses(cuts)
        caller = await wired.caller()
        caller.send(request)
        await caller.until(
            lambda: caller.ended or first_message(bytes(caller.received), bodyless=bodyless), "all"
        )
        if b"\r\nConnection: close" in caller.received:
            await caller.until(lambda: caller.ended, "the end")
        raw = bytes(caller.received)
        message = first_message(raw, bodyless=bodyless)
        chunked = b"Transfer-Encoding: chunked" in raw
        stats = wired.route_stats
        return {
            "head": raw.partition(b"\r\n\r\n")[0],
            "body": message.body if chunked and message else raw.partition(b"\r\n\r\n")[2],
            "trailers": message.trailers if chunked and message else b"",
            "ended": caller.ended,
            "requests": dict(stats.requests),
            "bytes": stats.response_bytes,
            "timed": (stats.duration.count, stats.upstream_head.count),
            "in flight": stats.in_flight,
            "upstream": wired.connections,
            "logged": [vars(record)["http"]["response_bytes"] for record in caplog.records
                       if record.name == "proxy.access"],
        }  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_it_makes_no_difference(
    request_: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "proxy.access"):
        at_once = await _outcome(request_, answer, whole, caplog)
        in_pieces = await _outcome(request_, answer, bytewise, caplog)

    assert at_once == in_pieces
    assert at_once["timed"] == (1, 1)
    assert at_once["logged"] == [at_once["bytes"]]


async def test_a_callers_keep_alive_is_granted_as_http_1_0_has_it(wired: Wired) -> None:
    wired.upstream.automatic = ANSWERS["a length"]
    caller = await wired.caller()
    for _ in range(2):
        answer = await caller.ask(REQUESTS["1.0 that stays"])
        assert (answer.value("connection"), answer.body) == ("keep-alive", b"hello")


async def test_framing_that_is_too_long_is_refused_in_one_piece_too(wired: Wired) -> None:
    await wired.serve(limits=Limits(header_bytes=1024))
    extension = b";x=" + b"y" * 3000
    wired.upstream.automatic = CHUNKED + b"1%b\r\na\r\n0\r\n\r\n" % extension
    caller = await wired.caller()
    caller.send(REQUESTS["1.1"])
    assert not (await caller.take_all()).endswith(b"0\r\n\r\n")
    assert wired.refusals == {"upstream_malformed": 1}


async def test_nothing_of_an_answer_that_is_repeated_is_passed_on(wired: Wired) -> None:
    await wired.serve(retries=Retries(attempts=2, backoff=0.0))
    caller = await wired.caller()
    caller.send(REQUESTS["1.1"])
    upstream = await wired.upstream.accept()
    await upstream.request()
    upstream.send(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n")
    second = await wired.upstream_of_repeat(upstream)
    await second.request()
    second.send(ANSWERS["a length"])

    await caller.take(ANSWERS["a length"])
    assert wired.route_stats.response_bytes == 5
