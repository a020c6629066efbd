"""Reading header blocks (HPACK, RFC 7541): the hpack library, with a memory.

Made for what a proxy sees: the same block again and again.  A block that changes nothing in
the table means the same as long as the table stays, so it is looked up whole; else each field
that was seen before comes as the object that was made and judged then.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import hpack
from h2.exceptions import DenialOfServiceError, ProtocolError

from proxy.plane.http2.fields import MOST_FIELDS, Field, Fields, Kind
from proxy.plane.http2.standard import Code

# Blocks are remembered up to this length and number: small calls repeat, long heads rarely do.
_BLOCK_BYTES = 1024
_BLOCKS = 32

# Fields are remembered up to this size and number.
_FIELD_BYTES = 256
_FIELDS = 128

# Fields of a block are handed to hpack in slices of this size, longer ones once more.
_SHORT = 512

ENTRY_BYTES = 32  # RFC 7541, 4.1: what an entry counts beyond its name and value.

# A block may decode to this many times the limit before its sender is taken for an attacker:
# one that is merely too large gets its 431.  hpack adds 32 bytes to each field, so that a head
# of tiny fields within the limit can count eight times as much there.
BOMB = 16

# And to so many times the fields that are kept.
_MOST_DECODED = 4 * MOST_FIELDS

# A field takes about a microsecond, and four bytes of a Huffman code another one.
_BYTES_SHIFT = 2

# The bits of a change of the table's size, which only stands at the beginning (RFC 7541, 6.3).
_RESIZES = range(0x20, 0x40)

_NOTHING: tuple[hpack.HeaderTuple, ...] = ()

# hpack writes every field that it handles to its debug log, tokens among them.
logging.getLogger("hpack").setLevel(logging.CRITICAL)


class CompressionError(ProtocolError):
    """The block cannot be decoded: the connection is lost (RFC 9113, 4.3)."""

    error_code = Code.COMPRESSION_ERROR


class DecompressionBomb(DenialOfServiceError):
    """The block decodes to far more than anybody may send."""


class Decoder(hpack.Decoder):
    """The table of one connection's direction."""

    def __init__(self, limit: int, *, of_responses: bool = False) -> None:
        """`limit` bounds the fields of a block that are kept (bytes as `Fields.size`)."""
        super().__init__(max_header_list_size=limit * BOMB)
        self.limit = limit
        self.latest = Fields()
        """What the last block says."""
        self._of_responses = of_responses
        self._blocks: dict[bytes, Fields] = {}
        self._fields: dict[tuple[bytes, bytes], Field] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:  # noqa: ARG002, FBT001, FBT002 (hpack's signature)
        """Read a block into `latest`; return what h2 has to know of it.

        h2 judges heads, too, but can only end the connection where one is malformed, so that it
        is shown no more than decides what may follow: whether a response is informational.

        Raises:
            CompressionError: it is not valid.
            DecompressionBomb: it decodes to many times the limit.
        """
        fields = self._blocks.get(data)
        if fields is None:
            fields = self._read(data)
        self.latest = fields
        return _status(fields) if self._of_responses else _NOTHING

    def _read(self, data: bytes) -> Fields:
        entries = self.header_table.dynamic_entries
        newest = entries[0] if entries else None
        fields = Fields()
        try:
            self._fill(fields, data)
            self._assert_valid_table_size()
        except hpack.HPACKError:
            # The library's text may have bytes of the block in it.
            raise CompressionError("A header block cannot be decoded.") from None
        # What is put into the table is a new object at its front.
        if newest is not (entries[0] if entries else None) or (data and data[0] in _RESIZES):
            self._blocks.clear()
        elif len(data) <= _BLOCK_BYTES and not fields.oversize:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[data] = fields
        return fields

    def _fill(self, fields: Fields, data: bytes) -> None:
        """Read all fields of a block: hpack's own loop, but for what it copies.

        hpack copies all that is left of a block, three times, for each literal in it, which
        takes a second for one of 100 KB, and makes two objects of each field of the table.
        """
        known, at, end, counted, number = self._fields, 0, len(data), 0, 0
        never: list[bytes] = []
        while at < end:
            byte = data[at]
            if 0x80 < byte < 0xFF:  # noqa: PLR2004 (RFC 7541, 6.1: an index of one byte)
                pair, used = self.header_table.get_by_index(byte & 0x7F), 1
            elif 0x20 <= byte < 0x40:  # noqa: PLR2004 (6.3: the size of the table)
                if counted:
                    raise hpack.HPACKDecodingError("A table size stands behind a field.")
                at += self._update_encoding_context(data[at : at + _SHORT])
                number += 1
                if number > _MOST_DECODED:
                    raise DecompressionBomb("A header block does nothing but change its table.")
                continue
            else:
                pair, used = self._one(data, at)
                if not pair.indexable:
                    never.append(pair[0])
            at += used
            counted += len(pair[0]) + len(pair[1]) + ENTRY_BYTES
            number += 1
            if counted > self.max_header_list_size or number > _MOST_DECODED:
                raise DecompressionBomb("A header block decodes to far more than we allow.")
            if not fields.oversize:
                fields.add(known.get(pair) or self._field(pair), self.limit)
        fields.work = number + (end >> _BYTES_SHIFT)
        if never:
            fields.never_indexed = frozenset(never)

    def _one(self, data: bytes, at: int) -> tuple[hpack.HeaderTuple, int]:
        """Return the field at a place, and how many bytes it takes there."""
        byte = data[at]
        if byte & 0x80:
            return self._decode_indexed(data[at : at + _SHORT])
        read = self._decode_literal_index if byte & 0x40 else self._decode_literal_no_index
        try:
            return read(data[at : at + _SHORT])
        except hpack.HPACKDecodingError:
            # It is longer, or wrong; nothing was done yet.
            return read(data[at:])

    def _field(self, pair: tuple[bytes, bytes]) -> Field:
        field = Field(*pair)
        if field.size <= _FIELD_BYTES:
            if len(self._fields) >= _FIELDS:
                del self._fields[next(iter(self._fields))]
            self._fields[pair] = field
        return field


def _status(fields: Fields) -> tuple[hpack.HeaderTuple, ...]:
    """Return the status of an informational response, as h2 wants to see it."""
    for field in fields.items:
        if field.kind is not Kind.PSEUDO:
            break
        if field.name == b":status" and field.value.startswith(b"1"):
            return (hpack.HeaderTuple(field.name, field.value),)
    return _NOTHING
