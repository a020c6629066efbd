"""Our connection and h2 are told the same frames, and agree on what each of them means.

What is compared after each frame: events, states and windows of streams and of the connection, the
code where either ends a stream or the connection, and what is acknowledged.  Where they differ on
purpose stands in `DIFFERENCES`; a play ends there, since both go on from different states.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import hpack
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.events import Event as Theirs
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from h2.stream import StreamState as State
from hyperframe.frame import Frame
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from proxy.plane.http2 import frames
from proxy.plane.http2.connection import CONNECTION_WINDOW
from proxy.plane.http2.standard import PREFACE, WINDOW
from tests.fakes.framed import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GET,
    KINDS,
    PADDED,
    POST,
    WEIGHTED,
    Pairs,
    frame,
)
from tests.fakes.recorded import Event, Recorded

OK: Pairs = ((":status", "200"),)
EARLY: Pairs = ((":status", "103"),)
TRAILERS: Pairs = (("x-a", "1"),)


@dataclass(frozen=True)
class Step:
    """One frame that the peer sends; of a block, either all of it or `first` and then the rest."""

    kind: int
    stream: int
    flags: int
    payload: bytes | Pairs


def step(kind: str, stream: int = 0, flags: int = 0, payload: bytes | Pairs = b"") -> Step:
    return Step(KINDS[kind], stream, flags, payload)


@dataclass(frozen=True)
class Told:
    """A frame, and what it means to us and to h2."""

    step: Step
    ours: list[Event]
    theirs: list[Event]


@dataclass(frozen=True)
class Difference:
    """Where we mean to differ from h2."""

    name: str
    rfc: str
    why: str
    holds: Callable[[Told], bool]
    """Whether it explains that both take a frame for something else."""
    example: list[Step]
    client: bool = False


def _is_fault(events: list[Event]) -> bool:
    return bool(events) and events[-1][0] == "fault"


def _ends(events: list[Event], *codes: ErrorCodes) -> bool:
    """Tell whether the connection ends, with one of the codes where any are given."""
    return bool(events) and events[-1][0] == "end" and (not codes or events[-1][1] in codes)


def _only(events: list[Event], kind: str) -> bool:
    return [event[0] for event in events] == [kind]


def _repeats(payload: bytes | Pairs) -> bool:
    assert isinstance(payload, bytes)
    names = [payload[at : at + 2] for at in range(0, len(payload), 6)]
    return len(set(names)) < len(names)


PROTOCOL, SIZE, CLOSED, COMPRESSION = (
    ErrorCodes.PROTOCOL_ERROR, ErrorCodes.FRAME_SIZE_ERROR, ErrorCodes.STREAM_CLOSED,
    ErrorCodes.COMPRESSION_ERROR,
)  # fmt: skip
WHOLE = END_HEADERS | END_STREAM
BLOCKS = (frames.HEADERS, frames.CONTINUATION)

DIFFERENCES = (
    Difference(
        "the fault of one stream ends that stream only", "RFC 9113, 5.4.2",
        "h2 ends the connection; a proxy has other people's streams on it",
        lambda it: it.step.kind in (frames.DATA, frames.WINDOW_UPDATE, *BLOCKS)
        and _is_fault(it.ours) and _ends(it.theirs),
        [step("HEADERS", 1, END_HEADERS, POST), step("HEADERS", 1, END_HEADERS, TRAILERS)],
    ),
    Difference(
        "what comes late for a stream ends nothing but by its sender's mistake", "RFC 9113, 5.1",
        "what crossed our reset is ignored, what its sender had ended ends the connection; h2 "
        "answers either with a reset, and judges updates that mean nothing any more",
        lambda it: (it.ours == [] or _ends(it.ours, CLOSED)) and (
            (it.step.kind in (frames.DATA, *BLOCKS) and not _ends(it.theirs))
            or (it.step.kind in (frames.DATA, frames.WINDOW_UPDATE, *BLOCKS)
                and _ends(it.theirs, CLOSED, PROTOCOL))
        ),
        [step("HEADERS", 1, END_HEADERS, POST), step("RST_STREAM", 1, 0, bytes(4)),
         step("DATA", 1, 0, b"a")],
    ),
    Difference(
        "a reset of a stream that never was is a mistake", "RFC 9113, 6.4",
        "h2 ignores it",
        lambda it: it.step.kind == frames.RST_STREAM and _ends(it.ours, PROTOCOL)
        and it.theirs == [],
        [step("RST_STREAM", 5, 0, bytes(4))], client=True,
    ),
    Difference(
        "priorities mean nothing", "RFC 9113, 5.3.2",
        "they are deprecated; h2 still judges whether a stream depends on itself",
        lambda it: (it.step.kind == frames.PRIORITY or bool(it.step.flags & WEIGHTED))
        and not _ends(it.ours) and _ends(it.theirs, PROTOCOL),
        [step("PRIORITY", 9, 0, b"\0\0\0\x09\x01")],
    ),
    Difference(
        "an upstream opens no streams", "RFC 9113, 5.1.1",
        "h2 takes HEADERS on a stream that was not promised for a response",
        lambda it: it.step.kind in BLOCKS and _ends(it.ours, PROTOCOL)
        and it.theirs[-1:] != [] and it.theirs[-1][0] == "head",
        [step("HEADERS", 2, WHOLE, OK)], client=True,
    ),
    Difference(
        "an upstream promises nothing", "RFC 9113, 8.4",
        "we tell upstreams not to, at once; h2 waits until they have acknowledged that",
        lambda it: it.step.kind == frames.PUSH_PROMISE and _ends(it.ours, PROTOCOL),
        [step("PUSH_PROMISE", 1, 0, b"\0\0\0\2abc")], client=True,
    ),
    Difference(
        "what a message says is judged by whoever reads it", "RFC 9113, 8.1.1",
        "h2 knows that a request has no status, and that an informational head ends no stream, but "
        "can only end the connection for it; `heads` answers",
        lambda it: it.step.kind in BLOCKS and it.ours[-1:] != []
        and it.ours[-1][0] in ("head", "trailers") and _ends(it.theirs, PROTOCOL),
        [step("HEADERS", 1, WHOLE, EARLY)],
    ),
    Difference(
        "every value of a SETTINGS frame counts, in order", "RFC 9113, 6.5.3",
        "h2 looks at the last of each number",
        lambda it: it.step.kind == frames.SETTINGS and _repeats(it.step.payload),
        [step("SETTINGS", 0, 0, bytes.fromhex("000500000000 000500004000"))],
    ),
    Difference(
        "settings of extensions are ignored", "RFC 9113, 6.5.2",
        "h2 judges ENABLE_CONNECT_PROTOCOL (RFC 8441), which we do not speak",
        lambda it: it.step.kind == frames.SETTINGS and b"\0\x08" in it.step.payload
        and it.ours[-1:] == [("settings",)] and _ends(it.theirs, PROTOCOL),
        [step("SETTINGS", 0, 0, bytes.fromhex("000800000002"))],
    ),
    Difference(
        "a block that cannot be decoded has a code of its own", "RFC 9113, 4.3",
        "h2 says PROTOCOL_ERROR",
        lambda it: _ends(it.ours, COMPRESSION) and _ends(it.theirs, PROTOCOL),
        [step("HEADERS", 1, WHOLE, b"\x80")],
    ),
    Difference(
        "an acknowledgement with settings is of the wrong size", "RFC 9113, 6.5",
        "h2 says PROTOCOL_ERROR",
        lambda it: it.step.kind == frames.SETTINGS and bool(it.step.flags & ACK)
        and _ends(it.ours, SIZE) and _ends(it.theirs, PROTOCOL),
        [step("SETTINGS", 0, ACK, bytes.fromhex("000300000001"))],
    ),
    Difference(
        "the reserved bit of an update means nothing", "RFC 9113, 6.9",
        "h2 takes it for a part of the number",
        lambda it: it.step.kind == frames.WINDOW_UPDATE
        and isinstance(it.step.payload, bytes) and it.step.payload[:1] >= b"\x80"
        and _ends(it.theirs, PROTOCOL),
        [step("WINDOW_UPDATE", 0, 0, b"\x80\0\0\1")],
    ),
    Difference(
        "the reserved bit of a GOAWAY means nothing", "RFC 9113, 6.8",
        "h2 takes it for a part of the number",
        lambda it: it.step.kind == frames.GOAWAY
        and isinstance(it.step.payload, bytes) and it.step.payload[:1] >= b"\x80"
        and _only(it.ours, "goaway") and _only(it.theirs, "goaway"),
        [step("GOAWAY", 0, 0, b"\x80\0\0\0\0\0\0\0")],
    ),
    Difference(
        "CONTINUATION without a block is a mistake wherever it comes", "RFC 9113, 6.10",
        "h2 looks at its stream first",
        lambda it: it.step.kind == frames.CONTINUATION and _ends(it.ours, PROTOCOL)
        and _ends(it.theirs, CLOSED),
        [step("HEADERS", 5, WHOLE, GET), step("CONTINUATION", 1, END_HEADERS)],
    ),
    Difference(
        "one frame with two faults has the code of either", "RFC 9113, 5.4.1",
        "both end the connection",
        lambda it: _ends(it.ours, PROTOCOL, SIZE) and _ends(it.theirs, PROTOCOL, SIZE),
        [step("RST_STREAM", 0)],
    ),
)  # fmt: skip


class Both:
    """Our connection and h2's, told the same."""

    def __init__(self, *, client: bool) -> None:
        self.client = client
        self.ours = Recorded(client=client)
        self.theirs = H2Connection(
            H2Configuration(
                client_side=client, header_encoding=None,
                validate_inbound_headers=False, normalize_inbound_headers=False,
                validate_outbound_headers=False, normalize_outbound_headers=False,
            )
        )  # fmt: skip
        self.ours.greet({2: 0})
        self.theirs.initiate_connection()
        self.theirs.increment_flow_control_window(CONNECTION_WINDOW - WINDOW)
        self.encoder = hpack.Encoder()
        self.ours.output()
        self.theirs.data_to_send()
        if not client:
            self.theirs.receive_data(PREFACE)
        self.tell(Step(KINDS["SETTINGS"], 0, 0, b""))
        if client:
            for number, ended in ((1, True), (3, False)):
                self.ours.ask(b"\r\n:method: GET\r\n:path: /", ended=ended)
                self.theirs.send_headers(
                    number, [(b":method", b"GET"), (b":path", b"/")], end_stream=ended
                )
        self.answers()

    def tell(self, step: Step) -> tuple[list[Event], list[Event]]:
        """Send one frame to both, and return what each makes of it."""
        payload = step.payload
        if not isinstance(payload, bytes):
            payload = self.encoder.encode(payload)
        if step.flags & WEIGHTED and step.kind == KINDS["HEADERS"]:
            payload = struct.pack(">IB", 0, 7) + payload
        data = frame(step.kind, step.stream, step.flags, payload)
        machine = self.theirs.state_machine
        state = machine.state
        ours = self.ours.hear(data)
        both = ours[-1:] if _ends(ours) else ours, self._theirs(data)
        if step.kind == frames.GOAWAY and not _ends(both[1]):
            # h2 takes no more frames then; RFC 9113, 6.8 has what is open end in peace.
            machine.state = state
        return both

    def _theirs(self, data: bytes) -> list[Event]:
        try:
            return [said for event in self.theirs.receive_data(data) for said in as_ours(event)]
        except ProtocolError as error:
            return [("end", error.error_code)]

    def answers(self) -> tuple[list[bytes], list[bytes]]:
        """Return what both have acknowledged."""
        return acknowledged(self.ours.output()), acknowledged(self.theirs.data_to_send())

    def compare_states(self) -> None:
        """Compare every stream that we know, and the connection."""
        ours, theirs = self.ours, self.theirs
        assert ours.window_out == theirs.outbound_flow_control_window
        assert ours._window_in == theirs.inbound_flow_control_window
        assert ours.initial_window == theirs.remote_settings[SettingCodes.INITIAL_WINDOW_SIZE]
        for number, stream in ours.streams.items():
            other = theirs.streams[number]
            assert stream.window_out == other.outbound_flow_control_window, number
            assert stream.window_in == other.inbound_flow_control_window, number
            state = (stream.local_ended, stream.remote_ended)
            assert STATES[state] == other.state_machine.state, number
        still_open = {number for number, other in theirs.streams.items() if not other.closed}
        assert set(ours.streams) == still_open


