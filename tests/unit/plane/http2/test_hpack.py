"""Header blocks: the examples of RFC 7541 are read, and hpack is the judge of everything else."""

from __future__ import annotations

import time

import hpack
import hpack.hpack
import hpack.huffman
import hpack.huffman_constants
import hpack.huffman_table
import hpack.table
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.plane.http2 import huffman, table
from proxy.plane.http2.decoder import BOMB, CompressionError, Decoder, DecompressionBomb
from proxy.plane.http2.encoder import Encoder
from proxy.plane.http2.fields import Fields

LIMIT = 64 * 1024

Pairs = list[tuple[bytes, bytes]]

HUFFMAN = hpack.huffman.HuffmanEncoder(
    hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
)


def read(decoder: Decoder, block: str | bytes) -> Fields:
    fields = decoder.decode(bytes.fromhex(block) if isinstance(block, str) else block)
    while fields is None:
        fields = decoder.read_on()
    return fields


def decoded(decoder: Decoder, block: str | bytes) -> Pairs:
    return [(field.name, field.value) for field in read(decoder, block).items]


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
    assert decoder._maximum == 256
    assert decoder._size <= 256
    with pytest.raises(CompressionError):
        read(decoder, "c2")  # What :status 302 was has been dropped.


# --- reading what is wrong or too much


@pytest.mark.parametrize(
    "block",
    ["80", "be", "ff80808080808001", "7f", "41", "4003616263", "400361626305", "3fe21f", "8220",
     "400181", "4001618101", "00", "10", "0f80"],
)  # fmt: skip
def test_a_block_that_breaks_the_rules_is_not_read(block: str) -> None:
    with pytest.raises(CompressionError):
        read(Decoder(LIMIT), block)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused_as_hpack_does(block: bytes) -> None:
    ours, theirs = Decoder(LIMIT), hpack.Decoder(max_header_list_size=2**30)
    try:
        expected = judged(theirs, block)
    except hpack.HPACKError:
        with pytest.raises((CompressionError, DecompressionBomb)):
            read(ours, block)
    else:
        assert decoded(ours, block) == expected


@pytest.mark.parametrize(("size", "whole"), [(99, True), (100, True), (101, False)])
def test_fields_beyond_the_limit_are_left_out(size: int, whole: bool) -> None:  # noqa: FBT001 (a parameter)
    block = Encoder().encode(lines([(b"x-a", b"v" * 10), (b"x-b", b"v" * (size - 17 - 7))]))

    fields = read(Decoder(100), block)

    assert (fields.size, fields.oversize, len(fields.items)) == (size, not whole, 1 + whole)


def test_what_is_left_out_still_stands_in_the_table() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(100)
    pairs = [("x-a", "v" * 60), ("x-b", "v" * 60)]

    assert read(decoder, encoder.encode(pairs)).oversize
    assert decoded(decoder, encoder.encode(pairs[1:])) == [(b"x-b", b"v" * 60)]


@pytest.mark.parametrize(("extra", "bomb"), [(-1, False), (0, False), (1, True)])
def test_a_block_that_decodes_to_many_times_the_limit_is_a_bomb(extra: int, bomb: bool) -> None:  # noqa: FBT001 (a parameter)
    encoder = hpack.Encoder()
    # hpack counts 32 bytes with each field: a thousand, so many times.
    once = encoder.encode([("x-a", "v" * 965)])
    rest = encoder.encode([("x-b", "v" * (965 + extra))])
    block = once + b"\xbe" * (BOMB - 2) + rest
    decoder = Decoder(1000)

    if bomb:
        with pytest.raises(DecompressionBomb):
            read(decoder, block)
    else:
        assert read(decoder, block).oversize


def test_a_head_of_the_smallest_fields_is_no_bomb_within_the_limit() -> None:
    block = hpack.Encoder().encode([("", "")]) + b"\xbe" * 999

    fields = read(Decoder(4000), block)

    assert (fields.size, fields.oversize, len(fields.items)) == (4000, False, 1000)


