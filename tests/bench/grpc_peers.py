"""gRPC on both sides of a contender: grpcio serves, grpcio calls.  Run as a script of its own.

    python -m tests.bench.grpc_peers serve PORT [CERTIFICATE KEY]
    python -m tests.bench.grpc_peers token HOST:PORT
    python -m tests.bench.grpc_peers call HOST:PORT METHOD CALLS

`serve` ends by a signal; `token` prints the identity header that arrives; `call` keeps calling
until its stdin ends, and answers each line there with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

MESSAGE = b"\x0a\x08espresso\x10\x02" * 8
STREAMED = 100
UNARY = "/bench.Orders/Get"
STREAM = "/bench.Orders/List"
TOKEN = "/bench.Orders/Token"

# Seconds within which a contender must have brought its first answer.
_PATIENCE = 15.0

# One connection for all calls, as a channel has by default.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def _answer(_: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-cost", "1"),))
    return MESSAGE


async def _token(_: bytes, context: Any) -> bytes:
    """Return what arrived as identity header: the proof that a contender does its work."""
    said = dict(context.invocation_metadata())
    return str(said.get("x-serverless-authorization", "")).encode()


async def _stream(_: bytes, __: Any) -> AsyncIterator[bytes]:
    for _number in range(STREAMED):
        yield MESSAGE


class _Orders(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def service(self, details: Any) -> Any:
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(_stream)
        methods = {UNARY: _answer, TOKEN: _token}
        method = methods.get(details.method)
        return method and grpc.unary_unary_rpc_method_handler(method)


async def serve(port: str, certificate: list[str]) -> None:
    """Serve for ever."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 100)])
    server.add_generic_rpc_handlers((_Orders(),))
    address = f"127.0.0.1:{port}"
    if certificate:
        chain, key = (Path(file).read_bytes() for file in certificate)
        server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    else:
        server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


async def token(address: str) -> bytes:
    """Return the identity header that arrives, once a call is answered at all."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        call = channel.unary_unary(TOKEN)
        until = time.perf_counter() + _PATIENCE
        while True:
            try:
                return bytes(await call(b"", wait_for_ready=True, timeout=_PATIENCE))
            except grpc.aio.AioRpcError:
                if time.perf_counter() > until:
                    raise
                await asyncio.sleep(0.05)


class _Caller:
    """So many calls at once, again and again."""

    def __init__(self, channel: Any, method: str) -> None:
        self.done = 0
        """Answers so far; of a stream, messages."""
        self._unary = channel.unary_unary(method)
        self._stream = channel.unary_stream(method)
        self._streams = method == STREAM
        self._latencies: list[float] = []

    async def keep_calling(self) -> None:
        """Call until the task is cancelled."""
        while True:
            began = time.perf_counter()
            if self._streams:
                async for _ in self._stream(MESSAGE):
                    self.done += 1
            else:
                await self._unary(MESSAGE)
                self.done += 1
            self._latencies.append(time.perf_counter() - began)

    def report(self) -> str:
        """Return what was done since the beginning, and how long calls took since the last time."""
        p50 = statistics.median(self._latencies) if self._latencies else 0.0
        self._latencies.clear()
        return json.dumps({"done": self.done, "p50_ms": p50 * 1000, "at": time.perf_counter()})


async def call(address: str, method: str, calls: int) -> None:
    """Keep so many calls in flight; a single one that fails ends it."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        caller = _Caller(channel, method)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(caller.keep_calling()) for _ in range(calls)]
            while await asyncio.to_thread(sys.stdin.readline):
                print(caller.report(), flush=True)
            for task in tasks:
                task.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(sys.argv[2], sys.argv[3:]))
    elif sys.argv[1] == "token":
        print(asyncio.run(token(sys.argv[2])).decode())
    else:
        asyncio.run(call(sys.argv[2], sys.argv[3], int(sys.argv[4])))
