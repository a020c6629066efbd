"""The rules of messages that both versions of HTTP are judged by."""

from __future__ import annotations

import pytest

from proxy.errors import RequestMalformed
from proxy.plane.message import (
    are_same,
    check_method,
    count,
    host_or_none,
    is_authority,
    is_host_field,
    is_path,
    is_scheme,
)


@pytest.mark.parametrize("method", [b"GET", b"PURGE", b"M-SEARCH", b"PRIV", b"!"])
def test_any_token_in_capitals_is_a_method(method: bytes) -> None:
    check_method(method)


@pytest.mark.parametrize("method", [b"", b"get", b"Head", b"connect", b"PRI", b"G T", b"GET\n"])
def test_what_is_no_token_in_capitals_is_none(method: bytes) -> None:
    with pytest.raises(RequestMalformed):
        check_method(method)


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"5", 5), (b"9" * 18, 10**18 - 1), (b"9" * 19, None), (b"00", None),
     (b"0005", None), (b"", None), (b"+5", None), (b"5 ", None), (b"5\n", None), (b"\xb2", None)],
)  # fmt: skip
def test_a_length_is_digits_that_everybody_reads_alike(value: bytes, length: int | None) -> None:
    assert count(value) == length


@pytest.mark.parametrize(
    "value", [b"a", b"a.b:80", b"a:", b"127.0.0.1:1", b"[::1]", b"[::1]:8080", b"a_b", b"%61"]
)
def test_a_host_with_an_optional_port_is_an_authority(value: bytes) -> None:
    assert is_authority(value)


@pytest.mark.parametrize(
    "value",
    [b"", b":80", b"a,b", b"a, b", b"[1]", b"[a]", b"[::1", b"me@a", b"a/b", b"a:b", b"a:1:2",
     b"a b", b"a\n", b"\xe4"],
)  # fmt: skip
def test_anything_else_is_none(value: bytes) -> None:
    assert not is_authority(value)


@pytest.mark.parametrize("value", [b"a", b"a.b:80", b"[::1]:8080", b"a_b", b"localhost"])
def test_a_host_is_one_where_none_need_be_named(value: bytes) -> None:
    assert host_or_none(value) == value


@pytest.mark.parametrize(
    "value", [b"", b":80", b"/a", b"%2Fa", b"a%2fb:80", b"%61", b"unix:/a", b"a b", b"[::1"]
)
def test_what_is_none_is_left_out(value: bytes) -> None:
    assert host_or_none(value) == b""


def test_a_field_may_say_that_there_is_no_host() -> None:
    assert [is_host_field(value) for value in (b"", b":80", b"a", b"a,b", b":x")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "scheme", "same"),
    [(b"a", b"A", b"http", True), (b"a:80", b"a", b"http", True), (b"a:", b"a", b"https", True),
     (b"a:443", b"a", b"HTTPS", True), (b"a:80", b"a", b"https", False),
     (b"a", b"b", b"http", False)],
)  # fmt: skip
def test_the_port_of_the_scheme_need_not_be_named(
    one: bytes, other: bytes, scheme: bytes, *, same: bool
) -> None:
    assert are_same(one, other, scheme) == same


def test_a_path_has_no_fragment_and_a_scheme_is_http() -> None:
    assert [is_path(path) for path in (b"/", b"/a?b", b"/a#b", b"a", b"/a b", b"*", b"")] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
    assert [is_scheme(name) for name in (b"http", b"HTTPS", b"ftp", b"")] == [
        True, True, False, False,
    ]  # fmt: skip
