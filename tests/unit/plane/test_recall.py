"""A head that is recalled says what it says when it is parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RequestMalformed
from proxy.plane.head import RequestHead
from proxy.plane.http1 import recall
from proxy.plane.http1.heads import parse_request
from proxy.plane.http1.recall import Recall

FIELDS = (
    b"Host: a\r\n",
    b"Host: a\r\nContent-Length: 3\r\n",
    b"Host: b:81\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n",
    b"Host: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n",
    b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Host: a\r\nOrigin: https://x.example\r\nExpect: 100-continue\r\n",
    b"Connection: keep-alive\r\n",
    b"Host: a\r\nHost: a\r\n",
    b"Host: a\r\nbad name: 1\r\n",
)
METHODS = (b"GET", b"POST", b"OPTIONS", b"CONNECT", b"QUERY", b"get", b"PRI")
TARGETS = (
    b"/", b"/orders?batch=1&input=%7B%7D", b"//a", b"/x#fragment", b"*", b"http://a/x", b"http://b/",
    b"/x y", b"a:80", b"", b"/\xff", b"/x HTTP/1.1\r\nHost: b",
)  # fmt: skip
VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0")

heads = st.builds(
    b"%b %b %b\r\n%b\r\n".__mod__,
    st.tuples(
        st.sampled_from(METHODS),
        st.sampled_from(TARGETS) | st.binary(max_size=8).map(lambda tail: b"/" + tail),
        st.sampled_from(VERSIONS),
        st.sampled_from(FIELDS),
    ),
)


def outcome(read: object, head: bytes) -> dict[str, object] | str:
    """Return everything that is known of a head, or why it is refused."""
    assert callable(read)
    try:
        found = read(head)
    except RequestMalformed as error:
        return error.detail
    return {name: getattr(found, name) for name in RequestHead.__slots__}


@given(st.lists(heads, min_size=1, max_size=6))
def test_what_is_recalled_is_what_would_be_parsed(sent: list[bytes]) -> None:
    connection = Recall()
    # Twice, so that every head follows itself and each of the others.
    twice = [each for each in sent for _ in range(2)]
    for head in [*twice, *sent]:
        assert outcome(connection.read, head) == outcome(parse_request, head)


@pytest.mark.parametrize("byte", range(256))
def test_llhttp_takes_every_byte_of_a_target_as_the_recall_does(byte: int) -> None:
    """Else a request line could pass here that llhttp would have refused."""
    connection = Recall()
    connection.read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for target in (b"/%c", b"/x%cy", b"/?%c"):
        head = b"GET " + target % byte + b" HTTP/1.1\r\nHost: a\r\n\r\n"

        assert outcome(connection.read, head) == outcome(parse_request, head)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The heads that llhttp was given."""
    seen: list[bytes] = []

    def parse(head: bytes) -> RequestHead:
        seen.append(head)
        return parse_request(head)

    monkeypatch.setattr(recall, "parse_request", parse)
    return seen


def test_fields_that_repeat_are_parsed_once(parsed: list[bytes]) -> None:
    connection = Recall()
    for number in range(3):
        connection.read(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert len(parsed) == 1

    for other in (b"POST /0 HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /0 HTTP/1.0\r\nHost: a\r\n\r\n"):
        connection.read(other)
    assert len(parsed) == 3


@pytest.mark.parametrize(("size", "times"), [(4095, 1), (4096, 1), (4097, 2)])
def test_long_blocks_are_not_kept(parsed: list[bytes], size: int, times: int) -> None:
    block = b"\r\nHost: a\r\nX: %b\r\n\r\n"
    head = b"GET / HTTP/1.1" + block % (b"x" * (size - len(block % b"")))
    connection = Recall()
    connection.read(head)
    connection.read(head)

    assert len(parsed) == times


@pytest.mark.parametrize(("size", "kept"), [(4095, True), (4096, True), (4097, False)])
def test_long_targets_are_not_kept(parsed: list[bytes], size: int, *, kept: bool) -> None:
    rest = b" HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"GET /" + b"x" * (size - len(b"GET /" + rest)) + rest
    connection = Recall()
    said = connection.read(head)
    again = connection.read(head)

    # The very same object where it was kept; read anew where only its fields were.
    assert (again is said) is kept
    assert outcome(connection.read, head) == outcome(parse_request, head)
    assert len(parsed) == 1
