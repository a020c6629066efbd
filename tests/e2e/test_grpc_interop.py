"""The interoperability cases of gRPC, by grpcio against grpcio: straight, and through the proxy.

(https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md)
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from proxy.emulator.metadata import MetadataServer
from tests.fakes import tls
from tests.fakes.grpc_service import (
    ECHO_INITIAL,
    ECHO_TRAILING,
    HEADER,
    OPTIONS,
    SERVICE,
    GrpcService,
    request,
)
from tests.fakes.proxies import Proxies

LARGE = 271_828, 314_159
SIZES = 31_415, 9, 2_653, 58_979
PADDING = 27_182, 8, 1_828, 45_904

Case = Callable[["Way"], None]


class Way:
    """A channel to the service, and the service that it leads to."""

    def __init__(self, address: str, service: GrpcService) -> None:
        self.service = service
        self.channel = grpc.insecure_channel(address, options=OPTIONS)

    def unary(self, method: str) -> Any:
        return self.channel.unary_unary(SERVICE + method)

    def output(self) -> Any:
        return self.channel.unary_stream(SERVICE + "StreamingOutputCall")

    def input(self) -> Any:
        return self.channel.stream_unary(SERVICE + "StreamingInputCall")

    def duplex(self, method: str = "FullDuplexCall") -> Any:
        return self.channel.stream_stream(SERVICE + method)


# One proxy per way for all cases: each starts a process.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(params=["direct", "h2c", "tls"], scope="module", loop_scope="module")
async def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Way]:
    async with AsyncExitStack() as stack:
        metadata = await stack.enter_async_context(MetadataServer())
        credentials = server_credentials() if request.param == "tls" else None
        keys = None if request.param == "direct" else metadata.keys
        service = stack.enter_context(GrpcService(credentials, keys=keys))
        address = service.address
        if request.param != "direct":
            service.audience = "https://orders.example"
            ca_file = tls.ca_file(tmp_path_factory.mktemp("ca"))
            proxy = await Proxies(metadata, stack).run(config(service, ca_file))
            address = proxy.listeners[0]
        made = Way(address, service)
        stack.callback(made.channel.close)
        yield made


@pytest.fixture
def way(opened: Way) -> Way:
    """Return a way on which nothing has been called."""
    opened.service.seen.clear()
    while opened.service.cancelled.acquire(blocking=False):
        pass
    return opened


def server_credentials() -> grpc.ServerCredentials:
    """Return credentials for a name that the tests' authority has signed."""
    leaf = tls.authority().issue_cert(*tls.LOOPBACK)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])


def config(service: GrpcService, ca_file: Path) -> str:
    route = {
        "upstream": service.url,
        "auth": "id_token",
        "audience": service.audience,
        "ca_file": str(ca_file),
    }
    return json.dumps({"listen": "127.0.0.1:0", "admin": "off", "routes": {"default": route}})


async def run(case: Case, way: Way) -> None:
    """Run a case beside the event loop, where the metadata server is."""
    await asyncio.to_thread(case, way)


