"""TLS where plain HTTP is spoken: from callers, and from upstreams."""

from __future__ import annotations

import json
import ssl

import pytest

from proxy.unreached import WRITE_HTTPS
from tests.fakes.framed import GRPC
from tests.fakes.framed_world import frame_caller
from tests.fakes.wired import Wired

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # protocol_version, RFC 8446, 6


def client_hello() -> bytes:
    """Return the first flight of a real client."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@pytest.mark.parametrize("more", [b"", b"\r\n\r\n"], ids=["hello", "what could be a whole head"])
async def test_a_caller_that_speaks_tls_is_told_to_call_http(wired: Wired, more: bytes) -> None:
    await wired.serve()
    caller = await wired.caller()

    answer = await caller.ask(client_hello() + more)

    assert (answer.status, answer.value("x-auth-proxy-error")) == (400, "request_malformed")
    problem = json.loads(answer.body)
    assert problem["detail"] == "The caller speaks TLS, and this listener plain HTTP."
    assert problem["hint"].startswith("Call http:// instead of https://")


@pytest.mark.parametrize("more", [b"", b"\r\n\r\n"], ids=["alert", "what could be a whole head"])
async def test_an_upstream_that_speaks_tls_is_to_be_written_https(
    wired: Wired, more: bytes
) -> None:
    wired.upstream.automatic = ALERT + more
    await wired.serve()
    caller = await wired.caller()

    answer = await caller.ask(GET)

    assert answer.value("x-auth-proxy-error") == "upstream_malformed"
    problem = json.loads(answer.body)
    assert problem["detail"].startswith("The upstream speaks TLS on this port")
    assert problem["hint"] == WRITE_HTTPS


async def test_a_grpc_caller_is_told_the_same_of_its_upstream(wired: Wired) -> None:
    await wired.serve()
    async with await frame_caller(wired) as caller:
        caller.send_headers(1, GRPC, end=True)
        upstream = await wired.upstream.accept()
        upstream.send(ALERT)
        seen = await caller.finished(1)

    assert "it speaks TLS on this port" in seen.head["grpc-message"]
