"""Reading header blocks (HPACK, RFC 7541).

Made for what a proxy sees: the same block again and again.  A block that changes nothing in
the table means the same as long as the table stays, so it is looked up whole; else each field
that was seen before comes as the object that was made and judged then.

A block that takes long is read in pieces, so that its sender does not hold the loop: of each piece
the fields, the bytes and the Huffman code are bounded, within one long string, too.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.plane.http2 import huffman
from proxy.plane.http2.fields import Field, Fields
from proxy.plane.http2.table import (
    DYNAMIC,
    ENTRY_BYTES,
    HUFFMAN,
    INDEX_MASK,
    INDEXED,
    LEARNT,
    LEARNT_MASK,
    LITERAL_MASK,
    NEVER,
    RESIZED,
    SIZE_MASK,
    STATIC,
    TABLE_BYTES,
)
from proxy.plane.message import MOST_FIELDS

# Blocks are remembered up to this length and number: small calls repeat, long heads rarely do.
_BLOCK_BYTES: Final = 1024
_BLOCKS: Final = 32

# Fields are remembered up to this size and number.
_FIELD_BYTES: Final = 256
_FIELDS: Final = 128

# Bits beyond the prefix: no size or index in here needs more.
_LONGEST_INTEGER: Final = 28

BOMB: Final = 16
"""A block may decode to this many times the limit before its sender is taken for an attacker.