def outcome(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    return error.code(), error.details()


# --- calls that succeed


async def test_empty_unary(way: Way) -> None:
    def case(way: Way) -> None:
        assert way.unary("EmptyCall")(b"") == b""

    await run(case, way)


async def test_large_unary(way: Way) -> None:
    def case(way: Way) -> None:
        assert len(way.unary("UnaryCall")(request(LARGE[0], size=LARGE[1]))) == LARGE[1]

    await run(case, way)


async def test_a_message_of_twenty_megabytes_each_way(way: Way) -> None:
    def case(way: Way) -> None:
        size = 20 * 1000 * 1000
        assert len(way.unary("UnaryCall")(request(size, size=size))) == size

    await run(case, way)


async def test_client_streaming(way: Way) -> None:
    def case(way: Way) -> None:
        assert way.input()(bytes(size) for size in PADDING) == b"%d" % sum(PADDING)

    await run(case, way)


async def test_server_streaming(way: Way) -> None:
    def case(way: Way) -> None:
        assert [len(one) for one in way.output()(request(sizes=SIZES))] == list(SIZES)

    await run(case, way)


async def test_ping_pong(way: Way) -> None:
    def case(way: Way) -> None:
        answered = threading.Semaphore(1)

        def ask() -> Iterator[bytes]:
            for size, padding in zip(SIZES, PADDING, strict=True):
                # The next request leaves when the answer to the last one is there.
                assert answered.acquire(timeout=10)
                yield request(padding, sizes=[size])

        sizes = []
        for one in way.duplex()(ask()):
            sizes.append(len(one))
            answered.release()
        assert sizes == list(SIZES)

    await run(case, way)


async def test_half_duplex_streaming(way: Way) -> None:
    def case(way: Way) -> None:
        asks = iter(
            [request(padding, sizes=[size]) for size, padding in zip(SIZES, PADDING, strict=True)]
        )
        assert [len(one) for one in way.duplex("HalfDuplexCall")(asks)] == list(SIZES)

    await run(case, way)


async def test_empty_stream(way: Way) -> None:
    def case(way: Way) -> None:
        assert list(way.duplex()(iter(()))) == []

    await run(case, way)


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages(way: Way, algorithm: grpc.Compression) -> None:
    def case(way: Way) -> None:
        call = way.unary("UnaryCall")
        assert len(call(request(LARGE[0], size=LARGE[1]), compression=algorithm)) == LARGE[1]

    await run(case, way)


async def test_custom_metadata(way: Way) -> None:
    sent = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, b"\xab\xab\xab\x00\xff"))

    def case(way: Way) -> None:
        _, call = way.unary("UnaryCall").with_call(request(), metadata=sent)
        assert call.initial_metadata()[0] == sent[0]
        assert call.trailing_metadata()[0] == sent[1]
        stream = way.duplex()(iter([request(sizes=[1])]), metadata=sent)
        assert stream.initial_metadata()[0] == sent[0]
        assert len(list(stream)) == 1
        assert stream.trailing_metadata()[0] == sent[1]

    await run(case, way)


async def test_initial_metadata_comes_before_the_first_message(way: Way) -> None:
    def case(way: Way) -> None:
        wait = threading.Event()

        def ask() -> Iterator[bytes]:
            wait.wait(10)
            yield request(sizes=[1])

        call = way.duplex()(ask(), metadata=((ECHO_INITIAL, "early"),))
        assert dict(call.initial_metadata())[ECHO_INITIAL] == "early"
        wait.set()
        assert len(list(call)) == 1

    await run(case, way)


async def test_repeated_and_long_metadata(way: Way) -> None:
    sent = (("x-a", "1"), ("x-a", "2"), ("x-long", "v" * 7000), ("x-b-bin", bytes(range(256))))

    def case(way: Way) -> None:
        way.unary("UnaryCall")(request(), metadata=sent)
        (seen,) = way.service.seen
        assert (seen["x-a"], seen["x-long"]) == (["1", "2"], ["v" * 7000])
        assert seen["x-b-bin"] == [bytes(range(256))]

    await run(case, way)


# --- calls that fail as the service says


async def test_status_code_and_message(way: Way) -> None:
    def case(way: Way) -> None:
        with pytest.raises(grpc.RpcError) as unary:
            way.unary("UnaryCall")(request(code=2, message="test status message"))
        with pytest.raises(grpc.RpcError) as stream:
            list(way.duplex()(iter([request(code=2, message="test status message")])))
        assert (
            outcome(unary.value)
            == outcome(stream.value)
            == (grpc.StatusCode.UNKNOWN, "test status message")
        )

    await run(case, way)


async def test_special_status_message(way: Way) -> None:
    message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"

    def case(way: Way) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            way.unary("UnaryCall")(request(code=2, message=message))
        assert outcome(failed.value) == (grpc.StatusCode.UNKNOWN, message)

    await run(case, way)


