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

from proxy.plane.http2.fields import Field, Fields, Kind
from proxy.plane.http2.standard import Code

# Blocks are remembered up to this length and number: small calls repeat, long heads rarely do.
_BLOCK_BYTES = 1024
_BLOCKS = 32

# Fields are remembered up to this size and number.
_FIELD_BYTES = 256
_FIELDS = 128

# A block may decode to this many times the limit before its sender is taken for an attacker:
# one that is merely too large gets its 431.  hpack adds 32 bytes to each field, so that a head
# of tiny fields within the limit can count eight times as much there.
BOMB = 16

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
        try:
            pairs = super().decode(data, raw=True)
        except hpack.OversizedHeaderListError:
            raise DecompressionBomb("A header block decodes to far more than we allow.") from None
        except hpack.HPACKError:
            # The library's text may have bytes of the block in it.
            raise CompressionError("A header block cannot be decoded.") from None
        fields = self._judged(pairs)
        # What is put into the table is a new object at its front.
        if newest is not (entries[0] if entries else None) or (data and data[0] in _RESIZES):
            self._blocks.clear()
        elif len(data) <= _BLOCK_BYTES and not fields.oversize:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[data] = fields
        return fields

    def _judged(self, pairs: Iterable[hpack.HeaderTuple]) -> Fields:
        fields = Fields()
        never: list[bytes] = []
        known = self._fields
        for pair in pairs:
            field = known.get(pair) or self._field(pair)
            if not pair.indexable:
                never.append(field.name)
            fields.size += field.size
            if fields.size <= self.limit:
                fields.items.append(field)
            else:
                fields.oversize = True
        if never:
            fields.never_indexed = frozenset(never)
        return fields

    def _field(self, pair: hpack.HeaderTuple) -> Field:
        field = Field(*pair)
        if field.size <= _FIELD_BYTES:
            if len(self._fields) >= _FIELDS:
                self._fields.clear()
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
