"""gRPC on both sides of a contender: grpcio serves, grpcio calls.  Run as a script of its own.

    python -m tests.bench.grpc_peers serve [CERTIFICATE KEY]
    python -m tests.bench.grpc_peers call HOST:PORT METHOD CALLS SECONDS

`serve` prints its port; `call` prints one line of JSON for each second, then ends.
"""

from __future__ import annotations

import asyncio
import json
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

# One connection for all calls, as a channel has by default.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def _answer(_: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("x-cost", "1"),))
    return MESSAGE


async def _stream(_: bytes, __: Any) -> AsyncIterator[bytes]:
    for _number in range(STREAMED):
        yield MESSAGE


class _Orders(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def service(self, details: Any) -> Any:
        if details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(_answer)
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(_stream)
        return None


async def serve(certificate: list[str]) -> None:
    """Serve until stdin ends."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 100)])
    server.add_generic_rpc_handlers((_Orders(),))
    if certificate:
        chain, key = (Path(file).read_bytes() for file in certificate)
        credentials = grpc.ssl_server_credentials([(key, chain)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def call(address: str, method: str, calls: int, seconds: float) -> None:
    """Keep so many calls in flight, and say once a second how many were answered."""
    done = 0
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        unary = channel.unary_unary(method)
        stream = channel.unary_stream(method)

        async def keep_calling() -> None:
            nonlocal done
            while (began := time.perf_counter()) < until:
                if method == UNARY:
                    await unary(MESSAGE)
                    done += 1
                else:
                    async for _ in stream(MESSAGE):
                        done += 1
                latencies.append(time.perf_counter() - began)

        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                group.create_task(keep_calling())
            while time.perf_counter() < until:
                await asyncio.sleep(min(1.0, max(until - time.perf_counter(), 0)))
                p50 = sorted(latencies)[len(latencies) // 2] * 1000 if latencies else 0
                print(json.dumps({"done": done, "p50_ms": p50}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(sys.argv[2:]))
    else:
        asyncio.run(call(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
