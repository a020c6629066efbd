"""What a gRPC client is told when its call fails on the way; services that are short of streams."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from proxy.emulator.faults import Answer
from proxy.emulator.metadata import MetadataServer
from proxy.emulator.service import ProtectedService
from tests.fakes import leaks
from tests.fakes.envoy import EnvoyServer
from tests.fakes.framed import FramedUpstream
from tests.fakes.grpc_service import OPTIONS, SERVICE, GrpcService, request
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies

MANY = 250


def config(**route: Any) -> str:
    return json.dumps(
        {"listen": "127.0.0.1:0", "admin": "off", "routes": {"default": {"auth": "none", **route}}}
    )


async def fails(proxy: Program, method: str = "EmptyCall", given: bytes = b"") -> grpc.RpcError:
    """Make a call that must fail, and return how."""

    def call() -> grpc.RpcError:
        with grpc.insecure_channel(proxy.listeners[0], options=OPTIONS) as channel:
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(SERVICE + method)(given, timeout=20)
            metadata = failed.value.initial_metadata(), failed.value.trailing_metadata()
            leaks.look("what gRPC was answered", repr((failed.value.details(), metadata)))
            return failed.value

    return await asyncio.to_thread(call)


def told(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason, which must stand in the message too."""
    reason = dict(error.trailing_metadata() or error.initial_metadata())["x-auth-proxy-error"]
    assert f"[{reason}]" in error.details()
    return error.code(), reason


async def test_a_token_that_cannot_be_had_is_unavailable(
    proxies: Proxies, metadata: MetadataServer, service: ProtectedService
) -> None:
    metadata.inject(Answer(status=404, body="there is no such account"), times=math.inf)
    proxy = await proxies.to(service)

    error = await fails(proxy)

    assert told(error) == (grpc.StatusCode.UNAVAILABLE, "token_unavailable")


async def test_a_service_that_is_not_there_is_unavailable(proxies: Proxies) -> None:
    with GrpcService() as service:
        url = service.url
    proxy = await proxies.run(config(upstream=url))

    error = await fails(proxy)

    assert told(error) == (grpc.StatusCode.UNAVAILABLE, "upstream_connect_failed")
    assert f"Nothing listens at {url.removeprefix('http://')} " in error.details()


async def test_a_method_that_no_route_takes_is_unimplemented(proxies: Proxies) -> None:
    proxy = await proxies.run(config(upstream="http://127.0.0.1:9", path="/orders.Orders"))

    assert told(await fails(proxy)) == (grpc.StatusCode.UNIMPLEMENTED, "route_not_found")


async def test_a_service_that_takes_too_long_is_a_deadline(proxies: Proxies) -> None:
    with GrpcService() as service:
        proxy = await proxies.run(config(upstream=service.url, timeouts={"response": "200ms"}))

        error = await fails(proxy, "UnaryCall", request(sleep=30))

        assert told(error) == (grpc.StatusCode.DEADLINE_EXCEEDED, "upstream_timed_out")


async def test_a_message_that_is_too_large_is_resource_exhausted(proxies: Proxies) -> None:
    with GrpcService() as service:
        proxy = await proxies.run(config(upstream=service.url, limits={"body_bytes": "64KiB"}))

        error = await fails(proxy, "UnaryCall", request(100_000))

        assert told(error) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "body_too_large")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("401", grpc.StatusCode.UNAUTHENTICATED),
        ("403", grpc.StatusCode.PERMISSION_DENIED),
        ("404", grpc.StatusCode.UNIMPLEMENTED),
        ("429", grpc.StatusCode.UNAVAILABLE),
        ("503", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_page_of_google_s_front_end_passes_through(
    proxies: Proxies, status: str, code: grpc.StatusCode
) -> None:
    """It is HTML without a grpc-status: grpcio makes a code of the HTTP status."""
    front = FramedUpstream()
    await front.start()
    proxy = await proxies.run(config(upstream=f"http://127.0.0.1:{front.port}"))
    failing = asyncio.ensure_future(fails(proxy))
    connection = await front.accept()
    await connection.request(1)

    head = ((":status", status), ("content-type", "text/html; charset=UTF-8"))
    connection.answer(1, b"<html><title>Error</title></html>", head)

    error = await failing
    assert (error.code(), error.trailing_metadata()) == (code, ())
    await front.stop()


async def test_a_hundred_streams_a_connection_are_enough_for_everybody(proxies: Proxies) -> None:
    with GrpcService(options=[("grpc.max_concurrent_streams", 100)]) as service:
        proxy = await proxies.run(config(upstream=service.url))

        assert await many(proxy) == [number % 100 for number in range(MANY)]


async def test_envoy_as_a_service_that_allows_a_hundred_streams(proxies: Proxies) -> None:
    with GrpcService() as service:
        async with EnvoyServer(service.port) as envoy:
            proxy = await proxies.run(config(upstream=envoy.url))

            assert await many(proxy) == [number % 100 for number in range(MANY)]
            error = await fails(proxy, "UnaryCall", request(code=9, message="grüße ☺"))
            assert (error.code().value[0], error.details()) == (9, "grüße ☺")
            assert await large(proxy, 5_000_000) == 5_000_000


async def many(proxy: Program) -> list[int]:
    """Make many calls at once and return the sizes of their answers."""

    def call() -> list[int]:
        with grpc.insecure_channel(proxy.listeners[0], options=OPTIONS) as channel:
            unary = channel.unary_unary(SERVICE + "UnaryCall")
            pending = [
                unary.future(request(size=number % 100, sleep=0.05)) for number in range(MANY)
            ]
            return [len(one.result(timeout=30)) for one in pending]

    return await asyncio.to_thread(call)


async def large(proxy: Program, size: int) -> int:
    """Make a call whose messages have so many bytes, and return what came."""

    def call() -> int:
        with grpc.insecure_channel(proxy.listeners[0], options=OPTIONS) as channel:
            return len(channel.unary_unary(SERVICE + "UnaryCall")(request(size, size=size)))

    return await asyncio.to_thread(call)


async def test_a_drain_lets_calls_end_and_begins_no_others(proxies: Proxies) -> None:
    """SIGTERM in the middle of a stream: the stream ends by itself, and the process with it."""
    with GrpcService() as service:
        proxy = await proxies.run(config(upstream=service.url))

        def call() -> list[int]:
            with grpc.insecure_channel(proxy.listeners[0], options=OPTIONS) as channel:
                stream = channel.unary_stream(SERVICE + "StreamingOutputCall")
                answers = stream(request(sizes=[1, 2, 3], sleep=0.3))
                first = len(next(answers))
                proxy.signal(signal.SIGTERM)
                return [first, *map(len, answers)]

        assert await asyncio.to_thread(call) == [1, 2, 3]
        assert await proxy.exit_code() == 0


async def test_a_unix_socket_serves_grpc(proxies: Proxies, tmp_path: Path) -> None:
    with GrpcService() as service:
        path = tmp_path / "proxy.sock"
        document = json.loads(config(upstream=service.url)) | {"listen": f"unix:{path}"}
        await proxies.run(json.dumps(document))

        def call() -> bytes:
            with grpc.insecure_channel(f"unix:{path}", options=OPTIONS) as channel:
                answer: bytes = channel.unary_unary(SERVICE + "EmptyCall")(b"")
                return answer

        assert await asyncio.to_thread(call) == b""
