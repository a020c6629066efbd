"""How the frames are written that carry an exchange (RFC 9113, 4.1); h2 writes all others."""

from __future__ import annotations

import struct

from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame

from proxy.plane.http2.standard import FRAME_BYTES

_DATA, _HEADERS, _CONTINUATION = (
    int(kind.type or 0) for kind in (DataFrame, HeadersFrame, ContinuationFrame)
)
_FLAGS = {flag.name: flag.bit for flag in HeadersFrame.defined_flags}
_END_STREAM, _END_HEADERS = _FLAGS["END_STREAM"], _FLAGS["END_HEADERS"]

_head = struct.Struct(">IBI").pack  # Length and type in one number, flags, stream.


def data_head(stream: int, size: int, *, ended: bool) -> bytes:
    """Return what stands before the payload of a DATA frame."""
    return _head(size << 8 | _DATA, _END_STREAM if ended else 0, stream)


def frames_of(stream: int, block: bytes, *, ended: bool) -> bytes:
    """Return a HEADERS frame, with CONTINUATION where the block is too long for one."""
    flags = _END_STREAM if ended else 0
    size = len(block)
    if size <= FRAME_BYTES:
        return _head(size << 8 | _HEADERS, flags | _END_HEADERS, stream) + block
    pieces = [_head(FRAME_BYTES << 8 | _HEADERS, flags, stream), block[:FRAME_BYTES]]
    for at in range(FRAME_BYTES, size, FRAME_BYTES):
        piece = block[at : at + FRAME_BYTES]
        last = _END_HEADERS if at + FRAME_BYTES >= size else 0
        pieces += _head(len(piece) << 8 | _CONTINUATION, last, stream), piece
    return b"".join(pieces)
