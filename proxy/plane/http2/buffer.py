"""From segments to frames: h2's frame buffer, with bounds on what waits to be complete.

hyperframe reads the frames, and h2 sees to it that a header block is not interrupted.  Where a
frame ends is found out here: h2 looks at the size of one when all of it has come, and at the
size of a header block never, so that a peer could make it keep 16 MiB of the one and 1 MiB of
the other; and it copies each frame three times.
"""

from __future__ import annotations

from h2.exceptions import ProtocolError
from h2.frame_buffer import FrameBuffer
from hyperframe.exceptions import HyperframeError, InvalidFrameError
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from proxy.plane.http2.standard import FRAME_BYTES, LAST_STREAM, Code, ConnectionFault

_HEAD_BYTES = 9  # RFC 9113, 4.1.

# HEADERS and CONTINUATION frames that one block may take; h2 allows as many.
_LONGEST_BLOCK = 64

# A block may be this many times as long as what it may decode to: one that is merely too large
# is decoded, so that its stream gets an answer and the others go on.
_BLOCK_SHARE = 4


class Buffer(FrameBuffer):
    """What has come and is not a whole frame yet; iterate to take the frames.

    A caller's preface is not looked for: whoever recognised the protocol has taken it.
    """

    def __init__(self, head_limit: int) -> None:
        super().__init__(server=False)
        self._longest = head_limit * _BLOCK_SHARE
        self._segment = b""
        self._at = 0
        """How much of the segment has been taken."""

    @property
    def in_head(self) -> bool:
        """Whether a part of a header block has come, and the rest has not."""
        if self._headers_buffer:
            return True
        kind = self._segment[self._at + 3 : self._at + 4]
        return self._at < len(self._segment) and kind in (bytes((HeadersFrame.type or 0,)), b"")

    @property
    def waiting(self) -> int:
        """Bytes that have come and are not taken."""
        return len(self._segment) - self._at

    def add_data(self, data: bytes) -> None:  # type: ignore[override]  # bytes are all that we have
        """Put a segment behind what waits."""
        rest = self._segment[self._at :]
        self._segment = rest + data if rest else data
        self._at = 0

    def __next__(self) -> Frame:
        """Return the next frame; a whole header block is one.

        Raises:
            StopIteration: more has to come first.
            ConnectionFault: what came is no frame, or none that may come here.
        """
        while True:
            frame = self._cut()
            try:
                whole = self._update_header_buffer(frame)
            except ProtocolError as error:
                raise self._block_fault(f"{error}") from None
            if whole is not None:
                return whole
            if sum(len(piece.data) for piece in self._headers_buffer) > self._longest:
                raise self._block_fault("")

    def _cut(self) -> Frame:
        """Cut the next frame off; raises as `__next__`."""
        begin = self._at + _HEAD_BYTES
        view = memoryview(self._segment)
        if len(view) < begin:
            raise StopIteration
        try:
            frame, size = Frame.parse_frame_header(view[self._at : begin])
        except HyperframeError as error:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"{error}") from None
        if size > FRAME_BYTES:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than we allow.")
        end = begin + size
        if len(view) < end:
            raise StopIteration
        try:
            frame.parse_body(view[begin:end])
        except HyperframeError as error:
            _forgive(frame, error)
        self._at = end
        return frame

    def _block_fault(self, text: str) -> ConnectionFault:
        """Return the fault of a block that is interrupted (`text` says how), or too long."""
        if not text or len(self._headers_buffer) > _LONGEST_BLOCK:
            return ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block does not end.")
        return ConnectionFault(Code.PROTOCOL_ERROR, text)


def _forgive(frame: Frame, error: HyperframeError) -> None:
    """Let pass what hyperframe refuses, and what does not end a connection; raise for the rest."""
    if isinstance(error, InvalidFrameError):
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{error}") from None
    if isinstance(frame, WindowUpdateFrame):
        # The reserved bit has no meaning; an update of 0 ends its stream (RFC 9113, 6.9).
        frame.window_increment &= LAST_STREAM
        if frame.window_increment or frame.stream_id:
            return
    if isinstance(frame, SettingsFrame) and "ACK" in frame.flags:
        # RFC 9113, 6.5: it has a payload.
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{error}") from None
    raise ConnectionFault(Code.PROTOCOL_ERROR, f"{error}") from None