STATES = {
    (False, False): State.OPEN,
    (False, True): State.HALF_CLOSED_REMOTE,
    (True, False): State.HALF_CLOSED_LOCAL,
}


def as_ours(event: Theirs) -> list[Event]:
    """Return an event of h2's as ours are."""
    said: list[Event] = []
    match event:
        case RequestReceived() | ResponseReceived() | InformationalResponseReceived():
            ended = getattr(event, "stream_ended", None) is not None
            said = [("head", event.stream_id, [tuple(pair) for pair in event.headers], ended)]
        case TrailersReceived():
            said = [("trailers", event.stream_id, [tuple(pair) for pair in event.headers])]
        case DataReceived():
            said = [("data", event.stream_id, event.data, event.stream_ended is not None)]
        case StreamReset():
            kind = "reset" if event.remote_reset else "fault"
            said = [(kind, event.stream_id, event.error_code)]
        case RemoteSettingsChanged():
            limit = event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
            said = [*([("limit", limit.new_value)] if limit else []), ("settings",)]
        case PingAckReceived():
            said = [("pong", event.ping_data)]
        case ConnectionTerminated():
            said = [("goaway", event.last_stream_id, event.error_code)]
    return said


def acknowledged(data: bytes) -> list[bytes]:
    """Return the acknowledgements among the frames of `data`, as bytes."""
    found = []
    data = data.removeprefix(PREFACE)
    while data:
        _, length = Frame.parse_frame_header(memoryview(data[:9]))
        whole, data = data[: 9 + length], data[9 + length :]
        if whole[3] in (KINDS["PING"], KINDS["SETTINGS"]) and whole[4] & ACK:
            found.append(whole)
    return found


