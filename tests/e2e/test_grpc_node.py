"""Callers and services of the Node world: grpc-js, Connect and gRPC-Web against Node's HTTP/2."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.emulator.metadata import MetadataServer
from tests.fakes import tls
from tests.fakes.node import NodeServer, run_node
from tests.fakes.program import Program
from tests.fakes.proxies import Proxies

pytestmark = pytest.mark.asyncio(loop_scope="module")

IN_HTTP2 = ["grpc-js", "grpc", "connect"]
EVERY = [*IN_HTTP2, "connect-http1", "grpc-web"]
LARGE = 3_000_000


def certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate for the loopback and its key, and return the files."""
    leaf = tls.authority().issue_cert(*tls.LOOPBACK)
    chain, key = folder / "server.pem", folder / "server.key"
    chain.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return str(chain), str(key)


@dataclass(frozen=True)
class Way:
    """Where to call the service: itself, or a proxy in front of it."""

    kind: str
    url: str

    async def outcomes(self, client: str, *scenarios: str) -> Any:
        """Perform scenarios in one process and return their outcomes by name."""
        answer = await run_node("rpc_client.mjs", self.url, client, *scenarios)
        assert answer["ok"], answer
        return answer["result"]


class Ways:
    """Opens each way once, when it is asked for."""

    def __init__(self, stack: AsyncExitStack, metadata: MetadataServer, folder: Path) -> None:
        self._stack = stack
        self._metadata = metadata
        self._folder = folder
        self._open: dict[str, Way] = {}

    async def to(self, kind: str) -> Way:
        """Return the way of a kind: ``direct``, or through a proxy over ``h2c`` or ``tls``."""
        if kind not in self._open:
            self._open[kind] = Way(kind, await self._start(kind))
        return self._open[kind]

    async def _start(self, kind: str) -> str:
        files = certificate(self._folder) if kind == "tls" else ()
        service = await self._stack.enter_async_context(NodeServer("rpc_server.mjs", *files))
        if kind == "direct":
            return service.url
        if kind == "h2c":
            # Over plain HTTP the service speaks HTTP/2 alone, whatever its callers speak.
            route = {"upstream": service.url, "auth": "id_token", "protocol": "h2"}
        else:
            upstream = f"https://localhost:{service.port}"
            route = {"upstream": upstream, "ca_file": str(tls.ca_file(self._folder))}
        return (await start(self._metadata, self._stack, route)).url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    async with AsyncExitStack() as stack:
        metadata = await stack.enter_async_context(MetadataServer())
        yield Ways(stack, metadata, tmp_path_factory.mktemp("tls"))


async def start(metadata: MetadataServer, stack: AsyncExitStack, route: dict[str, str]) -> Program:
    """Start a proxy with one route."""
    config = {"listen": "127.0.0.1:0", "admin": "off", "routes": {"default": route}}
    return await Proxies(metadata, stack).run(json.dumps(config))


SCENARIOS = ("unary", "large", "upload", "metadata", "down", "up", "many", "fail", "deadline",
             "cancel")  # fmt: skip


@pytest_asyncio.fixture(
    params=[
        f"{kind} {client}"
        for kind in ("direct", "h2c", "tls")
        for client in (IN_HTTP2 if kind == "direct" else EVERY)
    ],
    scope="module",
    loop_scope="module",
)
async def outcomes(request: pytest.FixtureRequest, ways: Ways) -> Any:
    """What became of every scenario by one client on one way."""
    kind, client = request.param.split()
    duplex = ("both", "pingPong") if client in IN_HTTP2 else ()
    return await (await ways.to(kind)).outcomes(client, *SCENARIOS, *duplex)


async def test_a_unary_call_brings_its_result(outcomes: Any) -> None:
    assert outcomes["unary"] == {"result": "grüße ☺"}


async def test_large_messages_arrive_both_ways(outcomes: Any) -> None:
    assert (outcomes["large"], outcomes["upload"]) == ({"result": LARGE}, {"result": LARGE})


async def test_metadata_arrives_in_the_head_and_in_the_trailers(outcomes: Any) -> None:
    assert outcomes["metadata"] == {
        "result": {"result": "a", "echo": "early", "late": "behind", "binary": [0, 1, 254, 255]}
    }


async def test_a_stream_of_answers_arrives_in_order(outcomes: Any) -> None:
    answer = outcomes["down"]["result"]

    assert answer["result"] == [str(number) for number in range(1, 101)]
    assert (answer["echo"], answer["late"]) == ("early", "behind")


async def test_a_stream_of_requests_arrives_in_order(outcomes: Any) -> None:
    assert outcomes["up"] == {"result": "a,b,c"}


async def test_streams_go_both_ways(outcomes: Any) -> None:
    answers = {"result": ["A", "B", "C"]}

    # Clients over HTTP/1.1 cannot talk and listen at once.
    assert outcomes.get("both", answers) == outcomes.get("pingPong", answers) == answers


async def test_many_calls_at_once_succeed(outcomes: Any) -> None:
    assert outcomes["many"] == {"result": 250}


async def test_the_service_s_own_error_arrives(outcomes: Any) -> None:
    assert outcomes["fail"]["error"] == {
        "code": "FailedPrecondition",
        "message": "failed grüße ☺",
        "why": "because",
    }


async def test_a_deadline_ends_the_call_on_both_sides(outcomes: Any) -> None:
    assert outcomes["deadline"] == {"result": "DeadlineExceeded"}


async def test_a_call_that_is_given_up_ends_at_the_service(outcomes: Any) -> None:
    assert outcomes["cancel"] == {"result": "Canceled"}


async def test_the_service_is_called_in_the_caller_s_protocol_with_a_token(ways: Ways) -> None:
    way = await ways.to("tls")
    in_http2 = (await way.outcomes("grpc-js", "unary", "seen"))["seen"]["result"]
    in_http1 = (await way.outcomes("connect-http1", "unary", "seen"))["seen"]["result"]

    assert (in_http2["version"], in_http1["version"]) == ("2.0", "1.1")
    assert in_http2["token"] == in_http1["token"] == "Bearer ey"


@pytest.mark.parametrize("client", ["connect", "connect-http1"])
async def test_connect_is_translated_for_a_service_that_speaks_http1(client: str) -> None:
    async with AsyncExitStack() as stack:
        metadata = await stack.enter_async_context(MetadataServer())
        service = await stack.enter_async_context(NodeServer("rpc_server.mjs", "--only-http1"))
        proxy = await start(metadata, stack, {"upstream": service.url})

        got = await Way("h1", proxy.url).outcomes(client, "unary", "down", "up", "fail", "cancel")

        assert (got["unary"]["result"], got["up"]["result"]) == ("grüße ☺", "a,b,c")
        assert len(got["down"]["result"]["result"]) == 100
        assert got["fail"]["error"]["code"] == "FailedPrecondition"
        assert got["cancel"]["result"] == "Canceled"


@pytest.mark.parametrize("client", ["grpc-js", "grpc"])
async def test_grpc_to_a_service_that_speaks_http1_is_told_why_it_fails(client: str) -> None:
    async with AsyncExitStack() as stack:
        metadata = await stack.enter_async_context(MetadataServer())
        service = await stack.enter_async_context(NodeServer("rpc_server.mjs", "--only-http1"))
        proxy = await start(metadata, stack, {"upstream": service.url})

        got = await Way("h1", proxy.url).outcomes(client, "unary")

        error = got["unary"]["error"]
        assert error["code"] == "Unavailable"
        assert "gRPC needs HTTP/2" in error["message"]
        assert "[upstream_connect_failed]" in error["message"]
