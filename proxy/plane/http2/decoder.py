"""Reading header blocks (HPACK, RFC 7541).

Made for what a proxy sees: the same block again and again.  A block that changes nothing in
the table means the same as long as the table stays, so it is looked up whole; else each field
that was seen before comes as the object that was made and judged then.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.plane.http2 import huffman
from proxy.plane.http2.fields import MOST_FIELDS, Field, Fields
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

# The bits that tell a size of the table from all other forms.
_FORM: Final = 0xE0

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

_STATIC: Final = [Field(b"", b""), *[Field(name, value) for name, value in STATIC]]


class CompressionError(Exception):
    """The block cannot be decoded: the connection is lost (RFC 9113, 4.3)."""


class DecompressionBomb(Exception):
    """The block decodes to far more than anybody may send."""


class Decoder:
    """The table of one connection's direction."""

    __slots__ = (
        "_blocks", "_bomb", "_coded", "_entries", "_fields", "_maximum", "_most_coded", "_size",
        "limit", "longest",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        """`limit` bounds the fields of a block that are kept (bytes as `Fields.size`)."""
        self.limit = limit
        self.longest = limit + (limit >> _FORMS_SHIFT)
        """Bytes beyond which a block is too large whatever it says, and is not read in full."""
        self._most_coded = max(self.longest, _MOST_CODED)
        self._coded = 0
        """Bytes of Huffman code that were read of the block under way."""
        self._bomb = limit * BOMB
        self._entries: deque[Field] = deque()
        """What is in the table, newest first."""
        self._size = 0
        self._maximum = TABLE_BYTES
        self._blocks: dict[bytes, Fields] = {}
        self._fields: dict[tuple[bytes, bytes], Field] = {}

    def decode(self, block: bytes) -> Fields:
        """Return the fields of a block.

        Raises:
            CompressionError: it is not valid.
            DecompressionBomb: it decodes to many times the limit, or takes too much reading.
        """
        known = self._blocks.get(block)
        if known is not None:
            return known
        fields = Fields()
        try:
            changed = self._decode(block, fields)
        except (IndexError, huffman.NotHuffman):
            # Without its text: that could have bytes of the block in it.
            raise CompressionError("A header block cannot be decoded.") from None
        if changed:
            self._blocks.clear()
        elif len(block) <= _BLOCK_BYTES and not fields.oversize:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[block] = fields
        return fields

    def _decode(self, block: bytes, fields: Fields) -> bool:
        """Fill `fields`; return whether the table has changed.

        Once they are more than allowed, only what the table needs is read: a string that it could
        not hold empties it, whatever it says (RFC 7541, 4.4).
        """
        never: list[bytes] = []
        self._coded = 0
        at, number = self._resizes(block)
        changed = at > 0
        counted, end = 0, len(block)
        limit = self.limit if end <= self.longest else _GIST
        needed, learnt = limit, max(limit, TABLE_BYTES)
        while at < end:
            byte = block[at]
            if byte & INDEXED:
                index, at = _integer(block, at, INDEX_MASK)
                field = self._at(index)
            elif byte & LEARNT:
                field, at = self._literal(block, at, LEARNT_MASK, learnt)
                self._insert(field)
                changed = True
            elif byte & RESIZED:
                raise CompressionError("A table size stands behind a field.")
            else:
                field, at = self._literal(block, at, LITERAL_MASK, needed)
                if byte & NEVER:
                    never.append(field.name)
            counted += len(field.name) + len(field.value) + ENTRY_BYTES
            number += 1
            if counted > self._bomb or number > _MOST_DECODED:
                raise DecompressionBomb("A header block decodes to far more than we allow.")
            if not (fields.oversize or fields.add(field, limit)):
                needed, learnt = 0, TABLE_BYTES
        # In microseconds: one that enters the table takes two of them.
        fields.work = float(2 * number + (self._coded >> _CODED_SHIFT))
        fields.oversize = fields.oversize or end > self.longest
        if never:
            fields.never_indexed = frozenset(never)
        return changed

    def _resizes(self, block: bytes) -> tuple[int, int]:
        """Take the sizes of the table that a block begins with; return the place behind them.

        And how many there are.
        """
        at = number = 0
        while at < len(block) and block[at] & _FORM == RESIZED:
            at = self._resize(block, at)
            number += 1
            if number > _MOST_DECODED:
                raise DecompressionBomb("A header block does nothing but change its table.")
        return at, number

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
        raw = block[at:end]
        if not coded:
            return raw, end
        self._coded += length
        if self._coded > self._most_coded:
            raise DecompressionBomb("A header block takes too much reading.")
        return huffman.decode(raw), end

    def _field(self, name: bytes, value: bytes) -> Field:
        field = Field(name, value)
        if field.size <= _FIELD_BYTES:
            if len(self._fields) >= _FIELDS:
                del self._fields[next(iter(self._fields))]
            self._fields[name, value] = field
        return field

    def _insert(self, field: Field) -> None:
        self._size += len(field.name) + len(field.value) + ENTRY_BYTES
        self._entries.appendleft(field)
        self._evict()

    def _resize(self, block: bytes, at: int) -> int:
        maximum, at = _integer(block, at, SIZE_MASK)
        if maximum > TABLE_BYTES:
            raise CompressionError("The table would be larger than we allow.")
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
