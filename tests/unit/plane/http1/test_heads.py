"""Heads: what is read of them, what is refused, and what is remembered of those that repeat."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.errors import RequestMalformed, UpstreamMalformed
from proxy.plane.head import RequestHead, join_repeated, values
from proxy.plane.http1 import heads
from proxy.plane.http1.heads import (
    Recall,
    check_request,
    check_response,
    parse_request,
    parse_response,
    take_specials,
)

REQUEST = b"POST /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 5\r\nConnection: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\nConnection: x\r\n\r\n"


def damaged(head: bytes) -> st.SearchStrategy[bytes]:
    """Heads that differ in a few places from a good one."""
    bad = st.sampled_from([b"\r", b"\n", b"\0", b" ", b"\t", b":", b",", b"\x7f", b"\xff", b""])
    change = st.tuples(st.integers(0, len(head) - 5), st.integers(0, 2), bad)

    def damage(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = head[:-4]
        for at, size, piece in changes:
            data = data[:at] + piece + data[at + size :]
        # As the codecs do: a head ends with its first empty line.
        return data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    return st.lists(change, min_size=1, max_size=3).map(damage)


@settings(max_examples=300)
@given(data=damaged(REQUEST))
def test_a_damaged_request_is_refused_or_has_clean_lines(data: bytes) -> None:
    try:
        head = parse_request(data)
    except RequestMalformed:
        return
    assert_clean(head.fields)
    assert head.length == int(values(head.fields, b"content-length")[0] if has_length(head) else 0)


def has_length(head: RequestHead) -> bool:
    return bool(values(head.fields, b"content-length"))


@settings(max_examples=300)
@given(data=damaged(RESPONSE))
def test_a_damaged_response_is_refused_or_has_clean_lines(data: bytes) -> None:
    try:
        response, _, _, _ = parse_response(data, b"GET")
    except UpstreamMalformed:
        return
    assert_clean(response.fields)


def assert_clean(fields: bytes) -> None:
    """Fail if a line of the block is anything but a name and a value."""
    for line in fields.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        assert name, fields
        assert colon, fields
        assert not set(name) & set(b" \t\0\r\n"), fields
        assert not set(value) & set(b"\0\r\n"), fields


@given(end=st.integers(0, len(REQUEST) - 1), middle=st.integers(0, len(REQUEST)))
def test_no_beginning_of_a_good_request_is_refused_early(end: int, middle: int) -> None:
    middle = min(middle, end)
    searched = max(middle - 3, 1) if middle else 0

    check_request(REQUEST[:end], searched)
    check_request(b"\r\n"[: min(end, 2)], 0)
    check_request(b"\r\n" + REQUEST[:end], searched)


@given(end=st.integers(0, len(RESPONSE) - 1), middle=st.integers(0, len(RESPONSE)))
def test_no_beginning_of_a_good_response_is_refused_early(end: int, middle: int) -> None:
    middle = min(middle, end)

    check_response(RESPONSE[:end], max(middle - 3, 1) if middle else 0)


# A CR at the end may be half of a line end.
BROKEN = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")
BEGINS = b"HTTP/1.1 200 OK\r\nX: "


@given(st.text("\r\n\0a", max_size=12).map(str.encode), st.integers(0, 12))
def test_what_stands_alone_is_seen_wherever_the_look_begins(more: bytes, looked: int) -> None:
    data, searched = BEGINS + more, len(BEGINS) + min(looked, len(more))
    # What comes before it was looked at already.
    assume(not BROKEN.search(data[: searched + 1]))

    if BROKEN.search(data):
        with pytest.raises(UpstreamMalformed, match="bare CR"):
            check_response(data, searched)
    else:
        check_response(data, searched)


@pytest.mark.parametrize(
    ("connection", "version", "keeps"),
    [
        (b"", b"1.1", True),
        (b"", b"1.0", False),
        (b"close", b"1.1", False),
        (b"keep-alive", b"1.0", True),
        (b"Keep-Alive", b"1.0", True),
        (b"keep-alive, close", b"1.0", False),
        (b"x, CLOSE", b"1.1", False),
        (b"x", b"1.0", False),
        (b"KEEP-ALIVE", b"1.0", True),
    ],
)
def test_a_connection_persists_as_the_caller_says(
    connection: bytes,
    version: bytes,
    keeps: bool,  # noqa: FBT001 (a parameter)
) -> None:
    line = b"Connection: " + connection + b"\r\n" if connection else b""
    head = parse_request(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + line + b"\r\n")

    assert head.keep_alive is keeps


@pytest.mark.parametrize("coding", [b"", b" ", b"gzip", b"gzip, chunked"])
def test_a_coding_that_is_not_chunked_is_refused_an_empty_one_too(coding: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        parse_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding:%b\r\n\r\n" % coding, b"GET")


class _Copied(bytes):
    """A value that counts how often it is put together with others, two by two."""

    copies = 0

    def __add__(self, other: object) -> bytes:
        _Copied.copies += 1
        return _Copied(bytes(self) + bytes(other))  # type: ignore[call-overload]  # bytes in fact

    __radd__ = __add__


def test_repeated_fields_are_joined_in_one_go() -> None:
    """Two by two, ten thousand of them would be copied ten thousand times."""
    pairs = [(b"te", _Copied(b"x")) for _ in range(10_000)]

    found = join_repeated([*pairs, (b"host", b"a")])

    assert found == {b"te": b", ".join([b"x"] * 10_000), b"host": b"a"}
    assert _Copied.copies == 0


@pytest.mark.parametrize("lines", [b"TE: a\r\nte: trailers", b"te: trailers\r\nTE:\r\nTe: b"])
def test_what_a_repeated_field_says_is_the_list_of_all_its_values(lines: bytes) -> None:
    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n")

    assert head.has_trailers_te


@pytest.mark.parametrize("lines", [b"Host: a\r\nhost: a", b"Host: a\r\nTE: a\r\nHost:"])
def test_two_hosts_are_refused(lines: bytes) -> None:
    with pytest.raises(RequestMalformed, match="two Host fields"):
        parse_request(b"GET / HTTP/1.1\r\n" + lines + b"\r\n\r\n")


# --- fields that repeat

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

anything = st.builds(
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
    return {
        name: getattr(found, name)
        for name in dir(found)
        if not name.startswith("_") and name != "again"
    }


@given(st.lists(anything, min_size=1, max_size=6))
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

    def parse(head: bytes, *, on_path: bool) -> RequestHead:
        seen.append(head)
        return parse_request(head, on_path=on_path)

    monkeypatch.setattr(heads, "parse_request", parse)
    return seen


@pytest.mark.pure
def test_fields_that_repeat_are_parsed_once(parsed: list[bytes]) -> None:
    connection = Recall()
    for number in range(3):
        connection.read(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    assert len(parsed) == 1

    for other in (b"POST /0 HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /0 HTTP/1.0\r\nHost: a\r\n\r\n"):
        connection.read(other)
    assert len(parsed) == 3


@pytest.mark.pure
@pytest.mark.parametrize(("size", "times"), [(4095, 1), (4096, 1), (4097, 2)])
def test_long_blocks_are_not_kept(parsed: list[bytes], size: int, times: int) -> None:
    block = b"\r\nHost: a\r\nX: %b\r\n\r\n"
    head = b"GET / HTTP/1.1" + block % (b"x" * (size - len(block % b"")))
    connection = Recall()
    connection.read(head)
    connection.read(head)

    assert len(parsed) == times


@pytest.mark.pure
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


# --- lines of responses


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Let no other test's lines be remembered."""
    heads._known.clear()
    yield
    heads._known.clear()


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_about_the_connection_is_told_and_taken_out(times: int) -> None:
    """The second time from memory."""
    for _ in range(times):
        block = [
            b"Server: a", b"Connection: keep-alive", b"content-LENGTH:5 ", b"Set-Cookie: x=1",
            b"Keep-Alive: timeout=5", b"Set-Cookie: x=1", b"CONNECTION:\tclose",
        ]  # fmt: skip
        found = take_specials(block)

        assert found == (5, {b"connection": b"keep-alive, close", b"keep-alive": b"timeout=5"})
        assert block == [
            b"Server: a", b"content-LENGTH:5 ", b"Set-Cookie: x=1", b"Set-Cookie: x=1",
        ]  # fmt: skip