def test_what_may_not_be_compressed_is_known_by_name() -> None:
    encoder = hpack.Encoder()
    block = encoder.encode([hpack.NeverIndexedHeaderTuple("x-secret", "1"), ("x-open", "2")])

    assert read(Decoder(LIMIT), block).never_indexed == {b"x-secret"}


def test_a_block_that_changes_nothing_is_read_once() -> None:
    decoder = Decoder(LIMIT)
    first = read(decoder, "828684")

    assert read(decoder, "828684") is first


def test_a_field_that_is_seen_again_is_judged_once() -> None:
    decoder = Decoder(LIMIT)
    first = read(decoder, hpack.Encoder().encode([("x-a", "1")])).items[0]

    assert read(decoder, "be82").items[0] is first


def test_fields_are_remembered_in_bounds() -> None:
    decoder = Decoder(LIMIT)
    for number in range(1000):
        read(decoder, hpack.Encoder().encode([("x-a", str(number)), ("x-b", "v" * 300)]))

    assert len(decoder._fields) <= 128
    assert all(len(value) < 256 for _, value in decoder._fields)
    assert len(decoder._blocks) <= 32


@pytest.mark.parametrize("size", [505, 506, 507, 508, 509, 510, 2000, 20_000])
@pytest.mark.parametrize("huffman", [True, False])
def test_a_literal_of_any_length_is_read(size: int, *, huffman: bool) -> None:
    pairs = [("x-a", "v" * size), ("x-b", "1"), ("x-c", "w" * size)]
    block = hpack.Encoder().encode(pairs, huffman=huffman)

    assert decoded(Decoder(LIMIT), block) == [(n.encode(), v.encode()) for n, v in pairs]


@pytest.mark.pure
def test_the_time_that_a_block_takes_grows_with_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.plane.http2.decoder._MOST_DECODED", 10**6)

    def seconds(literals: int) -> float:
        block = b"\0\x01a\0" * literals
        began = time.process_time()
        read(Decoder(2**24), block)
        return time.process_time() - began

    # Fifteen times as long.
    assert min(seconds(60_000) for _ in range(3)) < 30 * min(seconds(4000) for _ in range(5))


@pytest.mark.parametrize(("number", "kept"), [(999, 999), (1000, 1000), (1001, 1000)])
def test_so_many_fields_are_kept_and_more_are_too_large(number: int, kept: int) -> None:
    fields = read(Decoder(LIMIT), b"\0\x01a\0" * number)

    assert (len(fields.items), fields.oversize) == (kept, number > kept)


@pytest.mark.parametrize(("number", "is_bomb"), [(3999, False), (4000, False), (4001, True)])
def test_a_block_of_many_times_the_fields_is_an_attack(number: int, *, is_bomb: bool) -> None:
    decoder = Decoder(LIMIT)
    if is_bomb:
        with pytest.raises(DecompressionBomb):
            read(decoder, b"\x82" * number)
    else:
        assert read(decoder, b"\x82" * number).oversize


@pytest.mark.parametrize(("resizes", "is_bomb"), [(3999, False), (4000, True)])
def test_a_block_that_does_nothing_but_change_its_table_is_an_attack(
    resizes: int, *, is_bomb: bool
) -> None:
    """With one field behind them."""
    block = b"\x20" * (resizes - 1) + b"\x3f\xe1\x1f" + b"\x82"  # RFC 7541, 6.3.
    if is_bomb:
        with pytest.raises(DecompressionBomb):
            read(Decoder(LIMIT), block)
    else:
        assert decoded(Decoder(LIMIT), block) == [(b":method", b"GET")]


def test_a_fault_does_not_show_the_block() -> None:
    with pytest.raises(CompressionError) as caught:
        read(Decoder(LIMIT), b"\x40\x01a\x7fsecret")

    assert "secret" not in str(caught.value)


def test_a_block_is_read_again_when_the_table_has_changed() -> None:
    decoder = Decoder(LIMIT)
    read(decoder, "4001610131")
    assert decoded(decoder, "be") == [(b"a", b"1")]

    read(decoder, "4001620132")

    assert decoded(decoder, "be") == [(b"b", b"2")]
    assert decoded(decoder, "bf") == [(b"a", b"1")]


