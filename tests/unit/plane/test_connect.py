"""The CONNECT exchange without a wire: what a proxy may answer, cut anywhere, and what it means."""

from __future__ import annotations

import pytest

from proxy.config.proxies import HttpProxy
from proxy.errors import UpstreamConnectFailed
from proxy.plane.connect import HEAD_BYTES, Connect

PROXY = HttpProxy("proxy.example", 3128)
SECRET = "dXNlcjpodW50ZXIy"
WITH_CREDENTIALS = HttpProxy("proxy.example", 3128, f"Basic {SECRET}")
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connect(proxy: HttpProxy = PROXY) -> Connect:
    return Connect(proxy, "orders.example", 443)


def take_pieces(taking: Connect, pieces: list[bytes]) -> None:
    for piece in pieces:
        assert taking.take(piece) is None


def refused(answer: bytes, proxy: HttpProxy = PROXY) -> UpstreamConnectFailed:
    """Return the failure that `answer` is, whole and byte by byte alike."""
    with pytest.raises(UpstreamConnectFailed) as whole:
        connect(proxy).take(answer)
    with pytest.raises(UpstreamConnectFailed) as bytewise:
        take_pieces(connect(proxy), [answer[at : at + 1] for at in range(len(answer))])
    error = whole.value
    assert (error.detail, error.hint) == (bytewise.value.detail, bytewise.value.hint)
    assert SECRET not in error.detail + str(error.hint)
    assert not error.sent_upstream
    return error


def test_the_request_names_the_upstream_twice_and_its_port_always() -> None:
    """RFC 9110, 9.3.6 and RFC 9112, 3.2.3: authority form has a port, and Host says the same."""
    lines = connect(WITH_CREDENTIALS).request().decode().split("\r\n")

    assert lines[:2] == ["CONNECT orders.example:443 HTTP/1.1", "Host: orders.example:443"]
    assert f"Proxy-Authorization: Basic {SECRET}" in lines
    assert lines[-2:] == ["", ""]
    assert b"Proxy-Authorization" not in connect().request()


def test_an_ipv6_address_stands_in_brackets() -> None:
    request = Connect(PROXY, "2001:db8::1", 8443).request()

    assert request.startswith(
        b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        OK,
        b"HTTP/1.0 200 OK\r\nProxy-agent: tinyproxy\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        # RFC 9110, 9.3.6: what a 2xx says of a body has no meaning.
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        # RFC 9110, 15.2: any number of interim responses may come first.
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    ],
)
@pytest.mark.parametrize("rest", [b"", b"\0\0\0\4\0\0\0\0\0", b"HTTP/1.1 500 No\r\n\r\n"])
def test_a_2xx_opens_the_tunnel_and_what_follows_is_its_own(head: bytes, rest: bytes) -> None:
    assert connect().take(head + rest) == rest
    cut = connect()
    for at in range(len(head) - 1):
        assert cut.take(head[at : at + 1]) is None
    assert cut.take(head[-1:] + rest) == rest


@pytest.mark.parametrize(
    ("answer", "detail", "hint"),
    [
        (b"HTTP/1.1 403 Filtered\r\n\r\n", "orders.example:443 through (403 Filtered)", "NO_PROXY"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "not connect to orders.example:443 (502 B", "log"),
        (b"HTTP/1.1 503\r\n\r\n", "could not connect to orders.example:443 (503).", "log"),
        (b"HTTP/1.1 504 x\r\n\r\n", "could not connect", "log"),
        (b"HTTP/1.1 400 x\r\n\r\n", "does not take CONNECT", "is an HTTP proxy"),
        (b"HTTP/1.1 405 x\r\n\r\n", "does not take CONNECT", "is an HTTP proxy"),
        (b"HTTP/1.1 501 x\r\n\r\n", "does not take CONNECT", "is an HTTP proxy"),
        (b"HTTP/1.1 302 x\r\nLocation: /login\r\n\r\n", "does not take CONNECT", "HTTP proxy"),
        (b"HTTP/1.1 429 Slow\r\n\r\n", "opened no tunnel to orders.example:443 (429 Slow)", "log"),
        (b"HTTP/1.1 101 x\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n", "opened no tunnel", "log"),
        (b"SSH-2.0-OpenSSH_9\r\n", "is not HTTP/1.1", "Check the port"),
        (b"\x15\x03\x01\0\x02\x02\x46", "is not HTTP/1.1", "Check the port"),
        (b"HTTP/1.1 200 OK\n\n", "is not HTTP/1.1", "Check the port"),
        (b"HTTP/2 200 OK\r\n\r\n", "is not HTTP/1.1", "Check the port"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "is not HTTP/1.1", "Check the port"),
        (b"\r\n\r\n", "is not HTTP/1.1", "Check the port"),
        (b"HTTP/1.1 403 \x1b[31m\r\n\r\n", "is not HTTP/1.1", "Check"),
        (b"HTTP/1.1 403 eyJhbGciOiJSUzI1NiJ9.e30.c2ln\r\n\r\n", "(403 [redacted])", "NO_PROXY"),
    ],
)  # fmt: skip
def test_all_else_is_the_egress_proxys_failure(answer: bytes, detail: str, hint: str) -> None:
    error = refused(answer)

    assert "egress proxy http://proxy.example:3128" in error.detail
    assert detail in error.detail
    assert hint in error.hint


@pytest.mark.parametrize(
    ("challenge", "proxy", "detail", "hint"),
    [
        (b"Basic realm=x", PROXY, "asks for credentials (407).", "@proxy.example:3128 as egress_"),
        (b"", PROXY, "asks for credentials (407).", "USER:PASSWORD"),
        (b"Negotiate\r\nProxy-Authenticate: BASIC", PROXY, "asks for credentials (407).", "USER"),
        (b"Basic realm=x", WITH_CREDENTIALS, "does not accept the credentials (407).", "egress_"),
        (b"Negotiate\r\nProxy-Authenticate: NTLM", WITH_CREDENTIALS, "407, Negotiate", "Basic"),
    ],
)  # fmt: skip
def test_a_407_is_explained(challenge: bytes, proxy: HttpProxy, detail: str, hint: str) -> None:
    lines = b"Proxy-Authenticate: %b\r\n" % challenge if challenge else b""
    error = refused(b"HTTP/1.1 407 Proxy Authentication Required\r\n%b\r\n" % lines, proxy)

    assert detail in error.detail
    assert hint in error.hint


def test_the_variable_that_names_the_proxy_is_where_credentials_are_written() -> None:
    proxy = HttpProxy("proxy.example", 3128, variable="HTTPS_PROXY")
    error = refused(b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", proxy)

    assert "as HTTPS_PROXY" in error.hint


def test_credentials_are_not_shown_even_where_the_proxy_repeats_them() -> None:
    answer = b"HTTP/1.1 403 Basic %b is unknown\r\n\r\n" % SECRET.encode()

    assert "(403)" in refused(answer, WITH_CREDENTIALS).detail


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_heads_have_a_limit_interim_ones_included(interim: bytes, more: int, fits: bool) -> None:  # noqa: FBT001 (a row)
    start, end = interim + b"HTTP/1.1 200 OK\r\nX: ", b"\r\n\r\n"
    head = start + b"x" * (HEAD_BYTES - len(start) - len(end) + more) + end
    if fits:
        assert connect().take(head + b"inside") == b"inside"
        return
    for pieces in ([head], [head[:-1], head[-1:]], [head[: HEAD_BYTES + 1]]):
        with pytest.raises(UpstreamConnectFailed, match="more than 16384 bytes of head"):
            take_pieces(connect(), pieces)