def test_equal_lines_are_all_taken_out() -> None:
    block = [b"TE: x", b"A: 1", b"TE: x"]

    assert take_specials(block) == (None, {b"te": b"x, x"})
    assert block == [b"A: 1"]


class _Lines(list[bytes]):
    """Counts how often a line is searched for, which takes time by the number of lines."""

    removed = 0

    def remove(self, line: bytes) -> None:
        self.removed += 1
        super().remove(line)


@pytest.mark.pure
@pytest.mark.parametrize("count", [7, 8, 9, 5000])
def test_many_lines_are_taken_out_in_one_go(count: int) -> None:
    block = _Lines(line for n in range(count) for line in (b"A: %d" % n, b"TE: %d" % n))

    found = take_specials(block)

    assert found == (None, {b"te": b", ".join(b"%d" % n for n in range(count))})
    assert block == [b"A: %d" % n for n in range(count)]
    assert block.removed == (count if count <= 8 else 0)


@pytest.mark.parametrize(("size", "kept"), [(127, True), (128, True), (129, False)])
def test_long_lines_are_not_remembered(size: int, *, kept: bool) -> None:
    line = b"A: ".ljust(size, b"x")
    take_specials([line])

    assert (line in heads._known) is kept


@pytest.mark.parametrize(("others", "left"), [(1022, 1023), (1023, 1024), (1024, 1)])
def test_so_many_lines_are_remembered_and_then_none(others: int, left: int) -> None:
    take_specials([b"A: %d" % number for number in range(others)])
    take_specials([b"Last: 1"])

    assert len(heads._known) == left
    assert b"Last: 1" in heads._known


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"10", 10), (b"9" * 18, 10**18 - 1), (b"1" + b"0" * 17, 10**17)],
)
def test_a_length_is_told(value: bytes, length: int) -> None:
    assert take_specials([b"Content-Length: " + value]) == (length, {})


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("value", [b"00", b"010", b"1" + b"0" * 18, b"9" * 19])
def test_a_length_that_not_everybody_reads_alike_is_refused_each_time(
    value: bytes, times: int
) -> None:
    for _ in range(times):
        with pytest.raises(UpstreamMalformed, match="Content-Length"):
            take_specials([b"Content-Length: " + value])
