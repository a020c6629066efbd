from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.emulator.wire import (
    LINE_LIMIT,
    Chunked,
    Head,
    MalformedError,
    Request,
    Response,
    Sized,
    UntilClose,
)

GET = b"GET /a%2Fb?q=%20 HTTP/1.1\r\nHost: x\r\nX-A:  1 \r\nx-a:2\r\n\r\n"


def request(*lines: str, method: str = "POST") -> Request:
    return Request.parse("\r\n".join([f"{method} / HTTP/1.1", *lines, "", ""]).encode())


def response(*lines: str, start: str = "HTTP/1.1 200 OK") -> Response:
    return Response.parse("\r\n".join([start, *lines, "", ""]).encode())


def test_a_head_is_passed_on_as_it_came() -> None:
    head = Head.parse(GET)

    assert head.to_bytes() == GET
    assert head.fields == [(b"Host", b"x"), (b"X-A", b"1"), (b"x-a", b"2")]


def test_the_members_of_a_list_may_stand_in_several_fields() -> None:
    head = request("Connection: Close, x", "connection: Y").head

    assert head.values(b"connection") == [b"close", b"x", b"y"]


def test_a_request_line_is_read_without_decoding() -> None:
    read = Request.parse(GET)

    assert (read.method, read.target, read.minor) == ("GET", b"/a%2Fb?q=%20", 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : blank\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\n\r\n",
        b"G(T / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_doubtful_request_head_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        Request.parse(raw)


@pytest.mark.parametrize(
    "start", ["HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/2 200", "HTTP/1.1 600 x", "200 OK"]
)
def test_a_doubtful_status_line_is_malformed(start: str) -> None:
    with pytest.raises(MalformedError):
        response(start=start)


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 1", "Content-Length: 1"),
        ("Content-Length: 1, 1",),
        ("Content-Length: +1",),
        ("Content-Length: -1",),
        ("Content-Length:",),
        ("Content-Length: 0x1",),
        ("Content-Length: 1", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: identity",),
    ],
)
def test_a_body_whose_end_is_in_doubt_is_malformed(lines: tuple[str, ...]) -> None:
    with pytest.raises(MalformedError):
        request(*lines).body()


def test_a_request_without_either_field_has_no_body() -> None:
    assert request().body().done


@pytest.mark.parametrize(
    ("start", "method"),
    [
        ("HTTP/1.1 200 OK", "HEAD"),
        ("HTTP/1.1 204 No Content", "GET"),
        ("HTTP/1.1 304 Not Modified", "GET"),
        ("HTTP/1.1 103 Early Hints", "GET"),
    ],
)
def test_some_responses_have_no_body_whatever_they_announce(start: str, method: str) -> None:
    assert response("Content-Length: 5", start=start).body(method).done


def test_a_response_of_no_announced_length_lasts_until_the_close() -> None:
    body = response().body("GET")

    assert isinstance(body, UntilClose)
    assert (body.take(b"all"), body.done) == (3, False)


@pytest.mark.parametrize(
    ("start", "lines", "expected"),
    [
        ("HTTP/1.1 200 OK", (), True),
        ("HTTP/1.0 200 OK", (), False),
        ("HTTP/1.1 200 OK", ("Connection: x, Close",), False),
    ],
)
def test_a_connection_is_kept_unless_someone_says_no(
    start: str, lines: tuple[str, ...], *, expected: bool
) -> None:
    assert response(*lines, start=start).keeps_alive is expected


@pytest.mark.parametrize(("length", "taken", "done"), [(4, 4, True), (5, 5, True), (6, 5, False)])
def test_a_sized_body_takes_its_bytes_and_no_more(length: int, taken: int, *, done: bool) -> None:
    body = Sized(length)

    assert (body.take(b"12345"), body.done) == (taken, done)


CHUNKED = b'3;ext="\xff"\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: 1\r\nOther:2\r\n\r\n'


@given(st.lists(st.integers(1, len(CHUNKED)), max_size=20))
def test_a_chunked_body_ends_at_the_same_byte_however_it_arrives(cuts: list[int]) -> None:
    body, stream, taken = Chunked(), CHUNKED + b"GET ", 0
    marks = sorted({0, *cuts, len(stream)})
    for start, end in pairwise(marks):
        taken += body.take(stream[start:end])

    assert (taken, body.done) == (len(CHUNKED), True)


def test_an_empty_chunked_body_is_five_bytes() -> None:
    body = Chunked()

    assert (body.take(b"0\r\n\r\nmore"), body.done) == (5, True)


@pytest.mark.parametrize(
    "raw",
    [
        b"x\r\n",
        b"\r\n",
        b"3\nabc",
        b"-3\r\n",
        b"0x3\r\n",
        b"3 3\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"0\r\nno colon\r\n",
        b"0\r\n\n",
        b"1" * 16 + b"\r\n",
    ],
)
def test_a_chunked_body_that_breaks_its_framing_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        Chunked().take(raw)


def test_a_line_of_a_chunked_body_has_a_limit() -> None:
    def line(length: int) -> bytes:
        return b"1;" + b"x" * (length - 4) + b"\r\n"

    assert Chunked().take(line(LINE_LIMIT - 1)) == LINE_LIMIT - 1
    assert Chunked().take(line(LINE_LIMIT)) == LINE_LIMIT
    with pytest.raises(MalformedError):
        Chunked().take(line(LINE_LIMIT + 1))
