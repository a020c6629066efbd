"""What a request meets before any upstream: routes, paths, headers, and the proxy's own answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging

import pytest

from proxy.config.model import Auth, Destination, Limits, Route, Upstream
from proxy.errors import ProxyError
from proxy.plane.exchange import Exchange
from proxy.plane.http1.downstream import Http1Downstream
from tests.fakes.raw import Message
from tests.fakes.steering import settle
from tests.fakes.wired import ANY, Wired

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def route(wired: Wired, name: str, **more: object) -> Route:
    upstream = Upstream("http", "127.0.0.1", wired.upstream.port)
    plain = Route(
        name=name, listen=(ANY,), destinations=(Destination(upstream=upstream),), auth=Auth.NONE
    )
    return dataclasses.replace(plain, **more)  # type: ignore[arg-type]  # fields of a route


async def ask(wired: Wired, target: str, host: str = "a") -> Message:
    caller = await wired.caller()
    return await caller.ask(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


async def test_an_absolute_target_is_routed_by_its_authority(wired: Wired) -> None:
    wired.upstream.automatic = OK
    orders = route(wired, "orders", host=("orders.internal",), set_headers=(("X-Route", "orders"),))
    others = route(wired, "others", set_headers=(("X-Route", "others"),))
    await wired.serve_routes(orders, others)

    await ask(wired, "http://orders.internal/x", host="orders.internal")
    await ask(wired, "/x", host="ORDERS.internal:8080")
    await ask(wired, "/x", host="b")
    assert [m.value("x-route") for m in wired.upstream.requests] == ["orders", "orders", "others"]


@pytest.mark.parametrize("before", [[], ["GET / HTTP/1.1"]])
async def test_trace_is_refused_before_a_token_is_used(wired: Wired, before: list[str]) -> None:
    wired.upstream.automatic = OK
    await wired.serve(auth=Auth.ID_TOKEN)
    caller = await wired.caller()
    for line in before:
        await caller.ask(f"{line}\r\nHost: a\r\n\r\n".encode())
    answer = await caller.ask(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (answer.status, answer.value("x-auth-proxy-error")) == (405, "method_not_allowed")
    assert answer.value("allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert "ID token" in json.loads(answer.body)["detail"]
    assert len(wired.upstream.requests) == len(before)
    assert wired.source.fetched == len(before)
    # The connection goes on.
    assert (await caller.ask(GET)).status == 200


async def test_a_request_without_a_route_is_told(wired: Wired) -> None:
    await wired.serve_routes(route(wired, "orders", path="/orders"))
    answer = await ask(wired, "/ordersx")

    assert (answer.status, answer.value("x-auth-proxy-error")) == (404, "route_not_found")
    assert answer.value("content-type") == "application/problem+json"
    problem = json.loads(answer.body)
    assert (problem["status"], problem["reason"], problem["route"]) == (404, "route_not_found", "")


async def test_the_proxys_own_answers_say_when_they_were_made(wired: Wired) -> None:
    # RFC 9110, 5.6.7 and 6.6.1.
    wired.time.wall = 784111777.9
    await wired.serve_routes(route(wired, "orders", path="/orders", limits=Limits(body_bytes=1)))
    caller = await wired.caller()
    nowhere = await caller.ask(GET)
    too_large = await caller.ask(b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    wired.time.wall += 3600 * 24 * 30
    malformed = await caller.ask(b"GET / HTTP/1.1\r\n\r\n")

    assert (nowhere.status, too_large.status, malformed.status) == (404, 413, 400)
    assert nowhere.values("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]
    assert too_large.values("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]
    assert malformed.values("date") == ["Tue, 06 Dec 1994 08:49:37 GMT"]


async def test_a_connection_survives_the_proxys_own_answers(wired: Wired) -> None:
    wired.upstream.automatic = OK
    await wired.serve_routes(route(wired, "orders", path="/orders"))
    caller = await wired.caller()
    for _ in range(3):
        assert (await caller.ask(GET)).status == 404
        assert (await caller.ask(b"GET /orders HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200


async def test_the_answer_to_head_has_no_body(wired: Wired) -> None:
    await wired.serve_routes(route(wired, "orders", path="/orders"))
    caller = await wired.caller()
    answer = await caller.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")

    assert answer.status == 404
    assert int(answer.value("content-length")) > 0
    assert (await caller.ask(GET)).status == 404


STRIPPED = {"path": "/orders", "strip_path": True}


@pytest.mark.parametrize(
    ("config", "base", "target", "seen"),
    [
        (STRIPPED, "", "/orders/a%2Fb?x=1&x=2", "/a%2Fb?x=1&x=2"),
        (STRIPPED, "", "/orders", "/"),
        (STRIPPED, "", "/orders?x", "/?x"),
        (STRIPPED, "", "/orders/", "/"),
        (STRIPPED, "", "/orders//x", "//x"),
        (STRIPPED, "/base", "/orders/x", "/base/x"),
        (STRIPPED, "/base", "/orders", "/base/"),
        ({"path": "/orders"}, "", "/orders/x", "/orders/x"),
        ({}, "/base", "/x", "/base/x"),
        ({"strip_path": True}, "/base", "/x", "/base/x"),
    ],
)
async def test_the_path_is_forwarded_as_configured(
    wired: Wired, config: dict[str, object], base: str, target: str, seen: str
) -> None:
    wired.upstream.automatic = OK
    upstream = Upstream("http", "127.0.0.1", wired.upstream.port, base)
    await wired.serve_routes(
        route(wired, "orders", **config, destinations=(Destination(upstream=upstream),))
    )

    assert (await ask(wired, target)).status == 200
    assert wired.upstream.requests[0].start == f"GET {seen} HTTP/1.1".encode()


async def test_headers_are_set_and_removed_as_configured(wired: Wired) -> None:
    wired.upstream.automatic = OK
    await wired.serve(set_headers=(("X-Set", "ours"),), remove_headers=("X-Gone",))
    caller = await wired.caller()
    caller.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nx-set: theirs\r\nX_Set: theirs\r\n"
        b"X-GONE: 1\r\nx_gone: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX-Gone: 3\r\nX-Set: theirs\r\nX-Kept: 4\r\n\r\n"
    )
    await caller.take(OK)

    message = wired.upstream.requests[0]
    assert message.values("x-set") == ["ours"]
    assert b"gone" not in message.raw.lower()
    assert message.trailers == b"X-Kept: 4"


async def test_headers_written_with_underscores_are_set_and_removed_alike(wired: Wired) -> None:
    wired.upstream.automatic = OK
    await wired.serve(set_headers=(("X_Set", "ours"),), remove_headers=("x_gone",))
    caller = await wired.caller()
    await caller.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Set: theirs\r\nX-Gone: 1\r\n\r\n")

    message = wired.upstream.requests[0]
    assert (message.values("x_set"), message.values("x-set")) == (["ours"], [])
    assert b"gone" not in message.raw.lower()


async def test_connections_end_with_their_next_response_while_draining(wired: Wired) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    await caller.ask(GET)
    wired.plane.drain()

    answer = await caller.ask(GET)
    assert answer.value("connection") == "close"
    assert await caller.take_all() == b""


async def test_what_is_left_is_cut_when_the_drain_is_over(wired: Wired) -> None:
    begun, waiting = await wired.caller(), await wired.caller()
    begun.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await begun.take(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    waiting.send(GET)
    await (await wired.upstream.accept()).head()
    wired.plane.drain()

    assert wired.plane.cut() == 2
    assert await begun.take_all() == b""
    answer = await waiting.answer()
    assert (answer.status, answer.value("x-auth-proxy-error")) == (503, "draining")


async def test_refusals_are_counted_and_say_no_query(
    wired: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    await wired.serve(limits=Limits(body_bytes=1))
    caller = await wired.caller()
    caller.send(b"POST /x?secret=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    assert (await caller.answer()).status == 413

    assert wired.route_stats.errors == {"body_too_large": 1}
    assert wired.route_stats.requests == {("h1", 413): 1}
    assert "secret" not in caplog.text
    assert "/x" in caplog.text


async def test_bytes_are_counted_without_framing(wired: Wired) -> None:
    wired.upstream.automatic = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    caller = await wired.caller()
    await caller.ask(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )

    assert (wired.route_stats.request_bytes, wired.route_stats.response_bytes) == (5, 3)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("lines", "agent", "trace"),
    [
        ((), None, None),
        (("User-Agent: curl/8",), "curl/8", None),
        ((f"TraceParent: {TRACE}",), None, ("traceparent", TRACE)),
        (("X-Cloud-Trace-Context: abc/1;o=1",), None, ("x-cloud-trace-context", "abc/1;o=1")),
        # The standard's comes first.
        (
            ("User-Agent: a", "X-Cloud-Trace-Context: abc/1", f"traceparent: {TRACE}"),
            "a",
            ("traceparent", TRACE),
        ),
    ],
)
async def test_the_log_says_who_called_and_in_which_trace(
    wired: Wired,
    caplog: pytest.LogCaptureFixture,
    lines: tuple[str, ...],
    agent: str | None,
    trace: tuple[str, str] | None,
) -> None:
    wired.upstream.automatic = OK
    caller = await wired.caller()
    with caplog.at_level(logging.INFO, "proxy.access"):
        head = "\r\n".join(["GET /x HTTP/1.1", "Host: a", *lines, "", ""])
        assert (await caller.ask(head.encode())).status == 200

    (record,) = (each for each in caplog.records if each.name == "proxy.access")
    assert record.getMessage() == "GET /x → 200"
    assert record.__dict__["http"].get("user_agent") == agent
    assert record.__dict__.get("trace") == trace


# --- who is told of ends


async def test_whoever_waits_for_the_last_exchange_is_woken_by_its_end(wired: Wired) -> None:
    seen: list[tuple[bytes, float, ProxyError | None]] = []

    def note(exchange: Exchange, seconds: float, error: ProxyError | None) -> None:
        seen.append((exchange.head.path, seconds, error))

    wired.plane.on_finished = note
    assert wired.plane.is_idle()
    caller = await wired.caller()
    caller.send(GET)
    upstream = await wired.upstream.accept()
    await upstream.head()
    waiting = [asyncio.ensure_future(wired.plane.until(wired.plane.is_idle)) for _ in range(2)]
    await settle()
    assert [each.done() for each in waiting] == [False, False]
    assert seen == []

    wired.time.steady += 2.0
    upstream.send(OK)
    await caller.take(OK)
    await asyncio.gather(*waiting)
    assert seen == [(b"/", 2.0, None)]


async def test_a_connection_that_has_said_nothing_keeps_nobody_waiting(wired: Wired) -> None:
    caller = await wired.caller()
    await wired.until(lambda: wired.plane.connections, "the connection")
    assert wired.plane.is_idle()
    assert not wired.plane.is_deserted()
    wired.plane.drain()

    # It may still ask, and is told to go with the answer.
    wired.upstream.automatic = OK
    assert (await caller.ask(GET)).value("connection") == "close"


@pytest.mark.pure
async def test_a_bug_in_the_codec_ends_its_connection_and_no_other(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    wired.upstream.automatic = OK
    other = await wired.caller()
    assert (await other.ask(GET)).status == 200
    caller = await wired.caller()

    def broken(*_: object) -> bytes:
        raise RuntimeError("a planted bug")

    with monkeypatch.context() as patch:
        patch.setattr(Http1Downstream, "_take_head", broken)
        caller.send(GET)
        await caller.refusal(500, "internal_error")
        assert await caller.take_all() == b""

    assert (await other.ask(GET)).status == 200
    (complaint,) = wired._complaints.records
    assert "A bug in the HTTP/1.1 codec" in complaint
    assert "a planted bug" in complaint
    wired._complaints.records.clear()


async def test_requests_behind_answers_that_nobody_reads_wait_until_they_are_read(
    wired: Wired,
) -> None:
    count, body = 64, b"x" * 512 * 1024
    wired.upstream.automatic = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    caller = await wired.caller()
    caller.pause()
    caller.send(GET * count)

    def requests() -> int:
        return sum(bytes(end.history).count(b"GET / ") for end in wired.upstream.connections)

    assert 0 < await wired.standstill(requests) < count

    caller.resume()
    for _ in range(count):
        answer = await caller.answer()
        assert (answer.status, len(answer.body)) == (200, len(body))
    assert requests() == count
