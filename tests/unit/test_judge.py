"""What h2 is given to judge (`tests.fakes.judge`): each kind of fault of the proxy is found."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from tests.fakes.framed import ACK, END_HEADERS, END_STREAM, GET, POST, PREFACE, frame, setting
from tests.fakes.judge import AHEAD_BYTES, STREAM_AHEAD_BYTES, Judge

_WINDOW = 65_535
_RESET = struct.pack(">I", 8)
_WRONG = struct.pack(">II", 1, 1)


def _head(*pairs: tuple[str, str], flags: int = 0) -> bytes:
    """Return HEADERS on stream 1 that leave no trace in the table."""
    block = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in pairs
    )
    return frame("HEADERS", 1, END_HEADERS | flags, block)


def _grant(stream: int, size: int) -> bytes:
    return frame("WINDOW_UPDATE", stream, 0, struct.pack(">I", size))


_ASK = _head(*GET, flags=END_STREAM)
_UPLOAD = _head(*POST)
_ANSWER = _head((":status", "200"))
_MORE = frame("DATA", 1, 0, b"1")
_SETTINGS, _ACKNOWLEDGED = frame("SETTINGS"), frame("SETTINGS", 0, ACK)
_FULL = [frame("DATA", 1, 0, bytes(16_384))] * 3 + [frame("DATA", 1, 0, bytes(16_383))]

RIGHT: dict[str, tuple[bytes, Sequence[bytes]]] = {
    "an answer": (_ASK, [_ANSWER, frame("DATA", 1, END_STREAM, b"ok")]),
    "a full window": (_ASK, [_ANSWER, *_FULL]),
    "304 with a length": (
        _head(*GET, flags=END_STREAM),
        [_head((":status", "304"), ("content-length", "5"), flags=END_STREAM)],
    ),
    "a window that was opened": (
        _ASK + _grant(1, 1) + _grant(0, 1),
        [_ANSWER, *_FULL, _MORE],
    ),
    "more from an acknowledgement on": (
        frame("SETTINGS", 0, 0, setting(4, _WINDOW + 1)) + _ASK + _grant(0, 1),
        [_ANSWER, _ACKNOWLEDGED, *_FULL, _MORE],
    ),
    "a stream's window as large as it may be": (_UPLOAD, [_grant(1, STREAM_AHEAD_BYTES - _WINDOW)]),
    "a connection's, too": (_UPLOAD, [_grant(0, AHEAD_BYTES - _WINDOW)]),
}
WRONG: dict[str, tuple[bytes, Sequence[bytes]]] = {
    "upper case": (_ASK, [_head((":status", "200"), ("X-A", "1"))]),
    "a field of the connection": (_ASK, [_head((":status", "200"), ("connection", "close"))]),
    "a pseudo-header behind a field": (_ASK, [_head(("a", "1"), (":status", "200"))]),
    "no status": (_ASK, [_head(("a", "1"))]),
    "a body that is too short": (
        _ASK,
        [_head((":status", "200"), ("content-length", "3")), frame("DATA", 1, END_STREAM, b"ok")],
    ),
    "more than the stream's window": (
        _ASK + _grant(0, 1),
        [_ANSWER, *_FULL, _MORE],
    ),
    "more than the connection's": (
        _ASK + _grant(1, 1),
        [_ANSWER, *_FULL, _MORE],
    ),
    "more than before an acknowledgement": (
        frame("SETTINGS", 0, 0, setting(4, _WINDOW + 1)) + _ASK + _grant(0, 1),
        [_ANSWER, *_FULL, _MORE, _ACKNOWLEDGED],
    ),
    "more than after one": (
        frame("SETTINGS", 0, 0, setting(4, 1)) + _ASK,
        [_ANSWER, _ACKNOWLEDGED, frame("DATA", 1, 0, b"ab")],
    ),
    "a frame behind the end": (
        _ASK,
        [_head((":status", "200"), flags=END_STREAM), frame("DATA", 1)],
    ),
    "a body that is missing": (
        _ASK,
        [_head((":status", "200"), ("content-length", "3"), flags=END_STREAM)],
    ),
    "trailers that do not end": (_ASK, [_ANSWER, _head(("a", "1"))]),
    "an answer to nobody": (b"", [_ANSWER]),
    "an acknowledgement of nothing": (b"", [_ACKNOWLEDGED]),
    "another ping": (frame("PING", 0, 0, b"12345678"), [frame("PING", 0, ACK, b"12345679")]),
    "a frame that is too large": (_ASK, [_ANSWER, frame("DATA", 1, 0, bytes(16_385))]),
    "a table larger than allowed": (
        frame("SETTINGS", 0, 0, setting(1, 100)) + _ASK,
        [_ACKNOWLEDGED, frame("HEADERS", 1, END_HEADERS, b"\x3f\xe1\x1f\x88")],
    ),
    "a word behind a farewell": (_ASK, [frame("GOAWAY", 0, 0, _WRONG), _ANSWER]),
    "too large a window": (_UPLOAD, [_grant(1, STREAM_AHEAD_BYTES - _WINDOW + 1)]),
    "too large a window for all": (_UPLOAD, [_grant(0, AHEAD_BYTES - _WINDOW + 1)]),
}


def _fault(said: bytes, heard: Sequence[bytes]) -> str:
    """Return what a caller finds wrong with frames that it hears when it has said something."""
    judge = Judge(client=True)
    judge.say(_SETTINGS + said)
    for each in (_SETTINGS, _ACKNOWLEDGED, *heard):
        if b"304" in each:
            judge.expect_no_body(1)
        judge.hear(each)
    return judge.fault


@pytest.mark.parametrize("case", RIGHT)
def test_what_the_proxy_may_send_is_right(case: str) -> None:
    assert _fault(*RIGHT[case]) == ""


@pytest.mark.parametrize("case", WRONG)
def test_what_the_proxy_may_not_send_is_wrong(case: str) -> None:
    assert _fault(*WRONG[case])


def _asked(said: bytes, heard: Sequence[bytes]) -> str:
    """Return what an upstream finds wrong with frames that it hears when it has said something."""
    judge = Judge(client=False)
    judge.say(_SETTINGS + said)
    for each in (PREFACE, _SETTINGS, _ACKNOWLEDGED, *heard):
        judge.hear(each)
    return judge.fault


@pytest.mark.parametrize(
    "heard",
    [
        [_head(*GET, ("te", "gzip"))],
        [_head(*GET[1:])],
        [_head(*POST, ("content-length", "1"), flags=END_STREAM)],
        [_head(*GET, flags=END_STREAM), frame("DATA", 1, 0, b"a")],
        [frame("DATA", 1)],
        [frame("HEADERS", 2, END_HEADERS, _head(*GET)[9:])],
    ],
    ids=["te", "no method", "length", "behind the end", "no head", "an even number"],
)
def test_what_the_proxy_may_not_ask_is_wrong(heard: Sequence[bytes]) -> None:
    assert _asked(b"", [_head(*GET)]) == ""
    assert _asked(b"", heard)


def test_the_proxy_opens_no_more_streams_than_it_may() -> None:
    second = frame("HEADERS", 3, END_HEADERS, _head(*GET)[9:])
    assert _asked(frame("SETTINGS", 0, 0, setting(3, 1)), [_head(*GET), second]) == ""
    allowed = frame("SETTINGS", 0, 0, setting(3, 1))
    first, reset = _head(*GET), frame("RST_STREAM", 1, 0, _RESET)
    assert _asked(allowed, [_ACKNOWLEDGED, first, second])
    assert _asked(allowed, [_ACKNOWLEDGED, first, reset, second]) == ""


def test_what_breaks_the_protocol_changes_nothing_that_may_be_sent() -> None:
    late = _head(*GET, flags=END_STREAM) + frame("DATA", 1, 0, b"late")
    assert _fault(late, [frame("RST_STREAM", 1, 0, _RESET)]) == ""
    assert _fault(late, [_ANSWER, frame("DATA", 1, END_STREAM, b"ok")]) == ""