FORMS = st.one_of(
    st.integers(0x81, 0xFE).map(lambda byte: bytes((byte,))),  # Fields of either table.
    st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([b"1", b"2", b"v" * 300])).map(
        lambda pair: b"\x40\x01" + pair[0] + hpack.hpack.encode_integer(len(pair[1]), 7) + pair[1]
    ),  # A new entry.
)
SIZED = st.sampled_from([b"", b"", b"", b"\x20", b"\x3f\x41", b"\x3f\xe1\x1f"])
TALKS = st.lists(st.tuples(SIZED, st.lists(FORMS, max_size=6)), max_size=30)


@given(TALKS)
def test_whatever_happens_to_the_table_fields_are_read_as_hpack_does(
    talk: list[tuple[bytes, list[bytes]]],
) -> None:
    ours, theirs = Decoder(LIMIT), hpack.Decoder(max_header_list_size=2**30)
    for size, forms in talk:
        block = size + b"".join(forms)
        try:
            expected = judged(theirs, block)
        except hpack.HPACKError:
            with pytest.raises(CompressionError):
                read(ours, block)
            return
        assert decoded(ours, block) == expected


# --- reading what is too large


def literal(form: int, value: bytes, *, coded: bool) -> bytes:
    """Return a literal field named x-a, its value in the Huffman code or as it is."""
    text = HUFFMAN.encode(value) if coded else value
    length = hpack.hpack.encode_integer(len(text), 7)
    length[0] |= table.HUFFMAN if coded else 0
    return bytes((form,)) + b"\x03x-a" + bytes(length) + text


# Lengths around what a table, the beginning that is kept and the limits hold.
LARGE = st.builds(
    literal,
    st.sampled_from([0x00, 0x10, 0x40, 0x40]),
    st.builds(
        lambda text, size: (text * size)[:size],
        st.sampled_from([b"a", b"~ Z", b"\n"]),
        st.sampled_from([0, 1, 300, 2000, 4060, 4061, 4062, 4096, 4097, 9000, 20_000]),
    ),
    coded=st.booleans(),
)


@given(st.lists(st.lists(st.one_of(LARGE, FORMS), max_size=8), max_size=8))
def test_the_table_stays_right_whatever_is_not_read(talk: list[list[bytes]]) -> None:
    ours, theirs = Decoder(3000), hpack.Decoder(max_header_list_size=2**30)
    for forms in talk:
        try:
            expected = judged(theirs, b"".join(forms))
        except hpack.HPACKError:
            with pytest.raises((CompressionError, DecompressionBomb)):
                read(ours, b"".join(forms))
            return
        try:
            fields = read(ours, b"".join(forms))
        except DecompressionBomb:
            return
        entries = [(field.name, field.value) for field in ours._entries]
        assert entries == [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]
        kept = [(field.name, field.value) for field in fields.items]
        assert kept == (expected[: len(kept)] if fields.oversize else expected)


