"""Reading header blocks (HPACK, RFC 7541).

Made for what a proxy sees: the same block again and again.  A block that changes nothing in
the table means the same as long as the table stays, so it is looked up whole; else each
field that stands in the table comes as the object that was made when it was put there.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from proxy.plane.http2.fields import Field, Fields

TABLE_BYTES = 4096
"""What a table may hold unless its owner says otherwise (RFC 9113, 6.5.2), and ours does not."""

ENTRY_BYTES = 32  # RFC 7541, 4.1: what an entry counts beyond its name and value.

_STATIC = [Field(b"", b""), *(Field(name, value) for name, value in HeaderTable.STATIC_TABLE)]
_DYNAMIC = len(_STATIC)  # The first index of the dynamic table (RFC 7541, 2.3.3).

_LONGEST_INTEGER = 28  # Bits beyond the prefix: no size or index in here needs more.

# Blocks are remembered up to this length and number: small calls repeat, long heads rarely do.
_BLOCK_BYTES = 1024
_BLOCKS = 32

# Strings up to this length are remembered decoded, process-wide; longer ones are often secret.
_SHORT = 64

# A block may decode to this many times the limit before its sender is taken for an attacker:
# one that is merely too large gets its 431.
_BOMB = 16

_short_huffman = lru_cache(maxsize=1024)(decode_huffman)


class CompressionError(Exception):
    """The block cannot be decoded: the connection is lost (RFC 9113, 4.3)."""


class DecompressionBomb(Exception):
    """The block decodes to far more than anybody may send."""


class Decoder:
    """The table of one connection's direction."""

    __slots__ = ("_allowed", "_blocks", "_entries", "_maximum", "_size", "limit")

    def __init__(self, limit: int) -> None:
        """`limit` bounds the fields of a block that are kept (bytes as `Fields.size`)."""
        self.limit = limit
        self._entries: deque[Field] = deque()
        self._size = 0
        self._maximum = TABLE_BYTES
        self._blocks: dict[bytes, Fields] = {}

    def decode(self, block: bytes) -> Fields:
        """Return the fields of a block.

        Raises:
            CompressionError: it is not valid.
            DecompressionBomb: it decodes to many times the limit.
        """
        known = self._blocks.get(block)
        if known is not None:
            return known
        fields = Fields()
        try:
            changed = self._decode(block, fields)
        except (IndexError, HPACKDecodingError) as error:
            raise CompressionError(f"A header block cannot be decoded: {error}.") from None
        if changed:
            self._blocks.clear()
        elif len(block) <= _BLOCK_BYTES and not fields.oversize:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[block] = fields
        return fields

    def _decode(self, block: bytes, fields: Fields) -> bool:
        """Fill `fields`; return whether the table has changed."""
        changed = False
        never: list[bytes] = []
        position, end = 0, len(block)
        while position < end:
            byte = block[position]
            if byte & 0x80:  # RFC 7541, 6.1: in the table
                index = byte & 0x7F
                position += 1
                if index == 0x7F:  # noqa: PLR2004 (the prefix is full)
                    index, position = _integer(block, position - 1, 0x7F)
                field = self._at(index)
            elif byte & 0x40:  # 6.2.1: literal, to be put into the table
                field, position = self._literal(block, position, 0x3F)
                self._insert(field)
                changed = True
            elif byte & 0x20:  # 6.3: the size of the table
                if fields.size:
                    raise CompressionError("A table size stands behind a field.")
                position = self._resize(block, position)
                changed = True
                continue
            else:  # 6.2.2 and 6.2.3: literal, not for the table
                field, position = self._literal(block, position, 0x0F)
                if byte & 0x10:
                    never.append(field.name)
            fields.size += field.size
            if fields.size <= self.limit:
                fields.items.append(field)
            else:
                self._leave_out(fields)
        if never:
            fields.never_indexed = frozenset(never)
        return changed

    def _leave_out(self, fields: Fields) -> None:
        """Note a field that is too much.  The rest is still decoded: the table must stay right."""
        fields.oversize = True
        if fields.size > self.limit * _BOMB:
            raise DecompressionBomb(f"A header block decodes to {fields.size} bytes.")

    def _at(self, index: int) -> Field:
        if index < _DYNAMIC:
            if index == 0:
                raise CompressionError("There is no field at index 0.")
            return _STATIC[index]
        return self._entries[index - _DYNAMIC]

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[Field, int]:
        index, position = _integer(block, position, mask)
        if index:
            name = self._at(index).name
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        return Field(name, value), position

    def _insert(self, field: Field) -> None:
        self._size += len(field.name) + len(field.value) + ENTRY_BYTES
        self._entries.appendleft(field)
        self._evict()

    def _resize(self, block: bytes, position: int) -> int:
        maximum, position = _integer(block, position, 0x1F)
        if maximum > TABLE_BYTES:
            raise CompressionError("The table would be larger than we allow.")
        self._maximum = maximum
        self._evict()
        return position

    def _evict(self) -> None:
        # An entry larger than the table empties it, which is no error (RFC 7541, 4.4).
        while self._size > self._maximum:
            oldest = self._entries.pop()
            self._size -= len(oldest.name) + len(oldest.value) + ENTRY_BYTES


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Return the integer whose prefix is `mask`, and the position behind it (RFC 7541, 5.1)."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in range(0, _LONGEST_INTEGER + 1, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 (the last byte)
            return value, position
    raise CompressionError("An integer is too long.")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """Return the string and the position behind it (RFC 7541, 5.2)."""
    coded = block[position] & 0x80
    length, position = _integer(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise CompressionError("A string ends behind its block.")
    raw = block[position:end]
    if coded:
        return (_short_huffman if length <= _SHORT else decode_huffman)(raw), end
    return raw, end
