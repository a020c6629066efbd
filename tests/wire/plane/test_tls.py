"""Upstreams behind TLS: verified, and never taken for done when they were only cut off."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import tls
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


# The command always runs on uvloop; asyncio's own TLS does not tell the two ends apart.
@pytest.mark.asyncio(loop_factories=["uvloop"])
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
