"""Upstreams behind TLS: verified, and never taken for done when they were only cut off."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import socket
import ssl
import tracemalloc
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config.model import Upstream
from proxy.plane.dial import Dialler
from proxy.plane.tls import TlsTransport
from proxy.resolver import Resolver
from tests.fakes import tls
from tests.fakes.raw import PATIENCE
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MEGABYTE = 1024 * 1024


async def test_an_upstream_behind_tls_is_served(tmp_path: Path) -> None:
    async with Wired(automatic=OK, tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        for _ in range(3):
            assert (await caller.ask(GET)).status == 200

        assert wired.upstream.requests[0].value("host") == f"localhost:{wired.upstream.port}"
        assert len(wired.upstream.connections) == 1


async def test_a_connection_leaves_nothing_behind() -> None:
    """Of a compiled class what its base keeps would stay: two words for each would be too much."""
    context = ssl.create_default_context()

    def make(number: int) -> int:
        for _ in range(number):
            TlsTransport(context, "localhost", asyncio.Protocol())
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    make(500)
    tracemalloc.start()
    try:
        before = make(500)
        assert make(500) - before < 500 * 16
    finally:
        tracemalloc.stop()


async def test_bodies_pass_both_ways(tmp_path: Path) -> None:
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        body = os.urandom(8 * MEGABYTE)
        head = b"Content-Length: %d\r\n\r\n" % len(body)
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + body)
        upstream = await wired.upstream.accept()
        assert (await upstream.request()).body == body
        upstream.send(b"HTTP/1.1 200 OK\r\n" + head + body)
        assert (await caller.answer()).body == body


@pytest.mark.parametrize("size", [1000, 100_000])
async def test_chunks_pass_both_ways(tmp_path: Path, size: int) -> None:
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        data = os.urandom(size)
        chunks = b"%x\r\n%b\r\n" % (size, data) * (400_000 // size) + b"0\r\n\r\n"
        head = b"Transfer-Encoding: chunked\r\n\r\n"
        caller.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + chunks)
        upstream = await wired.upstream.accept()
        assert (await upstream.request()).body == data * (400_000 // size)
        upstream.send(b"HTTP/1.1 200 OK\r\n" + head + chunks)
        assert (await caller.answer()).body == data * (400_000 // size)


async def test_a_body_that_only_the_close_delimits_ends_with_the_close_of_tls(
    tmp_path: Path,
) -> None:
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        caller.send(GET)
        upstream = await wired.upstream.accept()
        await upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        upstream.close()

        assert (await caller.answer()).body == b"hello"


async def test_a_body_that_is_cut_below_tls_is_not_taken_for_whole(tmp_path: Path) -> None:
    # RFC 9112, 9.8: without close_notify somebody else may have sent the FIN.
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        caller.send(GET)
        upstream = await wired.upstream.accept()
        await upstream.head()
        upstream.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        await caller.take(head)

        number = upstream._transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(number)) as sock:
            sock.shutdown(socket.SHUT_WR)
        assert await caller.take_all() == b""
        assert wired.refusals == {"upstream_reset": 1}


@pytest.mark.pure
async def test_what_is_left_over_behind_a_full_piece_is_nobodys_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has come from the network, but not from TLS, when the next request is at hand."""
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    monkeypatch.setattr("proxy.plane.tls._PIECE_BYTES", len(first))
    async with Wired(tls=tls.server_context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        caller.send(GET + GET)
        upstream = await wired.upstream.accept()
        await upstream.head()
        upstream.send(first)
        upstream.send(evil)  # A record of its own, in the same segment.
        assert (await caller.answer()).body == b"first"

        another = await wired.upstream.accept()
        await another.head()
        another.send(OK)
        assert (await caller.answer()).body == b"ok"


@pytest.mark.parametrize(
    "context",
    [
        lambda: tls.server_context("other.example"),
        lambda: tls.server_context(expired=True),
        lambda: tls.server_context(issuer=tls.foreign_authority()),
    ],
    ids=["another name", "expired", "an authority nobody trusts"],
)
async def test_a_certificate_that_does_not_hold_is_refused(
    tmp_path: Path, context: Callable[[], ssl.SSLContext]
) -> None:
    async with Wired(automatic=OK, tls=context()) as wired:
        await wired.serve_tls(tls.ca_file(tmp_path))
        caller = await wired.caller()
        answer = await caller.ask(GET)

        assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_tls_failed")
        assert wired.upstream.requests == []
        assert wired.route_stats.dials == {"upstream_tls_failed": 1}


async def test_an_upstream_that_does_not_speak_tls_is_told_so(wired: Wired, tmp_path: Path) -> None:
    await wired.serve_tls(tls.ca_file(tmp_path))
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    upstream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    answer = await caller.answer()

    assert (answer.status, answer.value("x-auth-proxy-error")) == (502, "upstream_tls_failed")


class Line(asyncio.Protocol):
    """Collects text by lines."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._partial = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self.lines.put_nowait(line)


class OpensslServer:
    """`openssl s_server`, which sends what it is told and obeys a few letters."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    async def until(self, expression: str) -> re.Match[str]:
        """Return the first line from here on in which `expression` is found."""
        said = ""
        while line := (await self._out.readline()).decode():
            said += line
            if found := re.search(expression, line):
                return found
        raise AssertionError(f"openssl did not say {expression}, but {said}")

    def tell(self, line: str) -> None:
        self._in.write(line.encode() + b"\n")


@asynccontextmanager
async def openssl_server(
    folder: Path, version: str
) -> AsyncIterator[tuple[OpensslServer, asyncio.Transport, Line]]:
    """Run a server that shows every message of TLS; yield it and our end of a connection."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("openssl is not installed")
    chain = folder / "chain.pem"
    leaf = tls.authority().issue_cert("localhost")
    chain.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    process = await asyncio.create_subprocess_exec(
        openssl, "s_server", "-accept", "127.0.0.1:0", "-cert", chain, "-key", chain, "-msg",
        version, stdin=PIPE, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    try:
        server = OpensslServer(process)
        port = int((await server.until(r"^ACCEPT .*:(\d+)"))[1])
        dialler = Dialler(Upstream("https", "localhost", port), tls.ca_file(folder), Resolver())
        transport, codec = await dialler.dial(Line, PATIENCE)
        transport.write(b"one\n")
        await server.until("^one")
        yield server, transport, codec
        transport.abort()
    finally:
        process.kill()
        await process.wait()


async def test_a_server_may_ask_for_new_keys(tmp_path: Path) -> None:
    """RFC 8446, 4.6.3: before anything else is sent."""
    async with (
        asyncio.timeout(PATIENCE),
        openssl_server(tmp_path, "-tls1_3") as (server, transport, codec),
    ):
        server.tell("K")
        await server.until(">>> .* KeyUpdate")
        server.tell("two")
        assert await codec.lines.get() == b"two"
        transport.write(b"three\n")
        await server.until("<<< .* KeyUpdate")
        await server.until("^three")


async def test_a_server_may_not_begin_a_handshake_anew(tmp_path: Path) -> None:
    """RFC 5246, 7.4.1.1: it is told so, at once; what is written never waits for it."""
    async with asyncio.timeout(PATIENCE), openssl_server(tmp_path, "-tls1_2") as (server, _, _):
        server.tell("r")
        await server.until(">>> .* HelloRequest")
        await server.until("<<< .* no_renegotiation")
