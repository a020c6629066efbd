"""What we use of the insides of h2, hpack and hyperframe is there, and is what we take it for.

A release that changes one of these needs a look at `proxy.plane.http2.connection`, `buffer`,
`decoder` or `encoder`, whichever the failure names.
"""

from __future__ import annotations

import inspect
from typing import Any

import h2.connection
import h2.exceptions
import h2.frame_buffer
import h2.stream
import hpack
import hpack.hpack
import hpack.table
import hyperframe.frame
import pytest
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.events import ConnectionTerminated, DataReceived
from hypothesis import given
from hypothesis import strategies as st

from proxy.plane.http2.connection import Connection
from proxy.plane.http2.frames import data_head, frames_of

USED: list[tuple[str, type, tuple[str, ...]]] = [
    ("connection", H2ConnectionStateMachine, ("_transitions", "process_input")),
    ("connection", H2Connection, ("_handle_data_on_closed_stream", "_prepare_for_sending",
     "_begin_new_stream", "clear_outbound_data_buffer", "open_inbound_streams",
     "open_outbound_streams", "MAX_CLOSED_STREAMS")),
    ("connection", h2.stream.H2StreamStateMachine, ("process_input",)),
    ("connection", h2.stream.H2Stream, ("closed", "inbound_flow_control_window")),
    ("buffer", h2.frame_buffer.FrameBuffer, ("__next__", "add_data", "_update_header_buffer")),
    ("decoder", hpack.Decoder, ("decode", "_decode_indexed", "_decode_literal_index",
     "_decode_literal_no_index", "_update_encoding_context", "_assert_valid_table_size")),
    ("encoder", hpack.Encoder, ("encode", "header_table_size", "_encode_indexed",
     "_encode_indexed_literal", "_encode_literal", "_encode_table_size_change")),
    ("encoder", hpack.table.HeaderTable, ("search", "add", "maxsize", "get_by_index")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "owner", "names"), USED, ids=lambda v: getattr(v, "__name__", "")
)
def test_the_names_that_we_use_are_there(module: str, owner: type, names: tuple[str, ...]) -> None:
    gone = [name for name in names if name not in vars(owner)]

    assert gone == [], f"{owner.__name__} has changed: look at proxy.plane.http2.{module}"


def test_the_attributes_that_we_use_are_there() -> None:
    connection = H2Connection(H2Configuration(client_side=False))
    attributes = {
        connection: ("_frame_dispatch_table", "streams", "outbound_flow_control_window",
                     "_data_to_send", "state_machine", "local_settings", "encoder", "decoder",
                     "incoming_buffer"),
        connection.incoming_buffer: ("_headers_buffer",),
        connection.encoder: ("header_table", "table_size_changes"),
        connection.decoder: ("header_table", "max_header_list_size"),
        connection.decoder.header_table: ("dynamic_entries", "resized"),
    }  # fmt: skip

    for owner, names in attributes.items():
        assert [name for name in names if name not in vars(owner)] == [], owner


def test_every_kind_of_frame_has_its_method() -> None:
    table = H2Connection(H2Configuration(client_side=False))._frame_dispatch_table

    assert {kind for kind in table if kind.type is not None} == set(
        hyperframe.frame.FRAMES.values()
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Connection._handle_data_on_closed_stream, H2Connection._handle_data_on_closed_stream),
        (Connection.reset_stream, H2Connection.reset_stream),
        (Connection.clear_outbound_data_buffer, H2Connection.clear_outbound_data_buffer),
    ],
)
def test_what_we_override_is_called_as_we_expect(ours: object, theirs: object) -> None:
    names = [list(inspect.signature(each).parameters) for each in (ours, theirs)]  # type: ignore[arg-type]  # functions

    assert names[0] == names[1]


def test_a_newest_entry_of_the_table_is_a_new_object_at_its_front() -> None:
    table = hpack.table.HeaderTable()
    table.add(b"a", b"1")
    first = table.dynamic_entries[0]
    table.add(b"a", b"1")

    assert table.dynamic_entries[0] == first
    assert table.dynamic_entries[0] is not first
    assert table.dynamic_entries[1] is first


def test_literals_are_marked_as_the_standard_says() -> None:
    # RFC 7541, 6.2.
    assert hpack.hpack.INDEX_INCREMENTAL == b"\x40"
    assert (hpack.hpack.INDEX_NONE, hpack.hpack.INDEX_NEVER) == (b"\x00", b"\x10")


# --- what is written here rather than by the library


def pair() -> tuple[Connection, Connection]:
    """Return a client and a server that have exchanged settings."""
    client = Connection({}, 64 * 1024, client=True)
    server = Connection({}, 64 * 1024, client=False)
    client.initiate_connection()
    server.initiate_connection()
    # A listener's detector takes the preface.
    pass_on(client, server, skip=24)
    pass_on(server, client)
    return client, server


