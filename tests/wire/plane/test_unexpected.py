"""An exception anywhere in the data path costs its exchange, and nothing else.

Memory that cannot be had is such an exception, and can come from any line.  So it is raised here at
one call of an exchange after the other.  Whatever the call: the caller is answered, or cut; nothing
it gets is another's or has a hole; nothing is left in flight or counted; and others are served.

`AUTH_PROXY_TEST_STEP=1` fails every call, not only every third.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

import pytest

import proxy
from proxy.config.model import Auth, Protocol, Timeouts
from tests.fakes.framed import GET as GET_IN_FRAMES
from tests.fakes.framed import FramedCaller, FramedUpstream
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import RawCaller
from tests.fakes.wired import Wired

pytestmark = [
    pytest.mark.pure,
    pytest.mark.timeout(300),
    # A step that does not begin, because its task could not be made.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STEP = int(os.environ.get("AUTH_PROXY_TEST_STEP", "3"))
ROOT = str(Path(proxy.__file__).parent)

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = bytes(range(251)) * 2500
"""More than one turn takes, and no piece of it is like another."""
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
PIECE = BODY[:100_000]
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
    (b"%x\r\n" % len(PIECE), PIECE, b"\r\n", b"%x\r\n" % len(PIECE), PIECE, b"\r\n0\r\n\r\n")
)

SPARED = {
    "Exchange.start", "Exchange._guarded", "Http1Upstream.is_closed", "Http1Upstream.is_quiet",
    "Turns._go_on", "Turns._read_on", "Endpoint.flush", "Batch.end",
    "Fetch.start.<locals>.<lambda>",
    "Fetch._ended", "Fetch.seconds", "TokenCache._ended", "State.is_fetching", "Waiters.wake",
    "_resolve", "watched", "polling",
}  # fmt: skip
"""Calls that are not failed as such: they come between what belongs together and need next to no
memory themselves, or hold what handles the failure of all that they call."""


class Trap:
    """A profiler that raises MemoryError at one call of the program, counted from 1."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.where = ""
        """The call that failed, once one has."""

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        del arg
        code = frame.f_code
        if event != "call" or self.where or not code.co_filename.startswith(ROOT):
            return
        if code.co_qualname in SPARED:
            return
        self._left -= 1
        if self._left == 0:
            self.where = f"{code.co_qualname}, line {frame.f_lineno}"
            raise MemoryError

    async def watch(self, work: Awaitable[None]) -> None:
        """Have it raise while `work` is done."""
        sys.setprofile(self)
        try:
            await work
        finally:
            sys.setprofile(None)


async def _raw(caller: RawCaller, request: bytes) -> None:
    """Send a request, and wait until there is a whole answer, or the end."""
    caller.send(request)
    await caller.until(
        lambda: caller.ended or caller.closed or _is_whole(bytes(caller.received)), "an answer"
    )


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(found) and (
        body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])
    )


def _check(data: bytes, answer: bytes) -> None:
    """Fail unless it is the upstream's answer, a beginning of it, or an error of the proxy's."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"x-auth-proxy-error: " in head.lower():
        assert head.split()[1] in {b"400", b"500", b"502", b"503", b"504"}, head
        return
    expected = answer.partition(b"\r\n\r\n")[2]
    if b"chunked" in answer[:60]:
        expected = _unchunked(expected)
    if b"chunked" in head:
        body = _unchunked(body)
    assert not data or head.startswith(b"HTTP/1.1 200 OK"), data[:80]
    assert expected.startswith(body), "what came has a hole"


def _unchunked(data: bytes) -> bytes:
    """Return what has come of a body in chunks, which may be cut anywhere."""
    body = b""
    while (found := re.match(rb"([0-9a-f]+)\r\n", data)) is not None:
        start, size = found.end(), int(found[1], 16)
        body += data[start : start + size]
        data = data[start + size + 2 :]
    return body


async def _settled(wired: Wired, quiet: Callable[[], object]) -> None:
    await wired.until(lambda: not wired.plane.exchanges, "the end of the exchanges")
    await wired.until(quiet, "the end of busy connections")
    assert wired.route_stats.in_flight == 0
    # It was logged and told to the loop, as it should.
    wired._failures.clear()
    wired._complaints.records.clear()


TIMEOUTS = Timeouts(connect=0.5)


async def _http1(trap: Trap, request: bytes, answer: bytes, *, warm: bool) -> None:
    async with Wired(automatic=answer) as wired:
        await wired.serve(auth=Auth.ID_TOKEN, timeouts=TIMEOUTS)
        async with await wired.connect() as caller, await wired.connect() as other:
            if warm:
                wired.upstream.automatic = OK
                await caller.ask(GET)
                await other.ask(GET)
                caller.history.clear()
                wired.upstream.automatic = answer
            await trap.watch(_raw(caller, request))
            _check(bytes(caller.history), answer)
            wired.upstream.automatic = OK
            wired.time.steady += 60.0  # The pause after a fetch that has failed.
            assert (await other.ask(GET)).status == 200
        await _settled(wired, lambda: wired.connections.busy == 0)


async def _http2(trap: Trap, *, in_frames: bool) -> None:
    upstream = FramedUpstream(automatic=b"ok")
    async with Framed(upstream, auth=Auth.ID_TOKEN, protocol=Protocol.H2) as it:
        async with await frame_caller(it) as caller, await it.connect() as plain:
            assert (await caller.ask(1)).status == 200
            assert (await plain.ask(GET)).status == 200
            plain.history.clear()
            await trap.watch(_framed(caller) if in_frames else _raw(plain, GET))
            _check(bytes(plain.history), OK)
        async with await frame_caller(it) as other:
            assert (await other.ask(1)).status == 200
        await _settled(it, lambda: it.connections.busy == 0)


async def _framed(caller: FramedCaller) -> None:
    caller.send_headers(3, GET_IN_FRAMES, end=True)

    def has_ended() -> bool:
        seen = caller.streams.get(3)
        return seen is not None and seen.done

    await caller.until(lambda: caller.ended or caller.closed or has_ended(), "an answer")


SCENES: dict[str, Callable[[Trap], Awaitable[None]]] = {
    "GET": lambda trap: _http1(trap, GET, OK, warm=True),
    "POST": lambda trap: _http1(trap, POST, OK, warm=True),
    "POST in chunks": lambda trap: _http1(trap, CHUNKS, OK, warm=True),
    "long answer": lambda trap: _http1(trap, GET, LONG, warm=True),
    "answer in chunks": lambda trap: _http1(trap, GET, IN_CHUNKS, warm=True),
    "first call": lambda trap: _http1(trap, GET, OK, warm=False),
    "frames": lambda trap: _http2(trap, in_frames=True),
    "HTTP/1.1 to frames": lambda trap: _http2(trap, in_frames=False),
}


@pytest.mark.parametrize("scene", SCENES)
async def test_an_exception_at_any_call_costs_its_exchange_alone(scene: str) -> None:
    at, failed = 1, 0
    while True:
        trap = Trap(at)
        try:
            await SCENES[scene](trap)
        except BaseException as error:
            error.add_note(f"call {at}: {trap.where}")
            raise
        if not trap.where:
            break
        at, failed = at + STEP, failed + 1
    assert failed > 40 // STEP