def difference(step: Step, ours: list[Event], theirs: list[Event]) -> list[str]:
    """Return the names of what makes both differ; fail where nothing may."""
    told = Told(step, ours, theirs)
    names = [each.name for each in DIFFERENCES if each.holds(told)]
    assert names, f"{step}: ours {ours}, h2's {theirs}"
    return names


def play(steps: list[Step], *, client: bool) -> list[str]:
    """Tell both every step; return why they differ, where they do."""
    both = Both(client=client)
    for step in steps:
        ours, theirs = both.tell(step)
        if ours != theirs:
            return difference(step, ours, theirs)
        if _ends(ours):
            break
        mine, others = both.answers()
        assert mine == others
        both.compare_states()
    return []


@pytest.mark.parametrize("different", DIFFERENCES, ids=lambda each: each.name)
def test_we_differ_from_h2_where_the_list_says_so(different: Difference) -> None:
    assert different.name in play(different.example, client=different.client)


# --- generated plays


NUMBERS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1])
FLAGS = st.sampled_from(
    [0, 0, END_STREAM, END_HEADERS, END_HEADERS, END_STREAM | END_HEADERS, END_STREAM | END_HEADERS,
     PADDED, END_HEADERS | PADDED, END_HEADERS | WEIGHTED | END_STREAM, 0xFF]
)  # fmt: skip
WORDS = st.sampled_from([0, 1, 5, 100, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1])
HEADS = st.sampled_from([GET, POST, OK, EARLY, TRAILERS, ()])
word = struct.Struct(">I").pack
setting = st.tuples(st.integers(0, 7), WORDS).map(lambda pair: struct.pack(">HI", *pair))


