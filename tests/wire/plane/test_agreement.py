"""What the proxy forwards is read alike by other parsers: as many messages, with the same bodies.

h11 and Node's parser (and nginx, where there is one) read everything that the corpus made the
proxy send upstream, and h11 everything that it made the proxy send to callers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import pytest
import uvloop

from tests.fakes.child import plain_environment, run
from tests.fakes.cutting import whole
from tests.fakes.node import NODE
from tests.fakes.raw import Message, first_message
from tests.fakes.wired import Wired
from tests.wire.plane.corpus import PLAIN_GET, Row, rows, run_request, run_response

# Node knows a list of methods and refuses all others.
NOBODYS_METHODS = re.compile("a method of (nobody|RTSP)")

Sent = tuple[str, str, bytes]
"""Method, target and body."""


@dataclass(frozen=True)
class Stream:
    """Everything that one connection to the upstream carried."""

    row: str
    data: bytes
    messages: list[Sent] = field(default_factory=list)


def sent(message: Message) -> Sent:
    method, target, _ = message.start.decode("latin-1").split(" ")
    return method, target, message.body


async def streams_of(row: Row) -> list[Stream]:
    """Run a row and return what reached the upstream, connection by connection."""
    async with Wired() as wired:
        await wired.serve()
        await run_request(wired, row, whole)
        return [
            Stream(row.name, bytes(end.history), _messages(bytes(end.history)))
            for end in wired.upstream.connections
            if end.history and not end.received
        ]


def _messages(data: bytes) -> list[Sent]:
    """Return our own reading of the bytes, which the corpus has compared already."""
    found = []
    while data:
        message = first_message(data)
        assert message is not None, data
        found.append(sent(message))
        data = data[len(message.raw) :]
    return found


@pytest.fixture(scope="module")
def streams() -> list[Stream]:
    """Return all that the corpus' requests made the proxy send."""

    async def main() -> list[Stream]:
        every = rows("requests-*.yaml")
        return [stream for row in every for stream in await streams_of(row)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def read_by_h11(data: bytes) -> list[Sent]:
    """Return the messages that h11 reads as a server; it raises at what it does not accept."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    found: list[Sent] = []
    while connection.trailing_data[0] or connection.their_state is not h11.IDLE:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            found.append((event.method.decode(), event.target.decode("latin-1"), b""))
        elif isinstance(event, h11.Data):
            method, target, body = found.pop()
            found.append((method, target, body + bytes(event.data)))
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        else:
            pytest.fail(f"h11 stopped with {event!r} at {connection.trailing_data}")
    return found


def test_h11_reads_the_same_messages(streams: list[Stream]) -> None:
    for stream in streams:
        assert read_by_h11(stream.data) == stream.messages, stream.row
    assert sum(len(stream.messages) for stream in streams) > 150


async def test_node_reads_the_same_messages(streams: list[Stream]) -> None:
    known = [stream for stream in streams if not NOBODYS_METHODS.search(stream.row)]
    given = json.dumps([base64.b64encode(stream.data).decode() for stream in known])
    script = Path(__file__).with_name("parse.mjs")
    done = await run(
        [NODE, script], env=plain_environment(Path(tempfile.gettempdir()), {}), given=given
    )
    assert done.code == 0, done.err

    read: list[list[dict[str, Any]]] = json.loads(done.out)
    for stream, messages in zip(known, read, strict=True):
        assert [
            (m.get("method"), m.get("target"), base64.b64decode(m.get("body", "")))
            for m in messages
        ] == stream.messages, (stream.row, messages)


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error warn;
events {{}}
http {{
  log_format lengths '$connection $request_method $request_length $status';
  access_log {folder}/access lengths;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen unix:{folder}/socket; location / {{ return 204; }} }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="there is no nginx on this machine")
async def test_nginx_reads_the_same_messages(streams: list[Stream], tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path))
    server = await asyncio.create_subprocess_exec(
        "nginx", "-e", str(tmp_path / "error"), "-c", str(tmp_path / "nginx.conf")
    )
    try:
        refused = []
        for stream in streams:
            statuses = re.findall(
                rb"HTTP/1\.1 ([2-5]\d\d) ", await _ask_nginx(tmp_path / "socket", stream.data)
            )
            # The last one is for the request that ends the connection; nginx itself ends it
            # after a request that it refuses, such as TRACE or one with %00 in its path.
            if {b"400", b"405"} & set(statuses):
                refused.append(stream.row)
                assert len(statuses) <= len(stream.messages), (stream.row, statuses)
            else:
                assert len(statuses) == len(stream.messages) + 1, (stream.row, statuses)
        assert len(refused) < 10, refused
    finally:
        server.terminate()
        await server.wait()


async def _ask_nginx(path: Path, data: bytes) -> bytes:
    async with asyncio.timeout(10):
        while not path.exists():  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(str(path))
        # The last request asks for the end of the connection, so that all answers are there.
        writer.write(data + b"GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answers = await reader.read()
        writer.close()
    return answers


# --- responses


async def response_of(row: Row) -> bytes:
    """Run a row and return all that its caller got."""
    async with Wired() as wired:
        await wired.serve()
        return await run_response(wired, row, whole)


@pytest.mark.asyncio(loop_factories=["uvloop"])
@pytest.mark.parametrize("row", rows("responses-*.yaml"), ids=lambda row: row.name)
async def test_h11_reads_the_same_responses(row: Row) -> None:
    data = await response_of(row)
    asks = str(row.keys.get("asks", PLAIN_GET))
    method, target, version = asks.partition("\r\n")[0].split(" ")
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target=target, headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if row.keys.get("closes") or "cut" in row.keys:
        connection.receive_data(b"")
    events = []
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            events.append(event)
    except h11.RemoteProtocolError:
        # A cut response, which h11 must not take for a whole one.
        assert "cut" in row.keys
        return

    assert "cut" not in row.keys
    assert version
    assert connection.trailing_data[0] == b""
    (response,) = [event for event in events if isinstance(event, h11.Response)]
    refused = [value for name, value in response.headers if name == b"x-auth-proxy-error"]
    assert [value.decode() for value in refused] == [
        reason for reason in [row.keys.get("refused")] if reason
    ]
