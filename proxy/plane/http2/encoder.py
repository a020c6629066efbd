"""Writing header blocks (HPACK, RFC 7541).

What goes into the table is learnt: a line is sent literally the first time and put into the
table the second, so that paths with identifiers and dates do not push out what repeats (the
identity header above all).  As for reading, a block that changes nothing is looked up whole.

Strings are never Huffman-coded: what repeats is sent once, and the rest is not worth the time.
"""

from __future__ import annotations

from collections import deque

from hpack.table import HeaderTable

from proxy.plane.http2.decoder import ENTRY_BYTES, TABLE_BYTES

_DYNAMIC = len(HeaderTable.STATIC_TABLE) + 1

# Blocks are remembered up to this length and number; one with an identity header has 2 KiB.
_BLOCK_BYTES = 4096
_BLOCKS = 16

# Lines that were seen once are remembered up to this number.
_SEEN = 64


def integer(value: int, mask: int, first: int) -> bytes:
    """Return `value` behind the bits of `first` (RFC 7541, 5.1)."""
    if value < mask:
        return bytes((first | value,))
    value -= mask
    result = bytearray((first | mask,))
    while value >= 0x80:  # noqa: PLR2004 (more bytes follow)
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _static_lines() -> dict[bytes, bytes]:
    return {
        b"%b: %b" % entry: integer(index, 0x7F, 0x80)
        for index, entry in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))
    }


def _static_names() -> dict[bytes, int]:
    return {
        name: index for index, (name, _) in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))
    }


_LINES = _static_lines()
_NAMES = _static_names()


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
        """Whether a line of the block under way came for the first time."""
        self._blocks: dict[bytes, bytes] = {}

    def resize(self, allowed: int) -> None:
        """Obey what the peer allows our table to hold (bytes)."""
        maximum = min(allowed, TABLE_BYTES)
        if maximum == self._maximum:
            return
        self._maximum = maximum
        # The smallest in between and the last are all that the peer has to know.
        least = min([*self._pending, maximum])
        self._pending = [maximum] if least == maximum else [least, maximum]
        self._blocks.clear()
        self._evict()

    def encode(self, lines: bytes, never: frozenset[bytes] = frozenset()) -> bytes:
        """Return the block of a field block (see `proxy.plane.head`), pseudo-headers first.

        The fields named in `never` stay out of the table (RFC 7541, 7.1.3).
        """
        if never:
            return self._encode(lines, never)
        known = self._blocks.get(lines)
        if known is not None:
            return known
        before = self._inserted
        self._learnt = False
        changed = bool(self._pending)
        block = self._encode(lines, never)
        if changed or before != self._inserted:
            self._blocks.clear()
        elif not self._learnt and len(lines) <= _BLOCK_BYTES:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[lines] = block
        return block

    def _encode(self, lines: bytes, never: frozenset[bytes]) -> bytes:
        pieces = [integer(size, 0x1F, 0x20) for size in self._pending]
        self._pending.clear()
        numbers = self._numbers
        for line in lines.split(b"\r\n")[1:]:
            number = numbers.get(line)
            if never:
                pieces.append(self._literal(line, never))
            elif number is not None:
                pieces.append(integer(_DYNAMIC + self._inserted - number, 0x7F, 0x80))
            else:
                pieces.append(_LINES.get(line) or self._literal(line, never))
        return b"".join(pieces)

    def _literal(self, line: bytes, never: frozenset[bytes]) -> bytes:
        colon = line.index(b":", 1)
        name = line[:colon].lower()
        value = line[colon + 1 :].strip(b" \t")
        if never:
            first = 0x10 if name in never else 0x00
            return _string_behind(name, 0x0F, first) + _string(value)
        size = len(name) + len(value) + ENTRY_BYTES
        # A line that would fill most of the table is not worth what it pushes out.
        if size <= self._maximum * 3 // 4 and self._is_known(line):
            literal = _string_behind(name, 0x3F, 0x40) + _string(value)
            self._insert(line, size)
            return literal
        return _string_behind(name, 0x0F, 0x00) + _string(value)

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

    def _insert(self, line: bytes, size: int) -> None:
        self._entries.appendleft((line, size))
        self._size += size
        self._numbers[line] = self._inserted = self._inserted + 1
        self._evict()

    def _evict(self) -> None:
        while self._size > self._maximum:
            line, size = self._entries.pop()
            self._size -= size
            del self._numbers[line]


def _string(value: bytes) -> bytes:
    return integer(len(value), 0x7F, 0x00) + value


def _string_behind(name: bytes, mask: int, first: int) -> bytes:
    """Return how a literal field begins: with the index of its name, or with the name."""
    index = _NAMES.get(name)
    if index is not None:
        return integer(index, mask, first)
    return bytes((first,)) + _string(name)