async def test_every_status_after_messages(way: Way) -> None:
    def case(way: Way) -> None:
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK:
                call = way.output()(request(sizes=[3, 4], code=code.value[0], message="late"))
                assert [len(next(call)), len(next(call))] == [3, 4]
                with pytest.raises(grpc.RpcError) as failed:
                    next(call)
                assert outcome(failed.value) == (code, "late")

    await run(case, way)


async def test_unimplemented_method(way: Way) -> None:
    def case(way: Way) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            way.unary("UnimplementedCall")(b"")
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED

    await run(case, way)


async def test_unimplemented_service(way: Way) -> None:
    def case(way: Way) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            way.channel.unary_unary("/interop.Unimplemented/Call")(b"")
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED

    await run(case, way)


# --- deadlines and cancellation


async def test_cancel_after_begin(way: Way) -> None:
    def case(way: Way) -> None:
        begun = threading.Event()

        def ask() -> Iterator[bytes]:
            begun.set()
            yield bytes(10)
            threading.Event().wait(0.2)

        call = way.input().future(ask(), metadata=(("x-a", "1"),))
        assert begun.wait(10)
        call.cancel()
        assert call.code() is grpc.StatusCode.CANCELLED

    await run(case, way)


async def test_cancel_after_first_response(way: Way) -> None:
    def case(way: Way) -> None:
        more = threading.Event()

        def ask() -> Iterator[bytes]:
            yield request(PADDING[0], sizes=[SIZES[0]])
            more.wait(10)

        call = way.duplex()(ask())
        assert len(next(call)) == SIZES[0]
        call.cancel()
        more.set()
        assert call.code() is grpc.StatusCode.CANCELLED
        # The service hears of it at once.
        assert way.service.cancelled.acquire(timeout=5)

    await run(case, way)


async def test_timeout_on_sleeping_server(way: Way) -> None:
    def case(way: Way) -> None:
        way.unary("EmptyCall")(b"")  # The connections are there, so that the call arrives.
        with pytest.raises(grpc.RpcError) as failed:
            list(way.duplex()(iter([request(PADDING[0], sleep=30)]), timeout=0.3))
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert way.service.cancelled.acquire(timeout=5)

    await run(case, way)


async def test_a_deadline_reaches_the_service_as_it_was(way: Way) -> None:
    def case(way: Way) -> None:
        with pytest.raises(grpc.RpcError) as failed:
            way.unary("UnaryCall")(request(sleep=30), timeout=0.2)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    await run(case, way)


# --- many


async def test_many_calls_at_once(way: Way) -> None:
    def case(way: Way) -> None:
        call = way.unary("UnaryCall")
        pending = [call.future(request(size=number)) for number in range(250)]
        assert [len(one.result(timeout=30)) for one in pending] == list(range(250))

    await run(case, way)


async def test_a_long_ping_pong(way: Way) -> None:
    def case(way: Way) -> None:
        turn = threading.Semaphore(1)

        def ask() -> Iterator[bytes]:
            for number in itertools.count():
                assert turn.acquire(timeout=10)
                if number == 200:
                    return
                yield request(number, sizes=[number])

        sizes = []
        for one in way.duplex()(ask()):
            sizes.append(len(one))
            turn.release()
        assert sizes == list(range(200))

    await run(case, way)


@pytest.mark.parametrize("opened", ["h2c", "tls"], indirect=True)
async def test_the_service_sees_one_token_and_the_caller_s_own_authorization(way: Way) -> None:
    def case(way: Way) -> None:
        theirs = (("authorization", "Bearer theirs"), (HEADER, "Bearer forged"))
        way.unary("UnaryCall")(request(), metadata=theirs)
        (seen,) = way.service.seen
        assert seen["authorization"] == ["Bearer theirs"]
        # That it is valid, the service has checked.
        assert len(seen[HEADER]) == 1

    await run(case, way)
