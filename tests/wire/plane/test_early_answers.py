"""Answers that an upstream gives before it has read the upload, behind which RST follows.

RFC 9112, 9.5 and 9.6: a client reads on when writing fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import hpack
import pytest

from proxy.config.model import Protocol, Upstream
from tests.fakes import tls
from tests.fakes.framed import END_HEADERS, END_STREAM, POST, frame
from tests.fakes.framed_world import frame_caller
from tests.fakes.raw import RawCaller
from tests.fakes.rude import RudeUpstream
from tests.fakes.wired import Wired

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
MORE = bytes(1000)
ANSWERS = {
    "a length": b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno",
    "chunks": b"HTTP/1.1 413 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    "the close announced": b"HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
    "a 100 before": b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno",
}


@pytest.fixture(params=["plain", "tls"])
async def upstream(
    request: pytest.FixtureRequest, tmp_path: Path, wired: Wired
) -> AsyncIterator[RudeUpstream]:
    """An upstream that is the proxy's only one."""
    secure = request.param == "tls"
    context = tls.server_context(alpn=("h2", "http/1.1")) if secure else None
    with RudeUpstream(context) as rude:
        host = "localhost" if secure else "127.0.0.1"
        await wired.serve(
            upstream=Upstream("https" if secure else "http", host, rude.port),
            ca_file=tls.ca_file(tmp_path) if secure else None,
        )
        yield rude


def hand_in(wired: Wired, data: bytes) -> Callable[[], None]:
    """Return what gives the proxy `data` of its only caller, as its transport does."""
    (connection,) = wired.plane.connections
    return lambda: connection.data_received(data)  # type: ignore[attr-defined]  # both codecs have it


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_read_when_writing_the_upload_fails(
    wired: Wired, upstream: RudeUpstream, answer: bytes
) -> None:
    caller = await wired.caller()
    caller.send(HEAD)
    await upstream.accept(b"\r\n\r\n")
    await upstream.fill(lambda: caller.send(MORE))
    await upstream.break_off(answer, hand_in(wired, MORE))

    got = await final_answer(caller)
    assert (got, wired.refusals) == ((int(answer.split(b"HTTP/1.1 ")[-1][:3]), b"no"), {})


async def final_answer(caller: RawCaller) -> tuple[int, bytes]:
    """Return status and body of the first answer that is no 1xx."""
    answer = await caller.answer()
    if answer.status == 100:
        answer = await caller.answer()
    return answer.status, answer.body


async def test_a_caller_in_frames_gets_it_too(wired: Wired, upstream: RudeUpstream) -> None:
    await wired.serve(
        upstream=wired.config.routes[0].first.upstream,
        ca_file=wired.config.routes[0].ca_file,
        protocol=Protocol.H1,
    )
    async with await frame_caller(wired) as caller:
        caller.send_headers(1, (*POST, ("content-length", "100000")))
        await upstream.accept(b"\r\n\r\n")
        await upstream.fill(lambda: caller.send_data(1, MORE))
        await upstream.break_off(ANSWERS["a length"], hand_in(wired, frame("DATA", 1, 0, MORE)))

        seen = await caller.finished(1)
        assert (seen.status, bytes(seen.body), seen.reset) == (413, b"no", "NO_ERROR")
    assert wired.refusals == {}


async def test_an_answer_in_frames_is_read_too(wired: Wired, upstream: RudeUpstream) -> None:
    await wired.serve(
        upstream=wired.config.routes[0].first.upstream,
        ca_file=wired.config.routes[0].ca_file,
        protocol=Protocol.H2,
    )
    caller = await wired.caller()
    caller.send(HEAD)
    greeting = frame("SETTINGS") + frame("SETTINGS", 0, 1)
    # Up to the header of the frame that opens the stream.
    await upstream.accept(b"\x01\x04\0\0\0\x01", greeting=greeting)
    await upstream.fill(lambda: caller.send(MORE))
    block = hpack.Encoder().encode([(":status", "413"), ("content-length", "2")])
    answer = frame("HEADERS", 1, END_HEADERS, block) + frame("DATA", 1, END_STREAM, b"no")
    await upstream.break_off(answer, hand_in(wired, MORE))

    assert await final_answer(caller) == (413, b"no")
    assert wired.refusals == {}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 413 No\r\nContent-Le"])
async def test_without_an_answer_it_is_a_reset(
    wired: Wired, upstream: RudeUpstream, answer: bytes
) -> None:
    caller = await wired.caller()
    caller.send(HEAD)
    await upstream.accept(b"\r\n\r\n")
    await upstream.fill(lambda: caller.send(MORE))
    await upstream.break_off(answer, hand_in(wired, MORE))

    assert (await caller.answer()).values("x-auth-proxy-error") == ["upstream_reset"]


async def test_a_part_of_an_answer_is_passed_on_and_cut(
    wired: Wired, upstream: RudeUpstream
) -> None:
    caller = await wired.caller()
    caller.send(HEAD)
    await upstream.accept(b"\r\n\r\n")
    await upstream.fill(lambda: caller.send(MORE))
    part = b"HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nno"
    await upstream.break_off(part, hand_in(wired, MORE))

    assert (await caller.take_all()).endswith(b"\r\n\r\nno")
    assert wired.refusals == {"upstream_reset": 1}


async def test_the_last_words_of_a_tunnel_are_passed_on(
    wired: Wired, upstream: RudeUpstream
) -> None:
    caller = await wired.caller()
    caller.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n")
    await upstream.accept(b"\r\n\r\n")
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
    upstream.say(switch)
    await caller.take(switch)
    await upstream.fill(lambda: caller.send(MORE))
    await upstream.break_off(b"too much", hand_in(wired, MORE))

    assert await caller.take_all() == b"too much"