One that is merely too large gets its 431.  Each field counts 32 bytes more here, as in the table,
so that a head of tiny fields within the limit can count eight times as much.
"""

# And to so many times the fields that are kept.
_MOST_DECODED: Final = 4 * MOST_FIELDS

# A field takes about a microsecond, and four bytes of a Huffman code another one.
_CODED_SHIFT: Final = 2

# Bytes of Huffman code that are read for one block: what the longest head has that is within the
# usual limit.  Beyond it, reading would only serve the table.
_MOST_CODED: Final = 64 * 1024

# Bits of the longest code (RFC 7541, appendix B): so a string's least length is known unread.
_LONGEST_CODE: Final = 30

# Bytes of a block that is too long of which the fields are kept, to answer in its language.
_GIST: Final = 4096

# What the forms of fields take beyond what they say is far less than this share of a block.
_FORMS_SHIFT: Final = 4

# What is read of a block in one piece, some 200 microseconds of work: fields,
_PIECE_FIELDS: Final = 64

# bytes, which cost less,
_PIECE_BYTES: Final = 16 * 1024

# bytes of Huffman code, beyond which no other field begins,
_PIECE_CODED: Final = 1024

# and those of one string.
_STRING_CODED: Final = 1536

_STATIC: Final = [Field(b"", b""), *[Field(name, value) for name, value in STATIC]]


class CompressionError(Exception):
    """The block cannot be decoded: the connection is lost (RFC 9113, 4.3)."""


class DecompressionBomb(Exception):
    """The block decodes to far more than anybody may send."""


class _Later(Exception):
    """A string has not been read to its end."""


class Decoder:
    """The table of one connection's direction."""

    __slots__ = (
        "_block", "_blocks", "_bomb", "_changed", "_coded", "_counted", "_entries", "_fields",
        "_maximum", "_most_coded", "_never", "_number", "_pause", "_place", "_size", "_stop",
        "_strings", "_under_way", "limit", "longest",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        """`limit` bounds the fields of a block that are kept (bytes as `Fields.size`)."""
        self.limit = limit
        self.longest = limit + (limit >> _FORMS_SHIFT)
        """Bytes beyond which a block is too large whatever it says, and is not read in full."""
        self._most_coded = max(self.longest, _MOST_CODED)
        self._bomb = limit * BOMB
        # The table
        self._entries: deque[Field] = deque()
        """What is in it, newest first."""
        self._size = 0
        self._maximum = TABLE_BYTES
        # What is remembered
        self._blocks: dict[bytes, Fields] = {}
        self._fields: dict[tuple[bytes, bytes], Field] = {}
        # The block under way
        self._block = b""
        self._under_way = Fields()
        """What has been read of it."""
        self._place = 0
        """Where the next field is."""
        self._number = 0
        """How many there were, sizes of the table included."""
        self._counted = 0
        """Their bytes, as in the table."""
        self._coded = 0
        """Bytes of Huffman code that were read."""
        self._changed = False
        """Whether the table is another one than before."""
        self._never: list[bytes] = []
        """Names of fields that may not be compressed."""
        self._strings: dict[int, huffman.Reader] = {}
        """By their places, the long ones."""
        self._stop = 0
        """With how many fields its piece ends,"""
        self._pause = 0
        """and with how many bytes of Huffman code."""

    def decode(self, block: bytes) -> Fields | None:
        """Return the fields of a block; None where only a piece was read, see `read_on`.

        Raises:
            CompressionError: it is not valid.
            DecompressionBomb: it decodes to many times the limit, or takes too much reading.
        """
        known = self._blocks.get(block)
        if known is not None:
            return known
        self._block, self._under_way = block, Fields()
        self._place = self._number = self._counted = self._coded = 0
        self._changed = False
        return self.read_on()

    def read_on(self) -> Fields | None:
        """Read the next piece of the block under way; returns and raises what `decode` does."""
        block, fields = self._block, self._under_way
        try:
            self._read_piece(block, fields)
        except (IndexError, huffman.NotHuffman):
            # Without its text: that could have bytes of the block in it.
            raise CompressionError("A header block cannot be decoded.") from None
        if self._number > _MOST_DECODED:
            raise DecompressionBomb("A header block has far more fields than we allow.")
        size = len(block)
        if self._place < size:
            return None
        # In microseconds: one that enters the table takes two of them.
        fields.work = float(2 * self._number + (self._coded >> _CODED_SHIFT))
        fields.oversize = fields.oversize or size > self.longest
        if self._never:
            fields.never_indexed, self._never = frozenset(self._never), []
        if self._strings:
            self._strings.clear()
        if self._changed:
            self._blocks.clear()
        elif size <= _BLOCK_BYTES and not fields.oversize:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[block] = fields
        return fields

    def _read_piece(self, block: bytes, fields: Fields) -> None:
        """Add the fields of a piece to those that were there before.

        Once they are more than allowed, only what the table needs is read: a string that it could
        not hold empties it, whatever it says (RFC 7541, 4.4).
        """
        at, number, counted, coded = self._place, self._number, self._counted, self._coded
        self._stop, self._pause = number + _PIECE_FIELDS, coded + _PIECE_CODED
        size = len(block)
        end = size if size - at <= _PIECE_BYTES else at + _PIECE_BYTES
        limit = self.limit if size <= self.longest else _GIST
        needed, learnt = (0, TABLE_BYTES) if fields.oversize else (limit, max(limit, TABLE_BYTES))
        try:
            while at < end and number < self._stop:
                coded = self._coded
                byte = block[at]
                if byte & INDEXED:
                    index, at = _integer(block, at, INDEX_MASK)
                    field = self._at(index)
                elif byte & LEARNT:
                    field, at = self._literal(block, at, LEARNT_MASK, learnt)
                    self._insert(field)
                elif byte & RESIZED:
                    if counted:
                        raise CompressionError("A table size stands behind a field.")
                    at, number = self._resize(block, at), number + 1
                    continue
                else:
                    field, at = self._literal(block, at, LITERAL_MASK, needed)
                    if byte & NEVER:
                        self._never.append(field.name)
                counted += len(field.name) + len(field.value) + ENTRY_BYTES
                number += 1
                if counted > self._bomb:
                    raise DecompressionBomb("A header block decodes to far more than we allow.")
                if not (fields.oversize or fields.add(field, limit)):
                    needed, learnt = 0, TABLE_BYTES
        except _Later:
            self._coded = coded  # The field comes again, and finds its string read further.
        self._place, self._number, self._counted = at, number, counted

    def _at(self, index: int) -> Field:
        if index < DYNAMIC:
            if index == 0:
                raise CompressionError("There is no field at index 0.")
            return _STATIC[index]
        return self._entries[index - DYNAMIC]

    def _literal(self, block: bytes, at: int, mask: int, most: int) -> tuple[Field, int]:
        """Return the literal field at a place, and the place behind it; `most` as `_string` has."""
        index, at = _integer(block, at, mask)
        if index:
            name = self._at(index).name
        else:
            name, at = self._string(block, at, most)
        value, at = self._string(block, at, most)
        return self._fields.get((name, value)) or self._field(name, value), at

    def _string(self, block: bytes, at: int, most: int) -> tuple[bytes, int]:
        """Return the string at a place, and the place behind it (RFC 7541, 5.2).

        In place of one that is certainly longer than `most` bytes some others are returned that
        are: it is too long for whatever it was meant for, and what it says does not matter.
        """
        coded = block[at] & HUFFMAN
        length, at = _integer(block, at, INDEX_MASK)
        end = at + length
        if end > len(block):
            raise CompressionError("A string ends behind its block.")
        if length * 8 > most * (_LONGEST_CODE if coded else 8):
            return block[at : at + most + 1], end
        if not coded:
            return block[at:end], end
        self._coded += length
        if self._coded > self._pause:
            self._end_piece()
        raw = block[at:end]
        return huffman.decode(raw) if length <= _STRING_CODED else self._long(raw, at), end

    def _end_piece(self) -> None:
        """Begin no other field in this piece, for its Huffman code."""
        if self._coded > self._most_coded:
            raise DecompressionBomb("A header block takes too much reading.")
        self._stop = 0

    def _long(self, raw: bytes, at: int) -> bytes:
        """Return a string, known by its place, of which a piece is read each time."""
        reader = self._strings.get(at)
        if reader is None:
            reader = self._strings[at] = huffman.Reader()
        if not reader.read(raw, _STRING_CODED):
            raise _Later
        return reader.text

    def _field(self, name: bytes, value: bytes) -> Field:
        field = Field(name, value)
        if field.size <= _FIELD_BYTES:
            if len(self._fields) >= _FIELDS:
                del self._fields[next(iter(self._fields))]
            self._fields[name, value] = field
        return field

    def _insert(self, field: Field) -> None:
        self._changed = True
        self._size += len(field.name) + len(field.value) + ENTRY_BYTES
        self._entries.appendleft(field)
        self._evict()

    def _resize(self, block: bytes, at: int) -> int:
        maximum, at = _integer(block, at, SIZE_MASK)
        if maximum > TABLE_BYTES:
            raise CompressionError("The table would be larger than we allow.")
        self._changed = True
        self._maximum = maximum
        self._evict()
        return at

    def _evict(self) -> None:
        # An entry larger than the table empties it, which is no error (RFC 7541, 4.4).
        while self._size > self._maximum:
            oldest = self._entries.pop()
            self._size -= len(oldest.name) + len(oldest.value) + ENTRY_BYTES


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Return the integer whose prefix is `mask`, and the place behind it (RFC 7541, 5.1)."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, _LONGEST_INTEGER + 1, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 (the last byte)
            return value, at
    raise CompressionError("An integer is too long.")
