"""Writing header blocks (HPACK, RFC 7541): the hpack library, with a memory and a policy.

What goes into the table is learnt: a line is sent literally the first time and put into the
table the second, so that paths with identifiers and dates do not push out what repeats (the
identity header above all); hpack would put everything into it at once.  As for reading, a block
that changes nothing is looked up whole, and else each line that stands in the table.

Strings are never Huffman-coded: what repeats is sent once, and the rest is not worth the time.
"""

from __future__ import annotations

import hpack
from hpack.hpack import INDEX_INCREMENTAL, INDEX_NEVER, INDEX_NONE
from hpack.table import table_entry_size

TABLE_BYTES = 4096
"""What a table may hold unless its owner says otherwise (RFC 9113, 6.5.2), and ours does not."""

# Blocks are remembered up to this length and number; one with an identity header has 2 KiB.
_BLOCK_BYTES = 4096
_BLOCKS = 16

# Lines that stand in a table are remembered up to this number, those that were seen once, too.
_LINES = 256
_SEEN = 64

NEVER: frozenset[bytes] = frozenset()


class Encoder(hpack.Encoder):
    """The table of one connection's direction."""

    def __init__(self) -> None:
        super().__init__()
        self._learnt = False
        """Whether a line of the block under way came for the first time."""
        self._seen: dict[bytes, None] = {}
        self._blocks: dict[bytes, bytes] = {}
        self._indexed: dict[bytes, bytes] = {}
        """How each line is sent that stands in a table."""

    @property
    def header_table_size(self) -> int:
        """What our table may hold (bytes)."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, allowed: int) -> None:
        """Obey what the peer allows, as far as we want it."""
        maximum = min(allowed, TABLE_BYTES)
        if maximum == self.header_table.maxsize:
            return
        self.header_table.maxsize = maximum
        # The smallest in between and the last are all that the peer has to know (RFC 7541, 4.2).
        least = min([*self.table_size_changes, maximum])
        self.table_size_changes = [maximum] if least == maximum else [least, maximum]
        # The table's own mark is lost when it is set twice to the same size.
        self.header_table.resized = True
        self._forget()

    def encode_lines(self, lines: bytes, never: frozenset[bytes] = NEVER) -> bytes:
        """Return the block of a field block (see `proxy.plane.head`), pseudo-headers first.

        The fields named in `never` stay out of every table (RFC 7541, 7.1.3).
        """
        if never:
            return self._sizes() + b"".join([self._secret(line, never) for line in _split(lines)])
        if not self.header_table.resized:
            known = self._blocks.get(lines)
            if known is not None:
                return known
        return self._encode(lines)

    def _encode(self, lines: bytes) -> bytes:
        sizes = self._sizes()
        self._learnt = False
        # A line that goes into the table changes what indexes mean, from there on.
        pieces = [self._indexed.get(line) or self._line(line) for line in _split(lines)]
        block = sizes + b"".join(pieces)
        if not self._learnt and not sizes and len(lines) <= _BLOCK_BYTES:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[lines] = block
        return block

    def _line(self, line: bytes) -> bytes:
        """Return how a line is sent that is not known to stand in a table."""
        name, value = _pair(line)
        match = self.header_table.search(name, value)
        if match is not None and match[2] is not None:
            indexed = self._encode_indexed(match[0])
            if len(self._indexed) >= _LINES:
                self._indexed.clear()
            self._indexed[line] = indexed
            return indexed
        # A line that would fill most of the table is not worth what it pushes out.
        fits = table_entry_size(name, value) <= self.header_table.maxsize * 3 // 4
        if not fits or not self._is_known(line):
            return self._literal(name, value, match, INDEX_NONE)
        literal = self._literal(name, value, match, INDEX_INCREMENTAL)
        self.header_table.add(name, value)
        self._forget()
        # Nor may this block be remembered.
        self._learnt = True
        return literal

    def _secret(self, line: bytes, never: frozenset[bytes]) -> bytes:
        """Return how a line is sent in a block some of which may not be compressed."""
        name, value = _pair(line)
        match = self.header_table.search(name, value)
        return self._literal(name, value, match, INDEX_NEVER if name in never else INDEX_NONE)

    def _literal(
        self, name: bytes, value: bytes, match: tuple[int, bytes, bytes | None] | None, form: bytes
    ) -> bytes:
        if match is None:
            return self._encode_literal(name, value, form)
        return self._encode_indexed_literal(match[0], value, form)

    def _is_known(self, line: bytes) -> bool:
        """Tell whether the line comes for a second time, and remember that it came."""
        if line in self._seen:
            del self._seen[line]
            return True
        if len(self._seen) >= _SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[line] = None
        self._learnt = True
        return False

    def _forget(self) -> None:
        """Forget what was only true for the table as it was."""
        self._blocks.clear()
        self._indexed.clear()

    def _sizes(self) -> bytes:
        """Return the changes of the table's size that the peer has not been told of."""
        if not self.header_table.resized:
            return b""
        self.header_table.resized = False
        return self._encode_table_size_change()


def _split(lines: bytes) -> list[bytes]:
    return lines.split(b"\r\n")[1:]


def _pair(line: bytes) -> tuple[bytes, bytes]:
    colon = line.index(b":", 1)
    return line[:colon].lower(), line[colon + 1 :].strip(b" \t")
