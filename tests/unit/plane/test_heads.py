from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import RequestMalformed, UpstreamMalformed
from proxy.plane.head import RequestHead, join_repeated, values
from proxy.plane.http1.begun import check_request, check_response
from proxy.plane.http1.heads import parse_request, parse_response

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
