"""Redirects to the upstream itself: as they came, or led back through the proxy."""

from __future__ import annotations

import pytest

from proxy.config.model import Upstream
from tests.fakes.wired import Wired


def redirect(
    wired: Wired, path: str, status: int = 302, *, ending: str = "Content-Length: 0\r\n\r\n"
) -> bytes:
    """Return a redirect of the upstream to one of its own paths."""
    location = f"http://127.0.0.1:{wired.upstream.port}{path}"
    return f"HTTP/1.1 {status} X\r\nLocation: {location}\r\n{ending}".encode()


def get(target: str, host: str = "app.localhost:8081", version: str = "1.1") -> bytes:
    return f"GET {target} HTTP/{version}\r\nHost: {host}\r\n\r\n".encode()


async def test_by_default_a_redirect_is_passed_on(wired: Wired) -> None:
    wired.upstream.automatic = redirect(wired, "/there")
    caller = await wired.caller()

    assert (await caller.ask(get("/"))).values("location") == [
        f"http://127.0.0.1:{wired.upstream.port}/there"
    ]


@pytest.mark.parametrize(
    "ending",
    ["Content-Length: 0\r\n\r\n", "Content-Length: 2\r\n\r\nok",
     "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "Connection: close\r\n\r\nok"],
)  # fmt: skip
@pytest.mark.parametrize("status", [201, 301, 302, 303, 307, 308, 404])
async def test_a_redirect_is_led_back_however_it_ends(
    wired: Wired, status: int, ending: str
) -> None:
    await wired.serve(rewrite_redirects=True)
    wired.upstream.automatic = redirect(wired, "/there?a=%2F#b", status, ending=ending)
    caller = await wired.caller()
    caller.send(get("/"))
    if "close" in ending:
        upstream = await wired.upstream.accept()
        await upstream.until(lambda: wired.upstream.requests, "the request")
        upstream.close()
    answer = await caller.answer()

    assert (answer.status, answer.values("location")) == (
        status, ["http://app.localhost:8081/there?a=%2F#b"],
    )  # fmt: skip


async def test_the_caller_s_own_host_and_path_are_put_back(wired: Wired) -> None:
    upstream = Upstream("http", "127.0.0.1", wired.upstream.port, "/api")
    await wired.serve(upstream=upstream, path="/orders", strip_path=True, rewrite_redirects=True)
    wired.upstream.automatic = redirect(wired, "/api/x")
    caller = await wired.caller()

    for request, location in (
        (get("/orders/1"), "http://app.localhost:8081/orders/x"),
        (get("/orders/1", "[::1]:1"), "http://[::1]:1/orders/x"),
        (get("http://orders.internal/orders/1", ""), "http://orders.internal/orders/x"),
        (get("/orders/1", ""), "/orders/x"),
        (b"GET /orders HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "/orders/x"),
    ):
        assert (await caller.ask(request)).values("location") == [location]
    assert wired.upstream.requests[0].start == b"GET /api/1 HTTP/1.1"


async def test_a_page_may_read_where_it_is_led_back_to(wired: Wired) -> None:
    await wired.serve(rewrite_redirects=True, allow_origins=("https://app.example",))
    wired.upstream.automatic = redirect(wired, "/x")
    caller = await wired.caller()
    page = get("/").replace(b"\r\n\r\n", b"\r\nOrigin: https://app.example\r\n\r\n")
    answer = await caller.ask(page)

    assert answer.values("location") == ["http://app.localhost:8081/x"]
    assert answer.values("access-control-allow-origin") == ["https://app.example"]
