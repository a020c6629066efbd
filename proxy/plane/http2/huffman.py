"""The Huffman code of header strings (RFC 7541, 5.2 and appendix B), read.

The code is canonical: codes of one length follow each other in the order of their symbols, and
the next length goes on where the last one ended.  So the lengths are the whole table.

Nothing is written in it: what repeats is sent once, and the rest is not worth the time.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final, final

LENGTHS: Final = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
)  # fmt: skip
"""Bits of the code of each byte.

The end-of-string symbol has what is left, 30 ones.  It may not be sent, and is in no table here:
where it stands more than seven bits are left that are no code.
"""

# Strings up to this length are remembered decoded, process-wide; longer ones are often secret.
_REMEMBERED_BYTES: Final = 64

# The states of the reader are the inner nodes of the code's tree, each times 16; the last one is
# where the end-of-string symbol leads, which may not be sent: nothing leads out of it.
_STATES: Final = 256
_DEAD: Final = _STATES << 4
_NO_SYMBOL: Final = -1


class NotHuffman(ValueError):
    """The string is not in this code."""


def _tree() -> list[list[int]]:
    """Return the two branches of each inner node: its number, or the symbol that ends there, ~."""
    nodes = [[_STATES, _STATES]]
    code = previous = 0
    for length, symbol in sorted(zip(LENGTHS, range(len(LENGTHS)), strict=True)):
        code <<= length - previous
        node = 0
        for bit in range(length - 1, 0, -1):
            branch = code >> bit & 1
            if nodes[node][branch] == _STATES:
                nodes[node][branch] = len(nodes)
                nodes.append([_STATES, _STATES])
            node = nodes[node][branch]
        nodes[node][code & 1] = ~symbol
        code, previous = code + 1, length
    return nodes


def _steps(nodes: list[list[int]]) -> list[tuple[int, int]]:
    """Return the state that each state leads to with each four bits, and the symbol that ends."""
    steps: list[tuple[int, int]] = []
    for start in range(len(nodes)):
        for bits in range(16):
            node, symbol = start, _NO_SYMBOL
            for bit in (8, 4, 2, 1):
                node = nodes[node][1 if bits & bit else 0]
                if node < 0:
                    node, symbol = 0, ~node
                elif node == _STATES:
                    break
            steps.append((node << 4, symbol))
    return steps + [(_DEAD, _NO_SYMBOL)] * 16


def _ends(nodes: list[list[int]]) -> frozenset[int]:
    """Return the states in which a string may end: behind up to seven ones (5.2)."""
    ends = [0]
    for _ in range(7):
        ends.append(nodes[ends[-1]][1])
    return frozenset(node << 4 for node in ends)


@cache
def _machine() -> tuple[list[tuple[int, int]], frozenset[int]]:
    """Return the steps and the ends; made for the first string, for most runs have none."""
    tree = _tree()
    return _steps(tree), _ends(tree)


def _read(data: bytes, state: int, out: bytearray) -> int:
    """Read on from a state; return the one that it ends in."""
    append = out.append
    steps, _ = _machine()
    for byte in data:
        state, symbol = steps[state + (byte >> 4)]
        if symbol >= 0:
            append(symbol)
        state, symbol = steps[state + (byte & 0x0F)]
        if symbol >= 0:
            append(symbol)
    return state


def _finish(out: bytearray, state: int) -> bytes:
    if state not in _machine()[1]:
        raise NotHuffman("A string does not end as it should.")
    return bytes(out)


def _decode(data: bytes) -> bytes:
    out = bytearray()
    return _finish(out, _read(data, 0, out))


@final
class Reader:
    """Reads one string in pieces."""

    __slots__ = ("_at", "_out", "_state", "text")

    def __init__(self) -> None:
        self._out = bytearray()
        self._state = 0
        self._at = 0
        """How much of the code was read."""
        self.text = b""
        """The string, once it is read to its end."""

    def read(self, data: bytes, size: int) -> bool:
        """Read `size` bytes more of the code `data`; return whether it has been read to its end.

        Raises:
            NotHuffman: it is not valid.
        """
        at, end = self._at, min(self._at + size, len(data))
        self._state = _read(data[at:end], self._state, self._out)
        self._at = end
        if end < len(data):
            return False
        if at < end:
            self.text = _finish(self._out, self._state)
        return True


_remembered = lru_cache(maxsize=1024)(_decode)


def decode(data: bytes) -> bytes:
    """Return the string that `data` is the code of; the time grows with its length.

    Raises:
        NotHuffman: it is not valid.
    """
    return _remembered(data) if len(data) <= _REMEMBERED_BYTES else _decode(data)
