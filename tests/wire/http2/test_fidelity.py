"""What one side sends is what the other gets, whichever protocols the two speak."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from proxy.config.model import Protocol
from tests.fakes.framed import GET, GRPC, POST, FramedUpstream, Pairs
from tests.fakes.framed_world import Framed, frame_caller
from tests.fakes.raw import Message
from tests.fakes.wired import Wired


@dataclasses.dataclass
class Got:
    """A message without its wire format."""

    start: tuple[str, ...]
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def value(self, name: str) -> str:
        (value,) = [value for key, value in self.fields if key == name]
        return value

    def names(self) -> list[str]:
        return [name for name, _ in self.fields]


def _got(message: Message) -> Got:
    def pairs(lines: list[str]) -> list[tuple[str, str]]:
        split = (line.partition(":") for line in lines if line)
        return [(name.lower(), value.strip()) for name, _, value in split]

    start, *lines = message.head.decode("latin-1").split("\r\n")
    trailers = pairs(message.trailers.decode("latin-1").split("\r\n"))
    return Got(tuple(start.split(" ")), pairs(lines), message.body, trailers)


FRAMING = {"transfer-encoding", "content-length", "connection"}


class Way:
    """A caller and an upstream, each speaking one of the protocols."""

    def __init__(self, down: str, up: str, stack: AsyncExitStack) -> None:
        self.down, self.up = down, up
        self._stack = stack
        self.world: Wired

    async def start(self, **route: Any) -> None:
        protocol = Protocol.H2 if self.up == "h2" else Protocol.H1
        if self.up == "h2":
            self.world = await self._stack.enter_async_context(Framed(protocol=protocol, **route))
        else:
            self.world = await self._stack.enter_async_context(Wired())
            await self.world.serve(protocol=protocol, **route)

    async def exchange(
        self,
        pairs: Pairs,
        body: bytes | None = None,
        trailers: Pairs = (),
        *,
        answer: Pairs = ((":status", "200"),),
        answer_body: bytes = b"ok",
        answer_trailers: Pairs = (),
    ) -> tuple[Got, Got]:
        """Return what the upstream and the caller got."""
        give = self._give_frames if self.up == "h2" else self._give_lines
        ask = self._ask_frames if self.down == "h2" else self._ask_lines
        return await ask(pairs, body, trailers, give, answer, answer_body, answer_trailers)

    async def _ask_frames(
        self, pairs: Pairs, body: bytes | None, trailers: Pairs, give: Any, *answer: Any
    ) -> tuple[Got, Got]:
        async with await frame_caller(self.world) as caller:
            caller.send_headers(1, pairs, end=body is None and not trailers)
            if body is not None:
                caller.send_data(1, body, end=not trailers)
            if trailers:
                caller.send_headers(1, trailers, end=True)
            seen = await give(*answer)
            got = await caller.finished(1)
            assert got.reset == ""
            status, *fields = got.pairs
            return seen, Got((status[1],), fields, bytes(got.body), got.trailers)

    async def _ask_lines(
        self, pairs: Pairs, body: bytes | None, trailers: Pairs, give: Any, *answer: Any
    ) -> tuple[Got, Got]:
        pseudo = dict(pairs[:4])
        lines = [f"{pseudo[':method']} {pseudo[':path']} HTTP/1.1", f"Host: {pseudo[':authority']}"]
        for name, value in pairs[4:]:
            lines.append(f"{name}: {value}" + "\r\nConnection: te" * (name == "te"))
        chunked = body is not None and "content-length" not in dict(pairs)
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        data = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if chunked:
            assert body is not None
            end = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode()
            data += (
                (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n" + end + b"\r\n"
            )
        elif body is not None:
            data += body
        async with await self.world.connect() as caller:
            caller.send(data)
            seen = await give(*answer)
            got = _got(await caller.answer(bodyless=pseudo[":method"] == "HEAD"))
            return seen, dataclasses.replace(got, start=got.start[1:2])

    async def _give_frames(self, pairs: Pairs, body: bytes, trailers: Pairs) -> Got:
        assert isinstance(self.world, Framed)
        upstream = await self.world.framed.accept()
        seen = await upstream.request(1)
        upstream.send_headers(1, pairs, end=not body and not trailers)
        if body:
            upstream.send_data(1, body, end=not trailers)
        if trailers:
            upstream.send_headers(1, trailers, end=True)
        pseudo = dict(seen.pairs[:4])
        assert list(pseudo) == [":method", ":scheme", ":path", ":authority"]
        start = pseudo[":method"], pseudo[":path"], pseudo[":authority"]
        return Got(start, seen.pairs[4:], bytes(seen.body), seen.trailers)

    async def _give_lines(self, pairs: Pairs, body: bytes, trailers: Pairs) -> Got:
        upstream = await self.world.upstream.accept()
        got = _got(await upstream.request())
        lines = [f"HTTP/1.1 {pairs[0][1]} OK", *(f"{name}: {value}" for name, value in pairs[1:])]
        chunked = bool(body) and "content-length" not in dict(pairs)
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            end = "".join(f"{name}: {value}\r\n" for name, value in trailers)
            data = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, end.encode())
        else:
            data = body
            if not body and "content-length" not in dict(pairs) and pairs[0][1] == "200":
                lines.append("Content-Length: 0")
        upstream.send("\r\n".join([*lines, "", ""]).encode("latin-1") + data)
        method, path, _ = got.start
        host = got.fields.pop(0)
        assert host[0] == "host"
        return dataclasses.replace(got, start=(method, path, host[1]))

    @property
    def authority(self) -> str:
        port = (
            self.world.framed.port if isinstance(self.world, Framed) else self.world.upstream.port
        )
        return f"127.0.0.1:{port}"


@pytest.fixture(params=["h2-h2", "h2-h1", "h1-h2"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    down, up = request.param.split("-")
    async with AsyncExitStack() as stack:
        made = Way(down, up, stack)
        await made.start()
        yield made


async def test_method_path_and_query_arrive_and_the_authority_becomes_the_upstreams(
    way: Way,
) -> None:
    pairs = (
        (":method", "PURGE" if way.down == "h2" else "PATCH"),
        GET[1],
        (":path", "/a%2Fb/../c?x=%20&x"),
        GET[3],
    )

    seen, _ = await way.exchange((*pairs, ("content-length", "0")), b"")

    assert seen.start == (pairs[0][1], "/a%2Fb/../c?x=%20&x", way.authority)


async def test_fields_arrive_in_order_with_their_repeats_both_ways(way: Way) -> None:
    fields = [
        ("x-b", "2"),
        ("x-a", "1"),
        ("x-b", "2"),
        ("accept", "a, b"),
        ("x-c", ""),
        ("x_d", '\xe4;="'),
    ]

    seen, got = await way.exchange((*GET, *fields), answer=((":status", "200"), *fields))

    assert seen.fields == fields
    assert [pair for pair in got.fields if pair[0] not in FRAMING] == fields


async def test_an_upstream_cannot_speak_in_the_proxys_name(way: Way) -> None:
    forged = [("x-auth-proxy-error", "upstream_reset"), ("x-auth-proxy-anything", "1")]

    _, got = await way.exchange(
        (*POST, ("te", "trailers")),
        b"abc",
        answer=((":status", "502"), forged[0], ("x-a", "1"), forged[1]),
        answer_trailers=(forged[0], ("x-late", "b"), forged[1]),
    )

    assert got.start[0] == "502"
    assert [pair for pair in got.fields if pair[0] not in FRAMING] == [("x-a", "1")]
    assert got.trailers == [("x-late", "b")]


async def test_cookies_of_the_response_stay_apart(way: Way) -> None:
    cookies = [("set-cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"), ("set-cookie", "b=2")]

    _, got = await way.exchange(GET, answer=((":status", "200"), *cookies))

    assert [pair for pair in got.fields if pair[0] == "set-cookie"] == cookies


async def test_bodies_and_trailers_arrive_both_ways(way: Way) -> None:
    body = bytes(range(256)) * 300

    seen, got = await way.exchange(
        (*POST, ("te", "trailers")),
        body,
        (("x-sum", "1"), ("x-more", "2")),
        answer_body=body[::-1],
        answer_trailers=(("grpc-status", "0"), ("x-late", "b")),
    )

    assert (seen.body, seen.trailers) == (body, [("x-sum", "1"), ("x-more", "2")])
    assert (got.body, got.trailers) == (body[::-1], [("grpc-status", "0"), ("x-late", "b")])
    assert ("te", "trailers") in seen.fields


async def test_a_length_that_was_told_is_passed_on_both_ways(way: Way) -> None:
    seen, got = await way.exchange(
        (*POST, ("content-length", "3")),
        b"abc",
        answer=((":status", "200"), ("content-length", "4")),
        answer_body=b"defg",
    )

    assert (seen.body, seen.value("content-length")) == (b"abc", "3")
    assert (got.body, got.value("content-length")) == (b"defg", "4")


async def test_a_post_without_a_body_says_so(way: Way) -> None:
    pairs = POST if way.down == "h2" else (*POST, ("content-length", "0"))

    seen, _ = await way.exchange(pairs)

    assert (seen.body, seen.value("content-length")) == (b"", "0")


async def test_a_get_without_a_body_says_nothing_of_one(way: Way) -> None:
    seen, _ = await way.exchange(GET)

    assert not set(seen.names()) & FRAMING


@pytest.mark.parametrize("status", ["204", "304"])
async def test_a_status_without_a_body_ends_with_its_head(way: Way, status: str) -> None:
    _, got = await way.exchange(GET, answer=((":status", status), ("etag", '"1"')), answer_body=b"")

    assert (got.start, got.body, got.value("etag")) == ((status,), b"", '"1"')


async def test_the_answer_to_head_keeps_its_length_and_has_no_body(way: Way) -> None:
    _, got = await way.exchange(
        ((":method", "HEAD"), *GET[1:]),
        answer=((":status", "200"), ("content-length", "1000")),
        answer_body=b"",
    )

    assert (got.body, got.value("content-length")) == (b"", "1000")


async def test_the_caller_s_identity_headers_are_removed_in_every_spelling(way: Way) -> None:
    theirs = [
        ("x-serverless-authorization", "Bearer a"), ("x_serverless_authorization", "Bearer b"),
        ("x-serverless_authorization", "Bearer c"), ("authorization", "Bearer kept"),
    ]  # fmt: skip

    seen, _ = await way.exchange(
        (*POST, *theirs), b"x", (("x-serverless-authorization", "d"), ("x-ok", "1"))
    )

    assert seen.fields[:1] == [("authorization", "Bearer kept")]
    assert [name for name in seen.names() if "serverless" in name] == []
    assert seen.trailers == [("x-ok", "1")]


async def test_an_early_hint_comes_before_the_answer(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GET, end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.send_headers(1, ((":status", "103"), ("link", "</a.css>; rel=preload")))
    seen = caller.seen(1)
    await caller.until(lambda: seen.informational, "the early hint")
    upstream.answer(1)

    assert (await caller.finished(1)).status == 200
    assert seen.informational == [{":status": "103", "link": "</a.css>; rel=preload"}]


async def test_a_continue_of_the_upstream_reaches_the_caller(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, (*POST, ("expect", "100-continue")))
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).pairs, "the head")
    assert upstream.seen(1).head["expect"] == "100-continue"

    upstream.send_headers(1, ((":status", "100"),))
    seen = caller.seen(1)
    await caller.until(lambda: seen.informational, "100")
    caller.send_data(1, b"now", end=True)
    await upstream.request(1)
    upstream.answer(1)

    assert (await caller.finished(1)).status == 200
    assert bytes(upstream.seen(1).body) == b"now"


async def test_crumbs_of_a_cookie_become_one_field(framed: Framed) -> None:
    crumbs = (("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("cookie", "c=3"))
    caller = await framed.frames()

    caller.send_headers(1, (*GET, *crumbs), end=True)
    upstream = await framed.framed.accept()

    seen = await upstream.request(1)
    assert seen.pairs[4:] == [("cookie", "a=1; b=2; c=3"), ("x-a", "1")]
    upstream.answer(1)
    await caller.finished(1)


async def test_a_response_of_trailers_alone_stays_one_block(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    caller.send_data(1, b"\0\0\0\0\0", end=True)
    upstream = await framed.framed.accept()
    await upstream.request(1)

    upstream.send_headers(
        1,
        ((":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")),
        end=True,
    )

    seen = await caller.finished(1)
    assert (seen.frames, seen.head["grpc-status"], seen.trailers) == (["HEADERS!"], "12", [])


async def test_a_small_call_takes_as_few_frames_as_it_can(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    caller.send_data(1, b"\0\0\0\0\0", end=True)
    upstream = await framed.framed.accept()
    assert (await upstream.request(1)).frames == ["HEADERS", "DATA!"]

    upstream.send_headers(1, ((":status", "200"),))
    upstream.send_data(1, b"\0\0\0\0\0")
    upstream.send_headers(1, (("grpc-status", "0"),), end=True)

    assert (await caller.finished(1)).frames == ["HEADERS", "DATA", "HEADERS!"]


async def test_the_head_of_a_response_does_not_wait_for_its_body(framed: Framed) -> None:
    caller = await framed.frames()
    caller.send_headers(1, GRPC)
    upstream = await framed.framed.accept()
    await upstream.until(lambda: upstream.seen(1).pairs, "the head of the request")

    upstream.send_headers(1, ((":status", "200"), ("x-early", "1")))
    seen = await caller.headed(1)
    assert (seen.head["x-early"], seen.done) == ("1", False)

    for message in (b"one", b"two"):
        caller.send_data(1, message)
        await upstream.until(lambda m=message: upstream.seen(1).body.endswith(m), "a message")  # type: ignore[misc]  # a lambda's default
        upstream.send_data(1, message.upper())
        await caller.until(lambda m=message: seen.body.endswith(m.upper()), "its answer")  # type: ignore[misc]  # a lambda's default
    caller.send_data(1, end=True)
    await upstream.request(1)
    upstream.send_headers(1, (("grpc-status", "0"),), end=True)
    assert (await caller.finished(1)).trailers == [("grpc-status", "0")]


async def test_what_may_not_be_compressed_is_not_compressed_on_the_other_side_either(
    framed: Framed,
) -> None:
    caller = await framed.frames()
    upstream = None
    for stream in (1, 3, 5):
        caller.send_headers(
            stream, (*GET, ("x-secret", "1"), ("x-open", "2")), end=True, never=("x-secret",)
        )
        upstream = upstream or await framed.framed.accept()
        seen = await upstream.request(stream)
        upstream.send(b"")
        upstream.send_headers(
            stream, ((":status", "200"), ("x-key", "3")), end=True, never=("x-key",)
        )
        got = await caller.finished(stream)

        assert (seen.head["x-secret"], seen.never_indexed) == ("1", {"x-secret"})
        assert (got.head["x-key"], got.never_indexed) == ("3", {"x-key"})


async def test_a_head_larger_than_a_frame_arrives_in_pieces(framed: Framed) -> None:
    long = ("x-long", "v" * 40_000)
    caller = await framed.frames()
    caller.send_headers(1, (*GET, long), end=True)
    upstream = await framed.framed.accept()

    assert (await upstream.request(1)).head["x-long"] == long[1]
    upstream.send_headers(1, ((":status", "200"), long), end=True)
    assert (await caller.finished(1)).head["x-long"] == long[1]


async def test_an_upstream_that_allows_no_table_gets_none() -> None:
    async with Framed(FramedUpstream((1, 0), automatic=b"ok")) as world:
        caller = await world.frames()
        for stream in (1, 3, 5, 7):
            assert (await caller.ask(stream, (*GET, ("x-a", "1")))).status == 200
        (upstream,) = world.framed.connections

        assert upstream._decoder.header_table_size == 0
        assert upstream.seen(7).head["x-a"] == "1"
