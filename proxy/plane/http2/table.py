"""What both directions of HPACK share (RFC 7541): the static table, forms, integers."""

from __future__ import annotations

from typing import Final

TABLE_BYTES: Final = 4096
"""What a table may hold unless its owner says otherwise (RFC 9113, 6.5.2), and ours does not."""

ENTRY_BYTES: Final = 32
"""What an entry counts beyond its name and value (RFC 7541, 4.1)."""

INDEXED: Final = 0x80
"""The bit of a field that stands in a table (RFC 7541, 6.1); the index takes the others."""

LEARNT: Final = 0x40
"""The bit of a literal that is put into the table (RFC 7541, 6.2.1)."""

RESIZED: Final = 0x20
"""The bit of a new size of the table (RFC 7541, 6.3)."""

NEVER: Final = 0x10
"""The bit of a literal that may not be put into any table (RFC 7541, 6.2.3)."""

INDEX_MASK: Final = 0x7F
LEARNT_MASK: Final = 0x3F
SIZE_MASK: Final = 0x1F
LITERAL_MASK: Final = 0x0F

HUFFMAN: Final = 0x80
"""The bit of a string in the Huffman code (RFC 7541, 5.2); the length takes the others."""

# RFC 7541, appendix A: names that have values of their own, then the others, in order.
_VALUES: Final = (
    (b":authority", (b"",)), (b":method", (b"GET", b"POST")), (b":path", (b"/", b"/index.html")),
    (b":scheme", (b"http", b"https")),
    (b":status", (b"200", b"204", b"206", b"304", b"400", b"404", b"500")),
    (b"accept-charset", (b"",)), (b"accept-encoding", (b"gzip, deflate",)),
)  # fmt: skip
_NAMES: Final = (
    b"accept-language accept-ranges accept access-control-allow-origin age allow authorization "
    b"cache-control content-disposition content-encoding content-language content-length "
    b"content-location content-range content-type cookie date etag expect expires from host "
    b"if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link "
    b"location max-forwards proxy-authenticate proxy-authorization range referer refresh "
    b"retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary "
    b"via www-authenticate"
)

STATIC: Final[list[tuple[bytes, bytes]]] = [
    *[(name, value) for name, values in _VALUES for value in values],
    *[(name, b"") for name in _NAMES.split()],
]
"""The static table; its first entry has index 1."""

DYNAMIC: Final = 62
"""The first index of the dynamic table (RFC 7541, 2.3.3)."""


def integer(value: int, mask: int, first: int) -> bytes:
    """Return `value` behind the bits of `first`, in a prefix of the size of `mask` (5.1)."""
    if value < mask:
        return bytes((first | value,))
    value -= mask
    result = bytearray((first | mask,))
    while value >= 0x80:  # noqa: PLR2004 (more bytes follow)
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
