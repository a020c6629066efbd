"""From segments to frames: h2's frame buffer, with bounds on what waits to be complete.

h2 looks at a frame's size when all of it has come, and at a header block's size never; a peer
could make it keep 16 MiB of the one and 1 MiB of the other.
"""

from __future__ import annotations

from h2.exceptions import ProtocolError
from h2.frame_buffer import FrameBuffer
from hyperframe.exceptions import HyperframeError, InvalidDataError
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from proxy.plane.http2.standard import FRAME_BYTES, LAST_STREAM, Code, ConnectionFault

_HEAD_BYTES = 9  # RFC 9113, 4.1.

# HEADERS and CONTINUATION frames that one block may take; h2 allows as many.
_LONGEST_BLOCK = 64

# A block may be this many times as long as what it may decode to: one that is merely too large
# is decoded, so that its stream gets an answer and the others go on.
_BLOCK_SHARE = 4

_FRAME_OF_UPDATE = b"\0\0\4" + bytes((WindowUpdateFrame.type or 0,))

_SETTINGS_ACK = bytes((SettingsFrame.type or 0, 0x1))


class Buffer(FrameBuffer):
    """What has come and is not a whole frame yet; iterate to take the frames.

    A caller's preface is not looked for: whoever recognised the protocol has taken it.
    """

    def __init__(self, head_limit: int) -> None:
        super().__init__(server=False)
        self.max_frame_size = FRAME_BYTES
        self._longest = head_limit * _BLOCK_SHARE

    @property
    def in_head(self) -> bool:
        """Whether a part of a header block has come, and the rest has not."""
        if self._headers_buffer:
            return True
        return bool(self._data) and self._data[3:4] in (bytes((HeadersFrame.type or 0,)), b"")

    def begins_with(self, prefix: bytes, data: bytes) -> bool:
        """Tell whether what waits, and `data` behind it, begins with `prefix`."""
        return (bytes(self._data) + data).startswith(prefix)

    def __next__(self) -> Frame:
        """Return the next frame; a whole header block is one.

        Raises:
            StopIteration: more has to come first.
            ConnectionFault: what came is no frame, or none that may come here.
        """
        # The library calls this method again for each part of a block.
        if self._headers_buffer and sum(len(f.data) for f in self._headers_buffer) > self._longest:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block does not end.")
        try:
            return super().__next__()
        except StopIteration:
            if self._data[:3] > FRAME_BYTES.to_bytes(3, "big") and len(self._data) >= _HEAD_BYTES:
                raise _too_large() from None
            raise
        except (ProtocolError, HyperframeError) as error:
            update = self._odd_update(error)
            if update is None:
                raise self._fault(error) from None
            return update

    def _odd_update(self, error: Exception) -> WindowUpdateFrame | None:
        """Return a WINDOW_UPDATE that hyperframe refuses, but that does not end a connection.

        One of 0 ends its stream (RFC 9113, 6.9); the reserved bit has no meaning.
        """
        head, payload = bytes(self._data[:_HEAD_BYTES]), self._data[_HEAD_BYTES : _HEAD_BYTES + 4]
        refused = isinstance(error.__cause__, InvalidDataError) and not self._headers_buffer
        if not refused or not head.startswith(_FRAME_OF_UPDATE):
            return None
        stream = int.from_bytes(head[5:], "big") & LAST_STREAM
        increment = int.from_bytes(payload, "big") & LAST_STREAM
        if stream == 0 and increment == 0:
            return None
        del self._data[: _HEAD_BYTES + 4]
        return WindowUpdateFrame(stream, window_increment=increment)

    def _fault(self, error: Exception) -> ConnectionFault:
        if len(self._headers_buffer) > _LONGEST_BLOCK:
            return ConnectionFault(Code.ENHANCE_YOUR_CALM, "A header block does not end.")
        code = Code(getattr(error, "error_code", Code.PROTOCOL_ERROR))
        if isinstance(error.__cause__, InvalidDataError) and self._data[3:5] == _SETTINGS_ACK:
            code = Code.FRAME_SIZE_ERROR  # RFC 9113, 6.5: it has a payload.
        return ConnectionFault(code, f"{error}")


def _too_large() -> ConnectionFault:
    return ConnectionFault(Code.FRAME_SIZE_ERROR, "A frame is larger than we allow.")
