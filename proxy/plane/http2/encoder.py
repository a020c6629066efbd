"""Writing header blocks (HPACK, RFC 7541), with a memory and a policy.

What goes into the table is learnt: a line is sent literally the first time and put into the
table the second, so that paths with identifiers and dates do not push out what repeats (the
identity header above all).  As for reading, a block that changes nothing is looked up whole.

Strings are never Huffman-coded: what repeats is sent once, and the rest is not worth the time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.plane.http2.table import (
    DYNAMIC,
    ENTRY_BYTES,
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
    integer,
)

# Blocks are remembered up to this length and number; one with an identity header has 2 KiB.
_BLOCK_BYTES: Final = 4096
_BLOCKS: Final = 16

# Lines that were seen once are remembered up to this number.
_SEEN: Final = 64

NOTHING: Final[frozenset[bytes]] = frozenset()

# How each index is written, and which one a static line or name has: the lowest.
_INDEXES: Final = [
    integer(index, INDEX_MASK, INDEXED) for index in range(DYNAMIC + TABLE_BYTES // ENTRY_BYTES + 1)
]
_LINES: Final = {
    b"%b: %b" % (name, value): _INDEXES[index]
    for index, (name, value) in reversed(list(enumerate(STATIC, 1)))
}
_NAMES: Final = {name: index for index, (name, _) in reversed(list(enumerate(STATIC, 1)))}


class Encoder:
    """The table of one connection's direction."""

    __slots__ = (
        "_blocks", "_entries", "_inserted", "_learnt", "_maximum", "_numbers", "_pending", "_seen",
        "_size",
    )  # fmt: skip

    def __init__(self) -> None:
        self._entries: deque[tuple[bytes, int]] = deque()
        """Line and size of what is in the table, newest first."""
        self._numbers: dict[bytes, int] = {}
        """Which insertion a line was; with `_inserted` that gives its index."""
        self._inserted = 0
        self._size = 0
        self._maximum = TABLE_BYTES
        self._pending: list[int] = []
        """Table sizes to announce at the beginning of the next block (RFC 7541, 4.2)."""
        self._seen: dict[bytes, None] = {}
        self._learnt = False
        """Whether a line of the block under way came for the first time, or changed the table."""
        self._blocks: dict[bytes, bytes] = {}

    def resize(self, allowed: int) -> None:
        """Obey what the peer allows our table to hold (bytes), as far as we want it."""
        maximum = min(allowed, TABLE_BYTES)
        if maximum == self._maximum:
            return
        self._maximum = maximum
        # The smallest in between and the last are all that the peer has to know.
        least = min([*self._pending, maximum])
        self._pending = [maximum] if least == maximum else [least, maximum]
        self._blocks.clear()
        self._evict()

    def encode(self, lines: bytes, never: frozenset[bytes] = NOTHING) -> bytes:
        """Return the block of a field block (see `proxy.plane.head`), pseudo-headers first.

        The fields named in `never` stay out of every table (RFC 7541, 7.1.3).
        """
        if never:
            literals = [_literal(line, never) for line in lines.split(b"\r\n")[1:]]
            return self._sizes() + b"".join(literals)
        known = self._blocks.get(lines)
        if known is not None:
            return known
        self._learnt = bool(self._pending)
        block = self._encode(lines)
        if not self._learnt and len(lines) <= _BLOCK_BYTES:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[lines] = block
        return block

    def _encode(self, lines: bytes) -> bytes:
        pieces = [self._sizes()] if self._pending else []
        numbers = self._numbers
        rest: list[bytes] = []
        each = lines.split(b"\r\n")[1:]
        if len(each) > _SEEN:
            each, rest = each[:_SEEN], each[_SEEN:]
        for line in each:
            number = numbers.get(line)
            if number is not None:
                pieces.append(_INDEXES[DYNAMIC + self._inserted - number])
            else:
                pieces.append(_LINES.get(line) or self._line(line))
        # Nothing is learnt from more lines than are remembered: they would push out each other.
        for line in rest:
            number = numbers.get(line)
            if number is not None:
                pieces.append(_INDEXES[DYNAMIC + self._inserted - number])
            else:
                pieces.append(_LINES.get(line) or _literal(line, NOTHING))
        return b"".join(pieces)

    def _line(self, line: bytes) -> bytes:
        """Return how a line is sent that stands in no table."""
        name, value = _pair(line)
        size = len(name) + len(value) + ENTRY_BYTES
        # A line that would fill most of the table is not worth what it pushes out.
        if size <= self._maximum * 3 // 4 and self._is_known(line):
            self._insert(line, size)
            return _begin(name, LEARNT_MASK, LEARNT) + _string(value)
        return _begin(name, LITERAL_MASK, 0) + _string(value)

    def _is_known(self, line: bytes) -> bool:
        """Tell whether the line comes for a second time, and remember that it came."""
        self._learnt = True
        if line in self._seen:
            del self._seen[line]
            return True
        if len(self._seen) >= _SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[line] = None
        return False

    def _insert(self, line: bytes, size: int) -> None:
        # What indexes mean changes with it.
        self._blocks.clear()
        self._entries.appendleft((line, size))
        self._size += size
        self._inserted += 1
        self._numbers[line] = self._inserted
        self._evict()

    def _evict(self) -> None:
        while self._size > self._maximum:
            line, size = self._entries.pop()
            self._size -= size
            del self._numbers[line]

    def _sizes(self) -> bytes:
        """Return the changes of the table's size that the peer has not been told of."""
        sizes, self._pending = self._pending, []
        return b"".join([integer(size, SIZE_MASK, RESIZED) for size in sizes])


def _pair(line: bytes) -> tuple[bytes, bytes]:
    colon = line.index(b":", 1)
    return line[:colon].lower(), line[colon + 1 :].strip(b" \t")


def _literal(line: bytes, never: frozenset[bytes]) -> bytes:
    """Return how a line is sent in a block some of which may not be compressed."""
    name, value = _pair(line)
    first, size, length = NEVER if name in never else 0, len(name), len(value)
    if name not in _NAMES and size < INDEX_MASK and length < INDEX_MASK:
        # As below, but at once: heads of a thousand small fields take half the time.
        return b"%c%c%b%c%b" % (first, size, name, length, value)
    return _begin(name, LITERAL_MASK, first) + _string(value)


def _begin(name: bytes, mask: int, first: int) -> bytes:
    """Return how a literal begins: with the index of its name, or with the name."""
    index = _NAMES.get(name)
    if index is not None:
        return integer(index, mask, first)
    return bytes((first,)) + _string(name)


def _string(value: bytes) -> bytes:
    return integer(len(value), INDEX_MASK, 0) + value