def reading(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what collects the length of each piece that is read of the Huffman code."""
    lengths: list[int] = []
    read = huffman._read

    def counting(data: bytes, state: int, out: bytearray) -> int:
        lengths.append(len(data))
        return read(data, state, out)

    monkeypatch.setattr(huffman, "_read", counting)
    return lengths


FITS = LIMIT + LIMIT // 16


@pytest.mark.parametrize(("size", "is_read"), [(FITS, True), (FITS + 1, False)])
@pytest.mark.pure
def test_a_value_is_not_read_in_a_block_that_is_too_long(
    monkeypatch: pytest.MonkeyPatch, size: int, *, is_read: bool
) -> None:
    lengths = reading(monkeypatch)
    block = b"\x82" + literal(0, b"0" * ((size - 10) * 8 // 5), coded=True)
    assert len(block) == size

    fields = read(Decoder(LIMIT), block)

    assert (fields.oversize, bool(lengths)) == (True, is_read)
    assert [field.name for field in fields.items] == [b":method"]
    assert (fields.work > 10_000) is is_read


@pytest.mark.pure
def test_behind_what_is_too_much_no_value_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    block = literal(0, b"v" * 2000, coded=False) + literal(0, b"a" * 3000, coded=True) * 2
    lengths = reading(monkeypatch)

    assert read(Decoder(4100), block).oversize
    assert sum(lengths) == 3000 * 5 // 8  # The first of the two.


@pytest.mark.pure
def test_what_the_table_needs_is_read_up_to_the_usual_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = reading(monkeypatch)
    field = literal(0x40, b"0" * 4096, coded=True)
    most = LIMIT // (4096 * 5 // 8)

    assert read(Decoder(8000), field * most).oversize
    assert sum(lengths) <= LIMIT
    with pytest.raises(DecompressionBomb):
        read(Decoder(8000), field * (most + 1))


def test_the_beginning_of_a_block_that_is_too_long_is_kept() -> None:
    block = hpack.Encoder().encode([*GET, (b"x-a", b"v" * 2000), (b"x-b", b"~" * 99_000)])

    kept = decoded(Decoder(LIMIT), block)

    assert kept == [*GET, (b"x-a", b"v" * 2000)]


# --- reading in pieces

PIECES = st.fixed_dictionaries(
    {
        "_PIECE_FIELDS": st.sampled_from([1, 2, 3, 64]),
        "_PIECE_BYTES": st.sampled_from([1, 7, 500, 16_384]),
        "_PIECE_CODED": st.sampled_from([0, 1, 100, 1024]),
        "_STRING_CODED": st.sampled_from([1, 2, 50, 999, 1536]),
    }
)
WHOLE = dict.fromkeys(("_PIECE_FIELDS", "_PIECE_BYTES", "_PIECE_CODED", "_STRING_CODED"), 10**9)


def coded(text: bytes) -> bytes:
    """Return a string in the Huffman code (RFC 7541, 5.2)."""
    code = HUFFMAN.encode(text)
    length = hpack.hpack.encode_integer(len(code), 7)
    length[0] |= table.HUFFMAN
    return bytes(length) + code


TEXTS = st.builds(
    lambda text, size: (text * size)[:size],
    st.sampled_from([b"a", b"b~", b"\n"]),
    st.sampled_from([0, 1, 3, 50, 200, 3000]),
).map(coded)
NAMED = st.builds(
    lambda form, name, value: bytes((form,)) + name + value,
    st.sampled_from([0x00, 0x10, 0x40]), TEXTS, TEXTS,
)  # fmt: skip
BROKEN = st.sampled_from([b"\x20", b"\x80", b"\x00\x01a\x84\xff\xff\xff\xff", b"\x00\x01a\x7f"])
SENT = st.lists(
    st.tuples(SIZED, st.lists(st.one_of(NAMED, NAMED, LARGE, FORMS), max_size=8)), max_size=5
)


def told(decoder: Decoder, block: bytes) -> object:
    """Return all that a block is taken for, with what it leaves in the table."""
    try:
        fields = read(decoder, block)
    except (CompressionError, DecompressionBomb) as error:
        return type(error)
    assert decoder._strings == {}
    items = [(field.name, field.value) for field in fields.items]
    entries = [(field.name, field.value) for field in decoder._entries]
    said = fields.oversize, fields.never_indexed, fields.work, fields.size
    return items, said, entries, decoder._size, decoder._maximum, len(decoder._blocks)


@pytest.mark.pure
@given(SENT, st.one_of(st.just(b""), BROKEN), PIECES)
def test_a_block_means_the_same_however_it_is_read_in_pieces(
    sent: list[tuple[bytes, list[bytes]]], last: bytes, sizes: dict[str, int]
) -> None:
    blocks = [size + b"".join(forms) for size, forms in sent]
    blocks.append((blocks[-1] if blocks else b"") + last)
    ours, at_once = Decoder(6000), Decoder(6000)
    for block in blocks:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in WHOLE.items():
                patch.setattr(f"proxy.plane.http2.decoder.{name}", value)
            expected = told(at_once, block)
            for name, value in sizes.items():
                patch.setattr(f"proxy.plane.http2.decoder.{name}", value)
            assert told(ours, block) == expected
        if not isinstance(expected, tuple):
            return  # The connection ends.


@pytest.mark.parametrize(
    ("block", "pieces"),
    [
        (b"\x82" * 63, 1),
        (b"\x82" * 64, 1),
        (b"\x82" * 65, 2),
        (b"\x40\x01a\x01b" * 3000, 47),
        (b"\x20\x3f\xe1\x1f" * 32 + b"\x82", 2),
        (b"\x20\x3f\xe1\x1f" * 31 + b"\x82", 1),
        (literal(0, b"v" * 60_000, coded=False), 1),
        (literal(0x40, b"v" * 4000, coded=False) * 4 + b"\x82", 1),
        (literal(0x40, b"v" * 4000, coded=False) * 5 + b"\x82", 2),
        (literal(0, b"0" * 1632, coded=True) + b"\x82", 1),  # 1,020 bytes of code.
        (literal(0, b"0" * 1640, coded=True) + b"\x82", 2),  # 1,025.
        (literal(0, b"0" * 2456, coded=True), 1),  # 1,535.
        (literal(0, b"0" * 2457, coded=True), 1),
        (literal(0, b"0" * 2458, coded=True), 2),  # 1,537.
        (literal(0, b"0" * 100_000, coded=True), 41),
    ],
)
def test_a_long_block_is_read_in_pieces(block: bytes, pieces: int) -> None:
    """At most 64 fields, 16 KiB, and some 2 KiB of Huffman code in each."""
    decoder = Decoder(LIMIT)
    fields, read_on = decoder.decode(block), 1
    while fields is None:
        fields, read_on = decoder.read_on(), read_on + 1

    assert read_on == pieces


@pytest.mark.pure
def test_no_more_of_the_huffman_code_is_read_in_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = reading(monkeypatch)
    short = literal(0, b"0" * 1600, coded=True)  # 1,000 bytes of code.
    decoder = Decoder(LIMIT)
    fields = decoder.decode((short * 2 + b"\x82") * 10 + literal(0, b"0" * 30_000, coded=True))
    most = sum(lengths)
    while fields is None:
        lengths.clear()
        fields = decoder.read_on()
        most = max(most, sum(lengths))

    assert (len(fields.items), fields.oversize) == (31, False)
    assert most <= 1024 + 1536


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
        # Both keep the same table.
        entries = judge.header_table.dynamic_entries
        assert encoder._size == sum(len(n) + len(v) + 32 for n, v in entries)


def test_a_line_is_put_into_the_table_when_it_comes_again() -> None:
    encoder = Encoder()
    line = lines([(b"x-serverless-authorization", b"Bearer " + b"e" * 900)])

    sizes = [len(encoder.encode(line)) for _ in range(4)]

    assert sizes[0] > 900
    assert sizes[1] > 900
    assert sizes[2:] == [1, 1]


def test_a_block_is_written_again_when_the_table_has_changed() -> None:
    encoder, judge = Encoder(), hpack.Decoder()
    first, second = [(b"x-a", b"1")], [(b"x-b", b"2")]
    for pairs in (first, first, first, first, second, second, first, second, first):
        assert judged(judge, encoder.encode(lines(pairs))) == pairs


def test_lines_that_never_repeat_do_not_push_out_one_that_does() -> None:
    encoder = Encoder()
    token = (b"x-serverless-authorization", b"Bearer " + b"e" * 900)

    last = b""
    for number in range(500):
        last = encoder.encode(lines([(b":path", b"/orders/%d" % number), token]))

    assert len(last) < 30


@pytest.mark.parametrize(("number", "learnt"), [(63, 63), (64, 64), (65, 64), (1000, 64)])
def test_of_a_long_block_so_many_lines_are_learnt(number: int, learnt: int) -> None:
    encoder, judge = Encoder(), hpack.Decoder()
    pairs = [(b"x-%d" % each, b"v") for each in range(number)]
    pairs[-1] = (b"x" * 200, b"w" * 200)

    for _ in range(4):
        assert judged(judge, encoder.encode(lines(pairs))) == pairs

    entries = judge.header_table.dynamic_entries
    assert [bytes(name) for name, _ in reversed(entries)] == [name for name, _ in pairs[:learnt]]


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 300])
def test_lengths_are_written_right_at_their_ends(size: int) -> None:
    """A length of 127 takes a second byte (RFC 7541, 5.1)."""
    never = frozenset({b"x"})
    for pair in ((b"n" * max(size, 1), b"v"), (b"x", b"v" * size), (b"accept", b"v" * size)):
        assert judged(hpack.Decoder(), Encoder().encode(lines([pair]), never)) == [pair]
    # A name of the static table is its number.
    assert Encoder().encode(lines([(b"accept", b"1")]), never) == b"\x0f\x04\x011"


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
        judged(judge, encoder.encode(secret))
    before = list(judge.header_table.dynamic_entries)
    assert len(before) == 2  # It was no secret then.

    pairs = list(judge.decode(encoder.encode(secret, frozenset({b"x-secret"})), raw=True))

    # A literal that says so, though the value stands in the table.
    assert [(name, value) for name, value in pairs] == [(b"x-secret", b"1"), (b"x-open", b"2")]
    assert [pair.indexable for pair in pairs] == [False, True]
    assert list(judge.header_table.dynamic_entries) == before


def test_a_table_that_is_resized_twice_is_announced_with_its_smallest_size() -> None:
    encoder = Encoder()
    for size in (100, 0, 0, 50, 4096, 100_000):
        encoder.resize(size)

    # RFC 7541, 4.2: the smallest in between, and the last, which is ours at most.
    assert encoder.encode(lines([(b":method", b"GET")])) == bytes.fromhex("203fe11f82")
    assert encoder.encode(lines([(b":method", b"GET")])) == b"\x82"


def test_sizes_do_not_pile_up_while_nothing_is_sent() -> None:
    encoder = Encoder()
    for size in range(10_000):
        encoder.resize(size % 7)

    assert len(encoder._pending) <= 2


def test_lines_are_remembered_in_bounds() -> None:
    encoder = Encoder()
    for number in range(2000):
        # As many spellings as one likes of what stands in the static table.
        encoder.encode(b"\r\n:method:" + b" " * number + b"GET")
        encoder.encode(b"\r\nx-a: %d" % number)

    assert encoder._size <= 4096
    assert len(encoder._numbers) == len(encoder._entries)
    assert (len(encoder._seen), len(encoder._blocks)) <= (64, 16)


# --- tables


def test_the_static_table_is_the_standards() -> None:
    assert tuple(table.STATIC) == hpack.table.HeaderTable.STATIC_TABLE
    assert len(table.STATIC) + 1 == table.DYNAMIC


def test_the_lengths_of_the_huffman_code_are_the_standards() -> None:
    assert (*huffman.LENGTHS, 30) == tuple(hpack.huffman_constants.REQUEST_CODES_LENGTH)


@given(st.binary(max_size=300))
def test_every_string_is_read_from_the_huffman_code(text: bytes) -> None:
    assert huffman.decode(HUFFMAN.encode(text)) == text


@given(
    st.one_of(
        st.binary(max_size=30), st.lists(st.sampled_from([0xFF, 0xFE, 0x00, 0x1F, 0x8C])).map(bytes)
    )
)
def test_what_is_no_huffman_code_is_told_as_hpack_tells_it(data: bytes) -> None:
    try:
        expected = bytes(hpack.huffman_table.decode_huffman(data))
    except hpack.HPACKDecodingError:
        with pytest.raises(huffman.NotHuffman):
            huffman.decode(data)
    else:
        assert huffman.decode(data) == expected


@given(st.integers(0, 2**27), st.sampled_from([4, 5, 6, 7]))
def test_integers_are_written_as_hpack_writes_them(value: int, bits: int) -> None:
    assert table.integer(value, 2**bits - 1, 0) == hpack.hpack.encode_integer(value, bits)


@pytest.mark.parametrize("number", [1, 100, 900])
def test_each_field_of_a_block_is_work(number: int) -> None:
    """Two microseconds each: what one takes that enters the table."""
    fields = read(Decoder(64 * 1024), b"\x40\x01a\x01b" * number)

    assert fields.work == 2 * number
