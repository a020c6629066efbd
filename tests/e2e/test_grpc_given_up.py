"""Calls that grpcio gives up: those that mean no harm are not taken for an attack.

A stream that has gone on since the beginning shows that the connection was not ended.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.fakes.framed import FramedUpstream
from tests.fakes.grpc_service import OPTIONS, SERVICE, GrpcService, request
from tests.fakes.proxies import Proxies

SILENT = "/silent.Service/Call"


class Going:
    """A stream that answers each message, for as long as the context lasts."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._turn = threading.Semaphore(0)
        self._ended = False
        self._answers = channel.stream_stream(f"{SERVICE}FullDuplexCall")(self._messages())

    def _messages(self) -> Iterator[bytes]:
        while self._turn.acquire() and not self._ended:
            yield request(sizes=[7])

    def goes_on(self) -> bool:
        """Whether another message is answered."""
        self._turn.release()
        try:
            return len(next(self._answers)) == 7
        except grpc.RpcError:
            return False

    def end(self) -> None:
        self._ended = True
        self._turn.release()
        self._answers.cancel()


@asynccontextmanager
async def calling(
    proxies: Proxies, resets: int | None = None
) -> AsyncIterator[Callable[[Callable[[grpc.Channel, Going], Any]], Any]]:
    """Yield what runs a function beside the loop, with a channel and a stream that goes on in it.

    Behind the proxy are a service, and one that never answers.
    """
    async with AsyncExitStack() as stack:
        service = stack.enter_context(GrpcService())
        silent = FramedUpstream()
        await silent.start()
        stack.push_async_callback(silent.stop)
        limits = {} if resets is None else {"limits": {"resets": resets}}
        routes = {
            "service": {"upstream": service.url, "path": SERVICE.rstrip("/"), **limits},
            "silent": {"upstream": f"http://127.0.0.1:{silent.port}", **limits},
        }
        document = {"listen": "127.0.0.1:0", "admin": "off", "routes": routes}
        proxy = await proxies.run(json.dumps(document))

        def run(act: Callable[[grpc.Channel, Going], Any]) -> Any:
            with grpc.insecure_channel(proxy.listeners[0], options=OPTIONS) as channel:
                stream = Going(channel)
                try:
                    assert stream.goes_on()
                    return act(channel, stream)
                finally:
                    stream.end()

        yield lambda act: asyncio.to_thread(run, act)


async def test_streams_that_were_heard_for_a_while_count_for_nothing(proxies: Proxies) -> None:
    def listen(channel: grpc.Channel, stream: Going) -> bool:
        output = channel.unary_stream(f"{SERVICE}StreamingOutputCall")
        for _ in range(300):
            heard = output(request(sizes=[10], sleep=20))
            assert len(next(heard)) == 10
            heard.cancel()
        return stream.goes_on()

    async with calling(proxies, resets=1) as run:
        assert await run(listen)


def reach_deadlines(channel: grpc.Channel, number: int) -> Counter[str]:
    """Make so many calls together that nobody answers; return how they ended."""
    call = channel.unary_unary(SILENT)
    pending = [call.future(b"", timeout=0.5) for _ in range(number)]
    return Counter(one.code().name for one in pending)


async def test_all_calls_may_reach_their_deadline_together(proxies: Proxies) -> None:
    """An upstream that hangs: all that a connection can have under way, twice."""

    def wait(channel: grpc.Channel, stream: Going) -> Counter[str]:
        ended = reach_deadlines(channel, 990) + reach_deadlines(channel, 900)
        assert stream.goes_on()
        return ended

    async with calling(proxies) as run:
        assert await run(wait) == {"DEADLINE_EXCEEDED": 1890}


@pytest.mark.parametrize(("number", "is_cut"), [(50, False), (60, True)])
async def test_beyond_the_limit_the_connection_ends(
    proxies: Proxies,
    number: int,
    is_cut: bool,  # noqa: FBT001 (parametrized)
) -> None:
    """What the stream was sent pays for a few: so the numbers around the limit are not exact."""

    def wait(channel: grpc.Channel, stream: Going) -> bool:
        reach_deadlines(channel, number)
        return stream.goes_on()

    async with calling(proxies, resets=50) as run:
        assert await run(wait) is not is_cut