def steps(kind: str, streams: object, flags: object, payloads: object) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(KINDS[kind]), streams, flags, payloads)  # type: ignore[arg-type]  # strategies


ZERO = st.sampled_from([0, 0, 0, 0, 0, 1])
STEPS = st.one_of(
    steps("HEADERS", NUMBERS, FLAGS, HEADS),
    steps("HEADERS", NUMBERS, st.sampled_from([END_HEADERS, END_HEADERS | END_STREAM]), HEADS),
    steps("DATA", NUMBERS, FLAGS, st.binary(max_size=20)),
    steps("DATA", NUMBERS, st.sampled_from([0, END_STREAM]), st.just(bytes(16_384))),
    steps("RST_STREAM", NUMBERS, FLAGS, st.sampled_from([0, 1, 8, 13]).map(word)),
    steps("WINDOW_UPDATE", NUMBERS, FLAGS, WORDS.map(word)),
    steps("SETTINGS", ZERO, st.sampled_from([0, 0, 0, ACK]),
          st.lists(setting, max_size=3).map(b"".join)),
    steps("PING", ZERO, st.sampled_from([0, 0, ACK]), st.sampled_from([bytes(8), b"1"])),
    steps("CONTINUATION", NUMBERS, FLAGS, HEADS),
    steps("PRIORITY", NUMBERS, FLAGS, st.sampled_from([struct.pack(">IB", 9, 1), word(1)])),
    steps("GOAWAY", ZERO, FLAGS, st.sampled_from([word(0) * 2, word(2**31 - 1) + word(1), b"1"])),
    steps("PUSH_PROMISE", NUMBERS, FLAGS, st.binary(max_size=12)),
    st.builds(Step, st.integers(11, 255), NUMBERS, FLAGS, st.binary(max_size=12)),
    st.builds(Step, st.integers(0, 9), NUMBERS, FLAGS, st.binary(max_size=12)),
)  # fmt: skip
PLAYS = st.lists(STEPS, min_size=1, max_size=14)


@settings(max_examples=250, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
@given(PLAYS)
def test_frames_of_a_caller_mean_what_h2_takes_them_for(plays: list[Step]) -> None:
    play(plays, client=False)


@settings(max_examples=250, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
@given(PLAYS)
def test_frames_of_an_upstream_mean_what_h2_takes_them_for(plays: list[Step]) -> None:
    play(plays, client=True)
