"""Header blocks: the examples of RFC 7541, and hpack as the judge of what it does not show."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.plane.http2.decoder import CompressionError, Decoder, DecompressionBomb
from proxy.plane.http2.encoder import Encoder, integer

LIMIT = 64 * 1024

Pairs = list[tuple[bytes, bytes]]


def decoded(decoder: Decoder, block: str | bytes) -> Pairs:
    data = bytes.fromhex(block) if isinstance(block, str) else block
    return [(field.name, field.value) for field in decoder.decode(data).items]


def lines(pairs: Pairs) -> bytes:
    return b"".join([b"\r\n%b: %b" % pair for pair in pairs])


def judged(decoder: hpack.Decoder, block: bytes) -> Pairs:
    """Return what hpack reads in a block."""
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]


# --- reading: RFC 7541, appendix C

GET: Pairs = [
    (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"),
    (b":authority", b"www.example.com"),
]  # fmt: skip
SECOND = [*GET, (b"cache-control", b"no-cache")]
THIRD: Pairs = [
    (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"),
    (b":authority", b"www.example.com"), (b"custom-key", b"custom-value"),
]  # fmt: skip
DATE = b"Mon, 21 Oct 2013 20:13:21 GMT"
URL = b"https://www.example.com"
FIRST_ANSWER: Pairs = [
    (b":status", b"302"), (b"cache-control", b"private"), (b"date", DATE), (b"location", URL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("block", "pairs"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header")),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path")),
        ("100870617373776f726406736563726574", (b"password", b"secret")),
        ("82", (b":method", b"GET")),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_each_form_of_a_field_is_read(block: str, pairs: tuple[bytes, bytes]) -> None:
    assert decoded(Decoder(LIMIT), block) == [pairs]


@pytest.mark.parametrize(
    "blocks",
    [
        (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ),
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ),
    ],
    ids=["C.3", "C.4, Huffman"],
)
def test_requests_that_share_a_table_are_read(blocks: tuple[str, str, str]) -> None:
    decoder = Decoder(LIMIT)

    assert [decoded(decoder, block) for block in blocks] == [GET, SECOND, THIRD]


def test_a_table_that_overflows_drops_what_is_oldest() -> None:
    # C.5: a table of 256 bytes, which its encoder announces here in the first block.
    decoder = Decoder(LIMIT)
    first = "3fe101" + "4803333032580770726976617465" + "611d" + DATE.hex() + "6e17" + URL.hex()

    assert decoded(decoder, first) == FIRST_ANSWER
    assert decoded(decoder, "4803333037c1c0bf") == [(b":status", b"307"), *FIRST_ANSWER[1:]]
    assert decoder._size <= 256
    with pytest.raises(CompressionError):
        decoder.decode(bytes.fromhex("c2"))  # What :status 302 was has been dropped.


# --- reading what is wrong or too much


@pytest.mark.parametrize(
    "block",
    ["80", "be", "ff80808080808001", "7f", "41", "4003616263", "400361626305", "3fe21f", "8220",
     "400181", "4001618101", "00", "10", "0f80"],
)  # fmt: skip
def test_a_block_that_breaks_the_rules_is_not_read(block: str) -> None:
    with pytest.raises(CompressionError):
        Decoder(LIMIT).decode(bytes.fromhex(block))


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused_as_hpack_does(block: bytes) -> None:
    ours, theirs = Decoder(LIMIT), hpack.Decoder(max_header_list_size=2**30)
    try:
        expected = judged(theirs, block)
    except hpack.HPACKError:
        with pytest.raises((CompressionError, DecompressionBomb)):
            ours.decode(block)
    else:
        assert decoded(ours, block) == expected


@pytest.mark.parametrize(("size", "whole"), [(99, True), (100, True), (101, False)])
def test_fields_beyond_the_limit_are_left_out(size: int, whole: bool) -> None:  # noqa: FBT001 (a parameter)
    block = Encoder().encode(lines([(b"x-a", b"v" * 10), (b"x-b", b"v" * (size - 17 - 7))]))

    fields = Decoder(100).decode(block)

    assert (fields.size, fields.oversize, len(fields.items)) == (size, not whole, 1 + whole)


def test_what_is_left_out_still_stands_in_the_table() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(100)
    pairs = [("x-a", "v" * 60), ("x-b", "v" * 60)]

    assert decoder.decode(encoder.encode(pairs)).oversize
    assert decoded(decoder, encoder.encode(pairs[1:])) == [(b"x-b", b"v" * 60)]


@pytest.mark.parametrize(("times", "bomb"), [(15, False), (17, True)])
def test_a_block_that_decodes_to_many_times_the_limit_is_a_bomb(times: int, bomb: bool) -> None:  # noqa: FBT001 (a parameter)
    encoder = hpack.Encoder()
    once = encoder.encode([("x-a", "v" * 993)])  # A thousand bytes.
    decoder = Decoder(1000)

    if bomb:
        with pytest.raises(DecompressionBomb):
            decoder.decode(once + b"\xbe" * times)
    else:
        assert decoder.decode(once + b"\xbe" * times).oversize


def test_what_may_not_be_compressed_is_known_by_name() -> None:
    encoder = hpack.Encoder()
    block = encoder.encode([hpack.NeverIndexedHeaderTuple("x-secret", "1"), ("x-open", "2")])

    assert Decoder(LIMIT).decode(block).never_indexed == {b"x-secret"}


def test_a_block_that_changes_nothing_is_read_once() -> None:
    decoder = Decoder(LIMIT)
    first = decoder.decode(b"\x82\x86\x84")

    assert decoder.decode(b"\x82\x86\x84") is first


def test_a_block_is_read_again_when_the_table_has_changed() -> None:
    decoder = Decoder(LIMIT)
    decoder.decode(bytes.fromhex("4001610131"))
    assert decoded(decoder, "be") == [(b"a", b"1")]

    decoder.decode(bytes.fromhex("4001620132"))

    assert decoded(decoder, "be") == [(b"b", b"2")]
    assert decoded(decoder, "bf") == [(b"a", b"1")]


# --- writing


NAMES = st.sampled_from([b":path", b"x-a", b"x-b", b"accept", b"content-type", b"X-Mixed"])
VALUES = st.sampled_from([b"", b"1", b"gzip, deflate", b"/", b"v" * 300, b"w" * 2000, b"\xff"])
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=6), max_size=25)
SIZES = st.lists(st.sampled_from([0, 50, 100, 1000, 4096, 65536]), max_size=25)


@given(blocks=BLOCKS, sizes=SIZES)
def test_what_is_written_is_read_as_it_was(blocks: list[Pairs], sizes: list[int]) -> None:
    encoder, judge, ours = Encoder(), hpack.Decoder(), Decoder(LIMIT)
    judge.max_allowed_table_size = 65536
    for number, pairs in enumerate(blocks):
        if number < len(sizes):
            encoder.resize(sizes[number])
        block = encoder.encode(lines(pairs))

        expected = [(name.lower(), value) for name, value in pairs]
        assert judged(judge, block) == expected
        assert decoded(ours, block) == expected
        if number < len(sizes):
            assert judge.header_table_size <= sizes[number]


def test_a_line_is_put_into_the_table_when_it_comes_again() -> None:
    encoder = Encoder()
    line = lines([(b"x-serverless-authorization", b"Bearer " + b"e" * 900)])

    sizes = [len(encoder.encode(line)) for _ in range(4)]

    assert sizes[0] > 900
    assert sizes[1] > 900
    assert sizes[2:] == [1, 1]


def test_lines_that_never_repeat_do_not_push_out_one_that_does() -> None:
    encoder = Encoder()
    token = (b"x-serverless-authorization", b"Bearer " + b"e" * 900)

    last = b""
    for number in range(500):
        last = encoder.encode(lines([(b":path", b"/orders/%d" % number), token]))

    assert len(last) < 30


def test_a_line_that_would_fill_the_table_stays_out_of_it() -> None:
    encoder = Encoder()
    line = lines([(b"cookie", b"c" * 4000)])

    assert [len(encoder.encode(line)) > 4000 for _ in range(4)] == [True] * 4


def test_white_space_around_a_value_is_not_sent() -> None:
    block = Encoder().encode(b"\r\nX-A:1\r\nX-B: \t 2 \t \r\nX-C:")

    assert decoded(Decoder(LIMIT), block) == [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"")]


def test_what_may_not_be_compressed_is_never_put_into_a_table() -> None:
    encoder, judge = Encoder(), hpack.Decoder()
    secret = lines([(b"x-secret", b"1"), (b"x-open", b"2")])
    for _ in range(4):
        encoder.encode(secret)

    block = encoder.encode(secret, frozenset({b"x-secret"}))

    read = list(judge_after(encoder, judge, block))
    assert [(pair[0], pair.indexable) for pair in read] == [(b"x-secret", False), (b"x-open", True)]


def judge_after(encoder: Encoder, judge: hpack.Decoder, block: bytes) -> list[hpack.HeaderTuple]:
    """Return what hpack reads in a block that needs nothing of the table."""
    assert encoder._inserted == 2
    return list(judge.decode(block, raw=True))


@pytest.mark.parametrize(
    ("value", "mask", "expected"),
    [(10, 0x1F, "0a"), (1337, 0x1F, "1f9a0a"), (42, 0xFF, "2a"), (31, 0x1F, "1f00")],
    ids=["C.1.1", "C.1.2", "C.1.3", "the prefix full"],
)
def test_integers_are_written_as_the_standard_shows(value: int, mask: int, expected: str) -> None:
    assert integer(value, mask, 0) == bytes.fromhex(expected)
