"""Browsers: no page calls through the proxy unless the route names its origin."""

from __future__ import annotations

import pytest

from tests.fakes.wired import Wired

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ALLOWED = ("https://app.example", "null")


def get(*lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} / HTTP/1.1", "Host: a", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "lines",
    [
        ["Origin: https://evil.example"],
        ["Origin: null"],
        ["origin: HTTPS://EVIL.EXAMPLE"],
        ["Origin: http://localhost:8080"],
        ["Origin: "],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site"],
        ["Sec-Fetch-Site: Cross-Site"],
        ["Sec-Fetch-Site: none", "Origin: https://evil.example"],
        ["Origin: https://app.example", "Origin: https://evil.example"],
    ],
)
async def test_a_page_is_refused_by_default(wired: Wired, lines: list[str]) -> None:
    caller = await wired.caller()
    answer = await caller.ask(get(*lines))

    assert (answer.status, answer.value("x-auth-proxy-error")) == (403, "origin_forbidden")
    assert answer.values("access-control-allow-origin") == []
    assert wired.upstream.connections == []


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_every_method_of_a_page_is_refused(wired: Wired, method: str) -> None:
    caller = await wired.caller()
    request = get(
        "Origin: https://evil.example", "Access-Control-Request-Method: PUT", method=method
    )
    answer = await caller.ask(request)

    assert answer.status == 403


@pytest.mark.parametrize(
    "lines",
    [[], ["Sec-Fetch-Site: none"], ["Sec-Fetch-Site: same-origin"], ["Referer: https://b/"]],
)
async def test_who_is_no_page_of_another_site_passes(wired: Wired, lines: list[str]) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()

    assert (await caller.ask(get(*lines))).status == 200


@pytest.mark.parametrize("origin", ["https://app.example", "HTTPS://App.Example", "null"])
async def test_an_allowed_origin_passes_and_may_read(wired: Wired, origin: str) -> None:
    wired.upstream.automatic = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    answer = await caller.ask(get(f"Origin: {origin}", "Sec-Fetch-Site: cross-site"))

    assert answer.status == 200
    assert answer.values("access-control-allow-origin") == [origin]
    assert answer.values("vary") == ["Accept", "Origin"]
    assert wired.upstream.requests[0].values("origin") == [origin]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil",
        "https://app.example:8443",
        "http://app.example",
    ],
)
async def test_an_origin_that_is_not_named_is_refused(wired: Wired, origin: str) -> None:
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()

    assert (await caller.ask(get(f"Origin: {origin}"))).status == 403


async def test_a_preflight_of_an_allowed_origin_is_answered_here(wired: Wired) -> None:
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    caller.send(
        get(
            "Origin: https://app.example",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: x-a, content-type",
            method="OPTIONS",
        )
    )
    answer = await caller.answer()

    assert answer.status == 204
    assert answer.value("access-control-allow-origin") == "https://app.example"
    assert answer.value("access-control-allow-methods") == "PUT"
    assert answer.value("access-control-allow-headers") == "x-a, content-type"
    assert answer.values("vary") == ["Origin"]
    assert answer.values("date") == ["Fri, 15 Jan 2027 08:00:00 GMT"]
    assert wired.upstream.connections == []


async def test_options_that_is_no_preflight_is_passed_on(wired: Wired) -> None:
    wired.upstream.automatic = OK
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()

    assert (await caller.ask(get("Origin: https://app.example", method="OPTIONS"))).status == 200
    assert wired.upstream.requests[0].start == b"OPTIONS / HTTP/1.1"


async def test_an_allowed_origin_may_read_the_proxys_errors(wired: Wired) -> None:
    await wired.upstream.stop()
    await wired.serve(allow_origins=ALLOWED)
    caller = await wired.caller()
    answer = await caller.ask(get("Origin: https://app.example"))

    assert answer.status == 502
    assert answer.value("access-control-allow-origin") == "https://app.example"


async def test_a_websocket_of_a_page_is_refused_too(wired: Wired) -> None:
    caller = await wired.caller()
    answer = await caller.ask(
        get("Connection: Upgrade", "Upgrade: websocket", "Origin: https://evil.example")
    )

    assert answer.status == 403
