"""Lines of responses: what is found, what is taken out, and how much is remembered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.errors import UpstreamMalformed
from proxy.plane.http1 import lines
from proxy.plane.http1.lines import take_specials


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Let no other test's lines be remembered."""
    lines._known.clear()
    yield
    lines._known.clear()


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

    assert (line in lines._known) is kept


@pytest.mark.parametrize(("others", "left"), [(1022, 1023), (1023, 1024), (1024, 1)])
def test_so_many_lines_are_remembered_and_then_none(others: int, left: int) -> None:
    take_specials([b"A: %d" % number for number in range(others)])
    take_specials([b"Last: 1"])

    assert len(lines._known) == left
    assert b"Last: 1" in lines._known


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