def pass_on(sender: Connection, receiver: Connection, skip: int = 0) -> list[object]:
    """Let the receiver take what the sender has to send, and return its events."""
    receiver.incoming_buffer.add_data(bytes(sender.output()[skip:]))
    return [event for frame in receiver.incoming_buffer for event in receiver.take(frame)]


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 32_768, 32_769, 50_000])
@pytest.mark.parametrize("ended", [True, False])
def test_a_block_of_any_size_arrives_whole(size: int, *, ended: bool) -> None:
    block = bytes(range(256)) * 200

    reader = h2.frame_buffer.FrameBuffer()
    reader.max_frame_size = 16_384
    reader.add_data(frames_of(7, block[:size], ended=ended))
    (only,) = list(reader)

    assert isinstance(only, hyperframe.frame.HeadersFrame)
    assert (only.stream_id, only.data) == (7, block[:size])
    assert set(only.flags) == {"END_HEADERS"} | ({"END_STREAM"} if ended else set())


@pytest.mark.parametrize("size", [0, 1, 16_384])
@pytest.mark.parametrize("ended", [True, False])
def test_data_is_written_as_the_library_writes_it(size: int, *, ended: bool) -> None:
    theirs = hyperframe.frame.DataFrame(9, bytes(size), flags=["END_STREAM"] if ended else [])

    assert data_head(9, size, ended=ended) + bytes(size) == theirs.serialize()


@given(st.lists(st.sampled_from(["head", "informational", "data", "end", "trailers"]), max_size=6))
def test_streams_of_the_library_stand_where_its_own_methods_would_leave_them(
    steps: list[str],
) -> None:
    """Whatever is sent in an order that h2 allows, both ways of it are one."""
    mine, theirs = answering(Connection({}, 1000, client=False)), answering(plain_server())
    for step in steps:
        try:
            send_as_h2_does(theirs, step)
        except h2.exceptions.ProtocolError:
            return  # Nobody sends that: what comes first is compared.
        send_as_we_do(mine, step)

        both = mine.streams[1], theirs.streams[1]
        assert len({each.state_machine.state for each in both}) == 1
        assert len({each.outbound_flow_control_window for each in both}) == 1
        assert mine.outbound_flow_control_window == theirs.outbound_flow_control_window
        assert len({each.state_machine.trailers_sent for each in both}) == 1


def plain_server() -> H2Connection:
    return H2Connection(H2Configuration(client_side=False, header_encoding=None))


def answering(server: H2Connection) -> Any:
    """Return a server that has a request on stream 1."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, GET, end_stream=True)
    data = client.data_to_send()
    if isinstance(server, Connection):
        server.incoming_buffer.add_data(data[24:])
        for frame in server.incoming_buffer:
            server.take(frame)
    else:
        server.receive_data(data)
    return server


GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]


def send_as_h2_does(server: H2Connection, step: str) -> None:
    match step:
        case "head":
            server.send_headers(1, [(":status", "200")])
        case "informational":
            server.send_headers(1, [(":status", "103")])
        case "trailers":
            server.send_headers(1, [("x-a", "1")], end_stream=True)
        case "data":
            server.send_data(1, b"some")
        case _:
            server.send_data(1, b"rest", end_stream=True)


def send_as_we_do(server: Connection, step: str) -> None:
    match step:
        case "head":
            server.send_head(1, b"\r\n:status: 200")
        case "informational":
            server.send_head(1, b"\r\n:status: 103", informational=True)
        case "trailers":
            server.send_head(1, b"\r\nx-a: 1", ended=True)
        case "data":
            server.send_data(1, b"some")
        case _:
            server.send_data(1, b"rest", end_stream=True)


# --- what a GOAWAY does


@pytest.mark.parametrize("sends", ["server", "client"])
def test_streams_end_in_peace_after_a_goaway(sends: str) -> None:
    client, server = pair()
    client.send_head(1, b"\r\n:method: POST")
    pass_on(client, server)
    first, second = (server, client) if sends == "server" else (client, server)

    # What waits to be sent when a GOAWAY comes is sent all the same.
    second.ping(b"12345678")
    first.close_connection(last_stream_id=1)
    said = pass_on(first, second)
    assert [type(event) for event in said] == [ConnectionTerminated]
    client.send_data(1, b"body", end_stream=True)
    server.send_head(1, b"\r\n:status: 200")
    server.send_data(1, b"answer", end_stream=True)

    heard = [*pass_on(client, server), *pass_on(server, client)]
    assert [event.data for event in heard if isinstance(event, DataReceived)] == [
        b"body",
        b"answer",
    ]
    assert second.streams[1].closed
    assert first.streams[1].closed


def test_h2_itself_ends_with_a_goaway() -> None:
    # As long as this holds, `_Lasting` is needed.
    states = [
        H2ConnectionStateMachine._transitions[state, what][1]
        for state in (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
        for what in (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY)
    ]

    assert states == [ConnectionState.CLOSED] * 4
